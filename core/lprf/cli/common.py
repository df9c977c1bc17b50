"""What several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from lprf.plugins import Plugins


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """`--plugin FILE.py`, for trying out a plugin that is not installed."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        type=Path,
        help="load a plugin from one Python file, named by its stem; may be repeated",
    )


def plugins(files: Sequence[Path]) -> Plugins:
    """The installed plugins and those in `files`. Raises PluginError where a file does not load."""
    from lprf.plugins import installed

    found = installed()
    for file in files:
        found.load_file(file)
    return found


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text, the last column as long as it likes (it may be piped to grep)."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)][:-1]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )

"""What several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lprf.plugins import Plugins
    from lprf.recipe import Recipe


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


def output_file(text: str) -> Path:
    """An argument that names a file to write: told to be none before the work, not after it."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; a file is to be written")
    return path


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe, overrides of it, and `--plugin`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a file, the name of a shipped recipe, or plugin/recipe")
    parser.add_argument(
        "-s",
        "--set",
        action="append",
        default=[],
        metavar="NODE.KEY=VALUE",
        help="override a parameter; NODE.uses=… swaps the component; also runtime.KEY, vars.KEY; may be repeated",
    )
    add_plugin_argument(parser)


def load(args: argparse.Namespace) -> Recipe:
    """The checked recipe that `add_recipe_arguments` asked for. Raises RecipeError with every mistake."""
    from lprf.recipe import load_recipe

    return load_recipe(args.recipe, args.set, plugins(args.plugin))

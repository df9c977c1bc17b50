"""`lprf copy`: start a recipe of one's own from one that is there."""

from __future__ import annotations

import argparse
from pathlib import Path

from lprf.cli.common import add_plugin_argument, plugins
from lprf.errors import LprfError
from lprf.files import replacing
from lprf.recipe import find_recipe

EXAMPLES = """\
Examples:
  lprf copy read-plates my.yaml
  lprf copy train-mtcnn training/          as training/train-mtcnn.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="the name of a recipe (`lprf recipes` lists them), or a file")
    parser.add_argument("target", metavar="FILE", type=Path, help="the file to write, or a folder")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    add_plugin_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = find_recipe(args.recipe, plugins(args.plugin))
    target: Path = args.target / source.name if args.target.is_dir() else args.target
    if target.exists() and not args.force:
        raise LprfError(f"{target} is there already; --force replaces it")
    try:
        text = source.read_bytes()
    except OSError as error:
        raise LprfError(f"{source}: {error.strerror}") from None
    with replacing(target) as beside:
        beside.write_bytes(text)
    print(f"{target}: a copy of {source}\nrun it: lprf run {target}")
    return 0

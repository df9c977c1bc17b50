"""`lprf validate`: every mistake of a recipe at once, each at its line and column."""

from __future__ import annotations

import argparse
import sys

from lprf.cli.common import add_recipe_arguments, load
from lprf.errors import RecipeError

EXAMPLES = """\
Mistakes are printed as file:line:column, the way compilers do, so editors can jump to them; exit code 2.

Examples:
  lprf validate my.yaml
  lprf validate read-plates -s detect.min_plate=[40,12]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    try:
        recipe = load(args)
    except RecipeError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        print(f"{count} mistake{'' if count == 1 else 's'}", file=sys.stderr)
        return 2
    order = " -> ".join(recipe.nodes)
    print(f"ok: {recipe.name} ({recipe.kind}), {len(recipe.nodes)} nodes: {order}")
    return 0

"""`lprf recipes`: the recipes that are there by name."""

from __future__ import annotations

import argparse

from lprf.cli.common import add_plugin_argument, plugins
from lprf.recipe import shipped_recipes, summary_of
from lprf.text import columns

EXAMPLES = """\
Examples:
  lprf recipes
  lprf copy read-plates my.yaml      start from one of them
  lprf show read-plates              see one with all its defaults
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plugin_argument(parser)


def run(args: argparse.Namespace) -> int:
    rows = [["RECIPE", "KIND", "SUMMARY"]]
    for name, path in shipped_recipes(plugins(args.plugin)).items():
        rows.append([name, *summary_of(path)])
    print(columns(rows))
    return 0

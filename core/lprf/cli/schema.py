"""`lprf schema`: the JSON Schema of recipes, for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lprf.cli.common import add_plugin_argument, plugins
from lprf.files import replacing
from lprf.schema import recipe_schema

EXAMPLES = """\
An editor with a YAML language server completes `uses:` and `with:` in a recipe that begins with
  # yaml-language-server: $schema=recipe.schema.json

Examples:
  lprf schema recipe.schema.json
  lprf schema > recipe.schema.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", metavar="FILE", type=Path, help="what to write; standard output if none")
    add_plugin_argument(parser)


def run(args: argparse.Namespace) -> int:
    text = json.dumps(recipe_schema(plugins(args.plugin)), indent=2, ensure_ascii=False) + "\n"
    if args.target is None:
        print(text, end="")
        return 0
    with replacing(args.target) as beside:
        beside.write_text(text, encoding="utf-8")
    print(f"{args.target}: completes the components installed now; write it again when plugins change")
    return 0

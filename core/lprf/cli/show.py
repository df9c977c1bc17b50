"""`lprf show`: a recipe as it will run, defaults filled in, and where each value came from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import yaml

from lprf.cli.common import add_recipe_arguments, load
from lprf.recipe import Recipe
from lprf.source import Located

EXAMPLES = """\
What is printed is a recipe itself: it can be saved and run.

Examples:
  lprf show read-plates
  lprf show my.yaml -s detect.uses=core.other    what a swap does
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    recipe = load(args)
    lines = list(resolved(recipe))
    width = min(72, max(len(line) for line, _ in lines))
    for line, origin in lines:
        print(f"{line:<{width}}  # {origin}" if origin else line)
    return 0


def resolved(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The lines of the resolved recipe, each with where its value came from ("" for a line that has none)."""
    tree = recipe.tree
    head = {"lprf": 1, "kind": recipe.kind, "name": recipe.name}
    head |= {"summary": recipe.summary} if recipe.summary else {}
    head |= {"plugins": plugins.plain()} if (plugins := tree.get("plugins")) else {}
    for key, value in head.items():
        yield from _lines(key, value, tree.get(key), 0)
    yield from _lines("runtime", recipe.runtime.model_dump(mode="json"), tree.get("runtime"), 0)
    yield "graph:", ""
    for name, node in recipe.nodes.items():
        written = tree.get("graph", name)
        yield f"  {name}:", ""
        yield from _lines("uses", node.uses, written and written.get("uses"), 2)
        inputs = {port: [str(ref) for ref in refs] for port, refs in node.inputs.items()}
        shown: dict[str, Any] = {port: refs[0] if len(refs) == 1 else refs for port, refs in inputs.items()}
        shown |= {name: str(ref) for name, ref in node.rebind.items()}
        if shown:
            yield from _lines("inputs", shown, written and written.get("inputs"), 2)
        params = node.params.model_dump(mode="json")
        if params:
            yield from _lines("with", params, written and written.get("with"), 2)


def _lines(key: str, value: Any, written: Located | None, depth: int) -> Iterator[tuple[str, str]]:
    indent = "  " * depth
    if isinstance(value, dict) and value:
        yield f"{indent}{_flow(key)}:", ""
        for name, child in value.items():
            yield from _lines(name, child, written and written.get(name), depth + 1)
        return
    yield f"{indent}{_flow(key)}: {_flow(value)}", str(written.place) if written else "default"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")

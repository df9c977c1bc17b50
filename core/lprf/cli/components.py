"""`lprf components`: what a recipe may use, and what each can be told."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import types
import typing
from pathlib import Path
from typing import Any

from lprf.cli.common import add_plugin_argument, plugins
from lprf.component import KINDS, Component, Port
from lprf.text import columns

EXAMPLES = """\
Examples:
  lprf components                    all of them
  lprf components --kind detector    what may stand in the place of a detector
  lprf components mtcnn.detector     its ports, and its parameters with types, bounds and defaults
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="plugin.component, or a plugin")
    parser.add_argument("--kind", choices=list(KINDS), help="only components of this kind")
    add_plugin_argument(parser)


def run(args: argparse.Namespace) -> int:
    found = plugins(args.plugin)
    if args.name and "." in args.name:
        component = found.component(args.name)
        print(describe(args.name, component))
        print(f"\nimplemented by {component.impl}{place(component.impl)}")
        return 0
    loaded = [found.load(args.name)] if args.name else found.load_all()
    rows = [["COMPONENT", "KIND", "SUMMARY"]]
    for plugin in loaded:
        for name, component in sorted(plugin.components.items()):
            if args.kind in (None, component.kind):
                rows.append([f"{plugin.name}.{name}", component.kind, component.summary])
    print(columns(rows))
    if found.failures and not args.name:
        print(f"\nnot loaded: {', '.join(sorted(found.failures))}; `lprf plugins` says why")
    return 0


def describe(name: str, component: Component) -> str:
    """A component as text: what it is, its ports, its parameters."""
    kind = KINDS[component.kind]
    lines = [f"{name}: {component.summary}", f"kind: {kind.name} ({kind.summary})", f"version: {component.version}"]
    for title, ports in [("inputs", component.all_inputs()), ("outputs", component.all_outputs())]:
        lines += ["", f"{title}:"] if ports else []
        lines += _indented([[port_name, port_text(port)] for port_name, port in ports.items()])
    fields = component.params.model_fields
    lines += ["", "with:" if fields else "with: takes no parameters"]
    for field_name, field in fields.items():
        lines += [f"  {field_name}: {type_text(field)}{default_text(field)}", f"      {field.description or ''}"]
    return "\n".join(line.rstrip() for line in lines)


def place(target: str) -> str:
    """ " in FILE:LINE" of "module:attribute", found by reading the file, not by importing it."""
    module, _, attribute = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return ""
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (ImportError, OSError, ValueError, SyntaxError):
        return ""
    lines = [node.lineno for node in tree.body if getattr(node, "name", None) == attribute]
    return f" in {spec.origin}{f':{lines[0]}' if lines else ''}"


def port_text(port: Port) -> str:
    """A port as text: its type, and what is particular to it."""
    notes = ["optional"] * port.optional + ["one or more"] * port.many
    notes += [f"with {', '.join(sorted(port.features))}"] if port.features else []
    return f"{port.type} ({'; '.join(notes)})" if notes else port.type


def type_text(field: Any) -> str:
    """The type of a parameter as a person would say it, its bounds included: "number, 0 to 1"."""
    text = _type(field.annotation)
    bounds = {}
    for constraint in field.metadata:
        for key in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern"):
            if getattr(constraint, key, None) is not None:
                bounds[key] = getattr(constraint, key)
    if "ge" in bounds and "le" in bounds:
        return f"{text}, {bounds.pop('ge')} to {bounds.pop('le')}" + _bounds(bounds)
    return text + _bounds(bounds)


def default_text(field: Any) -> str:
    """ " = value" as YAML would write it, or " (required)"."""
    if field.is_required():
        return " (required)"
    return f" = {_yaml(field.get_default(call_default_factory=True))}"


def _bounds(bounds: dict[str, Any]) -> str:
    words = {
        "ge": "at least {}",
        "gt": "above {}",
        "le": "at most {}",
        "lt": "below {}",
        "min_length": "{} or more long",
        "max_length": "at most {} long",
        "pattern": "matching {}",
    }
    return "".join(f", {words[key].format(value)}" for key, value in bounds.items())


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(child)}" for key, child in value.items()) + "}"
    if hasattr(value, "model_dump"):
        return _yaml(value.model_dump())
    return f'"{value}"' if value == "" else str(value)


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " | ".join(map(_yaml, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join("null" if part is type(None) else _type(part) for part in arguments)
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        return f"[{', '.join(map(_type, arguments))}]"
    if origin in (list, tuple, set, frozenset):
        return f"list of {_type(arguments[0])}" if arguments else "list"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return (
            "mapping {" + ", ".join(f"{key}: {_type(f.annotation)}" for key, f in annotation.model_fields.items()) + "}"
        )
    names = {int: "integer", float: "number", str: "text", bool: "true | false", type(None): "null", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _indented(rows: list[list[str]]) -> list[str]:
    return [f"  {line}" for line in columns(rows).splitlines()] if rows else []

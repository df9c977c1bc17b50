"""Writes docs/reference/*.md from the code: python -m tests.docs_reference

`tests/test_docs.py` fails where what stands there is not what this writes.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

import lprf.api
import lprf.testing
from lprf import boxes, cli, data, decoding, hooks, reader, sampling, stages, stream
from lprf import recipe as recipes
from lprf.cli.components import default_text, port_text, type_text
from lprf.component import KINDS, Component, Port
from lprf.errors import InputFailure, LprfError, PluginError, RecipeError, WeightsError
from lprf.plugins import installed
from lprf.recipe import NodeForm, RecipeForm, Runtime

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by `python -m tests.docs_reference` from the code; what is edited here is lost. -->"


def pages() -> dict[str, str]:
    """The pages of the reference by file name."""
    written = {
        "verbs.md": verbs(),
        "components.md": components(),
        "recipe.md": recipe(),
        "shipped-recipes.md": shipped_recipes(),
        "hooks.md": hook_page(),
        "data.md": data_types(),
        "python.md": python(),
    }
    return {name: "\n".join([NOTE, "", *lines]).rstrip() + "\n" for name, lines in written.items()}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


# Verbs


def verbs() -> Iterator[str]:
    yield from _title("Verbs", "What `lprf` can be told. `lprf VERB --help` says the same on the command line.")
    for group, names in cli.VERBS.items():
        yield from [f"## {group}", ""]
        for name in names:
            module, parser = cli.parser_of(name)
            yield from [f"### lprf {name}", "", parser.description or "", ""]
            yield from [f"    lprf {name} {' '.join(_usage(parser))}".rstrip(), ""]
            yield from _arguments(parser)
            notes, examples = epilog(module.EXAMPLES)
            for paragraph in notes:
                yield from [paragraph, ""]
            width = max(len(command) for command, _ in examples)
            yield "```console"
            yield from (f"$ {command:<{width}}  # {note}" if note else f"$ {command}" for command, note in examples)
            yield from ["```", ""]


def epilog(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """A verb's notes, as paragraphs, and its examples, each a command and what it does."""
    notes, examples = [], []
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.splitlines()
        if lines[0] == "Examples:":
            examples = [_example(line) for line in lines[1:]]
        elif any(line.startswith("  ") for line in lines):
            notes.append("\n".join(f"  {line}" if line.startswith("  ") else f"{_plain(line)}\n" for line in lines))
        else:
            notes.append(_plain("\n".join(lines)))
    return notes, examples


def _example(line: str) -> tuple[str, str]:
    command, _, note = line.strip().partition("  ")
    return command, note.strip()


def _usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.dest == "help" or action.help == argparse.SUPPRESS:
            continue
        word = _word(action)
        if not action.option_strings:
            many = {"*": f"[{word} ...]", "+": f"{word} [{word} ...]", "?": f"[{word}]"}
            yield many.get(str(action.nargs), word)
        else:
            yield f"[{action.option_strings[-1]}{f' {word}' if word else ''}]"


def _word(action: argparse.Action) -> str:
    """How a value of an argument is written; "" for a flag."""
    if isinstance(action, argparse._SubParsersAction):
        return f"{{{','.join(action.choices)}}} ..."
    if action.nargs == 0:
        return ""
    if action.metavar is None and action.choices is not None:
        return f"{{{','.join(map(str, action.choices))}}}"
    return str(action.metavar or action.dest.upper())


def _arguments(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[str]:
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in parser._actions:
        if action.dest == "help" or action in subparsers or action.help == argparse.SUPPRESS:
            continue
        names = " ".join([", ".join(action.option_strings), _word(action)]).strip()
        yield f"- `{prefix}{names}`: {_plain(action.help or '')}"
    for action in subparsers:
        for choice in action._choices_actions:
            yield f"- `{choice.dest}`: {_plain(choice.help or '')}"
            for line in _arguments(action.choices[choice.dest]):
                if line:
                    yield f"    {line}"
    yield ""


# Components


def components() -> Iterator[str]:
    yield from _title(
        "Components",
        "What ships, by kind. A [recipe](recipe.md) uses a component by its name, gives it parameters in `with:` and "
        "connects its inputs in `inputs:`. `lprf components` lists those of other plugins too.",
    )
    for kind in KINDS.values():
        yield from [f"## {kind.name}", "", f"{_upper(kind.summary)}.", ""]
        yield from _ports("Every one takes", kind.inputs)
        yield from _ports("Every one gives", kind.outputs)
        for name, component in shipped_components().items():
            if component.kind == kind.name:
                yield from _component(name, component)


def shipped_components() -> dict[str, Component]:
    """The components of LPRF itself by their full names, whatever else is installed."""
    plugins = [plugin for plugin in installed().load_all() if plugin.distribution == "lprf"]
    return {f"{p.name}.{name}": component for p in plugins for name, component in sorted(p.components.items())}


def _component(name: str, component: Component) -> Iterator[str]:
    yield from [f"### {name}", "", f"{_upper(_plain(component.summary))}.", ""]
    yield from _ports("Takes", component.inputs)
    yield from _ports("Gives", component.outputs)
    if component.kind == "evaluator":
        yield from ["Also takes weights as `node.param`, a parameter of the recipe that it runs.", ""]
    yield from _fields(component.params)
    yield from [f"Implemented by `{component.impl}`, version {component.version}.", ""]


def _ports(title: str, ports: Mapping[str, Port]) -> Iterator[str]:
    if ports:
        yield f"{title} {', '.join(f'`{name}`: {port_text(port)}' for name, port in ports.items())}."
        yield ""


def _fields(model: type[pydantic.BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = f"{type_text(field)}{default_text(field)}".removesuffix(" (required)")
        required = ", required" if field.is_required() else ""
        yield f"- `{field.alias or name}` (`{kind}`{required}): {_plain(field.description or '')}"
    yield ""


# Recipes


def recipe() -> Iterator[str]:
    yield from _title(
        "The recipe language",
        "The keys of a recipe file. [Recipes](../explanation/recipes.md) says how it works; `lprf schema` writes this "
        "as JSON Schema for editors.",
    )
    for title, model in [("A recipe", RecipeForm), ("A node of `graph`", NodeForm), ("`runtime`", Runtime)]:
        yield from [f"## {title}", ""]
        yield from _recipe_fields(model)
    yield from ["## Kinds of components", ""]
    yield "A graph of kind `infer` has one source. Kinds fix the ports, so that one component can stand for another."
    yield ""
    for kind in KINDS.values():
        ports = "; ".join(
            f"{verb} {', '.join(f'`{name}`: {port_text(port)}' for name, port in ports.items())}"
            for verb, ports in [("takes", kind.inputs), ("gives", kind.outputs)]
            if ports
        )
        yield f"- `{kind.name}` ({kind.graph}): {kind.summary}{f'; {ports}' if ports else ''}"
    yield ""


def _recipe_fields(model: type[pydantic.BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = isinstance(field.annotation, type) and issubclass(field.annotation, pydantic.BaseModel)
        if inner:
            yield f"- `{name}`: see below"
        elif name == "graph":
            yield f"- `{name}` (mapping, required): {_plain(field.description or '')}; see below"
        else:
            kind = f"{type_text(field)}{default_text(field)}".removesuffix(" (required)")
            required = ", required" if field.is_required() else ""
            yield f"- `{field.alias or name}` (`{kind}`{required}): {_plain(field.description or '')}"
    yield ""


def shipped_recipes() -> Iterator[str]:
    yield from _title(
        "Shipped recipes",
        "`lprf run NAME` runs one, `lprf copy NAME my.yaml` gives you one to edit. Each says first what it needs.",
    )
    for name, path in recipes.shipped_recipes().items():
        yield from [f"## {name}", "", "```yaml", *path.read_text(encoding="utf-8").splitlines(), "```", ""]


# Hooks, data types, Python


def hook_page() -> Iterator[str]:
    yield from ["# Hooks", "", *_prose(inspect.getdoc(hooks) or "").splitlines(), ""]
    for name, function in hook_specifications().items():
        yield from _function(name, function)
    yield from ["## What hooks are told", ""]
    for cls in (stages.Stage, stream.BatchInfo):
        yield from _class(cls, "###")


def hook_specifications() -> dict[str, Any]:
    """The hooks by name."""
    return {name: f for name, f in vars(hooks).items() if getattr(f, "lprf_spec", None) is not None}


def data_types() -> Iterator[str]:
    yield from ["# Data types", "", *_prose(inspect.getdoc(data) or "").splitlines(), ""]
    yield from ["All of them are imported from `lprf.api`.", ""]
    for value in vars(data).values():
        if inspect.isclass(value) and value.__module__ == "lprf.data":
            yield from _class(value)
    yield from _function("readings_by_frame", data.readings_by_frame)
    yield from _function("readable", data.readable)


def python() -> Iterator[str]:
    yield from _title(
        "From Python", "`import lprf` for programs that read plates, `from lprf.api import …` for plugins."
    )
    yield from _function("lprf.load", reader.load)
    yield from _class(reader.Reader)
    yield from _class(stream.Result)
    yield from _class(stream.Summary)
    yield from ["## Declaring components", ""]
    for cls in (lprf.api.Component, lprf.api.Port, lprf.api.Params):
        yield from _class(cls, "###")
    for cls in (lprf.api.WeightsParam, lprf.api.PathParam, lprf.api.RecipeParam):
        yield from _class(cls, "###")
    yield from _function("weights_name", lprf.api.weights_name, "###")
    yield from ["## Implementing them", ""]
    yield from _class(lprf.api.Context, "###")
    yield from _function("replacing", lprf.api.replacing, "###")
    for error in (LprfError, RecipeError, PluginError, WeightsError, InputFailure):
        yield from [f"### {error.__name__}", "", *_prose(inspect.getdoc(error) or "").splitlines(), ""]
    yield from ["## What detectors, rectifiers and recognizers can be made of", ""]
    for function in (boxes.overlaps, boxes.clipped, boxes.nms, sampling.sample_boxes, sampling.sample_quads):
        yield from _function(f"{function.__module__}.{function.__name__}", function, "###")
    yield from _class(decoding.Decoder, "###")
    yield from ["## Testing them", "", *_prose(inspect.getdoc(lprf.testing) or "").splitlines(), ""]
    for name in lprf.testing.__all__:
        suite = getattr(lprf.testing, name)
        yield from [f"### {name}", "", *_prose(inspect.getdoc(suite) or "").splitlines(), ""]
        checks = [check for check in vars(suite) if check.startswith("test_")]
        yield from [*(f"- {check.removeprefix('test_').replace('_', ' ')}" for check in checks), ""]


def _class(cls: type, level: str = "##") -> Iterator[str]:
    yield from [f"{level} {cls.__name__}", ""]
    if dataclasses.is_dataclass(cls):
        yield from ["```text", f"{cls.__name__}("]
        for field in dataclasses.fields(cls):
            yield f"    {field.name}: {field.type}{_default(field)},"
        yield from [")", "```", ""]
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        yield from [f"    {cls.__name__}{_signature(cls.__init__).removesuffix(' -> None')}", ""]
    yield from [*_prose(inspect.getdoc(cls) or "").splitlines(), ""]
    methods = list(_methods(cls))
    yield from ["Methods and properties:", "", *methods, ""] if methods else []


def _methods(cls: type) -> Iterator[str]:
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else member
        public = not name.startswith("_") or name == "__call__"
        if inspect.isfunction(function) and public and inspect.getdoc(function):
            signature = name if isinstance(member, property) else f"{name}{_signature(function)}"
            text = _prose(inspect.getdoc(function) or "", "    ")
            yield f"- `{signature}`: {text}" + "\n" * ("\n\n" in text)  # a blank line ends a list within an item


def _function(name: str, function: Any, level: str = "##") -> Iterator[str]:
    yield from [f"{level} {name}", "", f"    {name}{_signature(function)}", ""]
    yield from [*_prose(inspect.getdoc(function) or "").splitlines(), ""]


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    shown = [p for name, p in signature.parameters.items() if name != "self"]
    text = str(signature.replace(parameters=shown))
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations are text, whatever the version of Python


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {field.default!r}" if not inspect.isclass(field.default) else f" = {field.default.__name__}"
    if field.default_factory is dataclasses.MISSING:
        return ""
    return " = {}" if field.default_factory is dict else " = …"


# Text


def _title(title: str, introduction: str) -> list[str]:
    return [f"# {title}", "", introduction, ""]


def _prose(docstring: str, indent: str = "") -> str:
    """A docstring as Markdown: paragraphs, indented code, and `name: what it is` lines as a list."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", docstring.strip()):
        lines = paragraph.splitlines()
        if all(line.startswith("    ") for line in lines):
            blocks.append(paragraph)
        elif all(line.startswith(("- ", "  ")) for line in lines):
            blocks.append("\n".join(map(_plain, lines)))
        else:
            blocks.append("\n".join(_described(lines)))
    return f"\n\n{indent}".join(block.replace("\n", f"\n{indent}") for block in blocks)


_NEXT = re.compile(r"(?<=\.) (?=[a-z_]{3,}(?:, [a-z_]{3,})*: )")  # several of them may stand on a line
_DESCRIBED = re.compile(r"([a-z_`][\w`.*]*(?:(?:, | and )[a-z_`][\w`.*]*)*): (?=\S)(.*)")


def _described(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a paragraph; from the first `name: …` on, as items of a list."""
    inside, first = False, True
    for line in itertools.chain.from_iterable(map(_NEXT.split, lines)):
        match = _DESCRIBED.fullmatch(line)
        if match:
            if not inside and not first:
                yield ""
            names = ", ".join(f"`{name}`" for name in re.split(r", | and ", match[1].replace("`", "")))
            yield f"- {names}: {_plain(match[2])}"
            inside = True
        elif inside and line.startswith(("Raises ", "Returns ")):
            inside = False
            yield from ["", _plain(line)]
        else:
            yield f"    {_plain(line.strip())}" if inside else _plain(line)
        first = False


def _plain(text: str) -> str:
    """Text with what Markdown would take for its own escaped, outside of `code`."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<>\[\]\\_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")


if __name__ == "__main__":
    main()

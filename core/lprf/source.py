"""YAML with positions: every value knows its line and column. Loaded safely and bounded; duplicate keys refused.

Scalars are YAML's own strings, integers, floats, booleans and null; everything else (dates, sets, tags, merge
keys) stays text or is refused, so that a recipe means what it looks like.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lprf.errors import Problem, RecipeError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_NUMBERS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float")}
_TEXT = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_STRING = "tag:yaml.org,2002:str"


@dataclass(frozen=True)
class Place:
    """Where a value stands. For an override `line` is 0 and `file` says how it was given: "-s read.top=3"."""

    file: str
    line: int = 0
    column: int = 0
    folder: Path | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Located:
    """A value with its place: a scalar, a list of Located, or a dict of them.

    `key` is where its key stands; `text` is a scalar as it was written (007 is the number 7, and a folder's name).
    """

    value: Any
    place: Place
    key: Place | None = None
    text: str | None = None

    def plain(self) -> Any:
        """The value as plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {name: child.plain() for name, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def get(self, *path: str | int) -> Located | None:
        """The value at `path`, or None."""
        here: Located | None = self
        for step in path:
            if here is None:
                return None
            if isinstance(here.value, dict):
                here = here.value.get(step)
            elif isinstance(here.value, list) and isinstance(step, int) and step < len(here.value):
                here = here.value[step]
            else:
                return None
        return here

    def nearest(self, path: Sequence[str | int]) -> Located:
        """The value at `path`, or its nearest ancestor that is there."""
        found = self
        for end in range(len(path), 0, -1):
            if (there := self.get(*path[:end])) is not None:
                found = there
                break
        return found

    def problem(self, path: Sequence[str | int], message: str, *, at_key: bool = False) -> Problem:
        """A Problem at the nearest place to `path` (at its key instead of its value where `at_key`)."""
        found = self.nearest(path)
        place = found.key if at_key and found.key is not None else found.place
        return Problem(place.file, place.line, place.column, ".".join(map(str, path)), message)

    def leaves(self, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Located]]:
        """Every scalar or empty container below, with its path."""
        children = self.value.items() if isinstance(self.value, dict) else enumerate(self.value)
        for step, child in children if isinstance(self.value, dict | list) else ():
            if isinstance(child.value, dict | list) and child.value:
                yield from child.leaves((*prefix, step))
            else:
                yield (*prefix, step), child


def located(value: Any, place: Place, key: Place | None = None) -> Located:
    """Wrap plain data, all of it at one place (an override)."""
    if isinstance(value, dict):
        return Located({str(name): located(child, place, place) for name, child in value.items()}, place, key)
    if isinstance(value, list | tuple):
        return Located([located(child, place) for child in value], place, key)
    return Located(value, place, key)


def read_file(path: str | Path) -> Located:
    """Read a YAML file.

    Raises RecipeError: missing, no file, too large, not UTF-8, not YAML, duplicate keys, nested too deep.
    """
    path = Path(path)
    name = str(path).encode(errors="replace").decode(errors="replace")
    try:
        if stat.S_ISFIFO(path.stat().st_mode) or path.is_char_device():  # nobody knows when they would end
            raise RecipeError([Problem(name, 0, 0, "", "is not a file")])
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError([Problem(name, 0, 0, "", error.strerror or str(error))]) from None
    except ValueError:  # a null byte, half of a surrogate pair
        raise RecipeError([Problem(name, 0, 0, "", "no file can have this name")]) from None
    return read_text(data, name, path.parent)


def read_text(data: bytes | str, name: str, folder: Path | None = None) -> Located:
    """Parse YAML text, named `name` in messages; paths in it are relative to `folder`. Raises RecipeError."""

    def fail(message: str, mark: Any = None) -> RecipeError:
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return RecipeError([Problem(name, line, column, "", message)])

    if len(data) > MAX_BYTES:
        raise fail(f"the file is larger than {MAX_BYTES // 1024} KiB, no recipe is")
    if isinstance(data, bytes):
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            good = data[: error.start]
            line = good.count(b"\n")
            mark = yaml.Mark(name, 0, line, error.start - (good.rfind(b"\n") + 1), None, 0)
            raise fail("the file is not UTF-8 text", mark) from None
    else:
        text = data
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            # Events come without recursion, so depth is checked before anything recurses into it.
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                raise fail(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
            if count > 4 * MAX_VALUES:
                raise fail(f"more than {MAX_VALUES} values", event.start_mark)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise fail(f"not valid YAML: {message}", error.problem_mark or error.context_mark) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        mark = yaml.Mark(name, 0, before.count("\n"), len(before) - (before.rfind("\n") + 1), None, 0)
        raise fail(f"not valid YAML: {error.reason}", mark) from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise fail(f"not valid YAML: {error}") from None
    if node is None:
        raise fail("the file is empty")
    return _Builder(name, folder).build(node)


class _Builder:
    """Turns composed YAML nodes into Located values, collecting every mistake."""

    def __init__(self, name: str, folder: Path | None):
        self.name = name
        self.folder = folder
        self.count = 0
        self.problems: list[Problem] = []
        self.constructor = yaml.SafeLoader("")

    def build(self, node: Any) -> Located:
        result = self.value(node, (), None, ())
        if self.problems:
            raise RecipeError(self.problems)
        return result

    def place(self, node: Any) -> Place:
        return Place(self.name, node.start_mark.line + 1, node.start_mark.column + 1, self.folder)

    def problem(self, node: Any, path: tuple[str | int, ...], message: str) -> None:
        place = self.place(node)
        self.problems.append(Problem(place.file, place.line, place.column, ".".join(map(str, path)), message))

    def value(self, node: Any, path: tuple[str | int, ...], key: Place | None, above: tuple[int, ...]) -> Located:
        place = self.place(node)
        self.count += 1
        if self.count > MAX_VALUES:  # aliases of aliases multiply
            self.problem(node, path, f"more than {MAX_VALUES} values once its aliases are followed")
            raise RecipeError(self.problems)
        if len(above) > MAX_DEPTH:
            self.problem(node, path, f"nested deeper than {MAX_DEPTH} levels once its aliases are followed")
            raise RecipeError(self.problems)
        if id(node) in above:
            self.problem(node, path, "an alias that contains itself")
            return Located(None, place, key)
        above = (*above, id(node))
        if isinstance(node, yaml.ScalarNode):
            return Located(self.scalar(node, path), place, key, node.value)
        if isinstance(node, yaml.SequenceNode):
            items = [self.value(child, (*path, i), None, above) for i, child in enumerate(node.value)]
            return Located(items, place, key)
        mapping: dict[str, Located] = {}
        for key_node, child in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, path, "a key must be plain text")
                continue
            name = key_node.value
            if key_node.tag == "tag:yaml.org,2002:merge":
                self.problem(key_node, (*path, name), "merge keys are not supported; `extends` builds on a recipe")
                continue
            if name in mapping:
                self.problem(key_node, (*path, name), f"duplicate key; first given in line {mapping[name].key.line}")  # type: ignore[union-attr]
                continue
            mapping[name] = self.value(child, (*path, name), self.place(key_node), above)
        return Located(mapping, place, key)

    def scalar(self, node: yaml.ScalarNode, path: tuple[str | int, ...]) -> Any:
        if node.tag == _STRING or node.tag in _TEXT:
            return node.value
        if node.tag not in _SCALARS:
            self.problem(node, path, f"the tag '{node.tag}' is not allowed in a recipe")
            return None
        if node.tag in _NUMBERS and ":" in node.value:  # 1:30 is no number of base 60
            return node.value
        try:
            value = self.constructor.construct_object(node)
            if isinstance(value, int) and value.bit_length() > 64:
                raise ValueError("no parameter is as large")
            return value
        except (ValueError, KeyError, yaml.YAMLError):
            self.problem(node, path, f"not a number that can be read: {node.value[:40]}")
            return None

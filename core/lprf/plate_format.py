"""Plate formats: which texts a country's plates carry, as data in a small YAML file.

    summary: German plates
    alphabet: ABC…0123456789          # every character a text may have
    classes:                          # named sets of characters
      letter: ABC…
    patterns:                         # name: groups of slots, in reading order
      ordinary: [[letter 1-3], [letter 1-2, digit 1-4]]
    look_alikes: [0OQD, 8B]           # characters that are taken for one another

A slot is a class, or a character that stands for itself; `2` after it repeats it twice, `1-3` one to three times.
A text that fits no pattern is never changed: `fits` says so, and `near` names what it may have been.
No torch, numpy or OpenCV.
"""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pydantic

from lprf import plugins, source
from lprf.check import form_problems
from lprf.errors import LprfError, RecipeError
from lprf.weights import home

MAX_PATTERNS = 62  # after repetitions are written out; the beam keeps a bit for each
MAX_LENGTH = 32
_SLOT = re.compile(r"(\S+?)(?:\s+(\d{1,2})(?:-(\d{1,2}))?)?")


@dataclass(frozen=True)
class Pattern:
    """One exact sequence: for each position the characters it may have; `groups` are the lengths between gaps."""

    name: str
    slots: tuple[str, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class PlateFormat:
    """A checked plate format; `patterns` have fixed lengths, repetitions being written out."""

    name: str
    summary: str
    alphabet: str
    patterns: tuple[Pattern, ...]
    look_alikes: tuple[str, ...] = ()

    def pattern(self, text: str) -> Pattern | None:
        """The first pattern that the text fits, or None."""
        for pattern in self.patterns:
            if len(pattern.slots) == len(text) and all(c in slot for c, slot in zip(text, pattern.slots, strict=True)):
                return pattern
        return None

    def fits(self, text: str) -> bool:
        return self.pattern(text) is not None

    def grouped(self, text: str, gap: str = " ") -> str:
        """The text as people write it, with `gap` between its groups; unchanged where it fits no pattern."""
        pattern = self.pattern(text)
        if pattern is None:
            return text
        ends = list(itertools.accumulate(pattern.groups, initial=0))
        return gap.join(text[start:end] for start, end in itertools.pairwise(ends))

    def near(self, text: str, limit: int = 8) -> list[str]:
        """Texts that fit and differ from `text` in look-alikes only, those with the fewest changes first.

        They are for a person to choose from; nothing in LPRF puts one in place of what was read.
        """
        alike = {c: "".join(group.replace(c, "") for group in self.look_alikes if c in group) for c in text}
        found: dict[str, int] = {}
        for pattern in self.patterns:
            if len(pattern.slots) != len(text):
                continue
            choices = [
                [c] if c in slot else [other for other in alike[c] if other in slot]
                for c, slot in zip(text, pattern.slots, strict=True)
            ]
            for some in itertools.islice(itertools.product(*choices), limit):
                found["".join(some)] = sum(a != b for a, b in zip(some, text, strict=True))
        return sorted(found, key=lambda other: (found[other], other))[:limit]


class _File(pydantic.BaseModel):
    """A format's file."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    summary: str = ""
    alphabet: str = pydantic.Field(min_length=1, max_length=10_000)
    classes: dict[str, str] = pydantic.Field(default_factory=dict, max_length=100)
    patterns: dict[str, list[list[str]]] = pydantic.Field(min_length=1, max_length=MAX_PATTERNS)
    look_alikes: list[str] = pydantic.Field(default_factory=list, max_length=100)


def load_format(name: str) -> PlateFormat:
    """The format called `name`: among the user's (`formats` in the data folder) or the shipped ones;
    `plugin/name`: of that plugin's folder `formats`; anything that ends in .yaml is a path.

    Raises LprfError where there is none, RecipeError with line and column for every mistake in the file.
    """
    path = _find(name)
    located = source.read_file(path)
    file, problems = form_problems(_File, located)
    if file is None:
        raise RecipeError(problems)
    return _checked(path.stem, file, located)


def available() -> list[str]:
    """The names of the shipped formats and of the user's."""
    return sorted({path.stem for folder in _folders() if folder.is_dir() for path in folder.glob("*.yaml")})


def of_the_user(name: str) -> Path | None:
    """The file of a format called `name`, where it is not one that LPRF ships: its content may change at any time."""
    try:
        path = _find(name)
    except LprfError:
        return None
    return None if path.parent == _folders()[-1] else path


def _folders() -> list[Path]:
    return [home() / "formats", Path(str(files("lprf"))) / "formats"]


def _find(name: str) -> Path:
    if name.endswith(".yaml"):
        return Path(name)
    plugin, _, own = name.rpartition("/")
    if plugin:
        module = plugins.installed().load(plugin).module
        places = [Path(str(sys.modules[module.__name__].__file__)).parent / "formats"]
    else:
        places = _folders()
    for place in places:
        if re.fullmatch(r"[\w-]+", own) and (place / f"{own}.yaml").is_file():
            return place / f"{own}.yaml"
    hint = plugins.suggest(name, available()) or f"; there are {', '.join(available())}, or give a path to a .yaml file"
    raise LprfError(f"there is no plate format '{name}'{hint}")


def _checked(name: str, file: _File, located: source.Located) -> PlateFormat:
    problems = []

    def wrong(path: tuple[str | int, ...], message: str) -> None:
        problems.append(located.problem(path, message))

    if len(set(file.alphabet)) < len(file.alphabet):
        wrong(("alphabet",), f"names '{_twice(file.alphabet)}' twice")
    for key, characters in file.classes.items():
        if strange := "".join(c for c in characters if c not in file.alphabet) or ("" if characters else "nothing"):
            wrong(("classes", key), f"has {strange}, which the alphabet has not")
    for i, alike in enumerate(file.look_alikes):
        if strange := "".join(c for c in alike if c not in file.alphabet):
            wrong(("look_alikes", i), f"has {strange}, which the alphabet has not")
    patterns: list[Pattern] = []
    for key, groups in file.patterns.items():
        choices: list[list[tuple[str, ...]]] = []  # for each group, what it may be
        for i, group in enumerate(groups):
            slots = []
            for j, slot in enumerate(group):
                try:
                    slots.append(_slot(slot, file))
                except ValueError as error:
                    wrong(("patterns", key, i, j), str(error))
            choices.append([sum(some, ()) for some in itertools.islice(itertools.product(*slots), MAX_PATTERNS + 1)])
            if not group:
                wrong(("patterns", key, i), "an empty group")
        odd = False  # whether this pattern has a length that cannot be read
        for chosen in itertools.islice(itertools.product(*choices), MAX_PATTERNS + 1):
            joined = sum(chosen, ())
            if not 1 <= len(joined) <= MAX_LENGTH and not odd:
                odd = True
                wrong(("patterns", key), f"a plate of {len(joined)} characters; 1 to {MAX_LENGTH} can be read")
            patterns.append(Pattern(key, joined, tuple(len(group) for group in chosen)))
    if len(patterns) > MAX_PATTERNS:
        wrong(("patterns",), f"more than {MAX_PATTERNS} patterns once repetitions are written out")
    if problems:
        raise RecipeError(problems)
    return PlateFormat(name, file.summary, file.alphabet, tuple(patterns), tuple(file.look_alikes))


def _slot(text: str, file: _File) -> list[tuple[str, ...]]:
    """What one slot may be: sequences of character sets, one for each number of repetitions."""
    match = _SLOT.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a class, or a class and how often: 'letter', 'letter 2', 'letter 1-3'")
    what, least, most = match[1], int(match[2] or 1), int(match[3] or match[2] or 1)
    characters = file.classes.get(what, what if len(what) == 1 and what in file.alphabet else "")
    if not characters:
        hint = plugins.suggest(what, file.classes)
        raise ValueError(f"'{what}' is neither a class nor a character of the alphabet{hint}")
    if not least <= most <= MAX_LENGTH:
        raise ValueError(f"'{text}' repeats from {least} to {most}; {MAX_LENGTH} at most")
    return [(characters,) * count for count in range(least, most + 1)]


def _twice(text: str) -> str:
    return next(c for i, c in enumerate(text) if c in text[:i])

"""The errors a person can mend. The command line prints them without a stack trace and exits with 2."""

from __future__ import annotations

from dataclasses import dataclass


class LprfError(Exception):
    """Base of every error whose message is meant for the person at the keyboard."""


class WeightsError(LprfError):
    """A weights file that is missing, broken, hostile, or does not fit the network it is given to."""


class PluginError(LprfError):
    """A plugin that is missing, did not load, or breaks the contract of its kind."""


class InputFailure(LprfError):
    """One input (a photo, a frame, a row of labels) that could not be read.

    It never ends a run: it is reported with its `name`, counted, and shows in the exit code.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Terminated(KeyboardInterrupt):
    """A run was told to end by another signal than that of Ctrl-C: its number is the argument."""


def printable(text: str) -> str:
    """A stranger's text as one line that cannot steer the terminal: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe: where (1-based line and column; 0 where the place is an override) and what."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return printable(f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}")


class RecipeError(LprfError):
    """Every mistake of a recipe at once, in the order of the file."""

    def __init__(self, problems: list[Problem]):
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

"""`lprf.load("read-plates").run("holiday/")`: a recipe as an object of a program."""

from __future__ import annotations

import functools
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from lprf.data import Item, Origin, Reading, Source
from lprf.errors import LprfError
from lprf.feed import Feed
from lprf.recipe import Recipe, load_recipe
from lprf.stream import Graph, Result, Summary, build, result_port

Given = str | os.PathLike[str] | np.ndarray | Iterable[Any]


class Reader:
    """An inference recipe with its networks loaded: built once, run as often as wanted.

    Threads may share it, each with a run of its own; their batches take turns. As a context manager it frees its
    networks at the end.

    summary: of the run that began last: how many frames, plates, failures (by name), and how fast.
    """

    def __init__(self, recipe: Recipe):
        wanted = result_port(recipe)
        self.recipe = recipe
        self._graph: Graph | None = build(recipe, recipe.plugins, wanted=[wanted])
        self.summary = Summary()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the networks; the reader cannot run any more."""
        self._graph = None

    def run(self, source: Given | None = None) -> Iterator[Reading]:
        """Read plates; gives readings as they come, in the order of the input, one a detected plate.

        source: a path (a file, a folder, a pattern, a list file), a list of paths, a BGR picture (uint8 [H, W, 3]), a
        batch or a list of them, or another iterable of pictures, such as a camera loop: there each one is read before
        the next is asked for. Without one, the recipe's own source is read. A picture that cannot be read gives nothing
        and stands in `summary.failures`. Raises LprfError: nothing at the path, or no such thing to read.
        """
        for result in self.results(source):
            yield from result.readings(self.graph.result)

    def results(self, source: Given | None = None) -> Generator[Result, None, None]:
        """As `run`, but one result a picture, those without plates and those that failed too."""
        feed = self._source(source)
        summary = self.summary = Summary(total=feed.total)
        # What a program gives is there already, or not before it says so: no thread may draw it early.
        workers = 0 if isinstance(feed, Feed) else None
        eager = feed.total is None and isinstance(feed, Feed)
        yield from self.graph.results(feed, summary=summary, eager=eager, workers=workers)

    @property
    def graph(self) -> Graph:
        """The built graph. Raises LprfError after `close`."""
        if self._graph is None:
            raise LprfError(f"this reader of '{self.recipe.name}' is closed")
        return self._graph

    def _source(self, given: Given | None) -> Source:
        """What is to be read: a `Feed` where it is pictures of the program's own."""
        like = self.graph.source
        if given is None:
            return like
        if isinstance(given, np.ndarray):
            pictures = given if given.ndim == 4 else [given]
            return Feed(like, _items(pictures), len(pictures))
        if isinstance(given, str | os.PathLike):
            return self._paths(os.fspath(given))
        if isinstance(given, list | tuple) and given and all(isinstance(x, str | os.PathLike) for x in given):
            return self._paths([os.fspath(path) for path in given])
        if isinstance(given, Iterable):
            total = len(given) if isinstance(given, list | tuple) else None
            return Feed(like, _items(given), total)
        raise LprfError(f"cannot read a {type(given).__name__}: give a path, paths, a picture or pictures")

    def _paths(self, given: Any) -> Source:
        """The recipe's own kind of source with another path."""
        node = self.graph.source_node
        if "path" not in type(node.params).model_fields:
            raise LprfError(f"{node.name} ({node.uses}) takes no path")
        try:
            params = type(node.params).model_validate({**node.params.model_dump(by_alias=True), "path": given})
        except pydantic.ValidationError as error:
            raise LprfError(f"{node.name}: path: {error.errors()[0]['msg']}") from None
        source: Source = node.component.load()(params, self.graph.context(node))
        return source


def _items(pictures: Iterable[Any]) -> Iterator[Item]:
    for index, picture in enumerate(pictures):
        if not isinstance(picture, np.ndarray):
            raise LprfError(f"picture {index} is a {type(picture).__name__}, not a BGR array of uint8 [H, W, 3]")
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            shape = list(picture.shape)
            raise LprfError(f"picture {index} is an array of {picture.dtype} {shape}, not BGR of uint8 [H, W, 3]")
        yield Item(Origin("array", index), functools.partial(_same, picture))


def _same(picture: np.ndarray) -> np.ndarray:
    return picture


def load(recipe: str | Path, *, overrides: Mapping[str, Any] | None = None, device: str | None = None) -> Reader:
    """Load an inference recipe, by path or by name, with its networks on the device.

    overrides: {"node.key": value}, as `-s` on the command line. device: short for the override "runtime.device".
    Raises RecipeError with every mistake in the recipe; LprfError where it cannot be built.
    """
    changes = dict(overrides or {})
    if device is not None:
        changes["runtime.device"] = device
    return Reader(load_recipe(recipe, changes))

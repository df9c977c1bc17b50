"""`lprf bench`: times inference recipes, alone or two in turn, and compares what they answer.

The sinks are off. A pass is a run over the whole source; passes of two recipes alternate, so that a machine whose
speed drifts does both the same wrong, and ratios are of neighbouring passes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lprf import weights
from lprf.builtin.report import environment
from lprf.data import Item
from lprf.errors import LprfError
from lprf.feed import Feed
from lprf.recipe import Recipe
from lprf.stream import BatchInfo, Graph, Summary, build, result_port

NAMED = 20  # so many pictures whose answers differ are named


@dataclass
class Pass:
    """One run over the source. Times in seconds; those by node are of each batch."""

    seconds: float
    pictures: int
    plates: int
    failed: int
    batches: list[float] = field(default_factory=list)
    waited: float = 0.0
    nodes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


class Side:
    """One of the recipes that are timed, on its own source or on `items`. name: what progress calls it."""

    def __init__(self, recipe: Recipe, items: Sequence[Item] | None = None, name: str = ""):
        if recipe.kind != "infer":
            raise LprfError(f"recipe '{recipe.name}' trains; only recipes that read can be timed")
        self.recipe = recipe
        self.graph: Graph = build(recipe, recipe.plugins, wanted=[result_port(recipe)])
        self.graph.measure = True
        self.source = None if items is None else Feed(self.graph.source, items, len(items))
        self.name = name or recipe.name
        self.passes: list[Pass] = []
        self.answers: dict[str, Counter[str]] = {}

    def run(self, keep: bool = True) -> Pass:
        """A pass; it counts where `keep` is set."""
        done = Pass(0.0, 0, 0, 0)

        def on_batch(info: BatchInfo) -> None:
            done.batches.append(info.seconds)
            done.waited += info.waited
            for node, seconds in info.nodes.items():
                done.nodes[node].append(seconds)

        summary = Summary()
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        began = time.perf_counter()
        for result in self.graph.results(self.source, summary=summary, on_batch=on_batch):
            for reading in result.readings(self.graph.result):
                answers[f"{result.origin.name}#{result.origin.index}"][reading.text] += 1
        done.seconds = time.perf_counter() - began
        done.pictures, done.plates, done.failed = summary.frames, summary.plates, summary.failed
        if not done.pictures:
            raise LprfError(f"'{self.recipe.name}' read no picture; there is nothing to time")
        if keep:
            self.passes.append(done)
        self.answers = dict(answers)
        return done

    def report(self) -> dict[str, Any]:
        """What was measured, in JSON's types; times in milliseconds."""
        batches = [seconds for done in self.passes for seconds in done.batches]
        nodes: dict[str, list[float]] = defaultdict(list)
        for done in self.passes:
            for node, seconds in done.nodes.items():
                nodes[node] += seconds
        device = self.graph.device
        return {
            "recipe": self.recipe.name,
            "weights": {
                name: {"name": info.name, "sha256": info.sha256} for name, info in weights.named_by(self.recipe)
            },
            "device": str(device),
            "batch": self.recipe.runtime.batch,
            "passes": len(self.passes),
            "pictures": self.passes[0].pictures,
            "plates": self.passes[0].plates,
            "failed": self.passes[0].failed,
            "pictures_a_second": statistics.median(done.pictures / done.seconds for done in self.passes),
            "plates_a_second": statistics.median(done.plates / done.seconds for done in self.passes),
            "batch_ms": _spread(batches),
            "nodes_ms": {node: _spread(seconds) for node, seconds in nodes.items()},
            "waited_share": statistics.median(done.waited / done.seconds for done in self.passes),
            "gpu_peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        }


def bench(
    recipe: Recipe, other: Recipe | None = None, passes: int = 5, told: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Time `recipe`, in turn with `other` if there is one: one pass to warm up, then `passes` that count.

    told: called with a line after each pass. Gives a report in JSON's types. Raises LprfError.
    """
    sides = [Side(one) for one in (recipe, other) if one is not None]
    take_turns(sides, passes, told)
    content: dict[str, Any] = {
        "sides": [side.report() for side in sides],
        "host_peak_bytes": host_peak(),
        "environment": environment(sides[0].graph.device),
    }
    if len(sides) == 2:
        mine, theirs = sides
        pairs = zip(mine.passes, theirs.passes, strict=True)
        content["ratios"] = [(b.seconds / b.pictures) / (a.seconds / a.pictures) for a, b in pairs]
        content["ratio"] = statistics.median(content["ratios"])
        content["differences"] = differences(mine.answers, theirs.answers)
    return content


def take_turns(sides: Sequence[Side], passes: int, told: Callable[[str], None] = lambda _: None) -> None:
    """A pass of each side to warm up, then `passes` of each that count, in turn."""
    for side in sides:
        told(f"warm-up: {side.name}, {side.run(keep=False).seconds:.2f} s")
    for number in range(passes):
        for side in sides:
            done = side.run()
            told(f"pass {number + 1} of {passes}: {side.name}, {done.pictures / done.seconds:.1f} a second")


def differences(mine: dict[str, Counter[str]], theirs: dict[str, Counter[str]]) -> dict[str, Any]:
    """Which pictures the two answer differently: how many of how many, and the first of them by name."""
    names = sorted(mine.keys() | theirs.keys())
    differing = [name for name in names if mine.get(name) != theirs.get(name)]
    return {
        "pictures": len(names),
        "differing": len(differing),
        "first": [
            {"source": name, "one": _texts(mine.get(name)), "other": _texts(theirs.get(name))}
            for name in differing[:NAMED]
        ],
    }


def host_peak() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _texts(answers: Counter[str] | None) -> list[str]:
    return sorted((answers or Counter()).elements())


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile, in milliseconds."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": 1000 * statistics.median(ordered), "p95": 1000 * last}

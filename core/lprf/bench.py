"""`lprf bench`: times inference recipes, alone or two in turn, and compares what they answer.

The sinks are off. A pass is a run over the whole source; passes of two recipes alternate, so that a machine whose
speed drifts does both the same wrong, and ratios are of neighbouring passes. On a GPU each pass is followed by one that
waits for the device after every node, which tells the nodes' times; all else is of the pass that does not.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lprf import weights
from lprf.boxes import overlaps
from lprf.builtin.report import environment
from lprf.data import Item
from lprf.errors import LprfError
from lprf.feed import Feed
from lprf.recipe import Recipe
from lprf.stream import BatchInfo, Graph, Summary, build, result_port

NAMED = 20  # so many pictures whose answers differ are named
SAME = 0.5  # two answers are of one plate where their boxes overlap by more (intersection over union)

Answer = tuple[str, tuple[float, float, float, float]]  # a plate's text and box
Answers = dict[str, list[Answer]]  # by picture


@dataclass
class Pass:
    """One run over the source. Times in seconds; those of batches and nodes are of each batch.

    waited: the share of the time in which the host waited for pictures, for copies, for kernels.
    reason: of the first failure. host_peak, gpu_peak: the most memory held in it, in bytes; None where the system does
    not say.
    """

    seconds: float = 0.0
    pictures: int = 0
    plates: int = 0
    failed: int = 0
    reason: str = ""
    batches: list[float] = field(default_factory=list)
    nodes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    waited: dict[str, float] = field(default_factory=lambda: {"pictures": 0.0, "copies": 0.0, "kernels": 0.0})
    host_peak: int | None = None
    gpu_peak: int | None = None


class Side:
    """One of the recipes that are timed, on its own source or on `items`. name: what progress calls it."""

    def __init__(self, recipe: Recipe, items: Sequence[Item] | None = None, name: str = ""):
        if recipe.kind != "infer":
            raise LprfError(f"recipe '{recipe.name}' trains; one that reads is wanted")
        self.recipe = recipe
        self.graph: Graph = build(recipe, recipe.plugins, wanted=[result_port(recipe)])
        self.source = None if items is None else Feed(self.graph.source, items, len(items))
        self.name = name or recipe.name
        self.passes: list[Pass] = []
        self.answers: Answers = {}

    def run(self, keep: bool = True) -> Pass:
        """A pass; it counts where `keep` is set."""
        done, self.answers = self._pass()
        if not done.pictures:
            why = f": {done.reason}" if done.reason else ""
            raise LprfError(f"'{self.recipe.name}' read no picture{why}")
        if self.graph.device.type == "cuda":
            self.graph.measure = True
            told, _ = self._pass()
            self.graph.measure = False
            done.nodes = told.nodes
            done.waited |= {what: told.waited[what] for what in ("copies", "kernels")}
        if keep:
            self.passes.append(done)
        return done

    def _pass(self) -> tuple[Pass, Answers]:
        done = Pass()

        def on_batch(info: BatchInfo) -> None:
            done.batches.append(info.seconds)
            done.waited["pictures"] += info.waited
            done.waited["copies"] += info.copied
            done.waited["kernels"] += info.kernels
            for node, seconds in info.nodes.items():
                done.nodes[node].append(seconds)

        summary = Summary()
        answers: Answers = defaultdict(list)
        device = self.graph.device
        forget_host_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        for result in self.graph.results(self.source, summary=summary, on_batch=on_batch):
            for reading in result.readings(self.graph.result):
                answers[f"{_same(result.origin.name)}#{result.origin.index}"].append((reading.text, reading.box))
        done.seconds = time.perf_counter() - began
        done.pictures, done.plates, done.failed = summary.frames, summary.plates, summary.failed
        done.reason = "; ".join(f"{failure.name}: {failure.reason}" for failure in summary.failures[:1])
        done.waited = {what: seconds / done.seconds for what, seconds in done.waited.items()}
        done.host_peak = host_peak()
        done.gpu_peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        return done, dict(answers)

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
            "backend": self.graph.backend,
            "batch": self.recipe.runtime.batch,
            "passes": len(self.passes),
            "pictures": self.passes[0].pictures,
            "plates": self.passes[0].plates,
            "failed": self.passes[0].failed,
            "pictures_a_second": statistics.median(done.pictures / done.seconds for done in self.passes),
            "plates_a_second": statistics.median(done.plates / done.seconds for done in self.passes),
            "batch_ms": _spread(batches),
            "nodes_ms": {node: _spread(seconds) for node, seconds in nodes.items()},
            "waited_share": {
                what: statistics.median(done.waited[what] for done in self.passes) for what in self.passes[0].waited
            },
            "host_peak_bytes": max(done.host_peak or 0 for done in self.passes) or None,
            "gpu_peak_bytes": max(done.gpu_peak or 0 for done in self.passes) or None,
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
        "environment": environment(sides[0].graph),
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


def differences(mine: Mapping[str, Sequence[Answer]], theirs: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    """Which pictures the two answer differently: how many of how many, and the first of them by name.

    Answers are the same where the plates pair up, each with one of the same text at the same place.
    """
    names = sorted(mine.keys() | theirs.keys())
    pairs = {name: (mine.get(name, ()), theirs.get(name, ())) for name in names}
    differing = [name for name, (one, other) in pairs.items() if not _agree(one, other)]
    return {
        "pictures": len(names),
        "differing": len(differing),
        "first": [
            {"source": name, "one": _plates(pairs[name][0]), "other": _plates(pairs[name][1])}
            for name in differing[:NAMED]
        ],
    }


def _same(name: str) -> str:
    """A picture's name, the same however its path is spelt."""
    return os.path.realpath(name) if os.path.exists(name) else name  # noqa: PTH110


def _agree(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    left = list(other)
    for text, box in one:
        same = [item for item in left if item[0] == text and _overlap(box, item[1]) > SAME]
        if not same:
            return False
        left.remove(max(same, key=lambda item: _overlap(box, item[1])))
    return not left


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    return float(overlaps(torch.tensor([one]), torch.tensor([other])))


def _plates(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{"text": text, "box": [round(value, 1) for value in box]} for text, box in sorted(answers)]


def host_peak() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def forget_host_peak() -> None:
    """Let `host_peak` begin anew, which Linux alone can do."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile, in milliseconds."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": 1000 * statistics.median(ordered), "p95": 1000 * last}

"""`lprf run`: runs a recipe, and says how it went."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from lprf.cli.common import add_recipe_arguments, load
from lprf.errors import LprfError
from lprf.memory import lasting
from lprf.text import duration

if TYPE_CHECKING:
    from rich.console import Console

    from lprf.recipe import Recipe
    from lprf.stream import Summary

EXAMPLES = """\
Examples:
  lprf run read-plates                                       the bundled samples
  lprf run read-plates -s images.path=holiday/               a folder, a glob, or a list in a text file
  lprf run read-plates -s rectify.uses=core.crop             another rectifier
  lprf run read-plates -s draw=null                          without the pictures
  lprf run read-video -s video.path=drive.mp4 --device cuda
  lprf run my.yaml --plugin my_detector.py                   with a plugin that is not installed
  lprf run train-mtcnn -s vars.ccpd=data/CCPD2019 --dry-run  what would run, and why
  lprf run train-mtcnn --force onet                          train ONet again, and what follows it
  torchrun --nproc-per-node 4 -m lprf run train-mtcnn        on four GPUs

Results go to standard output and to files, progress to standard error.
Exit codes: 0 all well, 1 some inputs failed, 2 the recipe or the command is wrong, 130 interrupted, 143 terminated.
"""
NAMED_FAILURES = 20
SECONDS_BETWEEN_LINES = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N: short for -s runtime.device=…")
    parser.add_argument("--dry-run", action="store_true", help="training: say which stages would run and why")
    parser.add_argument("--force", action="append", default=[], metavar="STAGE", help="training: run a stage again")


def run(args: argparse.Namespace) -> int:
    if args.device:
        args.set = [*args.set, f"runtime.device={args.device}"]
    with lasting():
        recipe = load(args)
    if recipe.kind == "train":
        return _train(recipe, args)
    if args.dry_run or args.force:
        raise LprfError("--dry-run and --force are for training recipes; this one has no stages")
    return _infer(recipe)


def _infer(recipe: Recipe) -> int:
    with lasting():
        import numpy  # noqa: F401  # before torch, which swallows a Ctrl-C while it imports it

        from lprf.stream import build

        graph = build(recipe, recipe.plugins)
    noun = {"core.images": "photos", "core.crops": "pictures"}.get(graph.source_node.uses, "frames")
    try:
        with _progress(noun) as progress:
            graph.run(progress)
    except KeyboardInterrupt:
        print("interrupted after:", file=sys.stderr)
        _say(graph.summary, noun)
        raise
    _say(graph.summary, noun)
    return 1 if graph.summary.failed else 0


def _say(summary: Summary, noun: str) -> None:
    """The end of a run, on standard error: what was done, what failed and why, how fast, and where it is."""
    lines = [
        f"{summary.frames} {noun}, {summary.plates} plates, {summary.read} read, {summary.failed} failed; "
        f"{summary.seconds:.1f} s, {summary.rate:.1f} {noun} a second"
    ]
    if summary.dropped or summary.reconnects:
        lines += [f"{summary.dropped} frames dropped to keep up, {summary.reconnects} reconnections"]
    lines += [f"failed: {failure.name}: {failure.reason}" for failure in summary.failures[:NAMED_FAILURES]]
    if summary.failed > NAMED_FAILURES:
        lines += [f"failed: {summary.failed - NAMED_FAILURES} more"]
    lines += [f"written: {output}" for output in summary.outputs]
    print("\n".join(lines), file=sys.stderr)


@contextmanager
def _progress(noun: str) -> Iterator[Callable[[Summary], None]]:
    """A function to be told the summary so far: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(noun)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with (
        ExitStack() as after,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        ) as bar,
    ):
        if sys.stdout.isatty():
            after.enter_context(redirect_stdout(_Above(bar.console)))
        task = bar.add_task(noun, total=None, rate="")

        def told(summary: Summary) -> None:
            rate = f"{summary.rate:.1f} {noun}/s, {summary.plates} plates"
            bar.update(task, total=summary.total, completed=_done(summary), rate=rate)

        yield told


class _Above(io.TextIOBase):
    """Standard output on the terminal that has the bar: whole lines, put above it as they are."""

    def __init__(self, console: Console):
        self.console = console
        self.begun = ""

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        from rich.text import Text

        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            self.console.print(Text.from_ansi(line), soft_wrap=True)
        return len(text)


class _Lines:
    """Progress where there is no terminal: one line every ten seconds."""

    def __init__(self, noun: str):
        self.noun = noun
        self.last = time.monotonic()

    def __call__(self, summary: Summary) -> None:
        if time.monotonic() - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = time.monotonic()
        done = _done(summary)
        of = f" of {summary.total}" if summary.total is not None else ""
        line = f"{done}{of} {self.noun}, {summary.plates} plates, {summary.rate:.1f} {self.noun} a second"
        if summary.total is not None and summary.rate > 0:
            line += f", {duration((summary.total - done) / summary.rate)} left"
        print(line, file=sys.stderr, flush=True)


def _done(summary: Summary) -> int:
    """Items that are through; one that was read in part counts among the failures too."""
    done = summary.frames + summary.failed
    return done if summary.total is None else min(done, summary.total)


def _train(recipe: Recipe, args: argparse.Namespace) -> int:
    from lprf import stages
    from lprf.training import distributed

    result = stages.run(recipe, dry_run=args.dry_run, force=args.force)
    if distributed.is_first():
        print(result.summary())
    return 0

"""`lprf runs`: what training has been run in this folder, how far it came, and what it scored."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lprf.errors import LprfError
from lprf.plugins import suggest
from lprf.runs import TABLE, StageFolder, found_in, moment
from lprf.text import columns

EXAMPLES = """\
Examples:
  lprf runs                   every stage of every run, as it was done last
  lprf runs train-mtcnn       one run: all its stages, their folders, logs and every metric

Runs are looked for in the folder `runs`, where `lprf run` leaves them. A stage that is unfinished goes on when
the same `lprf run` is given again.
"""
ROOT = Path("runs")
SHOWN = 4  # metrics in the table of all runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="the name of a run: its recipe's name")


def run(args: argparse.Namespace) -> int:
    stages = found_in(ROOT)
    if args.name is not None:
        return _one(args.name, stages)
    if not stages:
        print(f"there are no training runs in {ROOT.resolve()}", file=sys.stderr)
        return 0
    last: dict[tuple[str, str], StageFolder] = {(stage.run, stage.name): stage for stage in stages}
    rows = [["RUN", "STAGE", "STATUS", "WHEN", "SECONDS", "METRICS"]]
    for stage in last.values():
        rows.append([stage.run, stage.name, stage.status, moment(stage.when), _seconds(stage), _said(stage, SHOWN)])
    print(columns(rows))
    return 0


def _one(name: str, stages: list[StageFolder]) -> int:
    """A run in full: every key under which each of its stages has run, the last one last, and its weights."""
    names = {stage.run for stage in stages}
    if name not in names:
        raise LprfError(f"there is no training run '{name}' in {ROOT.resolve()}{suggest(name, names)}")
    blocks = []
    for stage in stages:
        if stage.run != name:
            continue
        took = f", {_seconds(stage)} s" if stage.seconds is not None else ""
        lines = [f"{stage.name}: {stage.status}, {moment(stage.when)}{took}", f"  {stage.folder}"]
        lines += [f"  {key} {value:.6g}" for key, value in stage.metrics.items()]
        if stage.status != "done":
            row = stage.last_row()
            lines += [f"  {TABLE}: {', '.join(f'{key} {value}' for key, value in row.items() if value)}"] if row else []
        blocks.append("\n".join(lines))
    weights = sorted((ROOT / name / "weights").glob("*.safetensors"))
    blocks += ["\n".join(f"weights: {path}" for path in weights)] if weights else []
    print("\n".join(blocks))
    return 0


def _seconds(stage: StageFolder) -> str:
    return "" if stage.seconds is None else f"{stage.seconds:.0f}"


def _said(stage: StageFolder, count: int) -> str:
    """A stage in a few words: what it scored, or how far it is."""
    if stage.status == "done":
        return ", ".join(f"{key} {value:.4g}" for key, value in list(stage.metrics.items())[:count])
    row = stage.last_row()
    return ", ".join(f"{key} {row[key]}" for key in ("step", "loss") if row.get(key))

"""What runs of training graphs leave in their folders, read back without torch.

A stage's folder is `runs/<recipe>/<node>/<key>`. In it stand its lock, its `log.txt`, its checkpoint, the training
loop's `metrics.csv`, its outputs, and, written last, `stage.json`: where that is, the stage is done.
"""

from __future__ import annotations

import contextlib
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lprf.lock import Lock

DONE = "stage.json"
LOG = "log.txt"
LOCK = ".lock"
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.json"  # the training loop's, for the summary
TABLE = "metrics.csv"


@dataclass(frozen=True)
class StageFolder:
    """One stage of one run, as its folder tells it.

    status: "done"; "running", where a process has its lock; "unfinished": interrupted or failed, the log knows.
    done: what `stage.json` says, or nothing. when: seconds since 1970 of its end, or of its last sign of life.
    """

    run: str
    name: str
    folder: Path
    status: Literal["done", "running", "unfinished"]
    done: dict[str, Any]
    when: float

    @property
    def metrics(self) -> dict[str, float]:
        """Of a stage that is done."""
        found = self.done.get("metrics")
        return {k: v for k, v in found.items() if isinstance(v, int | float)} if isinstance(found, dict) else {}

    @property
    def seconds(self) -> float | None:
        """How long a stage that is done took."""
        found = self.done.get("seconds")
        return float(found) if isinstance(found, int | float) else None

    def last_row(self) -> dict[str, str]:
        """The last interval of training, where there was one: the step, the loss and so on."""
        rows: list[dict[str, str]] = []
        with contextlib.suppress(OSError, ValueError), (self.folder / TABLE).open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
        return rows[-1] if rows else {}


def read_done(folder: Path) -> dict[str, Any] | None:
    """What `stage.json` says, if the stage is done and its files are there."""
    try:
        content: dict[str, Any] = json.loads((folder / DONE).read_text(encoding="utf-8"))
        files = [where.get("path") or where.get("json") for where in content["outputs"].values()]
        whole = all((folder / file).exists() for file in files if file)
        return content if whole and content["key"] == folder.name else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def latest_done(folder: Path) -> dict[str, Any] | None:
    """Of all that a stage has done under different keys (`folder` is `runs/<recipe>/<node>`), the last."""
    done = []
    for path in folder.glob(f"*/{DONE}"):
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get("parts"), dict):
                done.append((path.stat().st_mtime, content))
    return max(done, key=lambda item: item[0])[1] if done else None


def found_in(root: Path) -> list[StageFolder]:
    """Every stage that has run below `root`: run by run in the order of their names, a run's stages as they ran."""
    folders = {path.parent for name in (DONE, LOG) for path in root.glob(f"*/*/*/{name}")}
    found = [_read(folder) for folder in folders]
    begun: dict[tuple[str, str], float] = {}
    for stage in found:
        key = (stage.run, stage.name)
        begun[key] = min(begun.get(key, stage.when), stage.when)
    return sorted(found, key=lambda s: (s.run, begun[s.run, s.name], s.name, s.when))


def _read(folder: Path) -> StageFolder:
    done = read_done(folder)
    when = 0.0
    for name in (DONE,) if done is not None else (LOG, CHECKPOINT, TABLE):
        with contextlib.suppress(OSError):
            when = max(when, (folder / name).stat().st_mtime)
    status: Literal["done", "running", "unfinished"] = "done" if done is not None else "unfinished"
    if done is None and Lock(folder / LOCK).held():
        status = "running"
    return StageFolder(folder.parent.parent.name, folder.parent.name, folder, status, done or {}, when)


def moment(when: float) -> str:
    """A time as tables show it, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when)) if when else ""

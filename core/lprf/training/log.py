"""What training tells: tables in CSV, TensorBoard where installed, and progress on the terminal."""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lprf.files import replacing
from lprf.text import duration

logger = logging.getLogger("lprf.training")


class Table:
    """A CSV file with a row a step; rows after step `start` (of a run that was interrupted) are dropped."""

    def __init__(self, path: Path, start: int = 0):
        self.path = path
        self.columns: list[str] = ["step"]
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                for row in reader:
                    # a line cut short by a crash has no full set of columns
                    if None not in row.values() and row.get("step", "").isdigit() and int(row["step"]) <= start:
                        self.rows.append(row)
                self.columns = list(reader.fieldnames or self.columns)
            self._write()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row; a value that has no column yet gets one."""
        row = {"step": step, **{key: f"{value:.6g}" for key, value in values.items()}}
        self.rows.append(row)
        new = [key for key in row if key not in self.columns]
        if new or len(self.rows) == 1:
            self.columns += new
            self._write()
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    def _write(self) -> None:
        with replacing(self.path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


class Board:
    """TensorBoard, where it is installed (`pip install lprf[tensorboard]`) and there is a folder; else nothing.

    Events are written here and now: TensorBoard's own writer does it in a thread, where a full disk is a stack trace.
    """

    def __init__(self, folder: Path | None, start: int = 0):
        self.file: Any = None
        if folder is None:
            return
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            return
        self.event, self.summary = Event, Summary
        path = folder / "tensorboard" / f"events.out.tfevents.{time.time():017.6f}.{platform.node()}.{os.getpid()}"
        path.parent.mkdir(exist_ok=True)
        self.file = path.open("wb", buffering=0)
        self.records = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        # what an interrupted run has shown after its last checkpoint is withdrawn
        self._write(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        if self.file is not None:
            finite = {key: value for key, value in values.items() if math.isfinite(value)}
            found = [self.summary.Value(tag=key, simple_value=value) for key, value in finite.items()]
            self._write(step=step, summary=self.summary(value=found))

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _write(self, **what: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **what).SerializeToString())


class Shown:
    """Progress as plain lines in the log, one in `every` seconds at most."""

    def __init__(self, name: str, every: float = 10.0):
        self.name, self.every = name, every
        self.last = -math.inf

    def update(self, step: int, text: str, left: float) -> None:
        """The present step, for a bar."""

    def line(self, text: str, always: bool = False) -> None:
        """A line about an interval; most of them are dropped where there are many a second."""
        if always or time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            logger.info("%s: %s", self.name, text)


class _Bar(Shown):
    """Progress as a bar on a terminal, beside the lines in the log."""

    def __init__(self, name: str, bar: Any, task: Any):
        super().__init__(name)
        self.bar, self.task = bar, task

    def update(self, step: int, text: str, left: float) -> None:
        self.bar.update(self.task, completed=step, text=f"{text}, {duration(left)} left")


@contextlib.contextmanager
def progress(name: str, steps: int, start: int) -> Iterator[Shown]:
    """A bar where a person watches a terminal, plain lines in the log elsewhere; nothing in further processes."""
    from lprf.training import distributed

    if not distributed.is_main():
        yield Shown(name, every=math.inf)
    elif not sys.stderr.isatty():
        yield Shown(name)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}")
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            yield _Bar(name, bar, bar.add_task(name, total=steps, completed=start, text=""))

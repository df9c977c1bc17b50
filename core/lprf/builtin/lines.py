"""What the sinks that write lines share: a file that is whole however the run ends."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TextIO

from lprf.data import Detections, Reading, Readings, readings_by_frame
from lprf.errors import LprfError


def of_frame(readings: Readings | None, detections: Detections | None) -> list[Reading]:
    """The plates of the one frame that a sink was given, from whichever of its ports is connected."""
    value = readings if readings is not None else detections
    return [] if value is None else readings_by_frame(value)[0]


class LineFile:
    """Lines are flushed as they come to `PATH.part` beside the file, which takes its place when it is closed.

    So the file itself is never half-written, and what a killed run had done can still be found. `follow` writes
    into the file itself; "-" is standard output. The file is opened at the first line, or when it is closed.
    """

    def __init__(self, path: str, follow: bool = False, newline: str = "\n"):
        self.path = Path(path)
        self.to_stdout = path == "-"
        self.newline = newline
        self.part = self.path if follow else self.path.with_name(self.path.name + ".part")
        self.file: TextIO | None = None
        if not self.to_stdout and self.path.is_dir():
            raise LprfError(f"{path}: is a folder; a file is to be written")

    @property
    def output(self) -> str | None:
        return None if self.to_stdout else str(self.path)

    def write(self, line: str) -> None:
        file = self._open()
        file.write(line + self.newline)

    def flush(self) -> None:
        """Whole lines go to the disk's cache, so that others can read them."""
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        if self.to_stdout:
            sys.stdout.flush()
            return
        file = self._open()
        file.flush()
        os.fsync(file.fileno())
        file.close()
        if self.part != self.path:
            self.part.replace(self.path)
        self.file = None

    def _open(self) -> TextIO:
        if self.file is None:
            if self.to_stdout:
                if isinstance(sys.stdout, io.TextIOWrapper):
                    sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal's language
                self.file = sys.stdout
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = self.part.open("w", encoding="utf-8", newline="")
        return self.file

"""What the sinks that write lines share: a file that is whole however the run ends."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TextIO

from lprf.data import Detections, Reading, Readings, readings_by_frame
from lprf.errors import LprfError
from lprf.lock import take


def of_frame(readings: Readings | None, detections: Detections | None) -> list[Reading]:
    """The plates of the one frame that a sink was given, from whichever of its ports is connected."""
    value = readings if readings is not None else detections
    return [] if value is None else readings_by_frame(value)[0]


class LineFile:
    """Lines are flushed as they come to `PATH.part` beside the file, which takes its place when it is closed.

    So the file itself is never half-written, and what a killed run had done can still be found: in `PATH.part`, and
    from the next run on in `PATH.part.before`. `follow` writes into the file itself, after what it holds, and so it is
    with a pipe or a device; "-" is standard output. The file is opened at the first line, or when it is closed, and
    begins with `header`. Raises LprfError where another run has it.
    """

    def __init__(self, path: str, follow: bool = False, newline: str = "\n", header: str = ""):
        self.path = Path(path)
        self.to_stdout = path == "-"
        self.newline, self.header = newline, header
        device = self.path.exists() and not self.path.is_file()
        self.target = self.path if device else Path(os.path.realpath(path))  # a link stays a link
        self.part = self.target if device or follow else self.target.with_name(self.target.name + ".part")
        self.file: TextIO | None = None
        self.place: Path | None = self.path  # where the lines are in the end
        if not self.to_stdout and self.path.is_dir():
            raise LprfError(f"{path}: is a folder; a file is to be written")

    @property
    def output(self) -> str | None:
        return None if self.to_stdout or self.place is None else str(self.place)

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
        self.file = None
        with file:
            file.flush()
            if self.part.is_file():
                os.fsync(file.fileno())
        if self.part != self.target:
            self.part.replace(self.target)

    def abandon(self) -> None:
        """Close what there is of a run that failed, and leave what stands in the file's place."""
        if self.to_stdout or self.part == self.target:
            self.close()
            return
        self.place = None
        if self.file is not None:
            self.place = self.part
            with contextlib.suppress(OSError):  # it was told already that the disk is full
                self.file.close()

    def _open(self) -> TextIO:
        if self.file is None:
            if self.to_stdout:
                if isinstance(sys.stdout, io.TextIOWrapper):
                    sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal's language
                self.file = sys.stdout
            else:
                self.part.parent.mkdir(parents=True, exist_ok=True)
                self.file = self._taken()
                if self.part != self.target and self.file.tell():  # of a run that was killed
                    self.part.replace(self.part.with_name(self.part.name + ".before"))
                    self.file.close()
                    self.file = self._taken()
            if self.header and (self.to_stdout or not self.file.seekable() or not self.file.tell()):
                self.file.write(self.header + self.newline)
        return self.file

    def _taken(self) -> TextIO:
        """The file, open to add to it, and nobody else's; a pipe or a device is everyone's."""
        file = self.part.open("a", encoding="utf-8", newline="")
        if self.part.is_file() and not take(file):
            file.close()
            self.place = None
            raise LprfError(f"{self.path}: another run is writing it; give one of them another file")
        return file

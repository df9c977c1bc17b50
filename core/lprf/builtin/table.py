"""`core.table`: readings as a table on standard output, row by row as they come."""

from __future__ import annotations

import sys
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from lprf.builtin.io_params import TableParams
from lprf.builtin.lines import of_frame
from lprf.context import Context
from lprf.data import Detections, Reading, Readings
from lprf.errors import printable

TEXT, CONFIDENCE, BOX = 12, 10, 24  # widths of the columns, in cells; the source has the rest


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process; the run ends itself, and in its own way."""
        raise


class Table:
    """One row a plate: text, confidence, box and source. Rows are written at once, so the columns are fixed.

    A text that does not fit the plate format that was asked for is marked with a `?`.
    """

    output: str | None = None

    def __init__(self, params: TableParams, context: Context):
        self.limit = params.limit
        self.plates = 0
        self.strange = 0
        self.began = False
        self.console = _Console(highlight=False, soft_wrap=True)  # writes to what sys.stdout is at the time

    def write(self, readings: Readings | None = None, detections: Detections | None = None, **_: Any) -> None:
        for reading in of_frame(readings, detections):
            self.plates += 1
            self.strange += reading.fits is False
            if self.limit is None or self.plates <= self.limit:
                self._row(reading, readings is not None)

    def fail(self, name: str, reason: str) -> None:
        """The summary names failures, on standard error."""

    def close(self) -> None:
        if self.limit is not None and self.plates > self.limit:
            self.console.print(f"… {self.plates - self.limit} more", markup=False)
        if self.strange:
            self.console.print(f"? fits no pattern of the plate format: {self.strange} of {self.plates}", markup=False)
        sys.stdout.flush()

    def _row(self, reading: Reading, read: bool) -> None:
        if not self.began:
            self._print(("plate", "confidence", "box", "source"), style="bold")
            self.began = True
        score = reading.confidence if read else reading.detection_score
        box = " ".join(f"{value:.0f}" for value in reading.box)
        frame = f" #{reading.frame}" if reading.frame else ""
        confidence = "" if score is None else f"{score:.1%}"
        text = (reading.text or "–") + (" ?" if reading.fits is False else "")
        self._print((text, confidence, box, printable(reading.source) + frame))

    def _print(self, cells: tuple[str, str, str, str], style: str | None = None) -> None:
        text, confidence, box, source = cells
        line = " ".join([_fit(text, TEXT), _fit(confidence, CONFIDENCE), _fit(box, BOX), source])
        self.console.print(line, markup=False, style=style)


def _fit(text: str, width: int) -> str:
    """Filled up to `width` cells (a Chinese character has two); longer text is left whole."""
    return text if cell_len(text) >= width else set_cell_size(text, width)

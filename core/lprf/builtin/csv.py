"""`core.csv`: a row a detection, for spreadsheets."""

from __future__ import annotations

import csv
import io
from typing import Any

from lprf.builtin.images import show
from lprf.builtin.io_params import CsvParams
from lprf.builtin.lines import LineFile, of_frame
from lprf.context import Context
from lprf.data import Detections, Readings

COLUMNS = (
    *("source", "frame", "time", "text", "confidence", "x1", "y1", "x2", "y2", "detection_score"),
    *("fits", "error"),  # fits: whether the text fits the plate format, where one was asked for
)


class Csv:
    """UTF-8 with a byte-order mark, which spreadsheets need to show Chinese; lines end in CR LF."""

    def __init__(self, params: CsvParams, context: Context):
        mark = "" if params.path == "-" else "\ufeff"
        self.file = LineFile(params.path, params.follow, newline="\r\n", header=mark + ",".join(COLUMNS))

    @property
    def output(self) -> str | None:
        return self.file.output

    def write(self, readings: Readings | None = None, detections: Detections | None = None, **_: Any) -> None:
        for reading in of_frame(readings, detections):
            row = reading.as_json()
            fits = None if reading.fits is None else str(reading.fits).lower()
            values = [*(row[name] for name in COLUMNS[1:5]), *row["box"], row["detection_score"], fits]
            self._row([show(reading.source), *values])
        self.file.flush()

    def fail(self, name: str, reason: str) -> None:
        self._row([show(name), *[None] * (len(COLUMNS) - 2), show(reason)])
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def abandon(self) -> None:
        self.file.abandon()

    def _row(self, values: list[Any]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow([*values, *[None] * (len(COLUMNS) - len(values))])
        self.file.write(line.getvalue())

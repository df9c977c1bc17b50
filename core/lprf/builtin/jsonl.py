"""`core.jsonl`: a JSON object a line, one a detection, or one a file that could not be read."""

from __future__ import annotations

import json
import re
from typing import Any

from lprf.builtin.io_params import JsonlParams
from lprf.builtin.lines import LineFile, of_frame
from lprf.context import Context
from lprf.data import Detections, Readings


class Jsonl:
    """UTF-8; bytes of a name that are no UTF-8 stand as \\udcXX, so a line gives back the name it was made of."""

    def __init__(self, params: JsonlParams, context: Context):
        self.file = LineFile(params.path, params.follow)

    @property
    def output(self) -> str | None:
        return self.file.output

    def write(self, readings: Readings | None = None, detections: Detections | None = None, **_: Any) -> None:
        for reading in of_frame(readings, detections):
            self.file.write(dumps(reading.as_json()))
        self.file.flush()

    def fail(self, name: str, reason: str) -> None:
        self.file.write(dumps({"source": name, "error": reason}))
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def abandon(self) -> None:
        self.file.abandon()


def dumps(value: Any) -> str:
    """JSON in one line, readable, and always encodable as UTF-8: lone surrogates are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match.group()):04x}", text)

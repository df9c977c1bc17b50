"""What evaluations and audits say: their numbers as tables, and these on the console."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from lprf.stream import Graph

ROWS = 12  # of a long table on the console; the report has all of them
MANY_GROUPS = 10  # up to so many groups stand side by side, as papers print them; more stand one below the other


@dataclass
class Table:
    """Text by row and column. brief: the console shows the first rows only."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    brief: bool = False


def environment(graph: Graph) -> dict[str, Any]:
    """What a graph was measured with."""
    device = graph.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "command": shlex.join(["lprf", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "lprf": importlib.metadata.version("lprf"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "backend": graph.backend,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "system": platform.platform(),
        "device": f"{device} ({name})",
        "threads": graph.threads,
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


# ---------------------------------------------------------------------------------------------------------- in words


def percent(rate: Mapping[str, Any] | None, count: bool = True) -> str:
    """A rate as "69.5 % (61.1–76.8), 89 of 128"."""
    if not rate or rate["value"] is None:
        return "–"
    low, high = rate["interval"]
    counted = f", {rate['hits']} of {rate['total']}" if count else ""
    return f"{rate['value']:.1%}".replace("%", " %") + f" ({100 * low:.1f}–{100 * high:.1f}){counted}"


def short(rate: Mapping[str, Any] | None) -> str:
    return "–" if not rate or rate["value"] is None else f"{100 * rate['value']:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def tables(content: Mapping[str, Any]) -> list[Table]:
    """A report's numbers as tables, the most telling ones first."""
    found = []
    if "detection" in content:
        found.append(_detection(content))
    if "reading" in content:
        found.append(_reading(content))
    if len(content["groups"]) > 1:
        found.append(_parts("by group", content["groups"], content, sideways=len(content["groups"]) <= MANY_GROUPS))
    if len(content["provinces"]) > 1:
        found.append(_parts("by province", content["provinces"], content))
    if "confusion" in content:
        found += _confusion(content["confusion"])
    return found


def _detection(content: Mapping[str, Any]) -> Table:
    header = ["overlap", "recall (95 %)", "precision (95 %)", "F1", "average precision", "false boxes", "a picture"]
    rows = [
        [
            f"IoU {iou}",
            percent(at["recall"]),
            percent(at["precision"]),
            number(at["f1"]),
            number(at["average_precision"]),
            str(at["false_boxes"]),
            number(at["false_boxes_a_picture"]),
        ]
        for iou, at in content["detection"].items()
    ]
    return Table("detection", header, rows)


def _reading(content: Mapping[str, Any]) -> Table:
    reading = content["reading"]
    names = {"end_to_end": f"found (IoU {content['iou']:g}) and read", "given_found": "read, of those found"}
    if "end_to_end" not in reading:
        names["given_found"] = "read"
    rows = [
        [name, *(percent(reading[key][what]) for what in ("plates", "characters", "without_first"))]
        for key, name in names.items()
        if key in reading
    ]
    if "ccpd" in reading:
        rows.append(["CCPD's rule: IoU > 0.6, all right", percent(reading["ccpd"]), "", ""])
    header = ["", "whole plate (95 %)", "characters (95 %)", "all but the first character (95 %)"]
    return Table("reading", header, rows)


def _parts(title: str, parts: Mapping[str, Any], content: Mapping[str, Any], sideways: bool = False) -> Table:
    """One row a part; `sideways`, one column a part."""
    header = ["", *([] if title == "by province" else ["pictures"]), "plates"]
    main = f"{content['iou']:g}"
    overlaps = list(content.get("detection", {}))
    header += [f"found at IoU {iou}" for iou in overlaps]
    whole = bool(overlaps) and title != "by province"
    header += [f"AP at IoU {overlaps[-1]}", "false boxes a picture"] if whole else []
    both = "end_to_end" in content.get("reading", {})
    if "reading" in content:
        header += ["found and read", "read, of those found", "CCPD's rule"] if both else ["read", "but for the first"]
    rows = []
    for name, part in {"all": content, **parts}.items() if title != "by province" else parts.items():
        row = [name or "(none)", *([str(part["pictures"])] if part.get("pictures") is not None else [])]
        row = row if part is not content else ["all", str(content["counts"]["pictures"])]
        row.append(str(part["plates"] if part is not content else content["counts"]["plates"]))
        row += [short(part["detection"][iou]["recall"]) for iou in overlaps]
        if whole:
            row.append(number(part["detection"][overlaps[-1]]["average_precision"]))
            row.append(number(part["detection"][main]["false_boxes_a_picture"]))
        reading = part.get("reading", {})
        if "reading" in content and both:
            row += [short(reading.get(key, {}).get("plates")) for key in ("end_to_end", "given_found")]
            row.append(short(reading.get("ccpd")))
        elif "reading" in content:
            row += [short(reading.get("given_found", {}).get(what)) for what in ("plates", "without_first")]
        rows.append(row)
    if sideways:
        header, *rows = [list(column) for column in zip(header, *rows, strict=True)]
    return Table(title, header, rows, brief=not sideways)


def _confusion(confusion: Mapping[str, Any]) -> list[Table]:
    positions = Table(
        "by position",
        [str(i + 1) for i in range(len(confusion["positions"]))],
        [[short(rate) for rate in confusion["positions"]]],
        note="characters right at each position of the plate, of plates that were found",
    )
    wrong = [
        [
            name,
            percent(c),
            ", ".join(f"{read or 'nothing'} ({n})" for read, n in list(c["read_as"].items())[:5]),
        ]
        for name, c in sorted(confusion["characters"].items(), key=lambda item: item[1]["hits"] - item[1]["total"])
        if c["hits"] < c["total"]
    ]
    note = ""
    if confusion["too_many"]:
        extra = ", ".join(f"{read} ({n})" for read, n in list(confusion["too_many"].items())[:10])
        note = f"read where there is no character: {extra}"
    if not wrong and not note:
        return [positions]
    return [positions, Table("by character", ["", "right (95 %)", "read as"], wrong, note, brief=True)]


def comparison(content: Mapping[str, Any]) -> Table:
    """What `lprf compare` measured, a row a combination; one that could not be measured says why."""
    rows = content["rows"]
    parts = [part for part in rows[0]["parts"] if any(row["parts"][part] for row in rows)]
    rates = {
        "found": f"found at IoU {content['iou']:g} (95 %)",
        "found_and_read": "found and read (95 %)",
        "read_if_found": "read, of those found (95 %)",
    }
    rates = {key: name for key, name in rates.items() if any(row.get(key) for row in rows)}
    if list(rates) == ["read_if_found"]:
        rates = {"read_if_found": "read (95 %)"}
    cells = [
        [
            *(row["parts"][part] or "" for part in parts),
            *(percent(row.get(key)) for key in rates),
            number(row.get("latency_ms"), 1),
            number(row.get("pictures_a_second"), 1),
            row["reason"],
        ]
        for row in rows
    ]
    header = [*parts, *rates.values(), "ms a picture", "pictures a second", ""]
    if not any(row["reason"] for row in rows):
        header, cells = header[:-1], [row[:-1] for row in cells]
    title = f"{content['recipe']} on {content['pictures']} pictures with {content['plates']} plates"
    note = (
        f"ms a picture: median from a decoded picture to its readings, one at a time; pictures a second: decoding and "
        f"all, batches of {content['batch']}; both on {content['timed']} of the pictures"
    )
    return Table(title, header, cells, note)


def remarks(content: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers should know, a sentence each."""
    counts, lines = content["counts"], []
    if counts["unread_pictures"]:
        lines.append(
            f"{counts['unread_pictures']} pictures could not be read; they and their "
            f"{counts['plates_of_unread_pictures']} plates count in no rate"
        )
    if counts["failed_pictures"]:
        lines.append(f"at {counts['failed_pictures']} pictures a component failed; their plates count as missed")
    if counts["smaller_plates"]:
        lines.append(f"{counts['smaller_plates']} labelled plates smaller than asked for count neither way")
    if counts["plates"] > counts["plates_with_text"]:
        lines.append(f"{counts['plates'] - counts['plates_with_text']} plates have no text: detection only")
    if counts.get("plates_beyond_the_alphabet"):
        lines.append(
            f"{counts['plates_beyond_the_alphabet']} plates have characters that the recognizer does not know and "
            f"so gets wrong: {counts['characters_beyond_the_alphabet']}"
        )
    if content["skipped"]:
        lines.append(f"{len(content['skipped'])} labels were skipped, such as {content['skipped'][0]}")
    if "confidence" in content:
        error = number(content["confidence"]["expected_calibration_error"])
        shares = content["confidence"]["coverage_at_risk"]
        lines.append(
            f"confidence: expected calibration error {error}; of the most confident {100 * shares['0.01']:.1f} % of "
            f"readings at most 1 % are wrong, of the most confident {100 * shares['0.001']:.1f} % at most 0.1 %"
        )
    return lines


# -------------------------------------------------------------------------------------------------- on the console


def show_tables(content: Mapping[str, Any]) -> None:
    """Print a report's tables and remarks on standard output."""
    console = stdout()
    counts = content["counts"]
    console.print(
        f"{content['provenance']['recipe']}: {counts['pictures']} pictures, {counts['plates']} plates", markup=False
    )
    for table in tables(content):
        print_table(console, table)
    for line in remarks(content):
        console.print(line, markup=False)
    for kind in ("unread", "failed"):
        for failure in content["failures"][kind][:ROWS]:
            console.print(f"{kind}: {failure['source']}: {failure['reason']}", markup=False)
        more = content["failures"]["totals"][kind] - ROWS
        if more > 0:
            console.print(f"{kind}: {more} more")
    sys.stdout.flush()


def stdout() -> Console:
    """Standard output, wide where nobody looks at it."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 200)


def print_table(console: Console, table: Table) -> None:
    """Print one table; a brief one by its first rows."""
    console.print(table.title, style="bold", markup=False)
    shown = RichTable(box=None, pad_edge=False)
    for i, name in enumerate(table.header):
        shown.add_column(Text(name), justify="left" if i == 0 else "right", min_width=min(cell_len(name), 6))
    rows = table.rows[:ROWS] if table.brief else table.rows
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    if len(rows) < len(table.rows):
        console.print(f"… {len(table.rows) - len(rows)} more")
    if table.note:
        console.print(table.note, markup=False)

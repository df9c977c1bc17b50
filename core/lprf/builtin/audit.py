"""`core.audit`: what train, val and test hold, and what they share.

A plate or a picture that stands in two of them makes the numbers of the one say little about the other.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from lprf.builtin.images import show
from lprf.builtin.params import AuditParams
from lprf.builtin.report import ROWS, Table, print_table
from lprf.context import Context
from lprf.data import Dataset, Truth
from lprf.errors import InputFailure, LprfError
from lprf.files import replacing
from lprf.training import distributed

logger = logging.getLogger("lprf.audit")

SIDES = (8, 12)  # of the grids whose gradients' signs are a picture's hash: a coarse one to search by, a fine one
COARSE, FINE = 7, 24  # pictures that differ in at most so many of 128, and of 288, bits are one
BANDS = 8  # of the coarse hash; more than COARSE, so that two hashes that near share a band whole
BYTES = 2 * SIDES[0] ** 2 // 8  # of the coarse hash
PAIRS = 1 << 20  # that are compared at a time
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
NAMED = 1000  # of shared plates and pictures, so many are named in the file


class Audit:
    """A transform that gives its inputs back unchanged, after a report on them.

    Raises LprfError where two of them share a plate's text or a picture, unless `allow_leakage`. Pictures are
    compared by what they show: one that was resized, brightened or compressed anew is the same.
    """

    def __init__(self, params: AuditParams, context: Context):
        self.params = params
        self.context = context

    def run(self, **parts: Dataset) -> dict[str, Dataset]:
        if not parts:
            raise LprfError(f"{self.context.node or 'core.audit'}: connect train, val or test")
        content = self.report(parts)
        if distributed.is_main():
            _print(content)
            if self.params.path is not None:
                text = json.dumps(content, ensure_ascii=False, indent=1)
                with replacing(Path(self.params.path)) as beside:
                    beside.write_text(text, encoding="utf-8")
                logger.info("report: %s", self.params.path)
        if content["leakage"]["found"] and not self.params.allow_leakage:
            raise LprfError(_leak(content["leakage"]))
        return parts

    def report(self, parts: Mapping[str, Dataset]) -> dict[str, Any]:
        """What `parts` hold and share, as JSON's types."""
        described, texts = {}, {}
        for name, dataset in parts.items():
            described[name], texts[name] = _described(dataset)
        shared = _shared_plates(texts)
        found: dict[str, Any] = {"plates": {"total": len(shared), "named": shared[:NAMED]}}
        if self.params.content:
            hashes = {name: self._hashes(dataset) for name, dataset in parts.items()}
            for name, rows in hashes.items():
                described[name]["unread"] = [
                    {"source": show(parts[name][int(row)].source), "reason": reason} for row, reason in rows[1].items()
                ]
            found["pictures"], within = _shared_pictures(parts, {name: rows for name, (rows, _) in hashes.items()})
            for name, count in within.items():
                described[name]["repeated_pictures"] = count
        leakage = {"found": any(what["total"] for what in found.values()), "parts": list(parts), **found}
        return {"parts": described, "leakage": leakage}

    def _hashes(self, dataset: Dataset) -> tuple[np.ndarray, dict[int, str]]:
        """The pictures' hashes, uint8 [N, 52], and why some have none; kept, so that a later run reads them."""
        kept = None
        if self.context.folder is not None:
            kept = self.context.folder / f"hashes-{dataset.fingerprint()[:16]}.npz"
            if kept.is_file():
                with np.load(kept) as file:
                    reasons = dict(zip(file["rows"].tolist(), file["reasons"].tolist(), strict=True))
                    return file["hashes"], reasons
        hashes = np.zeros((len(dataset), sum(2 * side * side // 8 for side in SIDES)), np.uint8)
        reasons = {}

        def fill(index: int) -> tuple[int, str]:
            try:
                hashes[index] = picture_hash(dataset[index].image())
                return index, ""
            except InputFailure as failure:
                return index, failure.reason

        with ThreadPoolExecutor(max(1, self.context.workers)) as pool:
            for start in range(0, len(dataset), 1000):  # so that few wait in the pool
                for index, reason in pool.map(fill, range(start, min(start + 1000, len(dataset)))):
                    if reason:
                        reasons[index] = reason
        if kept is not None and distributed.is_main():
            with replacing(kept) as beside:
                rows, texts = (
                    np.array(list(reasons), np.int64),
                    np.array([show(text) for text in reasons.values()], str),
                )
                np.savez_compressed(beside, hashes=hashes, rows=rows, reasons=texts)
        return hashes, reasons


def picture_hash(image: np.ndarray) -> np.ndarray:
    """The signs of brightness gradients, across and down, on a coarse and a fine grid, uint8 [52]: 128 and 288 bits.

    Of 1,600 photos and plates no two different ones were nearer than 16 and 46 bits but for shots of one scene;
    resized to 80 %, brightened and compressed at quality 50, photos moved by 2 and 4 bits (the median), 9 and 19 at
    most. Plates of 94 × 24 pixels stand that less well.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    bits = []
    for side in SIDES:
        across = cv2.resize(grey, (side + 1, side), interpolation=cv2.INTER_AREA).astype(np.int16)
        down = cv2.resize(grey, (side, side + 1), interpolation=cv2.INTER_AREA).astype(np.int16)
        bits += [(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()]
    return np.packbits(np.concatenate(bits))


def near(hashes: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Pairs of rows (a < b) of one picture, and in how many bits their hashes differ; each once."""
    coarse = np.ascontiguousarray(hashes[:, :BYTES])
    bands, words = coarse.view(np.uint16), coarse.view(np.uint64)
    for band in range(BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        edges = np.flatnonzero(np.diff(bands[order, band])) + 1
        for rows in np.split(order, edges):
            step = max(1, PAIRS // max(1, len(rows)))
            for start in range(0, len(rows) - 1, step):
                some, others = rows[start : start + step], rows[start:]
                differing = np.bitwise_count(words[some, None] ^ words[None, others]).sum(axis=2, dtype=np.uint8)
                i, j = np.nonzero(differing <= COARSE)
                a, b = some[i[i < j]], others[j[i < j]]
                new = (bands[a, :band] != bands[b, :band]).all(axis=1)  # else an earlier band has found them
                a, b = a[new], b[new]
                bits = np.bitwise_count(hashes[a] ^ hashes[b])
                same = bits[:, BYTES:].sum(axis=1) <= FINE
                yield from zip(a[same].tolist(), b[same].tolist(), bits[same].sum(axis=1).tolist(), strict=True)


def _described(dataset: Dataset) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The distribution of a dataset, and the sources of each text."""
    texts: dict[str, list[str]] = defaultdict(list)
    provinces: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    groups: Counter[str] = Counter()
    widths, heights, tilts = [], [], []
    plates = 0
    for index in range(len(dataset)):
        example = dataset[index]
        groups[example.group] += 1
        for plate in example.plates:
            plates += 1
            x1, y1, x2, y2 = plate.box
            widths.append(x2 - x1)
            heights.append(y2 - y1)
            if plate.corners is not None:
                tilts.append(_tilt(plate))
            if plate.text:
                texts[plate.text].append(example.source)
                lengths[len(plate.text)] += 1
                provinces[plate.attributes.get("province") or "(none)"] += 1
    described = {
        "pictures": len(dataset),
        "plates": plates,
        "without_text": plates - sum(lengths.values()),
        "texts": len(texts),
        "skipped": [show(problem) for problem in dataset.problems],
        "groups": dict(groups.most_common()),
        "provinces": dict(provinces.most_common()),
        "lengths": {str(length): count for length, count in sorted(lengths.items())},
        "width": _quantiles(widths),
        "height": _quantiles(heights),
        "tilt": _quantiles(tilts),
    }
    return described, texts


def _tilt(plate: Truth) -> float:
    """Degrees by which the plate's upper and lower edges fall to the right, on the screen."""
    assert plate.corners is not None
    top_left, top_right, bottom_right, bottom_left = plate.corners.astype(np.float64)
    across = top_right - top_left + bottom_right - bottom_left
    return math.degrees(math.atan2(across[1], across[0]))


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        f"{q:g}": round(float(value), 2) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }


def _shared_plates(texts: Mapping[str, Mapping[str, list[str]]]) -> list[dict[str, Any]]:
    """Texts that stand in more than one part, those of most pictures first."""
    everywhere: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name, own in texts.items():
        for text, sources in own.items():
            everywhere[text][name] = sources
    shared = [
        {
            "text": text,
            "pictures": {name: len(sources) for name, sources in parts.items()},
            "examples": {name: show(sources[0]) for name, sources in parts.items()},
        }
        for text, parts in everywhere.items()
        if len(parts) > 1
    ]
    return sorted(shared, key=lambda item: (-sum(item["pictures"].values()), item["text"]))


def _shared_pictures(
    parts: Mapping[str, Dataset], hashes: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Pictures of one part that are in another as well: how many pairs, and which, the most alike first.

    And how many of each part repeat one before them.
    """
    names = list(parts)
    part = np.concatenate([np.full(len(hashes[name]), i) for i, name in enumerate(names)])
    row = np.concatenate([np.arange(len(hashes[name])) for name in names])
    together = np.concatenate([hashes[name] for name in names])
    # a picture without any gradient, or one that could not be read, is like no other
    some = np.flatnonzero(together.any(axis=1))
    repeated: dict[str, set[int]] = {name: set() for name in names}
    total = 0

    def across() -> Iterator[tuple[int, int, int]]:
        nonlocal total
        for first, second, bits in near(together[some]):
            a, b = some[first], some[second]
            if part[a] == part[b]:
                repeated[names[part[a]]].add(int(row[b]))
            else:
                total += 1
                yield bits, a, b

    nearest = heapq.nsmallest(NAMED, across(), key=lambda pair: pair[0])  # of one scene's photos there may be millions
    named = [
        {"pictures": {names[part[i]]: show(parts[names[part[i]]][int(row[i])].source) for i in pair}, "bits": bits}
        for bits, *pair in nearest
    ]
    return {"total": total, "named": named}, {name: len(rows) for name, rows in repeated.items()}


def _leak(leakage: Mapping[str, Any]) -> str:
    """The error's words."""
    said, examples = [], []
    shared = [item["pictures"] for what in ("plates", "pictures") for item in leakage.get(what, {}).get("named", [])]
    parts = [part for part in leakage["parts"] if any(part in pictures for pictures in shared)]
    if total := leakage["plates"]["total"]:
        said.append("1 plate" if total == 1 else f"{total} plates")
        first = leakage["plates"]["named"][0]
        examples.append(f"{first['text']} ({', '.join(f'{name} {n}' for name, n in first['pictures'].items())})")
    if total := leakage.get("pictures", {}).get("total"):
        said.append("1 picture" if total == 1 else f"{total} pairs of pictures")
        pair = leakage["pictures"]["named"][0]["pictures"]
        examples.append(" and ".join(f"{name}'s {source}" for name, source in pair.items()))
    return (
        f"{' and '.join(parts)} share {' and '.join(said)}, such as {'; '.join(examples)}. core.split makes "
        "parts that share no plate; with allow_leakage: true the audit only reports"
    )


def _print(content: Mapping[str, Any]) -> None:
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    parts = content["parts"]
    names = list(parts)

    def row(title: str, value: Any) -> list[str]:
        return [title, *(value(parts[name]) for name in names)]

    def spread(key: str) -> list[str]:
        return row(
            f"{key}, 5 to 50 to 95 %",
            lambda p: " to ".join(str(round(p[key][q])) for q in ("0.05", "0.5", "0.95")) if p[key] else "–",
        )

    rows = [
        row("pictures", lambda p: str(p["pictures"])),
        row("plates", lambda p: str(p["plates"])),
        row("without text", lambda p: str(p["without_text"])),
        row("different texts", lambda p: str(p["texts"])),
        row("labels skipped", lambda p: str(len(p["skipped"]))),
    ]
    if any("unread" in part for part in parts.values()):
        rows.append(row("pictures that cannot be read", lambda p: str(len(p["unread"]))))
        rows.append(row("pictures that repeat another", lambda p: str(p["repeated_pictures"])))
    rows += [spread("width"), spread("height"), spread("tilt")]
    print_table(console, Table("what is there", ["", *names], rows))
    for what in ("provinces", "lengths", "groups"):
        keys = list(dict.fromkeys(key for part in parts.values() for key in part[what]))
        if len(keys) > 1:
            print_table(console, Table(what, ["", *names], [_share(key, what, parts) for key in keys], brief=True))
    for name, part in parts.items():
        for line in [*part["skipped"][:5], *(f"{f['source']}: {f['reason']}" for f in part.get("unread", ())[:5])]:
            console.print(f"{name}: {line}", markup=False)
    leakage = content["leakage"]
    shared = [
        [item["text"], *(str(item["pictures"].get(name, "")) for name in names)] for item in leakage["plates"]["named"]
    ]
    if shared:
        title = f"plates that stand in more than one part: {leakage['plates']['total']}"
        print_table(console, Table(title, ["", *names], shared, brief=True))
    elif len(names) > 1:
        console.print("plates that stand in more than one part: none")
    if "pictures" in leakage and len(names) > 1:
        console.print(f"pictures that stand in more than one part: {leakage['pictures']['total'] or 'none'}")
        for item in leakage["pictures"]["named"][:ROWS]:
            pair = ", ".join(f"{name}: {source}" for name, source in item["pictures"].items())
            console.print(f"  {pair} ({item['bits']} of 416 bits differ)", markup=False)


def _share(key: str, what: str, parts: Mapping[str, Any]) -> list[str]:
    cells = []
    for part in parts.values():
        count, total = part[what].get(key, 0), max(1, sum(part[what].values()))
        cells.append(f"{count} ({100 * count / total:.1f} %)")
    return [key or "(none)", *cells]

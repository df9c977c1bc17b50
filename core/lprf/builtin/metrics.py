"""What a plate reader is measured by. Plain numpy, float64; nothing here knows of recipes or files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """So many of so many, with Wilson's score interval.

    From *Probable Inference, the Law of Succession, and Statistical Inference* (Wilson, 1927).
    """

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else math.nan

    def interval(self, z: float = Z95) -> tuple[float, float]:
        """The interval that holds the true rate with 95 % confidence (by the default `z`)."""
        if not self.total:
            return math.nan, math.nan
        p, n = self.value, self.total
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_json(self) -> dict[str, Any]:
        if not self.total:
            return {"value": None, "hits": 0, "total": 0, "interval": None}
        low, high = self.interval()
        return {
            "value": round(self.value, 6),
            "hits": self.hits,
            "total": self.total,
            "interval": [round(low, 6), round(high, 6)],
        }


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of half-open boxes: [N, 4] and [M, 4], x1 y1 x2 y2, to float64 [N, M]."""
    a = np.asarray(a, np.float64).reshape(-1, 4)
    b = np.asarray(b, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None] + (b[:, 2:] - b[:, :2]).prod(axis=1)[None, :]
    union = areas - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def match(boxes: np.ndarray, scores: np.ndarray, truths: np.ndarray, iou: float) -> np.ndarray:
    """The truth that each detection of one photo finds, int64 [N], -1 where it finds none.

    Greedy, as COCO does it: by descending score, each detection takes the truth it overlaps most among those that
    are still free, where that overlap is at least `iou`.
    """
    found = np.full(len(boxes), -1, np.int64)
    if not len(boxes) or not len(truths):
        return found
    overlaps = iou_matrix(boxes, truths)
    for row in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= iou and overlaps[row, best] > 0:
            found[row] = best
            overlaps[:, best] = -1
    return found


def average_precision(scores: Sequence[float] | np.ndarray, hits: Sequence[bool] | np.ndarray, truths: int) -> float:
    """The area under precision over recall, each precision raised to the best at that recall or beyond.

    Every recall that occurs counts (as PASCAL VOC since 2010), not a grid of 101 as in COCO. Detections of one score
    are taken together, so that their order cannot matter. NaN where there are no truths.
    """
    if not truths:
        return math.nan
    recalls, precisions, _ = precision_recall(scores, hits, truths)
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    steps = np.diff(np.concatenate([[0.0], recalls]))
    return float((steps * envelope).sum())


def precision_recall(
    scores: Sequence[float] | np.ndarray, hits: Sequence[bool] | np.ndarray, truths: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recalls, precisions and thresholds at every distinct score, descending; float64, [K] each."""
    scores = np.asarray(scores, np.float64)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    right = np.cumsum(np.asarray(hits, bool)[order])
    last = np.flatnonzero(np.diff(scores, append=-np.inf)) if len(scores) else np.zeros(0, np.int64)
    return right[last] / max(truths, 1), right[last] / (last + 1), scores[last]


def f1(precision: float, recall: float) -> float:
    """The harmonic mean, 0 where both are 0, NaN where either is."""
    if math.isnan(precision) or math.isnan(recall):
        return math.nan
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def align(truth: str, text: str) -> list[tuple[str, str]]:
    """Pairs (character of the truth, character read) of one alignment with the fewest edits (Levenshtein).

    "" stands on the right where a character was missed, on the left where one was read too many.
    """
    if truth == text:
        return list(zip(truth, text, strict=True))
    rows, columns = len(truth) + 1, len(text) + 1
    cost = np.zeros((rows, columns), np.int64)
    cost[:, 0] = range(rows)
    cost[0, :] = range(columns)
    for i in range(1, rows):
        for j in range(1, columns):
            swap = cost[i - 1, j - 1] + (truth[i - 1] != text[j - 1])
            cost[i, j] = min(swap, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    pairs = []
    i, j = rows - 1, columns - 1
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (truth[i - 1] != text[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((truth[i], text[j]))
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            pairs.append((truth[i], ""))
        else:
            j -= 1
            pairs.append(("", text[j]))
    return pairs[::-1]


def edit_distance(truth: str, text: str) -> int:
    """The fewest characters to change, add or take away."""
    if truth == text:
        return 0
    return sum(a != b for a, b in align(truth, text))


def right_characters(truth: str, text: str) -> int:
    """Characters of the truth less the edits that the reading needs, 0 at least."""
    return max(0, len(truth) - edit_distance(truth, text))


@dataclass(frozen=True)
class Confusion:
    """What was read for what.

    pairs: (truth, read) and how often, right ones included; "" for missed and for additional characters.
    positions: by position in the truth, how many were right.
    """

    pairs: Counter[tuple[str, str]]
    positions: list[Rate]


def confusion(readings: Iterable[tuple[str, str]]) -> Confusion:
    """Count (truth, text) pairs character by character."""
    pairs: Counter[tuple[str, str]] = Counter()
    right: Counter[int] = Counter()
    total: Counter[int] = Counter()
    for truth, text in readings:
        position = 0
        for expected, read in align(truth, text):
            pairs[expected, read] += 1
            if expected:
                total[position] += 1
                right[position] += expected == read
                position += 1
    return Confusion(pairs, [Rate(right[position], total[position]) for position in sorted(total)])


@dataclass(frozen=True)
class Bin:
    """Readings whose confidence lies in one range."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> tuple[float, list[Bin]]:
    """Expected calibration error over bins of equal width, and the bins that hold anything.

    From *On Calibration of Modern Neural Networks* (Guo et al., 2017). NaN for no readings.
    """
    values = np.asarray(confidences, np.float64)
    hits = np.asarray(right, np.float64)
    if not len(values):
        return math.nan, []
    place = np.clip(np.ceil(values * bins) - 1, 0, bins - 1).astype(np.int64)
    filled = []
    error = 0.0
    for index in range(bins):
        here = place == index
        count = int(here.sum())
        if count:
            confidence, accuracy = float(values[here].mean()), float(hits[here].mean())
            filled.append(Bin(index / bins, (index + 1) / bins, count, confidence, accuracy))
            error += count / len(values) * abs(confidence - accuracy)
    return error, filled


def risk_coverage(confidences: Sequence[float], right: Sequence[bool]) -> tuple[np.ndarray, np.ndarray, float]:
    """Coverage and risk at every distinct confidence, and the area under risk over coverage.

    Coverage is the share of readings at or above a confidence, risk the share of wrong ones among them. The area is
    the mean risk over the readings, most confident first, with those of one confidence taken together.
    """
    values = np.asarray(confidences, np.float64)
    if not len(values):
        return np.zeros(0), np.zeros(0), math.nan
    order = np.argsort(-values, kind="stable")
    wrong = np.cumsum(~np.asarray(right, bool)[order])
    last = np.flatnonzero(np.diff(values[order], append=-np.inf))
    coverage = (last + 1) / len(values)
    risk = wrong[last] / (last + 1)
    area = float((np.diff(np.concatenate([[0.0], coverage])) * risk).sum())
    return coverage, risk, area

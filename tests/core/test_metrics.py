"""Metrics against published values, examples worked by hand, and slow transcriptions of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprf.builtin import metrics


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(hits: int, total: int, low: float, high: float) -> None:
    found = metrics.Rate(hits, total).interval()
    assert found == pytest.approx((low, high), abs=5e-5)


def test_a_rate_of_nothing_is_no_number() -> None:
    assert math.isnan(metrics.Rate(0, 0).value)
    assert metrics.Rate(0, 0).as_json()["value"] is None


def test_iou_by_counting_pixels() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        boxes = []
        for _ in range(2):
            x, y = rng.integers(0, 12, 2)
            w, h = rng.integers(1, 10, 2)
            boxes.append((x, y, x + w, y + h))
        masks = []
        for x1, y1, x2, y2 in boxes:
            mask = np.zeros((30, 30), bool)
            mask[y1:y2, x1:x2] = True
            masks.append(mask)
        expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
        assert metrics.iou_matrix(np.array(boxes[:1]), np.array(boxes[1:]))[0, 0] == pytest.approx(expected)


def test_matching_is_greedy_by_score_and_uses_each_truth_once() -> None:
    truths = np.array([[0, 0, 10, 10], [20, 0, 30, 10]])
    boxes = np.array([[0, 0, 10, 8], [0, 0, 10, 10], [20, 0, 30, 9], [50, 50, 60, 60]])
    found = metrics.match(boxes, np.array([0.9, 0.8, 0.7, 0.99]), truths, 0.5)
    assert found.tolist() == [0, -1, 1, -1]  # the higher score takes the truth, though another overlaps it more
    assert metrics.match(boxes, np.array([0.9, 0.95, 0.7, 0.99]), truths, 0.5).tolist() == [-1, 0, 1, -1]
    assert metrics.match(boxes[:0], np.zeros(0), truths, 0.5).tolist() == []
    assert metrics.match(boxes, np.ones(4), truths[:0], 0.5).tolist() == [-1] * 4


def test_a_second_detection_takes_the_next_best_truth_that_is_free() -> None:
    truths = np.array([[0, 0, 10, 10], [4, 0, 14, 10]])
    boxes = np.array([[1, 0, 11, 10], [0, 0, 10, 10]])
    assert metrics.match(boxes, np.array([0.9, 0.8]), truths, 0.4).tolist() == [0, 1]


def test_average_precision_of_an_example_worked_by_hand() -> None:
    # ranks: hit hit miss hit miss, five truths. Precisions at the hits: 1, 1, 3/4; recalls 1/5, 2/5, 3/5.
    scores = [0.95, 0.9, 0.8, 0.7, 0.6]
    hits = [True, True, False, True, False]
    assert metrics.average_precision(scores, hits, 5) == pytest.approx((1 + 1 + 0.75) / 5)


def test_average_precision_raises_a_precision_to_the_best_beyond_it() -> None:
    # miss hit hit: precisions 0, 1/2, 2/3; the envelope at both recalls is 2/3
    assert metrics.average_precision([0.9, 0.8, 0.7], [False, True, True], 2) == pytest.approx(2 / 3)


def _average_precision_slowly(scores: list[float], hits: list[bool], truths: int) -> float:
    """For every truth found, the best precision of any threshold that finds at least as many."""
    points = []
    for threshold in set(scores):
        kept = [hit for score, hit in zip(scores, hits, strict=True) if score >= threshold]
        points.append((sum(kept), sum(kept) / len(kept)))
    total = 0.0
    for number in range(1, truths + 1):
        total += max((precision for found, precision in points if found >= number), default=0.0)
    return total / truths


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30), st.integers(0, 5))
def test_average_precision_equals_its_definition(rows: list[tuple[int, bool]], missed: int) -> None:
    scores = [score / 10 for score, _ in rows]
    hits = [hit for _, hit in rows]
    truths = sum(hits) + missed
    if truths:
        expected = _average_precision_slowly(scores, hits, truths)
        assert metrics.average_precision(scores, hits, truths) == pytest.approx(expected)
    else:
        assert math.isnan(metrics.average_precision(scores, hits, truths))


def test_f1() -> None:
    assert metrics.f1(0.5, 1.0) == pytest.approx(2 / 3)
    assert metrics.f1(0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("truth", "text", "distance"),
    [
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("", "ab", 2),
        ("皖A12345", "皖A12345", 0),
        ("苏A1", "皖A1", 1),
    ],
)
def test_edit_distance(truth: str, text: str, distance: int) -> None:
    assert metrics.edit_distance(truth, text) == distance


@given(st.text("AB1", max_size=6), st.text("AB1", max_size=6))
def test_an_alignment_spells_both_strings(truth: str, text: str) -> None:
    pairs = metrics.align(truth, text)
    assert "".join(a for a, _ in pairs) == truth
    assert "".join(b for _, b in pairs) == text
    assert metrics.edit_distance(truth, text) == metrics.edit_distance(text, truth)
    assert abs(len(truth) - len(text)) <= metrics.edit_distance(truth, text) <= max(len(truth), len(text))


def test_confusion_follows_the_alignment_not_the_position() -> None:
    table = metrics.confusion([("皖A123", "皖A123"), ("苏A123", "皖A123"), ("皖A108", "皖A18")])
    assert table.pairs["苏", "皖"] == 1
    assert table.pairs["皖", "皖"] == 2
    assert table.pairs["0", ""] == 1
    assert table.pairs["8", "8"] == 1  # though it was read one place earlier
    assert [(rate.hits, rate.total) for rate in table.positions] == [(2, 3), (3, 3), (3, 3), (2, 3), (3, 3)]


def test_calibration_error_of_an_example_worked_by_hand() -> None:
    confidences = [0.95, 0.95, 0.95, 0.95, 0.55, 0.55]
    right = [True, True, True, False, True, False]
    # two bins of ten: |0.95 - 0.75| weighs 4/6, |0.55 - 0.5| weighs 2/6
    error, bins = metrics.calibration(confidences, right, bins=10)
    assert error == pytest.approx(0.2 * 4 / 6 + 0.05 * 2 / 6)
    assert [entry.count for entry in bins] == [2, 4]
    assert metrics.calibration([1.0, 0.0], [True, False])[0] == 0.0
    assert math.isnan(metrics.calibration([], [])[0])


def test_risk_coverage_of_an_example_worked_by_hand() -> None:
    coverage, risk, area = metrics.risk_coverage([0.9, 0.8, 0.8, 0.1], [True, False, True, False])
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0.0, 1 / 3, 0.5])
    assert area == pytest.approx(0.5 / 3 + 0.25 * 0.5)

"""Boxes against slow, plain loops; offsets against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from lprf import boxes as b


def _slow_overlap(p: list[float], q: list[float], mode: str) -> float:
    width = min(p[2], q[2]) - max(p[0], q[0])
    height = min(p[3], q[3]) - max(p[1], q[1])
    common = width * height if width > 0 and height > 0 else 0.0
    of_p, of_q = (p[2] - p[0]) * (p[3] - p[1]), (q[2] - q[0]) * (q[3] - q[1])
    return common / (min(of_p, of_q) if mode == "min" else of_p + of_q - common)


def _slow_nms(boxes: list, scores: list, group: list, threshold: float, mode: str) -> list[int]:
    kept: list[int] = []
    for g in sorted(set(group)):
        rows = sorted((r for r in range(len(boxes)) if group[r] == g), key=lambda r: -scores[r])
        stay: list[int] = []
        for r in rows:
            if all(_slow_overlap(boxes[r], boxes[s], mode) <= threshold for s in stay):
                stay.append(r)
        kept += stay
    return kept


def _random(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * 40], dim=1)
    scores = (torch.rand(count, generator=generator) * 20).round() / 20  # with ties
    return boxes, scores, torch.randint(0, 5, (count,), generator=generator) * 7


@pytest.mark.parametrize("mode", ["union", "min"])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_nms_is_the_greedy_one(mode: b.Overlap, threshold: float) -> None:
    for seed in range(6):
        boxes, scores, group = _random(90, seed)
        ours = b.nms(boxes, scores, group, threshold, mode)
        assert ours.tolist() == _slow_nms(boxes.tolist(), scores.tolist(), group.tolist(), threshold, mode)


def test_nms_of_many_is_the_same_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b, "AT_ONCE", 7)
    for mode in ("union", "min"):
        boxes, scores, group = _random(90, 3)
        ours = b.nms(boxes, scores, group, 0.4, mode)  # type: ignore[arg-type]
        assert ours.tolist() == _slow_nms(boxes.tolist(), scores.tolist(), group.tolist(), 0.4, mode)


def test_nms_of_none_and_one() -> None:
    assert b.nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).tolist() == []
    one = torch.tensor([[0.0, 0, 1, 1]])
    assert b.nms(one, torch.ones(1), torch.tensor([3]), 0.5).tolist() == [0]


def test_overlaps() -> None:
    boxes, _, _ = _random(20, 9)
    for mode in ("union", "min"):
        ours = b.overlaps(boxes[:8], boxes[8:], mode)  # type: ignore[arg-type]
        slow = [[_slow_overlap(p, q, mode) for q in boxes[8:].tolist()] for p in boxes[:8].tolist()]
        assert torch.allclose(ours, torch.tensor(slow), atol=1e-5)


def test_the_best_of_each_group() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.9, 0.7])
    group = torch.tensor([2, 0, 0, 0, 2])
    assert b.best_of_each(scores, group, 2).tolist() == [1, 3, 4, 0]
    assert b.best_of_each(scores, group, 1).tolist() == [1, 4]


def test_offsets_are_in_sizes_of_the_box() -> None:
    box = torch.tensor([[10.0, 20, 50, 30]])
    assert torch.allclose(b.decode(box, torch.tensor([[0.1, -0.2, 0.0, 0.5]])), torch.tensor([[14.0, 18, 50, 35]]))
    offsets = b.encode_corners(box, torch.tensor([[[12.0, 19], [50, 20], [49, 31], [10, 30]]]))
    expected = torch.tensor([[[0.05, -0.1], [0, 0], [-0.025, 0.1], [0, 0]]])
    assert torch.allclose(offsets, expected, atol=1e-6)


def test_decoding_undoes_encoding() -> None:
    boxes, targets = _random(20, 3)[0], _random(20, 4)[0]
    corners = torch.rand(20, 4, 2) * 90
    assert torch.allclose(b.decode(boxes, b.encode(boxes, targets)), targets, atol=1e-4)
    assert torch.allclose(b.decode_corners(boxes, b.encode_corners(boxes, corners)), corners, atol=1e-4)

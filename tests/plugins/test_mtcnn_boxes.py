"""Offsets against numbers worked by hand."""

from __future__ import annotations

import torch

from lprf_mtcnn import boxes as b


def _random(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * 40], dim=1)


def test_offsets_are_in_sizes_of_the_box() -> None:
    box = torch.tensor([[10.0, 20, 50, 30]])
    assert torch.allclose(b.decode(box, torch.tensor([[0.1, -0.2, 0.0, 0.5]])), torch.tensor([[14.0, 18, 50, 35]]))
    offsets = b.encode_corners(box, torch.tensor([[[12.0, 19], [50, 20], [49, 31], [10, 30]]]))
    expected = torch.tensor([[[0.05, -0.1], [0, 0], [-0.025, 0.1], [0, 0]]])
    assert torch.allclose(offsets, expected, atol=1e-6)


def test_decoding_undoes_encoding() -> None:
    boxes, targets = _random(20, 3), _random(20, 4)
    corners = torch.rand(20, 4, 2) * 90
    assert torch.allclose(b.decode(boxes, b.encode(boxes, targets)), targets, atol=1e-4)
    assert torch.allclose(b.decode_corners(boxes, b.encode_corners(boxes, corners)), corners, atol=1e-4)

"""PNet and ONet against the seed's own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lprf import weights
from lprf.errors import WeightsError
from lprf_mtcnn import importers
from lprf_mtcnn.nets import (
    ONet,
    PNet,
    Slope,
    for_bgr_bytes,
    load_onet,
    load_pnet,
    normalise,
    onet_metadata,
    pnet_metadata,
)


def _checkpoint(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _near(ours: torch.Tensor, golden: np.ndarray) -> None:
    assert ours.shape == golden.shape
    assert np.abs(ours.numpy() - golden).max() <= 1e-5 * np.abs(golden).max()


def _file(tmp_path: Path, imported: weights.Imported | None) -> weights.Weights:
    assert imported is not None
    path = tmp_path / f"{imported.name}.safetensors"
    weights.save(path, imported.tensors, {**imported.metadata, "architecture": imported.architecture})
    return weights.find_and_load(path)


@torch.inference_mode()
def test_pnet_gives_the_golden_numbers(shared_seed: Path, tmp_path: Path) -> None:
    golden = np.load(shared_seed / "golden/seed_networks.npz")
    net = load_pnet(_file(tmp_path, importers.pnet(_checkpoint(shared_seed / "weights/pnet_Weights"))))
    logits, offsets = net(torch.from_numpy(golden["pnet_input"]))
    _near(logits.softmax(1), golden["pnet_probs"])
    _near(offsets, golden["pnet_offsets"])


@torch.inference_mode()
def test_onet_gives_the_golden_numbers(shared_seed: Path, tmp_path: Path) -> None:
    golden = np.load(shared_seed / "golden/seed_networks.npz")
    net = load_onet(_file(tmp_path, importers.onet(_checkpoint(shared_seed / "weights/onet_Weights"))))
    logits, offsets, corners = net(torch.from_numpy(golden["onet_input"]))
    _near(logits.softmax(1), golden["onet_probs"])
    _near(offsets, golden["onet_offsets"])
    assert corners is None


def test_importers_take_only_their_own(shared_seed: Path) -> None:
    pnet = _checkpoint(shared_seed / "weights/pnet_Weights")
    onet = _checkpoint(shared_seed / "weights/onet_Weights")
    other = _checkpoint(shared_seed / "weights/Final_STN_model.pth")
    assert importers.pnet(onet) is None and importers.onet(pnet) is None
    assert importers.pnet(other) is None and importers.onet(other) is None
    assert importers.pnet({**pnet, "conv4_1.bias": torch.zeros(3)}) is None
    assert importers.pnet({key: value for key, value in pnet.items() if key != "conv4_1.bias"}) is None


def test_sizes_are_the_papers() -> None:
    logits, offsets = PNet()(torch.zeros(1, 3, 12, 47))
    assert logits.shape == (1, 2, 1, 1) and offsets.shape == (1, 4, 1, 1)
    logits, offsets, corners = ONet(corners=True)(torch.zeros(0, 3, 24, 94))
    assert corners is not None
    assert logits.shape == (0, 2) and offsets.shape == (0, 4) and corners.shape == (0, 4, 2)


def test_normalise_turns_bgr_into_rgb() -> None:
    blue = torch.tensor([255, 0, 127], dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.allclose(normalise(blue).flatten(), torch.tensor([-0.5, -127.5, 127.5]) / 128)


@pytest.mark.parametrize(
    "change",
    [{"stride": [2, 2]}, {"channels": [1, 2]}, {"channels": [10, 16, 10**9]}, {"input": {"order": "BGR"}}],
)
def test_metadata_that_does_not_fit_is_refused_by_name(tmp_path: Path, change: dict) -> None:
    net = PNet()
    path = weights.save(tmp_path / "p.safetensors", net.state_dict(), {**pnet_metadata(net), **change})
    with pytest.raises(WeightsError, match=next(iter(change))):
        load_pnet(weights.find_and_load(path))


@pytest.mark.parametrize("hidden", [10**9, 0, True, None])
def test_a_hidden_layer_of_no_size_is_refused(tmp_path: Path, hidden: object) -> None:
    net = ONet((8, 8, 8, 16), 1)
    path = weights.save(tmp_path / "o.safetensors", net.state_dict(), {**onet_metadata(net), "hidden": hidden})
    with pytest.raises(WeightsError, match="'hidden' in its metadata must be an integer from 1 to 1024"):
        load_onet(weights.find_and_load(path))


def test_weights_survive_filing(tmp_path: Path) -> None:
    net = ONet((8, 8, 8, 16), 32, corners=True)
    path = weights.save(tmp_path / "o.safetensors", net.state_dict(), onet_metadata(net))
    again = load_onet(weights.find_and_load(path))
    crops = torch.rand(2, 3, 24, 94)
    for ours, theirs in zip(again(crops), net.eval()(crops), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(4, 6, 5, 7), (5, 6)])
def test_slopes_have_the_gradient_of_prelu(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    x.view(-1)[0] = 0
    ours, theirs = Slope(6).double(), torch.nn.PReLU(6).double()
    for net in (ours, theirs):
        net.weight.data = torch.linspace(-1, 2, 6, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.equal(ours(a), theirs(b))
    (ours(a) * grad).sum().backward()
    (theirs(b) * grad).sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-12, atol=0)
    assert torch.allclose(ours.weight.grad, theirs.weight.grad, rtol=1e-12)


@torch.inference_mode()
@pytest.mark.parametrize(("net", "size"), [(PNet(), (20, 70)), (ONet(corners=True), (24, 94))])
def test_what_reads_bytes_gives_what_was_trained(net: PNet | ONet, size: tuple[int, int]) -> None:
    crops = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8)
    for ours, theirs in zip(for_bgr_bytes(net)(crops.float()), net.eval()(normalise(crops)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)

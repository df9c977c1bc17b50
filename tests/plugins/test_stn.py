"""The STN against the seed's numbers, and as a rectifier."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from lprf import sampling, weights
from lprf.component import Component
from lprf.context import Context
from lprf.data import Detections, Frames, Origin
from lprf.errors import WeightsError
from lprf_stn.net import STN, build
from lprf_stn.plugin import RectifierParams, lprf_components
from lprf_stn.rectifier import StnRectifier
from nothing_from_the_host import NOWHERE, NothingFromTheHost


@pytest.fixture
def golden(shared_seed: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared_seed / "golden/seed_networks.npz"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LPRF_HOME", str(tmp_path))
    return tmp_path


def components() -> list[Component]:
    return lprf_components()


def test_the_seeds_numbers(shared_seed: Path, golden: dict[str, np.ndarray], home: Path) -> None:
    info = weights.import_checkpoint(shared_seed / "weights/Final_STN_model.pth", components())
    assert (info.name, info.metadata["align_corners"]) == ("seed-stn", True)
    loaded = weights.load(info)
    images = torch.from_numpy(golden["stn_input"])
    for align in (True, False):
        net = loaded.into(STN(align_corners=align)).eval()
        expected = torch.from_numpy(golden[f"stn_output_align_corners_{str(align).lower()}"])
        with torch.inference_mode():
            # float32 rounds where a pixel is read, on each processor otherwise
            torch.testing.assert_close(net(images), expected, rtol=0, atol=5e-5 * float(expected.abs().max()))
            torch.testing.assert_close(net.theta(images), torch.from_numpy(golden["stn_theta"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("align", [True, False])
def test_a_new_stn_changes_nothing(align: bool) -> None:
    images = torch.rand(3, 3, 32, 100) * 2 - 1
    torch.testing.assert_close(STN((32, 100), align)(images), images, rtol=0, atol=1e-4)


def test_in_bfloat16_the_map_stays_exact() -> None:
    images = torch.rand(2, 3, 24, 94)
    net = STN()
    net.fc2.bias.data[2] = 2 / 94  # one pixel to the side
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theta = net.theta(images)
    assert theta.dtype == torch.float32
    torch.testing.assert_close(theta[:, 0, 2], torch.full((2,), 2 / 94))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"align_corners": None}, "align_corners"),
        ({"size": [24]}, "'size'"),
        ({"size": [24, 10**9]}, "'size'"),
        ({"channels": "RGB"}, "BGR"),
        ({"size": [32, 94]}, "fc1.weight"),
        ({"architecture": "lprnet"}, "architecture 'lprnet'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    net = STN()
    path = weights.save(tmp_path / "x.safetensors", net.state_dict(), {**net.metadata(), **changes})
    with pytest.raises(WeightsError, match=message):
        build(weights.find_and_load(path))


def rectifier(tmp_path: Path, net: STN, plate_size: tuple[int, int] | None = None) -> StnRectifier:
    path = weights.save(tmp_path / "x.safetensors", net.state_dict(), net.metadata())
    context = Context(torch.device("cpu"), torch.float32, weights.find_and_load, plate_size=plate_size)
    return StnRectifier(RectifierParams(weights=str(path)), context)


def detections(boxes: list[list[float]], frame: list[int]) -> Detections:
    images = torch.randint(0, 256, (2, 60, 120, 3), dtype=torch.uint8)
    frames = Frames(images, [Origin("a"), Origin("b")])
    return Detections(
        frames, torch.tensor(frame, dtype=torch.int64), torch.tensor(boxes).view(-1, 4), torch.ones(len(frame))
    )


def test_an_identity_stn_gives_what_opencv_cuts(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    found = detections([[10, 5, 110, 40], [0, 0, 120, 60]], [0, 1])
    plates = rectifier(tmp_path, STN())(found)
    assert plates.detection.tolist() == [0, 1] and plates.images.shape == (2, 3, 24, 94)
    for row, (x1, y1, x2, y2) in enumerate(found.boxes.int().tolist()):
        crop = found.frames.images[row, y1:y2, x1:x2].numpy()
        expected = cv2.resize(crop, (94, 24), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
        # ours is not rounded to integers, and is cut to 0..255 as theirs
        assert np.abs(plates.images[row].numpy() - expected).max() < 1.5


def test_each_plate_is_straightened_by_itself(tmp_path: Path, shared_seed: Path, home: Path) -> None:
    net = build(weights.load(weights.import_checkpoint(shared_seed / "weights/Final_STN_model.pth", components())))
    rectify = rectifier(tmp_path, net)
    found = detections([[10.5, 5, 110, 40], [3, 4, 90, 33], [0, 0, 120, 60]], [0, 0, 1])
    together = rectify(found).images
    for row in range(3):
        alone = rectify(found.rows(torch.tensor([row]))).images
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-2)
    assert together.min() >= 0 and together.max() <= 256


def test_no_detections_no_plates(tmp_path: Path) -> None:
    plates = rectifier(tmp_path, STN())(detections([], []))
    assert len(plates) == 0 and plates.images.shape == (0, 3, 24, 94)


def test_a_size_that_the_recognizer_does_not_read_names_both(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"24 x 94.*32 x 128"):
        rectifier(tmp_path, STN(), (32, 128))


def test_no_shape_depends_on_what_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.autocast", lambda *_, **__: contextlib.nullcontext())  # which knows no such device
    cut = StnRectifier(RectifierParams(), Context(NOWHERE, torch.float32, weights.find_and_load))
    images, frame = torch.empty(2, 90, 160, 3, dtype=torch.uint8, device=NOWHERE), torch.empty(9, device=NOWHERE).long()
    with NothingFromTheHost():
        (plates,) = cut._cut(images, frame, torch.empty(9, 4, device=NOWHERE))
    assert plates.shape == (9, 3, *cut.net.size)


def test_what_is_recorded_once_cuts_other_plates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a CUDA graph is replayed, cutting as a GPU does."""
    monkeypatch.setattr(sampling, "_box_by_box", sampling._all_at_once)
    cut = StnRectifier(RectifierParams(), Context(torch.device("cpu"), torch.float32, weights.find_and_load))
    torch.manual_seed(1)
    images = torch.randint(0, 256, (2, 90, 160, 3), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 20, 70, 40], [0, 0, 160, 90], [0, 0, 0, 0]])
    recorded = make_fx(functools.partial(cut._cut))(images * 0, torch.zeros(3, dtype=torch.int64), boxes * 0)
    frame = torch.tensor([1, 0, 0])
    torch.testing.assert_close(recorded(images, frame, boxes), cut._cut(images, frame, boxes))

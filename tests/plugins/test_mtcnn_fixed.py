"""Detection in buffers of fixed size against detection as it is on a CPU, and against plain loops."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lprf import weights
from lprf.boxes import overlaps
from lprf.captured import Captured
from lprf.context import Context
from lprf.data import Detections, Frames, Origin, trimmed
from lprf_mtcnn.detector import Judge, MtcnnDetector
from lprf_mtcnn.fixed import Buffers, FixedDetection, best, suppressed
from lprf_mtcnn.nets import ONet, PNet
from lprf_mtcnn.params import DetectorParams
from lprf_mtcnn.proposers import CenterNetProposer, Proposer
from nothing_from_the_host import NothingFromTheHost

SAMPLES = Path(__file__).resolve().parents[2] / "recipes" / "samples" / "photos"
ROUNDING = 0.01  # pixels: what another order of sums moves a box by, differs between processors


def _detector(buffers: Buffers | None = None, **params: Any) -> MtcnnDetector:
    """With the weights that ship."""
    context = Context(torch.device("cpu"), torch.float32, weights.find_and_load)
    detector = MtcnnDetector(DetectorParams(**params), context)
    if buffers is not None:
        detector.fixed = FixedDetection(detector.propose, detector.judge, detector.params, buffers)
    return detector


def _fixed(detector: MtcnnDetector, frames: Frames) -> Detections:
    """The plates, without the rows of the buffers that hold none."""
    found: Detections = trimmed({"detections": detector.find_fixed(frames)})["detections"]
    return found


def _frames(*images: np.ndarray) -> Frames:
    return Frames(torch.from_numpy(np.stack(images)), [Origin(str(row)) for row in range(len(images))])


def _read(path: Path) -> np.ndarray:
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _same(ours: Detections, theirs: Detections) -> None:
    """Row for row. ONet sees its crops in other company, which may move what it says by a rounding."""
    assert ours.frame.tolist() == theirs.frame.tolist()
    torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-4)
    assert (ours.corners is None) == (theirs.corners is None)
    if ours.corners is not None and theirs.corners is not None:
        torch.testing.assert_close(ours.corners, theirs.corners, rtol=0, atol=ROUNDING)


@contextlib.contextmanager
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


CENTERNET = {"pnet": "any-centernet"}


@pytest.mark.parametrize(
    "params",
    [
        {},
        CENTERNET,
        {**CENTERNET, "min_plate": (90, 27), "thresholds": (0.2, 0.2)},
        {"whole_pixels": True, "nms_onet": "union"},
        {"refine": 0, "thresholds": (0.1, 0.2)},
        {"refine": 3},
    ],
    ids=str,
)
def test_the_samples_have_the_same_plates(params: dict[str, Any]) -> None:
    detector = _detector(**params)
    by_size: dict[Any, list[np.ndarray]] = {}
    for path in sorted(SAMPLES.glob("*.jpg")):
        image = _read(path)
        by_size.setdefault(image.shape, []).append(image)
    found = 0
    for images in by_size.values():
        frames = _frames(*images)
        with _no_warning():
            ours, theirs = _fixed(detector, frames), detector(frames)
        assert ours.frames is frames
        _same(ours, theirs)
        found += len(ours)
    assert found >= 5
    assert detector.dropped == 0


@pytest.mark.parametrize("params", [{}, CENTERNET], ids=str)
def test_real_photos_have_the_same_plates(shared_data: Path, params: dict[str, Any]) -> None:
    detector = _detector(**params)
    street = sorted((shared_data / "street" / "dev").glob("*.jpg"))[:4]
    batches = [_frames(_read(path)) for path in street]
    ccpd = [_read(path) for path in sorted((shared_data / "ccpd" / "dev").rglob("*.jpg"))[:6]]
    batches += [_frames(*ccpd[:3]), _frames(*ccpd[3:])]
    found = 0
    for frames in batches:
        with _no_warning():
            ours = _fixed(detector, frames)
        _same(ours, detector(frames))
        found += len(ours)
    assert found >= 8


def test_a_photo_does_not_depend_on_its_batch() -> None:
    detector = _detector()
    photo = _read(SAMPLES / "scene-1.jpg")
    empty = np.full_like(photo, 90)
    alone = _fixed(detector, _frames(photo))
    assert len(alone) >= 1
    batch = _fixed(detector, _frames(empty, photo, empty, photo))
    assert batch.frame.tolist() == [1] * len(alone) + [3] * len(alone)
    torch.testing.assert_close(batch.boxes, alone.boxes.repeat(2, 1), rtol=0, atol=ROUNDING)


def test_buffers_are_for_a_gpu_and_for_networks_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = _detector()
    there: Any = SimpleNamespace(images=SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(detector, "find_fixed", lambda frames: "fixed")
    assert detector(there) == "fixed"
    monkeypatch.setattr("lprf_mtcnn.detector.decide", lambda *_: "as on a CPU")
    monkeypatch.setattr(Proposer, "__call__", lambda *_: None)
    detector.judge.net = object()  # another backend's model in the network's place
    assert detector(there) == "as on a CPU"


@pytest.mark.parametrize("shape", [(300, 400), (9, 60), (30, 20), (1, 1), (15, 59)], ids=str)
def test_photos_without_a_plate(shape: tuple[int, int]) -> None:
    """Those that are smaller than PNet's window, too."""
    detector = _detector()
    frames = _frames(np.full((*shape, 3), 90, np.uint8), np.zeros((*shape, 3), np.uint8))
    ours = _fixed(detector, frames)
    assert len(ours) == 0
    _same(ours, detector(frames))


@pytest.mark.parametrize(
    "short", [{"candidates": 9}, {"crops": 2}, {"plates": 1}, {"rounds": 1}], ids=lambda short: str(*short)
)
def test_what_finds_no_room_is_counted_and_told(short: dict[str, int]) -> None:
    detector = _detector(Buffers(**short), thresholds=(0.3, 0.05), nms=(0.5, 0.7, 1.0), nms_onet="union", refine=0)
    frames = _frames(_read(SAMPLES / "scene-1.jpg"))
    with pytest.warns(RuntimeWarning, match=r"candidates in a batch found no room|were not settled") as told:
        _fixed(detector, frames)
    assert len(told) == 1
    once = detector.dropped
    assert once > 0
    with _no_warning():  # one warning a detector
        _fixed(detector, frames)
    assert detector.dropped == 2 * once


def test_as_many_are_dropped_as_find_no_room() -> None:
    """Nothing overlaps too much where the thresholds are 1, so that the numbers are known."""
    free: dict[str, Any] = {"thresholds": (0.3, 0.0), "nms": (1, 1, 1), "refine": 0}
    frames = _frames(_read(SAMPLES / "scene-1.jpg"))
    count = len(_detector(**free).propose(frames.images).frame)
    assert 20 < count < 500
    some = _detector(Buffers(crops=7), **free)
    with pytest.warns(RuntimeWarning, match=f"^{count - 7} candidates in a batch found no room and 0 were"):
        _fixed(some, frames)
    assert some.dropped == count - 7


@pytest.mark.parametrize(
    ("most", "candidates", "crops"), [(1, 2, 1), (10, 20, 10), (500, 1000, 256), (1000, 2000, 500), (10**5, 4000, 1000)]
)
def test_room_grows_with_max_proposals(most: int, candidates: int, crops: int) -> None:
    room = Buffers.of(DetectorParams(max_proposals=most))
    assert (room.candidates, room.crops) == (candidates, crops)
    assert Buffers.of(DetectorParams()) == Buffers()


def test_the_best_find_room() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.9, 0.7, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2, 1.0]])
    valid = torch.tensor([[1, 1, 1, 1, 0, 1], [1, 0, 1, 1, 1, 0]], dtype=torch.bool)
    index, there = best(scores, valid, 3)
    assert index.tolist() == [[1, 3, 2], [0, 2, 3]]
    assert there.all()
    index, there = best(scores, valid, 8)
    assert there.sum(1).tolist() == [5, 4]
    assert index[0, :5].tolist() == [1, 3, 2, 0, 5]
    assert index[1, :4].tolist() == [0, 2, 3, 4]
    assert index.max() < 6


def _slow_nms(boxes: np.ndarray, valid: np.ndarray, threshold: float, mode: str) -> list[bool]:
    """Boxes from the best down, one by one."""
    stay: list[int] = []
    for row in np.flatnonzero(valid):
        alike = False
        for other in stay:
            low, high = np.maximum(boxes[row, :2], boxes[other, :2]), np.minimum(boxes[row, 2:], boxes[other, 2:])
            common = np.prod(np.maximum(high - low, 0))
            of_row, of_other = (np.prod(boxes[one, 2:] - boxes[one, :2]) for one in (row, other))
            alike |= bool(common / (min(of_row, of_other) if mode == "min" else of_row + of_other - common) > threshold)
        if not alike:
            stay.append(int(row))
    return [row in stay for row in range(len(boxes))]


@pytest.mark.parametrize("mode", ["union", "min"])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_suppression_is_the_greedy_one(mode: Any, threshold: float) -> None:
    """Whole pixels, so that the overlaps are exact and many scores and boxes equal one another."""
    rng = np.random.default_rng(3)
    low = rng.integers(0, 30, (5, 80, 2))
    boxes = np.concatenate([low, low + rng.integers(4, 30, (5, 80, 2))], axis=2).astype(np.float32)
    scores = (rng.integers(0, 10, (5, 80)) / 10).astype(np.float32)
    valid = rng.random((5, 80)) < 0.8
    index, there = best(torch.from_numpy(scores), torch.from_numpy(valid), 80)
    ordered = torch.from_numpy(boxes).gather(1, index.unsqueeze(2).expand(-1, -1, 4))
    stays, unsettled = suppressed(overlaps(ordered, ordered, mode) > threshold, there, rounds=40)
    assert unsettled == 0
    for group in range(5):
        rows = sorted(np.flatnonzero(valid[group]), key=lambda row: (-scores[group, row], row))
        slow = _slow_nms(boxes[group][rows], np.ones(len(rows), bool), threshold, mode)
        assert stays[group].tolist() == slow + [False] * (80 - len(rows))


def test_suppression_that_is_not_settled_says_so() -> None:
    """Each box overlaps only the next: every round settles one more."""
    left = torch.arange(0.0, 60, 4)
    chain = torch.stack([left, left * 0, left + 10, left * 0 + 10], dim=1)[None]
    valid = torch.ones(1, 15, dtype=torch.bool)
    for rounds in range(1, 20):
        stays, unsettled = suppressed(overlaps(chain, chain) > 0.4, valid, rounds)
        right = stays[0].tolist() == [row % 2 == 0 for row in range(15)]
        assert right or unsettled > 0
        if rounds >= 15:
            assert right
            assert unsettled == 0


@pytest.mark.parametrize("pnet", ["cn-pnet", "any-centernet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(3, 180, 320, 3), (1, 9, 20, 3)], ids=["photos", "tiny"])
def test_no_shape_depends_on_what_is_found(pnet: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Run on tensors without values, which are not on a CPU: whatever asks for a value fails."""
    params, nowhere = DetectorParams(pnet=pnet, whole_pixels=True), torch.device("meta")
    context = Context(nowhere, dtype, weights.find_and_load)
    propose: Proposer | CenterNetProposer
    if pnet == "cn-pnet":
        propose = Proposer(PNet(), params, nowhere, dtype)
    else:
        propose = CenterNetProposer(weights.find_and_load(pnet), context, min_plate=params.min_plate)
    judge = Judge(ONet(corners=True), nowhere, dtype)
    images = torch.empty(shape, dtype=torch.uint8, device=nowhere)
    detect = FixedDetection(propose, judge, params)
    detect(images)  # what a shape needs from the host is made once
    with NothingFromTheHost():
        frame, boxes, scores, corners, told = detect(images)
    room = shape[0] * Buffers().plates
    assert frame.shape == scores.shape == (room,)
    assert boxes.shape == (room, 4)
    assert corners is not None
    assert corners.shape == (room, 4, 2)
    assert told.shape == (3,)
    assert {tensor.device for tensor in (frame, boxes, scores, corners, told)} == {nowhere}
    assert {boxes.dtype, scores.dtype, corners.dtype} == {torch.float32}


def test_what_asks_for_values_is_found_out() -> None:
    """Else the test before this one would say nothing."""
    nowhere = torch.device("meta")
    params = DetectorParams()
    with pytest.raises((NotImplementedError, RuntimeError)):
        Proposer(PNet(), params, nowhere)(torch.empty(1, 180, 320, 3, dtype=torch.uint8, device=nowhere))
    boxes = torch.empty(2, 4, device=nowhere)
    for wrong in (
        lambda: boxes.new_tensor([1, 2]),
        lambda: torch.tensor(1.0, device=nowhere),
        lambda: boxes[:, [0, 2]],
        lambda: torch.where(boxes > 0, boxes, 0.0),
    ):
        with NothingFromTheHost(), pytest.raises(AssertionError):
            wrong()


def test_what_is_recorded_once_finds_other_plates_too() -> None:
    """As a CUDA graph is replayed: what was decided by a value at the recording would be decided so for ever."""
    detector = _detector(**CENTERNET)
    photo = torch.from_numpy(_read(SAMPLES / "scene-1.jpg"))[None]
    recorded = make_fx(detector.fixed)(torch.full_like(photo, 90))
    for ours, theirs in zip(recorded(photo), detector.fixed(photo), strict=True):
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours, theirs)
    assert int(ours[0]) >= 1


def test_captured_calls_the_function_on_a_cpu() -> None:
    calls: list[Tensor] = []

    def double(given: Tensor) -> tuple[Tensor, None]:
        calls.append(given)
        return given * 2, None

    captured = Captured()
    given = torch.arange(3)
    for _ in range(3):
        twice, nothing = captured(double, given)
        assert twice is not None
        assert twice.tolist() == [0, 2, 4]
        assert nothing is None
    assert [call is given for call in calls] == [True] * 3


def _as_on_a_gpu(size: int) -> Any:
    """What `Captured` looks at of a tensor on a GPU."""
    return SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32, shape=torch.Size([size]))


def test_shapes_that_come_again_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def graph(function: Any, examples: Any) -> Any:
        made.append(examples[0].shape[0])
        return lambda given: ("replayed", given.shape[0])

    monkeypatch.setattr("lprf.captured._Graph", graph)
    captured = Captured(kept=2)

    def called(given: Any) -> Any:
        return "called", given.shape[0]

    def came(*sizes: int) -> list[Any]:
        return [captured(called, _as_on_a_gpu(size))[0] for size in sizes]

    assert came(3, 3, 3) == ["called", "replayed", "replayed"]
    assert came(4, 3, 4, 3) == ["called", "replayed", "replayed", "replayed"]
    assert made == [3, 4]
    assert came(5, 6, 7, 5, 6, 7) == ["called"] * 6, "more shapes than are kept are not captured in turn"
    assert came(7, 3) == ["replayed", "called"]


def test_what_cannot_be_captured_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def graph(function: Any, examples: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("lprf.captured._Graph", graph)
    captured = Captured()

    def called(given: Any) -> Any:
        return "called", given.shape[0]

    with pytest.warns(RuntimeWarning, match="without a CUDA graph, which is slower: operation not permitted") as told:
        given = [captured(called, _as_on_a_gpu(size)) for size in (3, 3, 3, 4, 4)]
    assert len(told) == 1
    assert given == [("called", 3)] * 3 + [("called", 4)] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_captured_replays_on_a_gpu() -> None:
    calls: list[int] = []

    def double(given: Tensor) -> tuple[Tensor, None]:
        calls.append(len(given))
        return given * 2, None

    captured = Captured(kept=2)
    for turn in range(5):
        for size in (3, 4):
            given = torch.full((size,), turn, device="cuda")
            twice, _ = captured(double, given)
            again, _ = captured(double, given + 1)
            assert twice is not None and again is not None
            assert twice.tolist() == [2 * turn] * size, "a result is the caller's own"
            assert again.tolist() == [2 * turn + 2] * size
    assert calls == [3] * 3 + [4] * 3, "called, warmed up, captured"
    for size in (5, 6, 7):
        captured(double, torch.zeros(size, device="cuda"))
    assert len(captured._graphs) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_finds_what_its_uncaptured_detection_finds() -> None:
    context = Context(torch.device("cuda"), torch.float32, weights.find_and_load)
    detector = MtcnnDetector(DetectorParams(), context)
    photo = torch.from_numpy(_read(SAMPLES / "scene-1.jpg"))[None].cuda()
    frames = Frames(photo, [Origin("photo")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second, third = (trimmed({0: detector(frames)})[0] for _ in range(3))
    assert len(first) >= 1
    for found in (second, third):
        _same(found, first)

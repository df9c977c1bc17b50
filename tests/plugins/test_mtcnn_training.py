"""MTCNN's samples and trainers against slow references, OpenCV, and bad labels; the detector's conformance."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from lprf import weights
from lprf.boxes import decode, decode_corners
from lprf.context import Context
from lprf.data import Example, Frames, Origin, Truth
from lprf.errors import InputFailure, LprfError
from lprf.testing import DetectorSuite
from lprf.training.distributed import Share
from lprf_mtcnn.detector import MtcnnDetector
from lprf_mtcnn.nets import CELL, FIELD, ONET_SIZE, ONet, PNet, normalise, onet_metadata, pnet_metadata
from lprf_mtcnn.params import DetectorParams
from lprf_mtcnn.samples import (
    DENSE,
    IGNORED,
    NEGATIVE,
    PART,
    PATCH,
    POSITIVE,
    Sampler,
    Samples,
    cells,
    cut,
    grid,
    label,
    label_cells,
)
from lprf_mtcnn.trainer import OnetTask, OnetTrainer, PnetTask, PnetTrainer
from lprf_mtcnn.training_params import OnetTrainerParams, PnetTrainerParams, SamplesParams


@dataclass
class Photos:
    """Photos in memory: (picture or what is wrong with it, plates)."""

    rows: Sequence[tuple[np.ndarray | str, tuple[Truth, ...]]]
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        picture, plates = self.rows[index]
        name = f"photo {index}"

        def image() -> np.ndarray:
            if isinstance(picture, str):
                raise InputFailure(name, picture)
            return picture

        return Example(name, image, plates)

    def fingerprint(self) -> str:
        return "photos"


def photo(seed: int, boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int] = (240, 360)) -> Any:
    """Soft noise with blue plates of light strokes in it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 160, (size[0] // 8, size[1] // 8, 3), np.uint8)
    image = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
    plates = []
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = (190, 70, 20)
        step = max(3, (x2 - x1) // 9)
        inner = image[y1 + (y2 - y1) // 5 : y2 - (y2 - y1) // 5, x1 + step // 2 : x2 - step // 2]
        inner[:, ::step] = 235
        inner[:, 1::step] = 235
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
        plates.append(Truth((x1, y1, x2, y2), corners))
    return image, tuple(plates)


def photos(count: int = 6) -> Photos:
    rng = np.random.default_rng(5)
    rows = []
    for seed in range(count):
        w = int(rng.integers(60, 130))
        h = round(w / 3.2)
        x, y = int(rng.integers(0, 350 - w)), int(rng.integers(0, 230 - h))
        rows.append(photo(seed, [(x, y, x + w, y + h)]))
    return Photos(rows)


def context(folder: Path, **changes: Any) -> Context:
    settings: dict[str, Any] = {"node": "tested", "folder": folder, "seed": 7, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    return Context(torch.device("cpu"), torch.float32, weights.find_and_load, **settings)


def sample(folder: Path, dataset: Any, ports: Mapping[str, Path] | None = None, **params: Any) -> Samples:
    return Sampler(SamplesParams(**params), context(folder)).run(dataset, **(ports or {}))["samples"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained networks; PNet proposes here and there."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(3)
    pnet, onet = PNet(), ONet(corners=True)
    return {
        "pnet": weights.save(folder / "pnet.safetensors", pnet.state_dict(), pnet_metadata(pnet)),
        "onet": weights.save(folder / "onet.safetensors", onet.state_dict(), onet_metadata(onet)),
    }


def slow_iou(a: Sequence[float], b: Sequence[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


# Cells and labels


@pytest.mark.parametrize("size", [PATCH, FIELD, (13, 50), (60, 101)])
def test_the_grid_is_that_of_the_network(size: tuple[int, int]) -> None:
    logits, _ = PNet()(torch.zeros(1, 3, *size))
    rows, columns = grid(size)
    # the pool's ceiling may add a column that sees the border: no cell of the picture
    assert logits.shape[2] in (rows, rows + 1)
    assert logits.shape[3] in (columns, columns + 1)
    if size in (PATCH, FIELD):
        assert tuple(logits.shape[2:]) == (rows, columns)


def test_cells_stand_where_the_detector_decodes_them() -> None:
    boxes = cells(PATCH).view(*grid(PATCH), 4)
    assert boxes[0, 0].tolist() == [1, 1, 1 + CELL[1], 1 + CELL[0]]
    assert boxes[7, 3].tolist() == [5 * 3 + 1, 2 * 7 + 1, 5 * 3 + 45, 2 * 7 + 13]


def test_labels_follow_the_overlap() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 200, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 90, (300, 2))], axis=1).astype(np.float32)
    plates = boxes[::50] + rng.normal(0, 4, (6, 4)).astype(np.float32)
    labels, plate = label(torch.from_numpy(boxes), torch.from_numpy(plates), DENSE)
    for row, box in enumerate(boxes.tolist()):
        shares = [slow_iou(box, other) for other in plates.tolist()]
        best = max(shares)
        expected = POSITIVE if best >= 0.55 else PART if best >= 0.4 else NEGATIVE if best < 0.3 else IGNORED
        assert labels[row] == expected, (box, best)
        if best > 0:
            assert shares[int(plate[row])] == pytest.approx(best, abs=1e-5)
    assert {POSITIVE, PART, NEGATIVE} <= set(labels.tolist())


def test_everything_is_negative_without_plates() -> None:
    labels, _ = label_cells(cells(PATCH), torch.zeros(0, 4), PATCH)
    assert set(labels.tolist()) == {NEGATIVE}


def test_a_plate_of_two_rows_takes_its_best_cells() -> None:
    plate = torch.tensor([[120.0, 50, 149, 69]])  # 29 x 19: no cell of 44 x 12 reaches 0.55
    boxes = cells(PATCH)
    plain, _ = label(boxes, plate, DENSE)
    assert POSITIVE not in plain.tolist()
    labels, _ = label_cells(boxes, plate, PATCH)
    shares = torch.tensor([slow_iou(box, plate[0].tolist()) for box in boxes.tolist()])
    chosen = labels == POSITIVE
    assert chosen.any()
    assert shares[chosen].min() >= max(0.35, 0.9 * float(shares.max()) - 1e-5)
    assert shares[~chosen].max() < 0.9 * float(shares.max()) + 1e-5


@pytest.mark.parametrize(
    "plate",
    [
        [120.0, 50, 126, 53],  # so small that another scale is for it
        [40.0, 10, 240, 120],  # so large
        [-20.0, 50, 9, 69],  # cut by the picture's border
    ],
)
def test_other_plates_do_not(plate: list[float]) -> None:
    labels, _ = label_cells(cells(PATCH), torch.tensor([plate]), PATCH)
    assert POSITIVE not in labels.tolist()


def test_boxes_on_plates_too_small_are_ignored() -> None:
    boxes = torch.tensor([[0.0, 0, 44, 12], [100, 100, 144, 112]])
    labels, _ = label(boxes, torch.zeros(0, 4), DENSE, small=torch.tensor([[10.0, 2, 22, 8]]))
    assert labels.tolist() == [IGNORED, NEGATIVE]


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 1.5])
def test_cut_is_a_part_of_what_resize_gives(scale: float) -> None:
    image, _ = photo(1, [(100, 60, 220, 100)], (240, 360))
    whole = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    x, y = 24, 40
    part = cut(image, x, y, scale, (48, 64))
    left, top = round(x * scale), round(y * scale)
    expected = whole[top : top + 48, left : left + 64]
    inner = np.abs(part[: expected.shape[0], : expected.shape[1]].astype(int) - expected)[:-1, :-1]
    assert inner.max() <= 5  # OpenCV warps by fixed-point coordinates
    assert inner.mean() < 0.5


# The sampler


def test_dense_samples_hold_the_plates_they_aim_at(tmp_path: Path) -> None:
    dataset = Photos([photo(1, [(40, 40, 140, 70), (200, 150, 240, 170)])])  # of other sizes, and shapes
    samples = sample(tmp_path, dataset, net="pnet", count=60)
    assert len(samples) == 60
    boxes = cells(PATCH)
    shapes = set()
    for record in samples.records:
        labels = torch.from_numpy(record["label"].copy()).flatten()
        offsets = torch.from_numpy(record["offset"].astype(np.float32)).view(4, -1).T
        for row in (labels == POSITIVE).nonzero().flatten().tolist():
            plate = decode(boxes[row : row + 1], offsets[row : row + 1])[0]
            assert slow_iou(boxes[row].tolist(), plate.tolist()) >= 0.34
            w, h = (plate[2:] - plate[:2]).tolist()
            shapes.add(round(w / h, 1))
            # the picture is blue there: label and pixels belong together
            x, y = ((plate[:2] + plate[2:]) / 2).long().tolist()
            around = record["image"][max(0, y - 3) : y + 4, max(0, x - 12) : x + 13].reshape(-1, 3).astype(int)
            if len(around):
                assert (around[:, 0] - around[:, 2]).max() > 60
    assert shapes == {2.0, 3.3}  # both plates were learnt


def test_windows_of_pnet_are_what_it_sees_of_a_box(tmp_path: Path) -> None:
    samples = sample(tmp_path, photos(), net="pnet", way="windows", count=200)
    records = samples.records
    assert records["image"].shape[1:] == (*FIELD, 3)
    assert records["label"].shape[1:] == (1, 1)
    kinds = records["label"].flatten()
    assert {int(kind) for kind in kinds} == {POSITIVE, PART, NEGATIVE}
    cell = cells(FIELD)
    for record in records:
        if record["label"][0, 0] == POSITIVE:
            plate = decode(cell, torch.from_numpy(record["offset"].astype(np.float32)).view(1, 4))[0]
            assert slow_iou(cell[0].tolist(), plate.tolist()) >= 0.64


def test_crops_of_onet_are_what_opencv_cuts(tmp_path: Path, networks: dict[str, Path]) -> None:
    image, plates = photo(2, [(60, 50, 180, 90)])
    samples = sample(tmp_path, Photos([(image, plates)]), {"pnet": networks["pnet"]}, net="onet", count=90)
    truth = torch.tensor(plates[0].box)
    positives = samples.records[samples.records["label"] == POSITIVE]
    assert len(positives) >= 20
    for record in positives:
        # the box that was cut follows from the label and the offsets: box + offset * size = truth
        offset = record["offset"].astype(np.float64)
        w = 120 / (1 + offset[2] - offset[0])
        h = 40 / (1 + offset[3] - offset[1])
        x, y = 60 - offset[0] * w, 50 - offset[1] * h
        box = torch.tensor([[x, y, x + w, y + h]])
        assert slow_iou(box[0].tolist(), truth.tolist()) >= 0.599
        corners = decode_corners(box, torch.from_numpy(record["corner"]).double().unsqueeze(0))[0]
        assert torch.allclose(corners, torch.from_numpy(plates[0].corners).double(), atol=1e-2)
        shift = np.array([[w / ONET_SIZE[1], 0, x - 0.5 + w / ONET_SIZE[1] / 2]])
        shift = np.vstack([shift, [0, h / ONET_SIZE[0], y - 0.5 + h / ONET_SIZE[0] / 2]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        expected = cv2.warpAffine(image, shift, ONET_SIZE[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(expected.astype(int) - record["image"]).mean() < 3


def test_a_plate_without_corners_teaches_none(tmp_path: Path, networks: dict[str, Path]) -> None:
    image, plates = photo(2, [(60, 50, 180, 90)])
    bare = (Truth(plates[0].box),)
    dataset = Photos([(image, bare), (image, plates)])
    samples = sample(tmp_path, dataset, {"pnet": networks["pnet"]}, net="onet", count=120)
    task = OnetTask(samples, None, OnetTrainerParams(batch=24), torch.device("cpu"))
    assert task.net.corner is not None
    boxed = samples.records["label"] != NEGATIVE
    known = np.isfinite(samples.records["corner"]).all(axis=(1, 2))
    assert 0 < (known & boxed).sum() < boxed.sum()
    loss, metrics = task.loss(task.batch(0, np.random.default_rng(0), Share()))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.as_tensor(metrics["corners"]))
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.net.parameters())
    none = sample(tmp_path / "none", Photos([(image, bare)]), {"pnet": networks["pnet"]}, net="onet", count=60)
    assert OnetTask(none, None, OnetTrainerParams(batch=24), torch.device("cpu")).net.corner is None


def test_kinds_keep_their_shares_over_all_photos(tmp_path: Path, networks: dict[str, Path]) -> None:
    empty = photo(9, [])
    dataset = Photos([*photos().rows, empty, empty])
    samples = sample(tmp_path, dataset, {"pnet": networks["pnet"]}, net="onet", count=240)
    labels = samples.records["label"]
    assert 0.25 <= (labels == POSITIVE).mean() <= 0.45
    assert 0.35 <= (labels == NEGATIVE).mean() <= 0.6


def test_the_boxes_of_a_first_onet_are_mined_too(tmp_path: Path, networks: dict[str, Path]) -> None:
    samples = sample(tmp_path, photos(3), networks, net="onet", count=60)
    assert (samples.records["label"] == POSITIVE).any()


def test_the_same_seed_gives_the_same_file(tmp_path: Path, networks: dict[str, Path]) -> None:
    digests = []
    for name, workers in (("a", 0), ("b", 0), ("c", 2)):
        of_run = context(tmp_path / name, workers=workers)
        Sampler(SamplesParams(net="onet", count=60), of_run).run(photos(3), networks["pnet"])
        digests.append(hashlib.sha256((tmp_path / name / "samples.bin").read_bytes()).hexdigest())
    assert len(set(digests)) == 1
    other = context(tmp_path / "d", seed=8)
    Sampler(SamplesParams(net="onet", count=60), other).run(photos(3), networks["pnet"])
    assert hashlib.sha256((tmp_path / "d" / "samples.bin").read_bytes()).hexdigest() not in digests


def test_load_gives_what_run_gave(tmp_path: Path, networks: dict[str, Path]) -> None:
    sampler = Sampler(SamplesParams(net="onet", count=60), context(tmp_path))
    made = sampler.run(photos(3), networks["pnet"])["samples"]
    again = Sampler(SamplesParams(net="onet", count=60), context(tmp_path))
    loaded = again.load()["samples"]
    assert made.records.tobytes() == loaded.records.tobytes()
    assert loaded.pnet is not None and loaded.pnet.read_bytes() == networks["pnet"].read_bytes()
    assert again.metrics == sampler.metrics
    assert again.metrics["photos"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pnet.safetensors", "samples.bin", "samples.json"]


# Bad input


def test_bad_rows_are_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, plates = photo(1, [(40, 40, 140, 70)])
    outside = Truth((900, 40, 1000, 70))
    dataset = Photos(
        [
            (image, plates),
            ("there is no such file", plates),
            ("it is truncated", plates),
            (image, (outside,)),
            (image, (*plates, outside, Truth((50, 50, 50, 60)), Truth((0, 0, float("nan"), 9)))),
        ]
    )
    sampler = Sampler(SamplesParams(net="pnet", count=20), context(tmp_path))
    with caplog.at_level(logging.WARNING, "lprf.training"):
        samples = sampler.run(dataset)["samples"]
    assert len(samples) == 20  # what bad photos were to give, others give
    assert sampler.metrics["photos"] == 2
    assert sampler.metrics["left_out"] == 6
    told = caplog.text
    for words in ("photo 1: there is no such file", "photo 2: it is truncated", "photo 3: the box", "lies outside"):
        assert words in told


def test_a_plate_cut_by_the_border_is_learnt(tmp_path: Path) -> None:
    image, _ = photo(1, [(0, 40, 100, 70)])
    samples = sample(tmp_path, Photos([(image, (Truth((-15, 40, 100, 70)),))]), net="pnet", count=20)
    assert (samples.records["label"] == POSITIVE).any()


@pytest.mark.parametrize(
    ("rows", "params", "ports", "words"),
    [
        (list, {"net": "pnet"}, (), "empty"),
        (lambda: [photo(1, [])], {"net": "pnet", "count": 4}, (), "nothing to learn from"),
        (lambda: [("gone", ())], {"net": "pnet", "count": 4}, (), "nothing to learn from"),
        (lambda: [photo(1, [])], {"net": "onet"}, (), "connect `pnet`"),
        (lambda: [photo(1, [])], {"net": "pnet"}, ("pnet",), "need no weights"),
    ],
)
def test_mistakes_are_told(
    rows: Callable[[], Any],
    params: Any,
    ports: tuple[str, ...],
    words: str,
    tmp_path: Path,
    networks: dict[str, Path],
) -> None:
    with pytest.raises(LprfError, match=words):
        sample(tmp_path, Photos(rows()), {port: networks[port] for port in ports}, **params)
    assert not list(tmp_path.glob("**/*.json"))


def test_dense_is_for_pnet_alone() -> None:
    with pytest.raises(ValueError, match="windows"):
        SamplesParams(net="onet", way="dense")


def test_trainers_refuse_each_others_samples(tmp_path: Path) -> None:
    samples = sample(tmp_path, photos(2), net="pnet", count=4)
    with pytest.raises(LprfError, match="PNet's"):
        OnetTask(samples, None, OnetTrainerParams(), torch.device("cpu"))


# Losses


def test_pnet_learns_from_the_hardest(tmp_path: Path) -> None:
    """Against a float64 reference that sorts."""
    samples = sample(tmp_path, photos(3), net="pnet", count=6)
    params = PnetTrainerParams(batch=4, brightness=0, permute=0, loss=(1.0, 0.5))
    torch.manual_seed(0)
    task = PnetTask(samples, None, params, torch.device("cpu"))
    batch = task.batch(0, np.random.default_rng(1), Share())
    found, _ = task.loss(batch)
    images = batch["images"].permute(0, 3, 1, 2)
    logits, offsets = task.net.double()(normalise(images, torch.float64))
    losses, parts, positives = [], [], []
    for n in range(4):
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                kind = int(batch["labels"][n, row, column])
                a, b = logits[n, :, row, column].tolist()
                of_class = np.logaddexp(a, b) - (b if kind == POSITIVE else a)
                if kind == POSITIVE:
                    positives += [of_class, of_class]
                elif kind == NEGATIVE:
                    losses.append((of_class, bool(batch["counted"][n, row, column])))
                if kind in (POSITIVE, PART):
                    errors = (offsets[n, :, row, column] - batch["offsets"][n, :, row, column]).abs().tolist()
                    parts += [e * e / 0.1 if e < 0.05 else e - 0.025 for e in errors]
    hard = sorted((value for value, _ in losses), reverse=True)[: 3 * len(positives) // 2]
    kept = [*positives, *hard, *[value for value, counted in losses if counted]]
    expected = sum(kept) / len(kept) + 0.5 * sum(parts) / len(parts)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_a_batch_make_the_whole(size: int, tmp_path: Path, networks: dict[str, Path]) -> None:
    made = sample(tmp_path / "p", photos(2), net="pnet", count=8)
    of_pnet = PnetTask(made, None, PnetTrainerParams(batch=7), torch.device("cpu"))
    crops = sample(tmp_path / "o", photos(2), {"pnet": networks["pnet"]}, net="onet", count=60)
    of_onet = OnetTask(crops, None, OnetTrainerParams(batch=25), torch.device("cpu"))
    for task in (of_pnet, of_onet):
        whole = task.batch(3, np.random.default_rng(4), Share())
        parts = [task.batch(3, np.random.default_rng(4), Share(rank, size)) for rank in range(size)]
        for key in ("images", "labels", "offsets"):
            assert torch.equal(whole[key], torch.cat([part[key] for part in parts]))
        for key in ("gain", "shift", "orders"):
            assert torch.equal(whole["looks"][key], torch.cat([part["looks"][key] for part in parts]))


def test_batches_of_onet_are_mixed_as_asked(tmp_path: Path, networks: dict[str, Path]) -> None:
    crops = sample(tmp_path, photos(3), {"pnet": networks["pnet"]}, net="onet", count=90)
    task = OnetTask(crops, None, OnetTrainerParams(batch=24, mix=(2, 1, 3)), torch.device("cpu"))
    labels = task.batch(0, np.random.default_rng(0), Share())["labels"].tolist()
    assert [labels.count(kind) for kind in (POSITIVE, PART, NEGATIVE)] == [8, 4, 12]


# The chain


@pytest.mark.slow
def test_a_small_chain_finds_plates(tmp_path: Path) -> None:
    dataset = photos(12)
    made = sample(tmp_path / "ps", dataset, net="pnet", count=60)
    fast: dict[str, Any] = {"warmup": 10, "precision": "float32", "validate_every": 1000}
    params = PnetTrainerParams(steps=100, batch=5, **fast)
    pnet = PnetTrainer(params, context(tmp_path / "p")).run(made, dataset)["weights"]
    crops = sample(tmp_path / "os", dataset, {"pnet": pnet}, net="onet", count=600)
    onet_params = OnetTrainerParams(steps=80, batch=36, ema=0.9, **fast)
    onet = OnetTrainer(onet_params, context(tmp_path / "o")).run(crops, dataset)["weights"]

    info = weights.read_info(onet)
    assert info.metadata["training"]["samples"]["pnet"] == weights.read_info(pnet).sha256
    assert info.metadata["training"]["steps"] == 80
    assert info.metadata["licence"]
    detector = MtcnnDetector(DetectorParams(pnet=str(pnet), onet=str(onet)), context(tmp_path))
    hits, false = 0, 0
    for index in range(len(dataset)):
        picture = dataset[index].image()
        found = detector(Frames(torch.from_numpy(picture).unsqueeze(0), [Origin("photo")]))
        shares = [slow_iou(box, dataset[index].plates[0].box) for box in found.boxes.tolist()]
        hits += any(share >= 0.5 for share in shares)
        false += sum(share < 0.5 for share in shares)
        assert found.corners is not None
    assert hits >= 11
    assert false <= 2


class TestMtcnnDetector(DetectorSuite):
    """The contract of every detector, with networks that find little."""

    component: ClassVar[str] = "mtcnn.detector"
    params: ClassVar[Mapping[str, Any]] = {"thresholds": [0.6, 0.8]}


class TestMtcnnDetectorWithCenterNet(TestMtcnnDetector):
    """And with a CenterNet in PNet's place."""

    params: ClassVar[Mapping[str, Any]] = {"pnet": "any-centernet"}


def test_what_a_centernet_proposes_is_judged(networks: dict[str, Path], tmp_path: Path) -> None:
    """Where PNet's plate is, and only what it proposes."""
    photo = cv2.imread(str(Path(__file__).parents[2] / "recipes/samples/photos/scene-3.jpg"))
    assert photo is not None
    frames = Frames(torch.from_numpy(photo).unsqueeze(0), [Origin("scene")])
    one = MtcnnDetector(DetectorParams(pnet="any-centernet"), context(tmp_path))(frames)
    two = MtcnnDetector(DetectorParams(pnet="cn-pnet"), context(tmp_path))(frames)
    assert len(one) == len(two) == 1
    assert slow_iou(one.boxes[0].tolist(), two.boxes[0].tolist()) > 0.8
    nothing = {"pnet": "any-centernet", "onet": str(networks["onet"]), "thresholds": (1.0, 0.0), "refine": 0}
    assert len(MtcnnDetector(DetectorParams(**nothing), context(tmp_path))(frames)) == 0

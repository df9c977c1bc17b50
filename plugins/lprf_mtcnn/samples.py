"""`mtcnn.samples`: what PNet and ONet learn from, cut out of photos into one memory-mapped file.

A record of PNet's is a picture with a label and a box for each cell of PNet's output over it: many cells in the dense
way, one in windows. A record of ONet's is the crop of a box, as inference cuts it.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from lprf import weights
from lprf.boxes import areas, clipped, encode, encode_corners, overlaps
from lprf.context import Context
from lprf.data import Dataset, Truth
from lprf.errors import InputFailure, LprfError
from lprf.files import replacing
from lprf.sampling import sample_boxes
from lprf.training.photos import usable
from lprf_mtcnn.detector import Judge
from lprf_mtcnn.nets import CELL, FIELD, ONET_SIZE, STRIDE, load_onet, load_pnet
from lprf_mtcnn.params import DetectorParams
from lprf_mtcnn.proposers import Proposals, Proposer
from lprf_mtcnn.training_params import SamplesParams

logger = logging.getLogger("lprf.training")

NEGATIVE, POSITIVE, PART, IGNORED = 0, 1, 2, -1

PATCH = (128, 272)  # h, w of a dense sample: PNet's cells fill it without a rest
DENSE = (0.55, 0.4, 0.3)  # IoU from which a cell is positive, from which a part, below which negative
WINDOWS = (0.65, 0.4, 0.3)
CROPS = (0.6, 0.4, 0.3)
RESCUED = 0.35  # IoU that the best cells of a plate must reach where none is positive otherwise
OFF = 0.35  # how far from a cell's size the plates are that dense samples aim at, in powers of 2
QUOTAS = {POSITIVE: 1 / 3, PART: 1 / 6, NEGATIVE: 1 / 2}
FILE, INFO, PNET = "samples.bin", "samples.json", "pnet.safetensors"


@dataclass(frozen=True)
class Samples:
    """Samples of one network.

    records: structured [N]: "image" uint8 [h, w, 3] BGR, "label" int8 (POSITIVE, PART, NEGATIVE or IGNORED), and
    "offset" float, of the box from its cell or crop, in widths and heights of that; for PNet label is [rows, columns]
    and offset [4, rows, columns]; for ONet they are scalar and [4], and there is "corner" float32 [4, 2], NaN where
    unknown. info: what they were made of. pnet: the weights that ONet's were mined with.
    """

    records: np.ndarray
    info: Mapping[str, Any]
    pnet: Path | None = None

    def __len__(self) -> int:
        return len(self.records)


def grid(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of PNet's output over a picture of `size` (h, w)."""
    return (size[0] - FIELD[0]) // STRIDE[0] + 1, (size[1] - FIELD[1]) // STRIDE[1] + 1


def cells(size: tuple[int, int]) -> Tensor:
    """The boxes [rows * columns, 4] that PNet's cells stand for, in pixels of a picture of `size` (h, w)."""
    rows, columns = grid(size)
    y, x = torch.meshgrid(torch.arange(rows) * STRIDE[0] + 1.0, torch.arange(columns) * STRIDE[1] + 1.0, indexing="ij")
    return torch.stack([x, y, x + CELL[1], y + CELL[0]], dim=-1).view(-1, 4)


def label(
    boxes: Tensor, plates: Tensor, thresholds: tuple[float, float, float], small: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What each of `boxes` [N, 4] is among `plates` [M, 4]: its label int8 [N], and the plate it overlaps most [N].

    thresholds: as DENSE. small: plates [K, 4] that nobody asks for: boxes on them are ignored.
    """
    labels = torch.full((len(boxes),), IGNORED, dtype=torch.int8)
    best, plate = torch.zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64)
    if len(plates):
        best, plate = overlaps(boxes, plates).max(dim=1)
    labels[best < thresholds[2]] = NEGATIVE
    labels[best >= thresholds[1]] = PART
    labels[best >= thresholds[0]] = POSITIVE
    if small is not None and len(small):
        labels[(overlaps(boxes, small, "min").amax(dim=1) > 0.3) & (labels == NEGATIVE)] = IGNORED
    return labels, plate


def label_cells(
    boxes: Tensor, plates: Tensor, size: tuple[int, int], small: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `label`, for the cells of a scaled photo: a plate of a cell's size that no cell is positive for, because it
    has two rows or is tilted, takes its best ones.

    size: (h, w) of the picture; plates that reach out of it take none that way.
    """
    labels, plate = label(boxes, plates, DENSE, small)
    if not len(plates):
        return labels, plate
    shares = overlaps(boxes, plates)
    best = shares.amax(dim=0)
    inside = (plates[:, :2] >= 0).all(1) & (plates[:, 2] <= size[1]) & (plates[:, 3] <= size[0])
    zoom = (areas(plates) / (CELL[0] * CELL[1])).sqrt()
    missed = inside & (best >= RESCUED) & (best < DENSE[0]) & (zoom.log2().abs() <= OFF)
    for index in missed.nonzero().flatten().tolist():
        its = (shares[:, index] >= max(RESCUED, 0.9 * float(best[index]))) & (labels != POSITIVE)
        labels[its], plate[its] = POSITIVE, index
    return labels, plate


def cut(image: np.ndarray, x: float, y: float, scale: float, size: tuple[int, int], fill: float = 0.0) -> np.ndarray:
    """`size` (h, w) pixels of `image`, resized by `scale` bilinearly as `cv2.resize` does it, from its point (x, y) on.

    What lies outside the image is grey `fill`.
    """
    shift = 0.5 / scale - 0.5
    matrix = np.array([[1 / scale, 0, shift + x], [0, 1 / scale, shift + y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fills = (fill, fill, fill)
    return cv2.warpAffine(image, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fills)


class Photo:
    """A decoded photo with the plates in it that are to be learnt, and those that are too small for it."""

    def __init__(self, image: np.ndarray, plates: list[Truth], min_plate: tuple[int, int]):
        self.image = image
        boxes = torch.tensor([plate.box for plate in plates], dtype=torch.float32).view(-1, 4)
        # of a plate with two rows, or a tilted one, the sides say little: it is the area that must do
        large = areas(boxes) >= min_plate[0] * min_plate[1]
        self.boxes, self.small = boxes[large], boxes[~large]
        unknown = np.full((4, 2), np.nan, np.float32)
        corners = [unknown if plate.corners is None else np.asarray(plate.corners, np.float32) for plate in plates]
        self.corners = torch.from_numpy(np.stack([unknown, *corners])[1:])[large]


class Sampler:
    """`mtcnn.samples`."""

    def __init__(self, params: SamplesParams, context: Context):
        self.params, self.context = params, context
        assert context.folder is not None
        self.folder = context.folder
        self.metrics: dict[str, float] = {}

    def run(self, dataset: Dataset, pnet: Path | None = None, onet: Path | None = None) -> dict[str, Samples]:
        """Make the samples. pnet: needed for ONet's. onet: a first ONet, whose own boxes are mined too."""
        params = self.params
        if params.net == "onet" and pnet is None:
            raise LprfError(f"{self.context.node}: ONet's samples are mined with a trained PNet: connect `pnet`")
        if params.net == "pnet" and (pnet or onet):
            raise LprfError(f"{self.context.node}: PNet's samples need no weights; `pnet` and `onet` are for ONet's")
        if not len(dataset):
            raise LprfError(f"{self.context.node}: the dataset is empty")
        maker = self._maker(pnet, onet)
        counts = {POSITIVE: 0, PART: 0, NEGATIVE: 0}
        skipped, written, photos = 0, 0, 0
        chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), params.wanted)).round().astype(np.int64))
        with replacing(self.folder / FILE) as beside, beside.open("wb") as file:
            for number, photo, problems in self._photos(dataset, chosen):
                for problem in problems:
                    skipped += 1
                    if skipped <= 20:
                        logger.warning("%s: left out: %s", self.context.node, problem)
                due = params.wanted * (number + 1) // len(chosen) - written
                if photo is None or due <= 0:
                    continue
                rng = np.random.default_rng((self.context.seed, number))
                records = maker(photo, due, rng)
                file.write(records.tobytes())
                written, photos = written + len(records), photos + 1
                for kind in counts:
                    counts[kind] += int((records["label"] == kind).sum())
                if photos % max(1, len(chosen) // 10) == 0:
                    logger.info("%s: %d of %d photos, %d samples", self.context.node, photos, len(chosen), written)
        if skipped > 20:
            logger.warning("%s: left out: %d more pictures or labels", self.context.node, skipped - 20)
        names = {"positives": counts[POSITIVE], "parts": counts[PART], "negatives": counts[NEGATIVE]}
        info: dict[str, Any] = {"photos": photos, "samples": written, **names, "left_out": skipped}
        if not counts[POSITIVE] or not counts[NEGATIVE]:
            what = ", ".join(f"{count} {name}" for name, count in info.items())
            raise LprfError(f"{self.context.node}: nothing to learn from: {what}")
        info["dataset"] = dataset.fingerprint()
        if pnet is not None:
            with replacing(self.folder / PNET) as beside:
                shutil.copyfile(pnet, beside)
            info["pnet"] = weights.read_info(pnet).sha256
        with replacing(self.folder / INFO) as beside:
            beside.write_text(json.dumps(info, indent=1), encoding="utf-8")
        return self.load()

    def load(self) -> dict[str, Samples]:
        """What `run` gave, out of the folder."""
        info = json.loads((self.folder / INFO).read_text(encoding="utf-8"))
        self.metrics = {key: value for key, value in info.items() if isinstance(value, int)}
        records = np.memmap(self.folder / FILE, self._dtype(), mode="r")
        pnet = self.folder / PNET
        return {"samples": Samples(records, info, pnet if pnet.is_file() else None)}

    def _dtype(self) -> np.dtype[Any]:
        if self.params.net == "onet":
            image = ("image", "u1", (*ONET_SIZE, 3))
            return np.dtype([image, ("label", "i1"), ("offset", "f4", (4,)), ("corner", "f4", (4, 2))])
        size = PATCH if self.params.dense else FIELD
        return np.dtype([("image", "u1", (*size, 3)), ("label", "i1", grid(size)), ("offset", "f2", (4, *grid(size)))])

    def _maker(self, pnet: Path | None, onet: Path | None) -> Any:
        if self.params.net == "pnet":
            return self._patches if self.params.dense else _Quota(self._windows)
        device = self.context.device
        assert pnet is not None
        net = load_pnet(weights.load(weights.read_info(pnet)))
        width, height = self.params.min_plate
        self.proposers = []
        for zoom in (1.0, 1.5, 2.1):  # a photo is searched for small plates only where it has some: that is slow
            searched = DetectorParams(
                min_plate=(round(width * zoom), round(height * zoom)),
                thresholds=(self.params.threshold, 0.5),
                max_proposals=200,
            )
            self.proposers.append(Proposer(net, searched, device, told=False))
        self.judge = None if onet is None else Judge(load_onet(weights.load(weights.read_info(onet))), device)
        return _Quota(self._crops)

    def _photos(self, dataset: Dataset, chosen: np.ndarray) -> Iterator[tuple[int, Photo | None, list[str]]]:
        """The chosen photos in order, decoded ahead by `context.workers` processes where there are any."""
        reading: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
            _Decoded(dataset, chosen, self.params),
            batch_size=None,
            num_workers=self.context.workers,
            collate_fn=_as_it_is,
        )
        return iter(reading)

    # PNet

    def _patches(self, photo: Photo, due: int, rng: np.random.Generator) -> np.ndarray:
        """Cuts of the scaled photo: most of them with a plate as large as a cell in it, the others from anywhere."""
        records = np.zeros(due, self._dtype())
        boxes = cells(PATCH)
        aims = rng.permutation(len(photo.boxes))
        for number, record in enumerate(records):
            aimed = len(aims) > 0 and rng.random() < 0.8
            aim = photo.boxes[aims[number % len(aims)]] if aimed else None
            x, y, scale = _place(photo.image.shape[:2], aim, rng)
            record["image"] = cut(photo.image, x, y, scale, PATCH, rng.uniform(0, 255))
            at = torch.tensor([x, y, x, y], dtype=torch.float32)
            plates, small = (photo.boxes - at) * scale, (photo.small - at) * scale
            labels, plate = label_cells(boxes, plates, PATCH, small)
            record["label"] = labels.view(grid(PATCH)).numpy()
            if len(plates):
                wanted = (labels == POSITIVE) | (labels == PART)
                offsets = torch.zeros(len(boxes), 4)
                offsets[wanted] = encode(boxes[wanted], plates[plate[wanted]])
                record["offset"] = offsets.T.reshape(4, *grid(PATCH)).numpy()
        return records

    def _windows(self, photo: Photo, due: int, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Windows of a cell's shape around plates and elsewhere, by label; more of each than is due."""
        shape = photo.image.shape[:2]
        boxes = torch.cat([_jittered(photo.boxes, 3 * due, rng), _anywhere(shape, 2 * due, rng)])
        centres, area = (boxes[:, :2] + boxes[:, 2:]) / 2, areas(boxes).sqrt()
        half = torch.stack([area * math.sqrt(CELL[1] / CELL[0]), area * math.sqrt(CELL[0] / CELL[1])], dim=1) / 2
        boxes = torch.cat([centres - half, centres + half], dim=1)
        labels, plate = label(boxes, photo.boxes, WINDOWS, photo.small)
        found = {}
        for kind, quota in QUOTAS.items():
            rows = (labels == kind).nonzero().flatten()[: math.ceil(due * quota)]
            records = np.zeros(len(rows), self._dtype())
            for record, row in zip(records, rows.tolist(), strict=True):
                scale = CELL[0] / float(boxes[row, 3] - boxes[row, 1])
                x, y = (boxes[row, :2] - 1 / scale).tolist()
                record["image"] = cut(photo.image, x, y, scale, FIELD, 127)
                record["label"] = kind
                if kind != NEGATIVE:
                    offset = encode(boxes[row : row + 1], photo.boxes[plate[row : row + 1]])
                    record["offset"] = offset.view(4, 1, 1).numpy()
            found[kind] = records
        return found

    # ONet

    def _crops(self, photo: Photo, due: int, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Crops of what PNet proposes, of boxes beside the labels, and of a few from anywhere, by label."""
        images = torch.from_numpy(photo.image).unsqueeze(0).to(self.context.device)
        shape = photo.image.shape[:2]
        proposals = self._proposer(photo, rng)(images)
        order = proposals.scores.argsort(descending=True, stable=True)
        proposals = proposals.rows(order)
        boxes = [proposals.boxes, _jittered(photo.boxes, due, rng).to(images.device)]
        if self.judge is not None and len(proposals.boxes):
            boxes.append(self._judged(images, proposals))
        boxes.append(_anywhere(shape, max(2, due // 8), rng).to(images.device))
        every, _ = clipped(torch.cat(boxes), images)
        every = every[((every[:, 2:] - every[:, :2]) >= 3).all(1)]
        labels, plate = label(every.cpu(), photo.boxes, CROPS, photo.small)
        found = {}
        for kind, quota in QUOTAS.items():
            rows = (labels == kind).nonzero().flatten()
            # negatives stand with the best proposals first; of the others any will do
            if kind != NEGATIVE:
                rows = rows[torch.from_numpy(rng.permutation(len(rows)))]
            rows = rows[: math.ceil(2 * due * quota)]
            records = np.zeros(len(rows), self._dtype())
            if len(rows):
                its = every[rows.to(every.device)]
                frame = torch.zeros(len(its), dtype=torch.int64, device=its.device)
                crops = sample_boxes(images, frame, its, ONET_SIZE)
                records["image"] = crops.round_().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
                records["label"] = kind
                records["corner"] = np.nan
                if kind != NEGATIVE:
                    its = its.cpu()
                    records["offset"] = encode(its, photo.boxes[plate[rows]]).numpy()
                    records["corner"] = encode_corners(its, photo.corners[plate[rows]]).numpy()
            found[kind] = records
        return found

    def _proposer(self, photo: Photo, rng: np.random.Generator) -> Proposer:
        """The one whose smallest plate is not larger than the photo's; without plates, mostly the quickest."""
        area = self.params.min_plate[0] * self.params.min_plate[1]
        smallest = float(areas(photo.boxes).min()) if len(photo.boxes) else area * 6 * rng.random()
        fits = [p for p in self.proposers[1:] if p.params.min_plate[0] * p.params.min_plate[1] <= smallest]
        return fits[-1] if fits else self.proposers[0]

    def _judged(self, images: Tensor, proposals: Proposals) -> Tensor:
        """The boxes that a first ONet makes of proposals it takes for plates."""
        assert self.judge is not None
        boxes, inside = clipped(proposals.boxes, images)
        scores, moved, _ = self.judge(images, proposals.frame[inside], boxes[inside])
        return moved[scores > 0.2]


class _Quota:
    """Keeps the kinds of windows in their shares over all photos: what one photo lacks another gives."""

    def __init__(self, make: Any):
        self.make = make
        self.due = dict.fromkeys(QUOTAS, 0.0)

    def __call__(self, photo: Photo, due: int, rng: np.random.Generator) -> np.ndarray:
        found = self.make(photo, due, rng)
        taken = []
        for kind, quota in QUOTAS.items():
            self.due[kind] = min(self.due[kind] + due * quota, due * 4.0)
            records = found[kind][: max(0, math.floor(self.due[kind]))]
            self.due[kind] -= len(records)
            taken.append(records)
        return np.concatenate(taken)


class _Decoded(torch.utils.data.Dataset[Any]):
    """Photos by number, decoded, with what was wrong with them."""

    def __init__(self, dataset: Dataset, chosen: np.ndarray, params: SamplesParams):
        self.dataset, self.chosen, self.params = dataset, chosen, params

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> tuple[int, Photo | None, list[str]]:
        try:
            example = self.dataset[int(self.chosen[number])]
            image = example.image()
        except InputFailure as failure:
            return number, None, [str(failure)]
        good, problems = usable(example.plates, image.shape[:2], example.source)
        if example.plates and not good:
            return number, None, problems  # a photo whose every label is wrong is not one without plates
        return number, Photo(image, good, self.params.min_plate), problems


def _as_it_is(value: Any) -> Any:
    return value


def _place(shape: tuple[int, ...], aim: Tensor | None, rng: np.random.Generator) -> tuple[float, float, float]:
    """Where a patch is cut from a photo of `shape`: x, y, scale; with the whole of `aim` in it, as large as a cell."""
    height, width = shape
    if aim is not None:
        x1, y1, x2, y2 = aim.tolist()
        scale = math.sqrt(CELL[0] * CELL[1] / ((x2 - x1) * (y2 - y1))) * 2 ** rng.uniform(-OFF, OFF)
    else:
        x1, y1, x2, y2 = 0.0, 0.0, width, height
        lowest = max(FIELD[0] / height, FIELD[1] / width)
        scale = math.exp(rng.uniform(math.log(min(lowest, 1.2)), math.log(1.5)))
    found = []
    for low, high, length, pixels in ((x1, x2, width, PATCH[1]), (y1, y2, height, PATCH[0])):
        side = pixels / scale
        # the patch begins before `low` and ends after `high` where it can, and inside the photo where it can
        first, last = sorted((high - side, low) if aim is not None else (0.0, length - side))
        begin = float(rng.uniform(first, last))
        found.append(min(max(begin, 0.0), length - side) if side <= length else (length - side) * float(rng.random()))
    return found[0], found[1], scale


def _jittered(boxes: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """About `count` boxes beside and on `boxes`, some very near, others farther off."""
    if not len(boxes):
        return boxes
    each = boxes[torch.arange(math.ceil(count / len(boxes)) * len(boxes)) % len(boxes)]
    draws = torch.from_numpy(rng.standard_normal((len(each), 4))).float()
    draws *= torch.from_numpy(rng.choice([0.25, 0.6, 1.0, 1.8], (len(each), 1))).float()
    centres, sizes = (each[:, :2] + each[:, 2:]) / 2, each[:, 2:] - each[:, :2]
    centres = centres + sizes * draws[:, :2] * 0.12
    half = sizes * (draws[:, 2:] * 0.18).exp() / 2
    return torch.cat([centres - half, centres + half], dim=1)


def _anywhere(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> Tensor:
    """Boxes about as wide as plates are, anywhere in a photo of `shape`."""
    height, width = shape
    wide = np.exp(rng.uniform(math.log(20), math.log(max(21, min(width, 400))), count))
    high = np.minimum(wide / rng.uniform(1.3, 4.5, count), height)
    wide = np.minimum(wide, width)
    x, y = rng.random(count) * (width - wide), rng.random(count) * (height - high)
    return torch.from_numpy(np.stack([x, y, x + wide, y + high], axis=1)).float()

"""`mtcnn.pnet-trainer` and `mtcnn.onet-trainer`: losses with online hard-example mining, as arXiv 1604.02878 has them.

Mining is over the global batch, so that several processes learn what one would.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lprf import weights
from lprf.builtin.metrics import iou_matrix, match
from lprf.context import Context
from lprf.data import Dataset, Frames, Origin
from lprf.errors import LprfError
from lprf.training import distributed
from lprf.training.distributed import Share
from lprf.training.loop import Task, Trained, record, train
from lprf.training.photos import photos_with_boxes
from lprf_mtcnn.detector import Judge, decide
from lprf_mtcnn.nets import ONet, PNet, load_pnet, normalise, onet_metadata, pnet_metadata
from lprf_mtcnn.params import DetectorParams
from lprf_mtcnn.proposers import Proposals, Proposer
from lprf_mtcnn.samples import NEGATIVE, PART, POSITIVE, Samples
from lprf_mtcnn.training_params import OnetTrainerParams, PnetTrainerParams

logger = logging.getLogger("lprf.training")

RANDOM = 0.004  # share of PNet's cells that count whether hard or not
BETA = 0.05  # where smooth-L1 turns from a square into a line, in widths and heights of a box
TITLES = {"pnet": "PNet: proposes plates in photos.", "onet": "ONet: judges and tightens what PNet proposes."}


class PnetTask(Task):
    """Every cell of PNet's output over the samples' pictures is an example; most of the negative ones are left out."""

    def __init__(self, samples: Samples, val: Dataset | None, params: PnetTrainerParams, device: torch.device):
        self.samples, self.params, self.device = samples, params, device
        if samples.records["label"].ndim != 3:
            raise LprfError("these samples are ONet's; PNet learns from `mtcnn.samples` with `net: pnet`")
        net = PNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net = net
        self.networks = {"pnet": net}
        self.steps_per_epoch = max(1, len(samples) // params.batch)
        self.val = functools.cache(
            lambda: [] if val is None else photos_with_boxes(val, params.val_photos, params.min_plate)
        )

    def batch(self, step: int, rng: np.random.Generator, share: Share) -> Any:
        batch = self.params.batch
        rows = rng.integers(len(self.samples), size=batch)
        looks = _looks(batch, self.params, rng)
        counted = rng.random((batch, *self.samples.records["label"].shape[1:])) < RANDOM
        mine = share.rows(batch)
        records = self.samples.records[rows[mine]]
        return {
            "images": _tensor(records["image"]),
            "labels": _tensor(records["label"]),
            "offsets": _tensor(records["offset"]).float(),
            "counted": torch.from_numpy(counted[mine]),
            "looks": {name: value[mine] for name, value in looks.items()},
        }

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        logits, offsets = self.networks["pnet"](_input(batch))
        labels = batch["labels"].flatten()
        logits = logits.float().permute(0, 2, 3, 1).reshape(-1, 2)
        offsets = offsets.float().permute(0, 2, 3, 1).reshape(-1, 4)
        targets = batch["offsets"].permute(0, 2, 3, 1).reshape(-1, 4)
        positive, negative = labels == POSITIVE, labels == NEGATIVE
        boxed = positive | (labels == PART)
        losses = F.cross_entropy(logits, positive.long(), reduction="none")
        positives = distributed.total(positive.sum())
        count = max(self.params.batch, round(self.params.negatives * float(positives)))
        own = losses[negative]
        hard = own[distributed.hardest(own, count)]
        chance = own[batch["counted"].flatten()[negative]]
        kept = torch.cat([losses[positive], losses[positive], hard, chance])
        of_class = distributed.mean(kept)
        of_box = distributed.mean(F.smooth_l1_loss(offsets[boxed], targets[boxed], beta=BETA, reduction="none"))
        loss = self.params.loss[0] * of_class + self.params.loss[1] * of_box
        found = distributed.mean((logits[positive, 1] > logits[positive, 0]).float())
        return loss, {"class": of_class, "box": of_box, "recall": found if positives else float("nan")}

    def validate(self) -> dict[str, float]:
        """score: plates that a proposal covers (IoU 0.4) and how well, less a little for many proposals a photo."""
        photos = self.val()
        if not photos:
            return {}
        propose = Proposer(self.net, DetectorParams(min_plate=self.params.min_plate), self.device, told=False)
        covered, overlap, plates, proposals = 0, 0.0, 0, 0
        for image, boxes in photos:
            found = propose(image.to(self.device)).boxes.cpu().numpy()
            proposals += len(found)
            plates += len(boxes)
            if len(found) and len(boxes):
                best = iou_matrix(found, boxes).max(axis=0)
                covered, overlap = covered + int((best >= 0.4).sum()), overlap + float(best.sum())
        recall, each, best_iou = covered / max(1, plates), proposals / len(photos), overlap / max(1, plates)
        return {"score": recall + best_iou - 0.001 * each, "recall": recall, "iou": best_iou, "proposals": each}


class OnetTask(Task):
    """Batches of positives, parts and negatives in fixed shares; crops as inference cuts them."""

    def __init__(self, samples: Samples, val: Dataset | None, params: OnetTrainerParams, device: torch.device):
        self.samples, self.params, self.device = samples, params, device
        if samples.records["label"].ndim != 1:
            raise LprfError("these samples are PNet's; ONet learns from `mtcnn.samples` with `net: onet`")
        labels = np.asarray(samples.records["label"])
        self.rows = [np.flatnonzero(labels == kind) for kind in (POSITIVE, PART, NEGATIVE)]
        mix = np.array([share if len(rows) else 0.0 for share, rows in zip(params.mix, self.rows, strict=True)])
        ends = np.round(np.cumsum(mix) / mix.sum() * params.batch).astype(int)
        self.counts = np.diff([0, *ends]).tolist()
        corners = params.corners and bool(np.isfinite(samples.records["corner"][self.rows[0], 0, 0]).any())
        net = ONet(corners=corners).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net = net
        self.networks = {"onet": net}
        self.steps_per_epoch = max(1, len(samples) // params.batch)
        self.val = functools.cache(lambda: [] if val is None else self._proposals(val))

    def batch(self, step: int, rng: np.random.Generator, share: Share) -> Any:
        batch = self.params.batch
        kinds = zip(self.rows, self.counts, strict=True)
        every = [rows[rng.integers(len(rows), size=count)] for rows, count in kinds if count]
        rows = rng.permutation(np.concatenate(every))
        looks = _looks(batch, self.params, rng)
        mine = share.rows(batch)
        records = self.samples.records[rows[mine]]
        return {
            "images": _tensor(records["image"]),
            "labels": _tensor(records["label"]),
            "offsets": _tensor(records["offset"]),
            "corners": _tensor(records["corner"]),
            "looks": {name: value[mine] for name, value in looks.items()},
        }

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        params = self.params
        logits, offsets, corners = self.networks["onet"](_input(batch))
        labels = batch["labels"]
        judged, boxed = labels != PART, labels != NEGATIVE
        losses = F.cross_entropy(logits.float()[judged], (labels[judged] == POSITIVE).long(), reduction="none")
        count = params.hardest * float(distributed.total(judged.sum()))
        of_class = distributed.mean(losses[distributed.hardest(losses, round(count))])
        of_box = _smooth(offsets[boxed], batch["offsets"][boxed])
        loss = params.loss[0] * of_class + params.loss[1] * of_box
        right = (logits.argmax(1) == (labels == POSITIVE))[judged].float()
        metrics: dict[str, Tensor | float] = {"class": of_class, "box": of_box, "accuracy": distributed.mean(right)}
        if corners is not None:
            known = boxed & batch["corners"].isfinite().all(2).all(1)
            of_corners = _smooth(corners[known], batch["corners"][known])
            loss = loss + params.loss[2] * of_corners
            metrics["corners"] = of_corners
        return loss, metrics

    def validate(self) -> dict[str, float]:
        """score: the mean of plates found at IoU 0.5 and 0.7, less the false boxes a photo."""
        photos = self.val()
        if not photos:
            return {}
        judge = Judge(self.net, self.device)
        params = DetectorParams(min_plate=self.params.min_plate)
        at_half, at_most, plates, false = 0, 0, 0, 0
        for image, boxes, proposals in photos:
            frames = Frames(image.to(self.device), [Origin("validation")])
            found = decide(judge, frames, proposals, params)
            its, scores = found.boxes.cpu().numpy(), found.scores.cpu().numpy()
            hits = int((match(its, scores, boxes, 0.5) >= 0).sum())
            at_half, false, plates = at_half + hits, false + len(its) - hits, plates + len(boxes)
            at_most += int((match(its, scores, boxes, 0.7) >= 0).sum())
        half, most, each = at_half / max(1, plates), at_most / max(1, plates), false / len(photos)
        return {"score": (half + most) / 2 - each, "found": half, "found_tightly": most, "false_boxes": each}

    def _proposals(self, val: Dataset) -> list[tuple[Tensor, np.ndarray, Proposals]]:
        """Validation photos with what PNet proposes in them: that does not change while ONet learns."""
        if self.samples.pnet is None:
            return []
        net = load_pnet(weights.load(weights.read_info(self.samples.pnet)))
        propose = Proposer(net, DetectorParams(min_plate=self.params.min_plate), self.device, told=False)
        return [
            (image, boxes, propose(image.to(self.device)))
            for image, boxes in photos_with_boxes(val, self.params.val_photos, self.params.min_plate)
        ]


class PnetTrainer:
    """`mtcnn.pnet-trainer`."""

    def __init__(self, params: PnetTrainerParams, context: Context):
        self.params, self.context = params, context

    def run(self, samples: Samples, val: Dataset | None = None) -> dict[str, Path]:
        """Train; gives the path of the weights."""
        task = PnetTask(samples, val, self.params, self.context.device)
        result = train(task, self.params, self.context)
        return _written("pnet", pnet_metadata(task.net), result, samples, self.params, self.context)


class OnetTrainer:
    """`mtcnn.onet-trainer`."""

    def __init__(self, params: OnetTrainerParams, context: Context):
        self.params, self.context = params, context

    def run(self, samples: Samples, val: Dataset | None = None) -> dict[str, Path]:
        """Train; gives the path of the weights."""
        task = OnetTask(samples, val, self.params, self.context.device)
        result = train(task, self.params, self.context)
        return _written("onet", onet_metadata(task.net), result, samples, self.params, self.context)


def _written(
    name: str,
    metadata: Mapping[str, Any],
    result: Trained,
    samples: Samples,
    params: PnetTrainerParams | OnetTrainerParams,
    context: Context,
) -> dict[str, Path]:
    assert context.folder is not None
    path = context.folder / f"{name}{weights.SUFFIX}"
    if distributed.is_main():
        training = {**record(result, params, context), "samples": dict(samples.info)}
        told = {"summary": TITLES[name], "licence": params.licence, "training": training}
        weights.save(path, result.weights[name], {**metadata, **told})
    return {"weights": path}


def _looks(count: int, params: PnetTrainerParams | OnetTrainerParams, rng: np.random.Generator) -> dict[str, Tensor]:
    """How pictures are changed: contrast and brightness [N, 1, 1, 1], the order of their channels [N, 3]."""
    spread = params.brightness
    gain = np.exp(rng.normal(0, spread, count).clip(-2 * spread, 2 * spread))
    shift = rng.normal(0, 60 * spread, count)
    orders = np.tile(np.arange(3), (count, 1))
    for row in np.flatnonzero(rng.random(count) < params.permute):
        orders[row] = rng.permutation(3)
    shape = (-1, 1, 1, 1)
    return {
        "gain": torch.from_numpy(gain).float().view(shape),
        "shift": torch.from_numpy(shift).float().view(shape),
        "orders": torch.from_numpy(orders),
    }


def _input(batch: Any) -> Tensor:
    """Pictures uint8 [N, h, w, 3] BGR, changed in brightness and order of channels, as the networks read them."""
    looks = batch["looks"]
    images = batch["images"].permute(0, 3, 1, 2).float()
    moved = (looks["orders"] != torch.arange(3, device=images.device)).any(1).nonzero().flatten()
    for row in moved.tolist():
        images[row] = images[row, looks["orders"][row]]
    images = (images * looks["gain"] + looks["shift"]).clamp_(0, 255)
    return normalise(images).contiguous(memory_format=torch.channels_last)


def _smooth(values: Tensor, targets: Tensor) -> Tensor:
    """Smooth-L1 over the global batch."""
    return distributed.mean(F.smooth_l1_loss(values.float(), targets, beta=BETA, reduction="none"))


def _tensor(values: np.ndarray) -> Tensor:
    """One field of records, which lie apart in memory."""
    return torch.from_numpy(np.ascontiguousarray(values))

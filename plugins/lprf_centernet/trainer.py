"""`centernet.trainer`: the single-shot detector, learnt from cuts of photos that are drawn anew for every batch."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lprf import weights
from lprf.boxes import areas, encode_corners
from lprf.builtin.metrics import average_precision, match
from lprf.context import Context
from lprf.data import Dataset, Truth
from lprf.errors import InputFailure, LprfError
from lprf.training import distributed
from lprf.training.distributed import Share
from lprf.training.loop import Task, record, train
from lprf.training.photos import mirrored, photos_with_boxes, usable
from lprf.training.shares import Shares
from lprf_centernet.cuts import IGNORED, NOTHING, PLATE, cut
from lprf_centernet.detector import Finder
from lprf_centernet.net import SCALE, CenterNet, boxes_of, load, middles
from lprf_centernet.params import DetectorParams, TrainerParams

logger = logging.getLogger("lprf.training")

FIT = (0.2, 0.7)  # IoU of a box with its plate for which the score is to be 0, and 1
SLACK = 1.5  # pixels that both grow on each side before: small plates are not labelled more exactly
CONFIDENT = 0.05  # score from which boxes count in validation
BETA = 0.05  # where the corners' smooth-L1 turns from a square into a line, in widths and heights


class CenterNetTask(Task):
    """Two cuts of every photo drawn, most of them about a plate of a size drawn by chance."""

    def __init__(
        self, params: TrainerParams, device: torch.device, datasets: Sequence[Dataset], val: Dataset | None, node: str
    ):
        self.params, self.device, self.datasets = params, device, datasets
        self.shares = Shares(params.shares, len(datasets))
        for dataset in datasets:
            if not len(dataset):
                raise LprfError(f"{node}: a dataset is empty")
            for problem in dataset.problems[:5]:
                logger.info("  %s", problem)
        net = CenterNet(params.channels, params.depth)
        self.net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks = {"centernet": self.net}
        self.teacher: CenterNet | None = None  # what it finds, and no label tells of, is neither plate nor nothing
        self.val = functools.cache(
            lambda: [] if val is None else photos_with_boxes(val, params.val_photos, params.min_plate)
        )

    def batch(self, step: int, rng: np.random.Generator, share: Share) -> Any:
        batch = self.params.batch
        chosen = self.shares.draw(rng, batch // 2)
        seeds = rng.integers(2**63, size=batch // 2)
        photos: dict[int, tuple[np.ndarray, list[Truth]]] = {}
        cuts, labelled = [], []
        for row in range(batch)[share.rows(batch)]:
            photo = row // 2
            if photo not in photos:
                photos[photo] = self._photo(int(chosen[photo]), np.random.default_rng(int(seeds[photo])))
            cuts.append(cut(*photos[photo], self.params, np.random.default_rng([int(seeds[photo]), row % 2])))
            labelled.append(bool(photos[photo][1]))
        named = zip(("images", "boxes", "corners", "labels", "plates"), zip(*cuts, strict=True), strict=True)
        return {"labelled": torch.tensor(labelled), **{name: torch.stack(values) for name, values in named}}

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        images = (batch["images"].permute(0, 3, 1, 2) / SCALE).contiguous(memory_format=torch.channels_last)
        logits, distances, corners = self.networks["centernet"](images)
        logits, distances, corners = logits.float()[:, 0], distances.float(), corners.float()
        labels = self._doubted(images, batch["labels"], batch["labelled"])
        sample, row, column = (labels == PLATE).nonzero().unbind(1)
        plate = batch["plates"][sample, row, column].long()
        truths, points = batch["boxes"][sample, plate], batch["corners"][sample, plate]
        middle = middles(labels.shape[1], labels.shape[2], labels.device)[row, column]
        boxes = boxes_of(middle, distances[sample, :, row, column])
        iou, generalised = _overlap(boxes, truths)
        # the score learns whether the box will fit, too: quality focal loss (arXiv 2006.04388)
        grown = torch.tensor([-SLACK, -SLACK, SLACK, SLACK], device=boxes.device)
        fit, _ = _overlap(boxes.detach() + grown, truths + grown)
        wanted = torch.zeros_like(logits)
        wanted[sample, row, column] = ((fit - FIT[0]) / (FIT[1] - FIT[0])).clamp(0, 1)
        certainty = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        focal = certainty * (wanted - logits.sigmoid()).detach().square()
        count = distributed.total(torch.tensor(float(len(sample)), device=logits.device)).clamp(min=1)
        of_score = focal[labels != IGNORED].sum() * distributed.share().size / count
        of_box = distributed.mean(1 - generalised)
        known = points.isfinite().all(2).all(1)
        given = corners[sample, :, row, column].unflatten(1, (4, 2))[known]
        of_corners = distributed.mean(
            F.smooth_l1_loss(given, encode_corners(truths[known], points[known]), beta=BETA, reduction="none")
        )
        weight = self.params.loss
        loss = weight[0] * of_score + weight[1] * of_box + weight[2] * of_corners
        return loss, {"score": of_score, "iou": distributed.mean(iou.detach()), "corners": of_corners}

    def validate(self) -> dict[str, float]:
        """score: the mean of the average precision at IoU 0.5 and 0.7."""
        photos = self.val()
        if not photos:
            return {}
        find = Finder(
            self.net, DetectorParams(min_plate=self.params.min_plate, threshold=CONFIDENT), self.device, told=False
        )
        scores: list[float] = []
        hits: dict[float, list[bool]] = {0.5: [], 0.7: []}
        for image, boxes in photos:
            its, sure = (values.cpu().numpy() for values in find(image.to(self.device))[1:3])
            scores += sure.tolist()
            for iou, right in hits.items():
                right += (match(its, sure, boxes, iou) >= 0).tolist()
        plates = sum(len(boxes) for _, boxes in photos)
        half, most = (average_precision(scores, right, plates) for right in hits.values())
        return {"score": (half + most) / 2, "ap50": half, "ap70": most}

    @torch.no_grad()
    def _doubted(self, images: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
        """The labels [B, h, w], less those of nothing where the teacher sees a plate in a photo that has some."""
        if self.teacher is None:
            return labels
        plates = self.teacher(images)[0][:, 0].float().sigmoid() > self.params.taught
        return labels.masked_fill(plates & (labels == NOTHING) & labelled.view(-1, 1, 1), IGNORED)

    def _photo(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, list[Truth]]:
        """A photo of one dataset, with its labels."""
        dataset = self.datasets[number]
        for _ in range(100):
            try:
                example = dataset[int(rng.integers(len(dataset)))]
                image = example.image()
            except InputFailure as failure:
                logger.warning("%s; another is taken", failure)
                continue
            plates, problems = usable(example.plates, image.shape[:2], example.source)
            if example.plates and not plates:
                logger.warning("%s; another is taken", problems[0])
                continue
            return mirrored(image, plates) if rng.random() < self.params.mirror else (image, plates)
        raise LprfError("of a hundred photos drawn none can be read")


class CenterNetTrainer:
    """`centernet.trainer`."""

    def __init__(self, params: TrainerParams, context: Context):
        self.params, self.context = params, context

    def run(self, datasets: Sequence[Dataset], val: Dataset | None = None) -> dict[str, Path]:
        """Train; gives the path of the weights."""
        params, context = self.params, self.context
        assert context.folder is not None
        task = CenterNetTask(params, context.device, datasets, val, context.node)
        if params.init is not None:
            context.weights(params.init).require("centernet").into(task.net)
        if params.teacher is not None:
            task.teacher = load(context.weights(params.teacher)).to(context.device)
        result = train(task, params, context)
        path = context.folder / f"centernet{weights.SUFFIX}"
        if distributed.is_main():
            training = {
                **record(result, params, context),
                "photos": [len(dataset) for dataset in datasets],
                "fingerprints": [dataset.fingerprint()[:16] for dataset in datasets],
            }
            told = {"summary": "Finds plates and their corners in one pass.", "licence": params.licence}
            weights.save(path, result.weights["centernet"], {**task.net.metadata(), **told, "training": training})
        return {"weights": path}


def _overlap(boxes: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv 1902.09630) of boxes [N, 4] with their truths [N, 4]; [N] each."""
    low, high = torch.maximum(boxes[:, :2], truths[:, :2]), torch.minimum(boxes[:, 2:], truths[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    union = areas(boxes) + areas(truths) - common
    iou = common / union.clamp(min=1e-6)
    hull = (torch.maximum(boxes[:, 2:], truths[:, 2:]) - torch.minimum(boxes[:, :2], truths[:, :2])).prod(1)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)

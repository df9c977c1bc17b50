"""Photos with boxes, as detectors learn from them: which labels make sense, mirroring, validation."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lprf.data import Dataset, Truth
from lprf.errors import InputFailure

logger = logging.getLogger("lprf.training")


def usable(plates: tuple[Truth, ...], shape: tuple[int, int], source: str) -> tuple[list[Truth], list[str]]:
    """The labels that make sense in a photo of `shape` (h, w), their boxes cut at its border; what ails the rest."""
    good, problems = [], []
    for plate in plates:
        x1, y1, x2, y2 = plate.box
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(shape[1])), min(y2, float(shape[0])))
        if not all(math.isfinite(value) for value in plate.box) or x2 <= x1 or y2 <= y1:
            problems.append(f"{source}: the box {plate.box} is none")
        elif inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
            problems.append(f"{source}: the box {plate.box} lies outside the photo of {shape[1]} × {shape[0]}")
        else:
            good.append(replace(plate, box=inside))
    return good, problems


def mirrored(image: np.ndarray, plates: list[Truth]) -> tuple[np.ndarray, list[Truth]]:
    """A photo uint8 [h, w, 3] with left and right exchanged, and its labels, whose corners stay TL TR BR BL."""
    width = float(image.shape[1])
    turned = []
    for plate in plates:
        x1, y1, x2, y2 = plate.box
        corners = None if plate.corners is None else np.asarray(plate.corners)[[1, 0, 3, 2]] * (-1, 1) + (width, 0)
        turned.append(replace(plate, box=(width - x2, y1, width - x1, y2), corners=corners))
    return np.ascontiguousarray(image[:, ::-1]), turned


def photos_with_boxes(dataset: Dataset, most: int, min_plate: tuple[int, int]) -> list[tuple[Tensor, np.ndarray]]:
    """At most so many photos uint8 [1, H, W, 3] spread over a dataset, with the boxes [N, 4] of at least that area."""
    found = []
    count = min(len(dataset), most)
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)).tolist() if count else []:
        try:
            example = dataset[index]
            image = example.image()
        except InputFailure as failure:
            logger.warning("validation: left out: %s", failure)
            continue
        good, problems = usable(example.plates, image.shape[:2], example.source)
        for problem in problems:
            logger.warning("validation: left out: %s", problem)
        if example.plates and not good:
            continue  # a photo whose every label is wrong is not one without plates
        boxes = np.array([plate.box for plate in good], np.float32).reshape(-1, 4)
        large = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) >= min_plate[0] * min_plate[1]
        found.append((torch.from_numpy(image).unsqueeze(0), boxes[large]))
    return found

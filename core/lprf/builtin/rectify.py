"""The framework's own rectifiers: upright crops, and perspective by the plate's corners."""

from __future__ import annotations

import torch
from torch import Tensor

from lprf.builtin.rectify_params import CropParams
from lprf.context import Context
from lprf.data import Detections, Plates
from lprf.errors import LprfError
from lprf.sampling import sample_boxes, sample_quads

SIZE = (24, 94)  # height, width of plates where no reader says what it wants


class Crop:
    """`core.crop`: every detection's box, resized."""

    def __init__(self, params: CropParams, context: Context):
        self.params = params
        self.size = params.size or context.plate_size or SIZE

    @torch.inference_mode()
    def __call__(self, detections: Detections) -> Plates:
        images = self._cut(detections, detections.frame, detections.boxes)
        return Plates(detections, torch.arange(len(detections), device=images.device), images)

    def _cut(self, detections: Detections, frame: Tensor, boxes: Tensor) -> Tensor:
        params = self.params
        return sample_boxes(detections.frames.images, frame, boxes, self.size, params.interpolation, params.margin)


class Perspective(Crop):
    """`core.perspective`: every detection's four corners warped to a rectangle; its box where they are not known."""

    @torch.inference_mode()
    def __call__(self, detections: Detections) -> Plates:
        corners = detections.corners
        if corners is None:
            raise LprfError("core.perspective needs detections with corners, and this detector gives none")
        centre = corners.mean(dim=1, keepdim=True)
        quads = centre + (corners - centre) * (1 + 2 * self.params.margin)
        known = corners.isfinite().all(dim=2).all(dim=1)
        images = sample_quads(
            detections.frames.images,
            detections.frame,
            torch.where(known.view(-1, 1, 1), quads, torch.zeros_like(quads)),
            self.size,
            self.params.interpolation,
        )
        unknown = (~known).nonzero().squeeze(1)
        if len(unknown):
            images[unknown] = self._cut(detections, detections.frame[unknown], detections.boxes[unknown])
        return Plates(detections, torch.arange(len(detections), device=images.device), images)

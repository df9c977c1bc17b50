"""The STN as a rectifier: boxes in, upright plates out."""

from __future__ import annotations

import torch

from lprf.context import Context
from lprf.data import Detections, Plates
from lprf.errors import WeightsError
from lprf.sampling import sample_boxes
from lprf_stn.net import MEAN, SCALE, build
from lprf_stn.plugin import RectifierParams


class StnRectifier:
    """Cuts each box to the STN's input size, bicubically, and straightens it. Computes in float32 always."""

    def __init__(self, params: RectifierParams, context: Context):
        self.weights = weights = context.weights(params.weights)
        self.net = build(weights).to(context.device)
        self.margin = params.margin
        if context.plate_size not in (None, self.net.size):
            raise WeightsError(
                f"{context.node or 'stn.rectifier'}: the STN in {weights.path} gives plates of "
                f"{self.net.size[0]} x {self.net.size[1]} (h x w), the recognizer after it reads "
                f"{context.plate_size[0]} x {context.plate_size[1]}"
            )

    @torch.inference_mode()
    def __call__(self, detections: Detections) -> Plates:
        crops = sample_boxes(
            detections.frames.images, detections.frame, detections.boxes, self.net.size, "cubic", margin=self.margin
        )
        images = crops
        if len(crops):
            images = self.net((crops - MEAN) / SCALE) * SCALE + MEAN
        rows = torch.arange(len(crops), device=crops.device)
        return Plates(detections, rows, images)

"""The STN as a rectifier: boxes in, upright plates out."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lprf.captured import Captured, Results
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
        self.captured = Captured()
        if context.plate_size not in (None, self.net.size):
            raise WeightsError(
                f"{context.node or 'stn.rectifier'}: the STN in {weights.path} gives plates of "
                f"{self.net.size[0]} x {self.net.size[1]} (h x w), the recognizer after it reads "
                f"{context.plate_size[0]} x {context.plate_size[1]}"
            )

    @torch.inference_mode()
    def __call__(self, detections: Detections) -> Plates:
        cut: Callable[..., Results] = self._cut
        if detections.filled is not None:  # whose shapes come again
            cut = functools.partial(self.captured, self._cut)
        (images,) = cut(detections.frames.images, detections.frame, detections.boxes)
        assert images is not None
        rows = torch.arange(len(images), device=images.device)
        return Plates(detections, rows, images)

    def _cut(self, images: Tensor, frame: Tensor, boxes: Tensor) -> tuple[Tensor]:
        """The plates of boxes in frames, float32 [N, 3, h, w]."""
        crops = sample_boxes(images, frame, boxes, self.net.size, "cubic", margin=self.margin)
        return (self.net((crops - MEAN) / SCALE) * SCALE + MEAN if len(crops) else crops,)

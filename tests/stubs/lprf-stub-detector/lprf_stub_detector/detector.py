"""Blue rectangles of a plate's shape."""

import cv2
import numpy as np
import torch

from lprf.api import Context, Detections, Frames
from lprf_stub_detector.plugin import BlueParams


class BlueDetector:
    def __init__(self, params: BlueParams, context: Context):
        self.params = params
        self.device = context.device

    def __call__(self, frames: Frames) -> Detections:
        rows = [(row, box) for row, image in enumerate(frames.images.cpu().numpy()) for box in self.boxes(image)]
        return Detections(
            frames=frames,
            frame=torch.tensor([row for row, _ in rows], dtype=torch.int64, device=self.device),
            boxes=torch.tensor([box for _, box in rows], dtype=torch.float32, device=self.device).reshape(-1, 4),
            scores=torch.ones(len(rows), device=self.device),
        )

    def boxes(self, image: np.ndarray) -> list[tuple[int, int, int, int]]:
        low, high = self.params.hue
        blue = cv2.inRange(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), (low, 90, 60), (high, 255, 255))
        blue = cv2.morphologyEx(blue, cv2.MORPH_CLOSE, np.ones((5, 15), np.uint8))
        found = []
        for contour in cv2.findContours(blue, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
            x, y, w, h = cv2.boundingRect(contour)
            narrow, wide = self.params.aspect
            if w * h >= self.params.min_area and narrow <= w / h <= wide:
                found.append((x, y, x + w, y + h))
        return sorted(found)

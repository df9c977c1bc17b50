"""`core.crops`: ready-cut plates, each the whole of its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lprf.builtin.images import Images
from lprf.data import Detections, Frames, Origin

SMALL = 256  # crops up to this many pixels wide and high share batches; larger ones by their sides' powers of two


class Crops(Images):
    """Pictures as `core.images` finds them; each gives a frame and one detection that covers it."""

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        """Coarse: crops differ in size, and are padded to the widest and the highest of their batch."""
        return tuple((max(side, SMALL) - 1).bit_length() for side in image.shape[:2])

    def batch(self, origins: Sequence[Origin], images: Sequence[np.ndarray]) -> Mapping[str, Any]:
        """Frames padded at the right and below by repeating their edges; scores 1; extra "given"."""
        count = len(images)
        height = max(image.shape[0] for image in images)
        width = max(image.shape[1] for image in images)
        padded = np.empty((count, height, width, 3), np.uint8)
        for row, image in zip(padded, images, strict=True):
            h, w = image.shape[:2]
            row[:h, :w] = image
            row[:h, w:] = image[:, -1:]
            row[h:] = row[h - 1]
        frames = Frames(torch.from_numpy(padded), list(origins))
        boxes = torch.tensor([[0, 0, image.shape[1], image.shape[0]] for image in images], dtype=torch.float32)
        detections = Detections(
            frames=frames,
            frame=torch.arange(count),
            boxes=boxes.reshape(count, 4),
            scores=torch.ones(count),
            extra={"given": torch.ones(count, dtype=torch.bool)},
        )
        return {"frames": frames, "detections": detections}

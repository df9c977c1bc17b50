"""The spatial transformer of LPRF (Jaderberg et al., Spatial Transformer Networks, arXiv 1506.02025)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lprf.errors import WeightsError
from lprf.weights import Weights

MEAN, SCALE = 127.5, 128.0


class STN(nn.Module):
    """Straightens a plate by the affine map it predicts from the plate.

    size: (h, w) of what comes in and goes out. align_corners: where the sampling grid's ±1 lies, on the centres
    (True) or the edges (False) of the outermost pixels; it is part of what the weights mean.
    pool: by how much the plate is made smaller to find the map, which needs no detail.
    """

    def __init__(self, size: tuple[int, int] = (24, 94), align_corners: bool = False, pool: int = 1):
        super().__init__()
        h, w = (((n // pool - 2) // 2 - 4) // 3 for n in size)
        if h < 1 or w < 1:
            raise ValueError(f"the smallest input is {16 * pool} x {16 * pool}, not {size[0]} x {size[1]}")
        self.size = size
        self.pool = pool
        self.align_corners = align_corners
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.conv2 = nn.Conv2d(32, 32, 5)
        self.fc1 = nn.Linear(32 * h * w, 32)
        self.fc2 = nn.Linear(32, 6)
        with torch.no_grad():  # begin as the identity
            self.fc2.weight.zero_()
            self.fc2.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))

    def theta(self, images: Tensor) -> Tensor:
        """The affine maps, float32 [N, 2, 3], from output to input in the grid's −1 to 1."""
        x = F.avg_pool2d(images, self.pool) if self.pool > 1 else images
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 3))
        with torch.autocast(images.device.type, enabled=False):  # in bfloat16 a map is half a pixel off
            return self.fc2(F.relu(self.fc1(x.float().flatten(1)))).view(-1, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        """images: float32 [N, 3, h, w], BGR, (x − 127.5) / 128. The same comes out, mid-grey where nothing was."""
        grid = F.affine_grid(self.theta(images), [images.shape[0], 3, *self.size], align_corners=self.align_corners)
        return F.grid_sample(images.float(), grid, align_corners=self.align_corners)

    def metadata(self) -> dict[str, object]:
        """What must stand beside these tensors for them to mean something."""
        return {
            "architecture": "stn",
            "size": list(self.size),
            "align_corners": self.align_corners,
            "pool": self.pool,
            "channels": "BGR",
            "mean": MEAN,
            "scale": SCALE,
        }


def build(weights: Weights) -> STN:
    """The network of a weights file, in evaluation mode. Raises WeightsError where they do not fit."""
    metadata = weights.require("stn").info.metadata
    size, align, pool = metadata.get("size"), metadata.get("align_corners"), metadata.get("pool", 1)
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and 16 <= n <= 1024 for n in size)):
        raise WeightsError(f"{weights.path}: its metadata needs 'size', [h, w] of 16 to 1024 pixels, not {size!r}")
    if not isinstance(align, bool):
        raise WeightsError(f"{weights.path}: its metadata needs 'align_corners', true or false")
    if pool not in (1, 2, 3, 4) or min(size) < 16 * pool:
        raise WeightsError(f"{weights.path}: its metadata's 'pool' must be 1 to 4 and leave 16 pixels, not {pool!r}")
    if (metadata.get("channels"), metadata.get("mean"), metadata.get("scale")) != ("BGR", MEAN, SCALE):
        raise WeightsError(f"{weights.path}: an STN reads BGR as (x - {MEAN}) / {SCALE}; its metadata differs")
    return weights.into(STN((size[0], size[1]), align, pool)).eval()

"""LPRNet word for word from its paper, plain float32: the slow reference for what the shipped network does faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlainLPRNet(nn.Module):
    """Three-dimensional max-pools, batch normalisation and dropout as torch has them; 24 x 94 pixels, 18 time steps.

    The mean square of the global context runs over each plate. Parameters are in the shipped network's order.
    """

    def __init__(self, classes: int = 68, dropout: float = 0.5):
        super().__init__()

        def block(channels: int, out: int) -> list[nn.Module]:
            mid = out // 4
            return [
                nn.Conv2d(channels, mid, 1),
                nn.ReLU(),
                nn.Conv2d(mid, mid, (3, 1), padding=(1, 0)),
                nn.ReLU(),
                nn.Conv2d(mid, mid, (1, 3), padding=(0, 1)),
                nn.ReLU(),
                nn.Conv2d(mid, out, 1),
                nn.BatchNorm2d(out),
                nn.ReLU(),
            ]

        self.one = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
        self.two = nn.Sequential(nn.MaxPool3d((1, 3, 3), (1, 1, 1)), *block(64, 128))
        self.three = nn.Sequential(nn.MaxPool3d((1, 3, 3), (2, 1, 2)), *block(64, 256), *block(256, 256))
        self.four = nn.Sequential(
            nn.MaxPool3d((1, 3, 3), (4, 1, 2)),
            nn.Dropout(dropout),
            nn.Conv2d(64, 256, (1, 4)),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(256, classes, (13, 1)),
            nn.BatchNorm2d(classes),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(64 + 128 + 256 + classes, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """images: float32 [N, 3, 24, 94], BGR, (x - 127.5) / 128. Returns logits [N, classes, 18]."""
        one = self.one(images)
        two = self.two(one)
        three = self.three(two)
        four = self.four(three)
        pool = nn.functional.avg_pool2d
        context = [pool(one, 5, 5), pool(two, 5, 5), pool(three, (4, 10), (4, 2)), four]
        scaled = [x / x.square().mean((1, 2, 3), keepdim=True) for x in context]
        return self.head(torch.cat(scaled, 1)).mean(2)

    def load_ours(self, ours: nn.Module) -> PlainLPRNet:
        """Take over the parameters of the shipped network, which has the same ones by other names."""
        theirs = [value for key, value in ours.state_dict().items() if key != "power"]
        self.load_state_dict(dict(zip(self.state_dict(), theirs, strict=True)))
        return self

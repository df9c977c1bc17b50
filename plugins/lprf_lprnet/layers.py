"""Layers that cost a CPU less in training than torch's own, and give the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lprf.training import distributed

TOSSED = 1 << 22  # coins in a table


class Dropout(nn.Module):
    """Dropout whose coins are tossed once on a CPU: a step begins somewhere in their table, by chance.

    Tossing 12 million coins a step is a sixth of what training LPRNet costs there. Of several processes each takes
    those of its rows of the global batch.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.elsewhere = nn.Dropout(p)  # which `train` exchanges where there are several processes
        self.coins: Tensor | None = None  # 0 or 1 / (1 - p) each

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            dropped: Tensor = self.elsewhere(x)
            return dropped
        if self.coins is None or self.coins.dtype != x.dtype:
            kept = torch.rand(TOSSED, generator=torch.Generator().manual_seed(0)) >= self.p
            self.coins = kept.to(x.dtype) / (1 - self.p)
        first = (int(torch.randint(TOSSED, ())) + distributed.share().rank * x.numel()) % TOSSED
        coins = self.coins.repeat(2 + x.numel() // TOSSED)[first : first + x.numel()]
        return x * coins.as_strided(x.shape, x.stride())


def every_nth(x: Tensor, n: int) -> Tensor:
    """Channels 0, n, 2 n, … of [N, C, H, W]. Its gradient stays channels-last, which slicing's does not."""
    return _EveryNth.apply(x, n) if x.requires_grad else x[:, ::n]


class _EveryNth(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, n: int) -> Tensor:
        context.n, context.shape = n, x.shape
        return x[:, ::n].contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole = torch.empty(
            context.shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last
        ).zero_()
        whole[:, :: context.n] = gradient
        return whole, None

"""LPRNet (Zherzdev and Gruzdev, LPRNet: License Plate Recognition via Deep Neural Networks, arXiv 1806.10447)."""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lprf_lprnet.layers import Dropout, every_nth

MEAN, SCALE = 127.5, 128.0

ContextMean = Literal["plate", "running"]


class Block(nn.Sequential):
    """The paper's small basic block: a 3 × 3 convolution taken apart into a column and a row, between bottlenecks."""

    def __init__(self, channels: int, out: int):
        mid = out // 4
        super().__init__(
            nn.Conv2d(channels, mid, 1),
            nn.ReLU(),
            nn.Conv2d(mid, mid, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.Conv2d(mid, mid, (1, 3), padding=(0, 1)),
            nn.ReLU(),
            nn.Conv2d(mid, out, 1),
        )


class LPRNet(nn.Module):
    """Reads a plate: logits of every class at every time step, for CTC.

    classes: the characters and, last, the blank. size: (h, w) of the input; 24 × 94 gives 18 time steps.
    width: multiplies the channels. dropout: the part dropped before and after the fifth convolution.
    context: what each scale of the global context is divided by: "plate", the mean square of the plate's own
    features; "running", that of the batch in training and a running mean of it afterwards. In evaluation neither
    depends on the other plates of the batch.
    """

    power: Tensor

    def __init__(
        self,
        classes: int = 68,
        size: tuple[int, int] = (24, 94),
        width: float = 1.0,
        dropout: float = 0.5,
        context: ContextMean = "plate",
    ):
        super().__init__()
        self.size = size
        self.width = width
        self.context = context
        c64, c128, c256 = (int(8 * round(n * width / 8)) for n in (64, 128, 256))
        rows = size[0] - 8  # left by the four 3 × 3 windows before the fifth convolution
        steps = time_steps(size)
        if rows < 4 or steps < 4:
            raise ValueError(f"the smallest input is 12 x 38, not {size[0]} x {size[1]}")
        self.conv1, self.norm1 = nn.Conv2d(3, c64, 3), nn.BatchNorm2d(c64)
        self.block2, self.norm2 = Block(c64, c128), nn.BatchNorm2d(c128)
        self.block3, self.norm3 = Block(c128 // 2, c256), nn.BatchNorm2d(c256)
        self.block4, self.norm4 = Block(c256, c256), nn.BatchNorm2d(c256)
        self.conv5, self.norm5 = nn.Conv2d(c256 // 4, c256, (1, 4)), nn.BatchNorm2d(c256)
        self.conv6, self.norm6 = nn.Conv2d(c256, classes, (rows - 3, 1)), nn.BatchNorm2d(classes)
        self.head = nn.Conv2d(c64 + c128 + c256 + classes, classes, 1)
        self.strides = (2, 4)  # over the channels, after the second and the fourth block
        self.sorted = False  # whether the channels that a stride takes stand before the others
        self.dropout = Dropout(dropout)
        if context == "running":
            self.register_buffer("power", torch.ones(4))

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, 3, h, w], BGR, (x − 127.5) / 128. Returns logits [N, classes, time steps]."""
        one = F.relu(self.norm1(self.conv1(images)))
        two = F.relu(self.norm2(self.block2(F.max_pool2d(one, 3, 1))))
        # The paper's 3-D max-pools are a stride over channels and a 2-D max-pool.
        x = F.max_pool2d(self._strided(two, self.strides[0]), 3, (1, 2))
        x = F.relu(self.norm3(self.block3(x)))
        three = F.relu(self.norm4(self.block4(x)))
        x = F.max_pool2d(self._strided(three, self.strides[1]), 3, (1, 2))
        x = F.relu(self.norm5(self.conv5(self.dropout(x))))
        four = F.relu(self.norm6(self.conv6(self.dropout(x))))
        scales = [self._scaled(i, x, four.shape[2:]) for i, x in enumerate((one, two, three, four))]
        return self.head(torch.cat(scales, 1)).mean(2)

    def _strided(self, x: Tensor, n: int) -> Tensor:
        return x[:, : x.shape[1] // n] if self.sorted else every_nth(x, n)

    def _scaled(self, index: int, x: Tensor, size: torch.Size) -> Tensor:
        """One scale of the global context, pooled to `size` and divided by its mean square."""
        pooled = x if x.shape[2:] == size else F.avg_pool2d(x, *_windows(x.shape[2:], size))
        if self.context == "plate":
            return pooled / pooled.square().mean((1, 2, 3), keepdim=True)
        if self.training:
            power = pooled.float().square().mean()
            with torch.no_grad():
                self.power[index].lerp_(power, 0.01)
        else:
            power = self.power[index]
        return pooled / power.to(pooled.dtype)

    def folded(self) -> LPRNet:
        """A copy for reading: its batch normalisations folded into the convolutions before them, and the channels that
        a stride takes put first, where they are a slice that nothing need gather."""
        net = copy.deepcopy(self).eval()
        for i in (1, 5, 6):
            setattr(net, f"conv{i}", fuse_conv_bn_eval(getattr(net, f"conv{i}"), getattr(net, f"norm{i}")))
        for i in (2, 3, 4):
            block = getattr(net, f"block{i}")
            block[-1] = fuse_conv_bn_eval(block[-1], getattr(net, f"norm{i}"))
        for i in range(1, 7):
            setattr(net, f"norm{i}", nn.Identity())
        begin = net.conv1.out_channels
        for block, n in ((net.block2, net.strides[0]), (net.block4, net.strides[1])):
            last = block[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            order = torch.arange(last.out_channels).reshape(-1, n).T.flatten()  # 0, n, 2 n, …, then the others
            last.weight.data, last.bias.data = last.weight.data[order], last.bias.data[order]
            seen = net.head.weight.data[:, begin : begin + last.out_channels]  # what the head sees of this block
            seen.copy_(seen[:, order])
            begin += last.out_channels
        net.sorted = True
        return net

    def metadata(self) -> dict[str, object]:
        """What must stand beside these tensors, but for the alphabet."""
        return {
            "architecture": "lprnet",
            "size": list(self.size),
            "width": self.width,
            "context": self.context,
            "channels": "BGR",
            "mean": MEAN,
            "scale": SCALE,
        }


def time_steps(size: tuple[int, int]) -> int:
    """How many time steps an input of (h, w) gives."""
    return ((size[1] - 4 - 1) // 2 - 1) // 2 - 3


def _windows(size: torch.Size, out: torch.Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """Kernel and stride of the average pooling from `size` to `out`: side by side where that fits, else overlapping."""
    strides = tuple(n // m for n, m in zip(size, out, strict=True))
    kernels = tuple(s if n // s == m else n - (m - 1) * s for n, m, s in zip(size, out, strides, strict=True))
    return (kernels[0], kernels[1]), (strides[0], strides[1])

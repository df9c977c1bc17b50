"""A single-shot, anchor-free detector of plates: one pass finds plates of ten sizes and their corners.

Boxes as distances from a cell at the plate's middle, after "Objects as Points" (CenterNet, arXiv 1904.07850) and "FCOS"
(arXiv 1904.01355); a top-down path, "Feature Pyramid Networks" (arXiv 1612.03144), brings what a whole car shows to
cells of 4 x 4 pixels, which small plates need.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lprf.errors import WeightsError
from lprf.weights import Weights

STRIDE = 4  # pixels from one cell of the output to the next
STEP = 32  # sides of the input are multiples of it
SMALLEST = (24, 8)  # width, height of the smallest plate that it is trained to find
UNIT = 16.0  # pixels, of a distance whose logarithm is 0
SCALE = 255.0  # the input is divided by it


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU; what comes in is added before that, where the sizes allow it."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out)
        self.residual = channels == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        new: Tensor = self.norm(self.conv(x))
        return F.relu(new + x if self.residual else new)


class CenterNet(nn.Module):
    """channels: at strides of 2, 4, 8, 16 and 32 pixels. depth: residual convolutions at each of the last four."""

    def __init__(
        self,
        channels: tuple[int, int, int, int, int] = (16, 32, 64, 96, 128),
        depth: tuple[int, int, int, int] = (1, 2, 3, 3),
    ):
        super().__init__()
        c2, c4, c8, c16, c32 = channels
        self.stem = Conv(3, c2, stride=2)
        pairs = zip(channels[:-1], channels[1:], depth, strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(Conv(before, after, stride=2), *[Conv(after, after) for _ in range(count)])
            for before, after, count in pairs
        )
        self.lateral = nn.ModuleList([nn.Conv2d(c32, c8, 1), nn.Conv2d(c16, c8, 1), nn.Conv2d(c8, c8, 1)])
        self.merged = nn.ModuleList([Conv(c8, c8), Conv(c8, c8)])
        self.fine = nn.Conv2d(c8, c4, 1)
        self.head = nn.Sequential(Conv(c4, c4), Conv(c4, c4))
        self.out = nn.Conv2d(c4, 13, 1)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.out.bias.data[0] = -math.log(99)  # type: ignore[union-attr]  # nearly everything is no plate

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """BGR / 255 [B, 3, H, W], sides multiples of 32, to logits [B, 1, h, w], distances and corners.

        h and w are quarters of H and W. Distances [B, 4, h, w]: logarithms of how far the box's left, top, right and
        bottom lie from the cell's middle, in units of 16 pixels. Corners [B, 8, h, w]: (x, y) of TL TR BR BL from the
        box's own corners, in its widths and heights.
        """
        x = self.stem(images)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        s4, s8, s16, s32 = levels
        x = self.lateral[0](s32)
        x = self.merged[0](_doubled(x) + self.lateral[1](s16))
        x = self.merged[1](_doubled(x) + self.lateral[2](s8))
        x = self.out(self.head(_doubled(self.fine(x)) + s4))
        return x[:, :1], x[:, 1:5], x[:, 5:]

    def metadata(self) -> dict[str, Any]:
        """What a file of these weights says about them."""
        first = [stage[0].conv.out_channels for stage in self.stages]  # type: ignore[index]
        return {
            "architecture": "centernet",
            "channels": [self.stem.conv.out_channels, *first],
            "depth": [len(stage) - 1 for stage in self.stages],  # type: ignore[arg-type]
            **_INPUT,
        }


_INPUT = {"input": {"order": "BGR", "mean": 0.0, "scale": SCALE}, "stride": STRIDE, "smallest": list(SMALLEST)}


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def middles(rows: int, columns: int, device: torch.device) -> Tensor:
    """The middles (x, y) [rows, columns, 2] of the output's cells, pixels of the input."""
    y = (torch.arange(rows, device=device) + 0.5) * STRIDE
    x = (torch.arange(columns, device=device) + 0.5) * STRIDE
    return torch.stack([x.expand(rows, columns), y.view(-1, 1).expand(rows, columns)], dim=-1)


def boxes_of(middle: Tensor, distances: Tensor) -> Tensor:
    """Boxes [N, 4] of cells' middles [N, 2] and what the network says of them [N, 4]."""
    far = UNIT * distances.clamp(-6, 5).exp()
    return torch.cat([middle - far[:, :2], middle + far[:, 2:]], dim=1)


def for_bytes(net: CenterNet) -> CenterNet:
    """A copy for inference that reads 0 to 255: the division, the batch normalisations and what a residual convolution
    adds are folded into the weights."""
    net = copy.deepcopy(net).eval()
    for layer in net.modules():
        if isinstance(layer, Conv):
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)  # type: ignore[arg-type]
            layer.norm = nn.Identity()
            if layer.residual:  # what comes in, once more: a weight of 1 from each channel's middle to itself
                weight, middle = layer.conv.weight.data, layer.conv.kernel_size[0] // 2
                weight[:, :, middle, middle] += torch.eye(len(weight), device=weight.device)
                layer.residual = False
    net.stem.conv.weight.data /= SCALE
    return net


def load(weights: Weights) -> CenterNet:
    """The network with these weights, ready for inference. Raises WeightsError where they are not its own."""
    metadata = weights.require("centernet").info.metadata
    for key, value in _INPUT.items():
        if metadata.get(key) != value:
            raise WeightsError(f"{weights.path}: '{key}' in its metadata is {metadata.get(key)!r}, not {value!r}")
    sizes = []
    for key, count, least, most in (("channels", 5, 1, 1024), ("depth", 4, 0, 32)):  # the trainer's bounds
        values = metadata.get(key)
        if (
            not isinstance(values, list)
            or len(values) != count
            or not all(type(n) is int and least <= n <= most for n in values)
        ):
            raise WeightsError(
                f"{weights.path}: '{key}' in its metadata must be {count} integers from {least} to {most}, "
                f"is {values!r}"
            )
        sizes.append(tuple(values))
    with torch.device("meta"):  # nothing is allocated before the tensors have been seen to fit
        net = CenterNet(*sizes)
    return weights.into(net).eval()

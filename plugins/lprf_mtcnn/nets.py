"""PNet and ONet: the two networks of MTCNN as licence plates use it.

After "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks" (arXiv 1604.02878), with
windows as wide as plates are. There is no RNet: on plates it adds nothing. Both read RGB, (x - 127.5) / 128.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lprf.errors import WeightsError
from lprf.weights import Weights

MEAN, SCALE = 127.5, 128.0

# PNet's output cell (row j, column i) looks at 12 x 47 pixels from (5 i, 2 j) and stands for the box of
# 44 x 12 pixels at (5 i + 1, 2 j + 1), all in pixels of the scaled picture.
FIELD = (12, 47)
CELL = (12, 44)
STRIDE = (2, 5)

ONET_SIZE = (24, 94)  # height, width of ONet's crops
MOST = 1024  # channels; a file's metadata must not decide how much is allocated


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return torch.prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        x, slope = ctx.saved_tensors
        channels = slope.view(-1, *[1] * (x.dim() - 2))
        of_slope = (grad * (x - torch.relu(x))).sum([0, *range(2, x.dim())])
        # grad where x is positive; slope * grad elsewhere
        return torch.lerp(torch.ops.aten.threshold_backward(grad, x, 0), grad, channels), of_slope


class Slope(nn.PReLU):
    """PReLU of many channels, of which the gradient is quick on a CPU too: torch's own takes a third of ONet's step."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and x.device.type == "cpu"):
            return super().forward(x)
        slopes: Tensor = _Slope.apply(x, self.weight.to(x.dtype))
        return slopes


class PNet(nn.Module):
    """Proposes boxes, fully convolutionally.

    channels: of the three convolutions.
    """

    def __init__(self, channels: tuple[int, int, int] = (10, 16, 32)):
        super().__init__()
        c1, c2, c3 = channels
        self.conv1 = nn.Conv2d(3, c1, 3)
        self.act1 = nn.PReLU(c1)
        self.pool1 = nn.MaxPool2d(STRIDE, STRIDE, ceil_mode=True)
        self.conv2 = nn.Conv2d(c1, c2, (3, 5))
        self.act2 = nn.PReLU(c2)
        self.conv3 = nn.Conv2d(c2, c3, (3, 5))
        self.act3 = nn.PReLU(c3)
        self.score = nn.Conv2d(c3, 2, 1)
        self.offset = nn.Conv2d(c3, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised RGB [B, 3, H, W], at least 12 x 47, to logits [B, 2, h, w] and box offsets [B, 4, h, w].

        Class 1 is the plate. Offsets are of x1 y1 x2 y2, in widths and heights of the cell.
        """
        x = self.pool1(self.act1(self.conv1(images)))
        x = self.act2(self.conv2(x))
        x = self.act3(self.conv3(x))
        return self.score(x), self.offset(x)


class ONet(nn.Module):
    """Judges and tightens proposals, and finds the plate's corners where it has the head for them.

    channels: of the four convolutions. hidden: of the linear layer. corners: whether it has the landmark head.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int] = (32, 64, 64, 128),
        hidden: int = 256,
        corners: bool = False,
        dropout: float = 0.25,
    ):
        super().__init__()
        c1, c2, c3, c4 = channels
        self.conv1 = nn.Conv2d(3, c1, 3)
        self.act1 = Slope(c1)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(c1, c2, 3)
        self.act2 = Slope(c2)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(c2, c3, 3)
        self.act3 = Slope(c3)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(c3, c4, 1)
        self.act4 = Slope(c4)
        self.linear = nn.Linear(c4 * 10, hidden)  # a crop of 24 x 94 is 1 x 10 here
        self.dropout = nn.Dropout(dropout)
        self.act5 = Slope(hidden)
        self.score = nn.Linear(hidden, 2)
        self.offset = nn.Linear(hidden, 4)
        self.corner = nn.Linear(hidden, 8) if corners else None

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Normalised RGB [N, 3, 24, 94] to logits [N, 2], box offsets [N, 4], corner offsets [N, 4, 2] or None.

        Offsets are of x1 y1 x2 y2, in widths and heights of the cropped box; those of the corners TL TR BR BL
        are from the box's own corners, (x, y) each.
        """
        x = self.pool1(self.act1(self.conv1(crops)))
        x = self.pool2(self.act2(self.conv2(x)))
        x = self.pool3(self.act3(self.conv3(x)))
        x = self.act4(self.conv4(x))
        x = x.transpose(2, 3).flatten(1)
        x = self.act5(self.dropout(self.linear(x)))
        corners = None if self.corner is None else self.corner(x).unflatten(1, (4, 2))
        return self.score(x), self.offset(x), corners


Net = TypeVar("Net", PNet, ONet)


def for_bgr_bytes(net: Net) -> Net:
    """A copy for inference that reads BGR 0 to 255: what its input was normalised by is folded into its first layer,
    which pads nothing, so that the numbers stay the same."""
    net = copy.deepcopy(net).eval()
    weight, bias = net.conv1.weight.data, net.conv1.bias
    assert bias is not None
    bias.data -= weight.sum(dim=(1, 2, 3)) * (MEAN / SCALE)
    net.conv1.weight.data = (weight / SCALE).flip(1)
    return net


def normalise(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """BGR 0 to 255 [N, 3, h, w], uint8 or float, to what the networks read: RGB, (x - 127.5) / 128."""
    return images.flip(1).to(dtype).sub_(MEAN).div_(SCALE)


def pnet_metadata(net: PNet) -> dict[str, Any]:
    """What a file of PNet's weights says about them."""
    channels = [net.conv1.out_channels, net.conv2.out_channels, net.conv3.out_channels]
    return {"architecture": "mtcnn.pnet", "channels": channels, **_PNET}


def onet_metadata(net: ONet) -> dict[str, Any]:
    """What a file of ONet's weights says about them."""
    channels = [conv.out_channels for conv in (net.conv1, net.conv2, net.conv3, net.conv4)]
    sizes = {"channels": channels, "hidden": net.linear.out_features, "corners": net.corner is not None}
    return {"architecture": "mtcnn.onet", **sizes, **_ONET}


_INPUT = {"order": "RGB", "mean": MEAN, "scale": SCALE}
_PNET = {"input": _INPUT, "field": list(FIELD), "cell": list(CELL), "stride": list(STRIDE)}
_ONET = {"input": _INPUT, "size": list(ONET_SIZE)}


def load_pnet(weights: Weights) -> PNet:
    """PNet with these weights, ready for inference. Raises WeightsError where they are not PNet's."""
    metadata = weights.require("mtcnn.pnet").info.metadata
    _check(weights, metadata, _PNET)
    return weights.into(PNet(_channels(weights, metadata, 3))).eval()  # type: ignore[arg-type]


def load_onet(weights: Weights) -> ONet:
    """ONet with these weights, ready for inference. Raises WeightsError where they are not ONet's."""
    metadata = weights.require("mtcnn.onet").info.metadata
    _check(weights, metadata, _ONET)
    channels, hidden = _channels(weights, metadata, 4), metadata.get("hidden")
    if not _size(hidden):
        raise WeightsError(
            f"{weights.path}: 'hidden' in its metadata must be an integer from 1 to {MOST}, is {hidden!r}"
        )
    return weights.into(ONet(channels, hidden, corners=bool(metadata.get("corners")))).eval()  # type: ignore[arg-type]


def _check(weights: Weights, metadata: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise WeightsError(f"{weights.path}: '{key}' in its metadata is {metadata.get(key)!r}, not {value!r}")


def _channels(weights: Weights, metadata: Mapping[str, Any], count: int) -> tuple[int, ...]:
    channels = metadata.get("channels")
    if not isinstance(channels, list) or len(channels) != count or not all(map(_size, channels)):
        raise WeightsError(
            f"{weights.path}: 'channels' in its metadata must be {count} integers from 1 to {MOST}, is {channels!r}"
        )
    return tuple(channels)


def _size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST

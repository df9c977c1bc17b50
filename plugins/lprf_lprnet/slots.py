"""A reader with a slot for each character, in place of LPRNet's time steps: no CTC, and plates of two rows too.

A small residual network (He et al., arXiv 1512.03385) looks at the plate; one learnt query for each place in the text
gathers from everywhere on the plate what stands there (attention: Vaswani et al., arXiv 1706.03762; queries as in
DETR, arXiv 2005.12872). So rows and tilt are learnt, not assumed, and nothing depends on other plates of a batch.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lprf_lprnet.net import MEAN, SCALE
from lprf_lprnet.trainer_params import STRIDE

HEADS = 4


class Conv(nn.Sequential):
    """Convolution, batch normalisation and ReLU."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()
        )


class Residual(nn.Module):
    """Two 3 × 3 convolutions and a way around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = Conv(channels, channels, 3)
        self.second = Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class Layer(nn.Module):
    """Slots look at the plate, then at one another, then each thinks for itself; normalised before each step."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.gather = nn.Linear(channels, channels)
        self.among = nn.Linear(channels, 3 * channels)
        self.mix = nn.Linear(channels, channels)
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, slots: Tensor, seen: Tensor) -> Tensor:
        """slots [N, S, C], seen [N, cells, C]; returns slots."""
        key, value = self.key_value(seen).chunk(2, -1)
        slots = slots + self.gather(_attend(self.query(self.norm1(slots)), key, value))
        slots = slots + self.mix(_attend(*self.among(self.norm2(slots)).chunk(3, -1)))
        return slots + self.narrow(F.relu(self.widen(self.norm3(slots))))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of several heads: [N, S, C] to [N, M, C]."""
    query, key, value = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class SlotNet(nn.Module):
    """Reads a plate: logits of every class in every slot; slot i is character i, the last class is "none here".

    classes: the characters and, last, none. size: (h, w) of the input, multiples of 8. width: multiplies the channels.
    slots: the longest text. dropout: of what a slot has gathered before it is classified.
    """

    def __init__(
        self,
        classes: int = 79,
        size: tuple[int, int] = (48, 160),
        width: float = 1.0,
        slots: int = 8,
        dropout: float = 0.1,
    ):
        super().__init__()
        if size[0] % STRIDE or size[1] % STRIDE:
            raise ValueError(f"the input must be a multiple of {STRIDE} on each side, not {size[0]} x {size[1]}")
        self.size = size
        self.width = width
        c1, c2, c3 = (int(HEADS * round(n * width / HEADS)) for n in (32, 64, 128))
        self.body = nn.Sequential(
            Conv(3, c1, 5, 2),
            Conv(c1, c2, 3, 2),
            Residual(c2),
            Conv(c2, c3, 3, 2),
            Residual(c3),
        )
        self.place = nn.Parameter(torch.randn(size[0] * size[1] // STRIDE**2, c3) * 0.1)
        self.slots = nn.Parameter(torch.randn(slots, c3) * 0.5)
        self.layers = nn.ModuleList(Layer(c3) for _ in range(2))
        self.norm = nn.LayerNorm(c3)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(c3, classes)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, 3, h, w], BGR, (x − 127.5) / 128. Returns logits [N, classes, slots]."""
        seen = self.body(images).flatten(2).transpose(1, 2) + self.place
        slots = self.slots.expand(images.shape[0], -1, -1)
        for layer in self.layers:
            slots = layer(slots, seen)
        return self.head(self.dropout(self.norm(slots))).transpose(1, 2)

    def folded(self) -> SlotNet:
        """A copy for reading: its batch normalisations folded into the convolutions before them."""
        net = copy.deepcopy(self).eval()
        for module in net.modules():
            if isinstance(module, Conv):
                convolution, norm = module[0], module[1]
                assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                module[0], module[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        return net

    def metadata(self) -> dict[str, object]:
        """What must stand beside these tensors, but for the alphabet."""
        return {
            "architecture": "lprnet",
            "decoder": "slots",
            "size": list(self.size),
            "width": self.width,
            "slots": len(self.slots),
            "channels": "BGR",
            "mean": MEAN,
            "scale": SCALE,
        }

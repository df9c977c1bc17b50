"""Checkpoints of other programs that are an LPRNet."""

from __future__ import annotations

from torch import Tensor

from lprf.weights import Imported
from lprf_lprnet.net import LPRNet

PROVINCES = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新"
ALPHABET = PROVINCES + "0123456789" + "ABCDEFGHJKLMNPQRSTUVWXYZ" + "IO"

_LAYERS = {
    "backbone.0": "conv1",
    "backbone.1": "norm1",
    "backbone.4.block": "block2",
    "backbone.5": "norm2",
    "backbone.8.block": "block3",
    "backbone.9": "norm3",
    "backbone.11.block": "block4",
    "backbone.12": "norm4",
    "backbone.16": "conv5",
    "backbone.17": "norm5",
    "backbone.20": "conv6",
    "backbone.21": "norm6",
    "container.0": "head",
}


def seed(tensors: dict[str, Tensor]) -> Imported | None:
    """LPRNet of License_Plate_Detection_Pytorch, or that of LPRNet_Pytorch, whose checkpoints have the same names."""
    renamed = {}
    for key, value in tensors.items():
        layer = next((layer for layer in _LAYERS if key.startswith(f"{layer}.")), None)
        if layer is None:
            return None
        renamed[_LAYERS[layer] + key.removeprefix(layer)] = value
    net = LPRNet(len(ALPHABET) + 1)
    if {k: v.shape for k, v in renamed.items()} != {k: v.shape for k, v in net.state_dict().items()}:
        return None
    # The two projects' networks are equal in shape; only the seed's checkpoint has counted its batches.
    theirs = "License_Plate_Detection_Pytorch" if renamed["norm1.num_batches_tracked"] > 0 else "LPRNet_Pytorch"
    metadata = {
        "summary": f"LPRNet of the public project {theirs}.",
        "licence": "Apache-2.0" if theirs == "LPRNet_Pytorch" else "none stated by its authors",
        **net.metadata(),
        "alphabet": ALPHABET,
        "blank": len(ALPHABET),
    }
    return Imported("lprnet", "sirius-lprnet" if theirs == "LPRNet_Pytorch" else "seed-lprnet", renamed, metadata)

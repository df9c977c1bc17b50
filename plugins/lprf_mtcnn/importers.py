"""Recognises the seed's pickled PNet and ONet by their tensors' names and shapes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lprf.weights import Imported
from lprf_mtcnn.nets import ONet, PNet, onet_metadata, pnet_metadata

_PNET = {"features.conv1": "conv1", "features.prelu1": "act1", "features.conv2": "conv2", "features.prelu2": "act2"}
_PNET |= {"features.conv3": "conv3", "features.prelu3": "act3"}
_ONET = _PNET | {"features.conv4": "conv4", "features.prelu4": "act4", "features.conv5": "linear"}
_ONET |= {"features.prelu5": "act5", "conv6_1": "score", "conv6_2": "offset"}
_PNET |= {"conv4_1": "score", "conv4_2": "offset"}


def pnet(tensors: dict[str, Tensor]) -> Imported | None:
    """The seed's PNet, or None."""
    net = PNet()
    return _imported(tensors, net, _PNET, "seed-pnet", pnet_metadata(net))


def onet(tensors: dict[str, Tensor]) -> Imported | None:
    """The seed's ONet, or None."""
    net = ONet()
    return _imported(tensors, net, _ONET, "seed-onet", onet_metadata(net))


def _imported(
    tensors: dict[str, Tensor], net: nn.Module, layers: dict[str, str], name: str, metadata: dict[str, Any]
) -> Imported | None:
    renamed = {}
    for key, tensor in tensors.items():
        layer, _, part = key.rpartition(".")
        if layer not in layers:
            return None
        renamed[f"{layers[layer]}.{part}"] = tensor
    expected = {key: value.shape for key, value in net.state_dict().items()}
    if {key: value.shape for key, value in renamed.items()} != expected:
        return None
    architecture = metadata["architecture"]
    rest = {key: value for key, value in metadata.items() if key != "architecture"}
    return Imported(architecture, name, renamed, {**rest, "licence": "not stated", "summary": _SUMMARY})


_SUMMARY = "Weights of License_Plate_Detection_Pytorch, imported from its checkpoint."

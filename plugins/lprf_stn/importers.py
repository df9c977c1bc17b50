"""Checkpoints of other programs that are an STN."""

from __future__ import annotations

from torch import Tensor

from lprf.weights import Imported
from lprf_stn.net import STN

_NAMES = {"localization.0": "conv1", "localization.3": "conv2", "fc_loc.0": "fc1", "fc_loc.2": "fc2"}


def seed(tensors: dict[str, Tensor]) -> Imported | None:
    """The STN of License_Plate_Detection_Pytorch, trained when align_corners=True was torch's default."""
    net = STN((24, 94), align_corners=True)
    renamed = {
        f"{_NAMES[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value
        for key, value in tensors.items()
        if key.rpartition(".")[0] in _NAMES
    }
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    if len(renamed) != len(tensors) or {key: value.shape for key, value in renamed.items()} != shapes:
        return None
    metadata = {
        "summary": "The spatial transformer of the public project License_Plate_Detection_Pytorch.",
        "licence": "none stated by its authors",
        **net.metadata(),
    }
    return Imported("stn", "seed-stn", renamed, metadata)

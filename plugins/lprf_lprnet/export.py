"""The recognizer's network for `lprf export`."""

from __future__ import annotations

import torch

from lprf.network import Network
from lprf_lprnet.recognizer import LprnetRecognizer


def networks(recognizer: LprnetRecognizer) -> list[Network]:
    """LPRNet or the reader by slots: normalised BGR in, logits [batch, classes, time steps or slots] out."""
    info, known = recognizer.weights.info, recognizer.metadata
    metadata = {**info.metadata, "decoder": known.decoder, "temperature": known.temperature, "axes": "NCT"}
    example = torch.zeros(2, 3, *recognizer.size)
    auto = torch.bfloat16 if known.decoder == "slots" else torch.float32
    return [Network(info.name, recognizer, "net", example, ("logits",), metadata, auto=auto)]

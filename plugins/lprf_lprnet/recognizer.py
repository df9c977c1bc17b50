"""`lprnet.recognizer`: plates in, readings out."""

from __future__ import annotations

import torch
from torch import Tensor

from lprf.context import Context
from lprf.data import Plates, Readings
from lprf.decoding import Decoder
from lprf.errors import WeightsError
from lprf_lprnet.build import build
from lprf_lprnet.net import MEAN, SCALE
from lprf_lprnet.params import RecognizerParams


class LprnetRecognizer:
    """Reads plates by LPRNet or by slots, whichever the weights hold; each plate on its own.

    size: (h, w) of the plates it reads, as the weights say.
    """

    def __init__(self, params: RecognizerParams, context: Context):
        self.dtype = context.dtype
        self.node = context.node or "lprnet.recognizer"
        self.weights = context.weights(params.weights)
        net, self.metadata = build(self.weights)
        self.net = net.folded().to(context.device, context.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = self.metadata.size
        self.decode = Decoder(
            params,
            self.metadata.decoder,
            self.metadata.alphabet,
            context.device,
            self.node,
            str(self.weights.path),
        )

    @torch.inference_mode()
    def __call__(self, plates: Plates) -> Readings:
        """Read every plate. Raises WeightsError where the plates have another size than the weights read."""
        size = tuple(plates.images.shape[2:])
        if size != self.size:
            raise WeightsError(
                f"{self.node}: the plates are {size[0]} x {size[1]} (h x w), the weights in {self.weights.path} "
                f"read {self.size[0]} x {self.size[1]}"
            )
        return self.decode(plates, self.log_probabilities)

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Of plates float [N, 3, h, w], 0 to 255, BGR: float32 [N, time steps or slots, classes]."""
        x = ((images - MEAN) / SCALE).to(self.dtype, memory_format=torch.channels_last)
        logits: Tensor = self.net(x).float() / self.metadata.temperature
        # not a number: a picture of which no feature is left, divided by their mean
        return logits.nan_to_num().transpose(1, 2).log_softmax(2)

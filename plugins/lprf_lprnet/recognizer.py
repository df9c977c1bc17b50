"""`lprnet.recognizer`: plates in, readings out."""

from __future__ import annotations

import torch
from torch import Tensor

from lprf.context import Context
from lprf.data import Plates, Readings
from lprf.errors import WeightsError
from lprf.plate_format import load_format
from lprf_lprnet.build import build
from lprf_lprnet.decoding import (
    Grammar,
    Texts,
    ctc_beam,
    ctc_characters,
    ctc_greedy,
    slots_beam,
    slots_characters,
    slots_greedy,
    strings,
)
from lprf_lprnet.net import MEAN, SCALE
from lprf_lprnet.params import RecognizerParams

CHUNK = 64  # plates read at a time, so that memory stays bounded
LIKELY = 0.01  # a text that fits the format is taken if it is at least so probable, measured by the best that does not


class LprnetRecognizer:
    """Reads plates by LPRNet or by slots, whichever the weights hold; each plate on its own.

    size: (h, w) of the plates it reads, as the weights say.
    """

    def __init__(self, params: RecognizerParams, context: Context):
        self.params = params
        self.dtype = context.dtype
        self.weights = context.weights(params.weights)
        net, self.metadata = build(self.weights)
        self.net = net.folded().to(context.device, context.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = self.metadata.size
        self.grammar = None
        if params.format is not None:
            self.grammar = Grammar(load_format(params.format), self.metadata.alphabet, context.device)
        self.node = context.node or "lprnet.recognizer"

    @torch.inference_mode()
    def __call__(self, plates: Plates) -> Readings:
        """Read every plate. Raises WeightsError where the plates have another size than the weights read."""
        size = tuple(plates.images.shape[2:])
        if size != self.size:
            raise WeightsError(
                f"{self.node}: the plates are {size[0]} x {size[1]} (h x w), the weights in {self.weights.path} "
                f"read {self.size[0]} x {self.size[1]}"
            )
        rows = torch.arange(len(plates), device=plates.images.device)
        parts = [self._read(images) for images in plates.images.split(CHUNK)] if len(plates) else []
        return Readings(
            plates,
            rows,
            texts=[text for part in parts for text in part[0]],
            confidences=torch.cat([part[1] for part in parts]) if parts else plates.images.new_zeros(0),
            characters=[characters for part in parts for characters in part[2]],
            alternatives=[alternatives for part in parts for alternatives in part[3]],
        )

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Of plates float [N, 3, h, w], 0 to 255, BGR: float32 [N, time steps or slots, classes]."""
        x = ((images - MEAN) / SCALE).to(self.dtype, memory_format=torch.channels_last)
        logits: Tensor = self.net(x).float() / self.metadata.temperature
        return logits.transpose(1, 2).log_softmax(2)

    def _read(self, images: Tensor) -> tuple[list[str], Tensor, list[list[float]], list[list[tuple[str, float]]]]:
        """Texts, confidences, characters' probabilities and alternatives of one chunk."""
        log_p = self.log_probabilities(images)
        found = self._texts(log_p)
        best, lengths = found.codes[:, 0], found.lengths[:, 0]
        if self.metadata.decoder == "slots":
            characters = slots_characters(log_p, best)
        else:
            characters = ctc_characters(log_p, best, lengths)
        confidences = found.log_p.exp()
        alphabet = self.metadata.alphabet
        texts, alternatives, probabilities = [], [], []
        each = zip(
            *(found.codes.tolist(), found.lengths.tolist(), confidences.tolist(), characters.tolist()), strict=True
        )
        for codes, own, values, letters in each:
            written = [strings(row, length, alphabet) for row, length in zip(codes, own, strict=True)]
            texts.append(written[0])
            probabilities.append(letters[: own[0]])
            pairs = zip(written, values, strict=True)
            alternatives.append([pair for i, pair in enumerate(pairs) if i == 0 or pair[1] > 0][: self.params.top])
        return texts, confidences[:, 0].contiguous(), probabilities, alternatives

    def _texts(self, log_p: Tensor) -> Texts:
        slots = self.metadata.decoder == "slots"
        if self.params.decode == "greedy" and self.grammar is None:
            return slots_greedy(log_p) if slots else ctc_greedy(log_p)
        search = slots_beam if slots else ctc_beam
        width = max(self.params.beam, self.params.top)
        free = search(log_p, width)
        if self.grammar is None:
            return free
        fitting = search(log_p, width, self.grammar)
        keep = (
            fitting.log_p[:, :1] - free.log_p[:, :1]
        ).exp() < LIKELY  # nothing that fits is likely: say what is seen
        return Texts(
            torch.where(keep[:, :, None], free.codes, fitting.codes),
            torch.where(keep, free.lengths, fitting.lengths),
            torch.where(keep, free.log_p, fitting.log_p),
        )

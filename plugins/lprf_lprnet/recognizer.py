"""`lprnet.recognizer`: plates in, readings out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lprf.context import Context
from lprf.data import Plates, Readings
from lprf.errors import LprfError, WeightsError
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

CHUNK = 64  # plates read at a time on a CPU, so that memory stays bounded
CUDA_CHUNK = 256  # fewer, larger kernels
LIKELY = 0.01  # how probable a text that fits the format must be, as part of the most probable text, to be taken


class LprnetRecognizer:
    """Reads plates by LPRNet or by slots, whichever the weights hold; each plate on its own.

    With a plate format the most probable text that fits it is taken, unless it is LIKELY nowhere near: then the text
    is what was seen, and `fits` of the readings says that it fits nothing. Either way the most probable text of all
    is among the alternatives, so nothing is corrected in silence.
    size: (h, w) of the plates it reads, as the weights say.
    """

    def __init__(self, params: RecognizerParams, context: Context):
        self.params = params
        self.dtype = context.dtype
        self.node = context.node or "lprnet.recognizer"
        self.weights = context.weights(params.weights)
        net, self.metadata = build(self.weights)
        self.net = net.folded().to(context.device, context.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = self.metadata.size
        self.chunk = CUDA_CHUNK if context.device.type == "cuda" else CHUNK
        self.grammar = None
        if params.format is not None:
            self.grammar = Grammar(load_format(params.format), self.metadata.alphabet, context.device)
            if not self.grammar.writable:
                raise LprfError(
                    f"{self.node}: no plate of the format '{params.format}' can be written in the alphabet of "
                    f"{self.weights.path}, {self.metadata.alphabet}"
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
        rows = torch.arange(len(plates), device=plates.images.device)
        parts = [self._read(images) for images in plates.images.split(self.chunk)] if len(plates) else []
        return Readings(
            plates,
            rows,
            texts=[text for part in parts for text in part.texts],
            confidences=torch.cat([part.confidences for part in parts]) if parts else plates.images.new_zeros(0),
            characters=[characters for part in parts for characters in part.characters],
            alternatives=[alternatives for part in parts for alternatives in part.alternatives],
            fits=None if self.grammar is None else [fits for part in parts for fits in part.fits],
        )

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Of plates float [N, 3, h, w], 0 to 255, BGR: float32 [N, time steps or slots, classes]."""
        x = ((images - MEAN) / SCALE).to(self.dtype, memory_format=torch.channels_last)
        logits: Tensor = self.net(x).float() / self.metadata.temperature
        # not a number: a picture of which no feature is left, divided by their mean
        return logits.nan_to_num().transpose(1, 2).log_softmax(2)

    def _read(self, images: Tensor) -> _Part:
        """What is read of one chunk."""
        log_p = self.log_probabilities(images)
        found, fits = self._texts(log_p)
        best, lengths = found.codes[:, 0], found.lengths[:, 0]
        if self.metadata.decoder == "slots":
            characters = slots_characters(log_p, best)
        else:
            characters = ctc_characters(log_p, best, lengths)
        probabilities = found.log_p.exp()
        part = _Part([], probabilities[:, 0].contiguous(), [], [], fits.tolist())
        host = (found.codes, found.lengths, probabilities, characters)
        for codes, own, values, letters in zip(*(tensor.tolist() for tensor in host), strict=True):
            written = [strings(row, length, self.metadata.alphabet) for row, length in zip(codes, own, strict=True)]
            part.texts.append(written[0])
            part.characters.append(letters[: own[0]])
            part.alternatives.append(_alternatives(written, values, self.params.top))
        return part

    def _texts(self, log_p: Tensor) -> tuple[Texts, Tensor]:
        """Texts, the one to take first, and whether that one fits the format, bool [N]."""
        slots = self.metadata.decoder == "slots"
        every = torch.ones(len(log_p), dtype=torch.bool, device=log_p.device)
        if self.params.decode == "greedy":
            return (slots_greedy(log_p) if slots else ctc_greedy(log_p)), every
        search = slots_beam if slots else ctc_beam
        width = max(self.params.beam, self.params.top)
        free = search(log_p, width)
        if self.grammar is None:
            return free, every
        fitting = search(log_p, width, self.grammar)
        take = fitting.log_p[:, :1] >= free.log_p[:, :1] + math.log(LIKELY)
        # the last column: the most probable text of all, should it not fit
        texts = Texts(
            torch.cat([torch.where(take[:, :, None], fitting.codes, free.codes), free.codes[:, :1]], 1),
            torch.cat([torch.where(take, fitting.lengths, free.lengths), free.lengths[:, :1]], 1),
            torch.cat([torch.where(take, fitting.log_p, free.log_p), free.log_p[:, :1]], 1),
        )
        return texts, take[:, 0]


@dataclass
class _Part:
    """Readings of one chunk, see `Readings`."""

    texts: list[str]
    confidences: Tensor
    characters: list[list[float]]
    alternatives: list[list[tuple[str, float]]]
    fits: list[bool]


def _alternatives(texts: list[str], probabilities: list[float], top: int) -> list[tuple[str, float]]:
    """The `top` most probable of the texts, the first of them whatever its probability; each once."""
    of = {text: value for text, value in zip(texts, probabilities, strict=True) if value > 0}
    of.setdefault(texts[0], probabilities[0])
    others = sorted((pair for pair in of.items() if pair[0] != texts[0]), key=lambda pair: -pair[1])[: top - 1]
    return sorted([(texts[0], of[texts[0]]), *others], key=lambda pair: -pair[1])

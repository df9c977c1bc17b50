"""`onnx.recognizer`: plates in, what a CTC or slot model reads of them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
import torch
from torch import Tensor

from lprf.context import Context
from lprf.data import Plates, Readings
from lprf.decoding import Decoder
from lprf.onnx_model import OnnxModel
from lprf_onnx.network import Network
from lprf_onnx.params import RecognizerParams

_TOLD = {"alphabet": "alphabet", "decoder": "decoder", "axes": "axes"}  # parameters, and their names in the metadata
_TOLD |= {"colours": "channels", "mean": "mean", "scale": "scale"}


class OnnxRecognizer:
    """Reads plates by a model that was trained elsewhere, or that `lprf export` wrote; each plate on its own.

    size: (h, w) of the plates it reads.
    """

    def __init__(self, params: RecognizerParams, context: Context):
        self.where = context.node or "onnx.recognizer"
        model = OnnxModel(params.model, context.device, self.where)
        self.net = Network(model, params, context, self.where)
        self.size = self.net.size
        told = self._told(params, model.metadata)
        assert told.alphabet and told.colours and told.decoder and told.axes
        assert told.mean is not None and told.scale is not None
        self.net.reads(told.colours, told.mean, told.scale)
        self.net.axes = told.axes
        self.values, self.blank_first = told.values, told.blank == "first"
        self.temperature = model.metadata.get("temperature", 1.0)
        if not isinstance(self.temperature, int | float) or not 0.05 <= self.temperature <= 20:  # LPRNet's bounds
            raise self.net.wrong(
                f"the model's metadata: temperature must be a number from 0.05 to 20, is {self.temperature!r}"
            )
        self.decode = Decoder(params, told.decoder, told.alphabet, context.device, self.where, str(model.path))
        self._check(self.net.tried(), told.alphabet)

    @torch.inference_mode()
    def __call__(self, plates: Plates) -> Readings:
        """Read every plate. Raises LprfError where the plates have another size than the model reads."""
        size = tuple(plates.images.shape[2:])
        if size != self.size:
            raise self.net.wrong(
                f"the plates are {size[0]} x {size[1]} (h x w), the model reads {self.size[0]} x {self.size[1]}"
            )
        return self.decode(plates, self.log_probabilities)

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Of plates float [N, 3, h, w], 0 to 255, BGR: float32 [N, time steps or slots, classes], the blank last."""
        found = self.net(images)
        if self.values == "probabilities":
            found = found.clamp(min=1e-9).log()
        if self.blank_first:
            found = found.roll(-1, 2)
        return (found / self.temperature).nan_to_num().log_softmax(2)

    def _told(self, params: RecognizerParams, metadata: Mapping[str, Any]) -> RecognizerParams:
        """The parameters, and what they leave open as the model's metadata says it.

        Raises LprfError where neither says a thing, or they differ.
        """
        told: dict[str, Any] = {}
        for name, key in _TOLD.items():
            own, there = getattr(params, name), metadata.get(key)
            if own is None and there is None:
                raise self.net.wrong(f"the model's metadata does not say `{name}`: say it in the recipe")
            if own is not None and there is not None and _plain(own) != there:
                raise self.net.wrong(
                    f"`{name}` is {own!r} in the recipe and {there!r} in the model's metadata: leave it out"
                )
            told[name] = there if own is None else own
        blank = params.blank or ("first" if metadata.get("blank") == 0 else "last")
        try:
            return RecognizerParams.model_validate({**params.model_dump(), **told, "blank": blank})
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            raise self.net.wrong(f"the model's metadata: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def _check(self, output: Tensor, alphabet: str) -> None:
        """Raise LprfError where the output has not the classes that the alphabet has."""
        classes, needed = output.shape[2], len(alphabet) + 1
        if classes == needed:
            return
        count = abs(needed - classes)
        other = "; or `axes` is another" if needed in output.shape else ""
        raise self.net.wrong(
            f"`alphabet` has {len(alphabet)} characters and needs {needed} classes with the blank, but the model gives "
            f"{classes}: {count} character{'s' * (count > 1)} too {'many' if needed > classes else 'few'}{other}"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

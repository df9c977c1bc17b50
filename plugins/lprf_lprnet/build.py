"""From a weights file to the network that reads with it."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
import torch
from pydantic import Field

from lprf.errors import WeightsError
from lprf.weights import Weights
from lprf_lprnet.net import MEAN, SCALE, ContextMean, LPRNet
from lprf_lprnet.slots import SlotNet


class Metadata(pydantic.BaseModel):
    """What reading needs of a weights file's metadata, within bounds that a hostile file cannot leave.

    decoder: what the logits' last axis is: "ctc", time steps (LPRNet); "slots", characters (SlotNet).
    alphabet: the characters of the classes, in order; `blank` is the class after them.
    temperature: what logits are divided by, so that confidences mean something.
    """

    decoder: Literal["ctc", "slots"] = "ctc"
    size: tuple[Annotated[int, Field(ge=12, le=512)], Annotated[int, Field(ge=38, le=512)]]
    width: float = Field(1.0, ge=0.125, le=8)
    context: ContextMean = "plate"
    slots: int = Field(8, ge=1, le=32)
    channels: Literal["BGR"]
    mean: Annotated[float, Field(ge=MEAN, le=MEAN)]
    scale: Annotated[float, Field(ge=SCALE, le=SCALE)]
    alphabet: str = Field(min_length=1, max_length=10_000)
    blank: int
    temperature: float = Field(1.0, ge=0.05, le=20)

    @pydantic.model_validator(mode="after")
    def _classes(self) -> Metadata:
        if len(set(self.alphabet)) < len(self.alphabet):
            raise ValueError("the alphabet names a character twice")
        if self.blank != len(self.alphabet):
            raise ValueError(f"the blank must be the class after the alphabet, {len(self.alphabet)}, not {self.blank}")
        return self


def build(weights: Weights) -> tuple[LPRNet | SlotNet, Metadata]:
    """The network of a weights file, in evaluation mode. Raises WeightsError where they do not fit."""
    try:
        metadata = Metadata.model_validate(dict(weights.require("lprnet").info.metadata))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "alphabet"
        raise WeightsError(f"{weights.path}: its metadata does not do: {place}: {first['msg']}") from None
    classes = len(metadata.alphabet) + 1
    net: LPRNet | SlotNet
    try:
        if metadata.decoder == "slots":
            net = SlotNet(classes, metadata.size, metadata.width, metadata.slots, 0.0)
        else:
            with torch.device("meta"):  # nothing is allocated before the tensors have been seen to fit
                net = LPRNet(classes, metadata.size, metadata.width, 0.0, metadata.context)
    except ValueError as error:
        raise WeightsError(f"{weights.path}: its metadata does not do: {error}") from None
    return weights.into(net).eval(), metadata

"""Parameters of `lprnet.trainer`. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from lprf.component import NameOrYaml, weights_name
from lprf.training.params import LoopParams

STRIDE = 8  # of the features that slots look at
_Share = Annotated[float, Field(ge=0, le=1)]


class TrainerParams(LoopParams):
    """Parameters of `lprnet.trainer`; those of the training loop too."""

    decoder: Literal["ctc", "slots"] = Field(
        "slots", description="ctc: LPRNet as published; slots: a slot for each character, quicker and for two rows too"
    )
    size: tuple[Annotated[int, Field(ge=16, le=512)], Annotated[int, Field(ge=40, le=512)]] = Field(
        (48, 160), description="height and width of the plates, pixels; LPRNet's own are 24 and 94"
    )
    width: float = Field(1.0, ge=0.125, le=8, description="multiplies the network's channels")
    slots: int = Field(8, ge=1, le=32, description="the longest text, for `decoder: slots`")
    dropout: float = Field(0.1, ge=0, lt=1, description="part of the features dropped in training; LPRNet's own is 0.5")
    context: Literal["plate", "running"] = Field(
        "plate", description="what LPRNet divides its global context by: the plate's own mean, or a running one"
    )
    stn: bool = Field(True, description="train a spatial transformer in front")
    stn_lr: float = Field(0.2, gt=0, le=10, description="the transformer's learning rate, as a factor")
    format: NameOrYaml = Field("cn", description="plate format whose alphabet is learnt, or a path to a .yaml file")
    alphabet: str | None = Field(None, min_length=1, max_length=10_000, description="in place of the format's")
    init: weights_name("lprnet") | None = Field(  # type: ignore[valid-type]
        None, description="weights to begin from, of the same decoder, size, width and alphabet: to train on"
    )
    init_stn: weights_name("stn") | None = Field(  # type: ignore[valid-type]
        None, description="weights of the transformer to begin from"
    )
    shares: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=list, description="how much of a batch comes from each dataset; equal parts by default"
    )
    balance: float = Field(
        0.5, ge=0, le=1, description="plates are drawn by this power of how many share their first character"
    )
    difficulty: tuple[_Share, _Share] = Field(
        (0.1, 1.0), description="how hard pictures are made at first and at last; two equal numbers: no curriculum"
    )
    raise_at: float = Field(0.6, gt=0, le=1, description="part of an interval's plates read right that makes it harder")
    raise_by: float = Field(0.03, gt=0, le=1, description="by how much")
    licence: str = Field("Apache-2.0", description="of the weights, for their metadata")
    steps: int | None = Field(None, ge=1, description="optimiser steps")
    batch: int = Field(64, ge=1, le=65536, description="plates a batch, over all processes")
    lr: float = Field(2e-3, gt=0, description="learning rate at its highest")
    warmup: int = Field(300, ge=0, description="steps over which the learning rate rises from 0, linearly")
    weight_decay: float = Field(0.01, ge=0, description="of weights, not of biases, slopes and norms")
    validate_every: int | None = Field(500, ge=1, description="steps")

    @pydantic.model_validator(mode="after")
    def _fits(self) -> TrainerParams:
        if self.steps is None:
            raise ValueError("`steps` is needed: plates are drawn without end")
        if self.decoder == "slots" and any(side % STRIDE for side in self.size):
            raise ValueError(f"with `decoder: slots` the sides of `size` must be multiples of {STRIDE}")
        return self

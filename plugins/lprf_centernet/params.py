"""Parameters of the CenterNet components. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from lprf.component import Params, weights_name
from lprf.training.params import LoopParams

_Width = Annotated[int, Field(ge=8)]
_Height = Annotated[int, Field(ge=3)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Weight = Annotated[float, Field(ge=0)]
_Channels = Annotated[int, Field(ge=1, le=1024)]
_Depth = Annotated[int, Field(ge=0, le=32)]


class DetectorParams(Params):
    """Parameters of `centernet.detector`."""

    weights: weights_name("centernet") = Field("any-centernet", description="the network's weights")  # type: ignore[valid-type]
    min_plate: tuple[_Width, _Height] = Field(
        (50, 15), description="width and height of the smallest plate wanted, in pixels: smaller is slower"
    )
    threshold: _Share = Field(0.5, description="score from which a box counts as a plate")
    second_look: _Share | None = Field(
        None,
        description="score from which what is small is looked at again, enlarged, for a better box and score: a few "
        "small pictures for each; null for never",
    )
    nms: _Share = Field(0.4, description="overlap, as a part of the smaller box, above which the worse one goes")
    max_proposals: int = Field(
        500,
        ge=1,
        le=100_000,
        description="most boxes a photo and level; what goes beyond is counted in a warning",
    )

    @pydantic.model_validator(mode="after")
    def _second_look_first(self) -> DetectorParams:
        if self.second_look is not None and self.second_look > self.threshold:
            raise ValueError(f"second_look, {self.second_look:g}, must not be above the threshold, {self.threshold:g}")
        return self


class TrainerParams(LoopParams):
    """Parameters of `centernet.trainer`; those of the training loop too."""

    steps: int | None = Field(6000, ge=1, description="optimiser steps")
    batch: int = Field(16, ge=1, le=65536, description="cuts of photos a batch, over all processes")
    lr: float = Field(0.002, gt=0, description="learning rate at its highest")
    weight_decay: float = Field(0.01, ge=0, description="of weights, not of biases, slopes and norms")
    warmup: int = Field(200, ge=0, description="steps over which the learning rate rises from 0, linearly")
    channels: tuple[_Channels, _Channels, _Channels, _Channels, _Channels] = Field(
        (16, 32, 64, 96, 128), description="of the network's layers, at strides of 2, 4, 8, 16 and 32 pixels"
    )
    depth: tuple[_Depth, _Depth, _Depth, _Depth] = Field(
        (1, 2, 3, 3), description="residual convolutions at each of the last four strides"
    )
    init: weights_name("centernet") | None = Field(None, description="weights to begin from: to train on")  # type: ignore[valid-type]
    teacher: weights_name("centernet") | None = Field(  # type: ignore[valid-type]
        None,
        description="weights for labels that are not complete: what these find in photos that have plates, and no "
        "label tells of, counts neither way",
    )
    taught: _Share = Field(0.5, description="score from which what the teacher finds is taken for that")
    shares: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=list, description="how much of a batch comes from each dataset; equal parts by default"
    )
    loss: tuple[_Weight, _Weight, _Weight] = Field((1.0, 2.0, 1.0), description="weights of score, box and corners")
    aimed: _Share = Field(0.75, description="share of the cuts that hold a plate, of photos that have any")
    mirror: _Share = Field(0.3, description="share of the photos whose left and right change places")
    strength: _Share = Field(0.4, description="how far light, colours and sharpness of a cut are changed at random")
    min_plate: tuple[_Width, _Height] = Field((24, 8), description="smallest plate searched for in validation photos")
    val_photos: int = Field(200, ge=1, description="at most so many photos are validated on, spread over the dataset")
    licence: str = Field("Apache-2.0", description="of the weights, for their metadata")

    @pydantic.field_validator("batch")
    @classmethod
    def _pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even: two cuts come of each photo")
        return value

"""Parameters of `mtcnn.samples` and of the trainers of PNet and ONet. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from lprf.component import Params
from lprf.training.params import LoopParams

_Side = Annotated[int, Field(ge=8)]
_Low = Annotated[int, Field(ge=3)]
_Weight = Annotated[float, Field(ge=0)]


class SamplesParams(Params):
    """Parameters of `mtcnn.samples`."""

    net: Literal["pnet", "onet"] = Field(description="the network that is to learn from them")
    way: Literal["dense", "windows"] | None = Field(
        None,
        description="dense: cuts of scaled photos in which every cell of PNet's output is an example, PNet's default: "
        "it proposes a fraction of what windows do; windows: single boxes, as the paper does it, all that ONet has",
    )
    count: int | None = Field(
        None, ge=1, description="samples in all: by default 8,000 dense ones of PNet, 200,000 windows"
    )
    min_plate: tuple[_Side, _Low] = Field(
        (24, 8), description="width and height of the smallest plate that is learnt, in pixels of the photo"
    )
    threshold: float = Field(0.3, ge=0, le=1, description="PNet's score from which its boxes are mined for ONet")

    @pydantic.model_validator(mode="after")
    def _fits(self) -> SamplesParams:
        if self.net == "onet" and self.way == "dense":
            raise ValueError("`way: dense` is for PNet; ONet learns from windows")
        return self

    @property
    def dense(self) -> bool:
        return self.net == "pnet" and self.way != "windows"

    @property
    def wanted(self) -> int:
        """How many samples."""
        return self.count or (8_000 if self.dense else 200_000)


class _TrainerParams(LoopParams):
    """What both trainers have."""

    brightness: float = Field(0.25, ge=0, le=1, description="how far brightness and contrast are changed at random")
    permute: float = Field(0.1, ge=0, le=1, description="chance that a picture's colours change places")
    min_plate: tuple[_Side, _Low] = Field((50, 15), description="smallest plate searched for in validation photos")
    val_photos: int = Field(64, ge=1, description="at most so many photos are validated on, spread over the dataset")
    licence: str = Field("Apache-2.0", description="of the weights, for their metadata")


class PnetTrainerParams(_TrainerParams):
    """Parameters of `mtcnn.pnet-trainer`; those of the training loop too."""

    epochs: float | None = Field(10, gt=0, description="passes over the samples")
    batch: int = Field(16, ge=1, le=65536, description="samples a batch, over all processes")
    lr: float = Field(0.004, gt=0, description="learning rate at its highest")
    ema: float | None = Field(0.99, gt=0, lt=1, description="decay of the averaged weights; null uses the last ones")
    loss: tuple[_Weight, _Weight] = Field((1.0, 1.0), description="weights of class and box; the paper's are 1, 0.5")
    negatives: float = Field(3.0, gt=0, description="hardest negatives a positive that count")


class OnetTrainerParams(_TrainerParams):
    """Parameters of `mtcnn.onet-trainer`; those of the training loop too."""

    epochs: float | None = Field(5, gt=0, description="passes over the samples")
    batch: int = Field(192, ge=6, le=65536, description="samples a batch, over all processes")
    lr: float = Field(0.002, gt=0, description="learning rate at its highest")
    loss: tuple[_Weight, _Weight, _Weight] = Field(
        (1.0, 2.0, 2.0), description="weights of class, box and corners; the paper's are 1, 0.5, 1"
    )
    mix: tuple[_Weight, _Weight, _Weight] = Field(
        (2.0, 1.0, 3.0), description="positives, parts and negatives in a batch, as shares"
    )
    hardest: float = Field(0.7, gt=0, le=1, description="share of the class losses that counts, the largest ones")
    corners: bool = Field(True, description="learn the plate's corners too, where the samples have any")

    @pydantic.model_validator(mode="after")
    def _mixed(self) -> OnetTrainerParams:
        if not self.mix[0] or not self.mix[2]:
            raise ValueError("`mix` needs positives and negatives")
        return self

"""The parameters of the training loop. No torch, so that plugins may declare trainers with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from lprf.component import Params


@dataclass(frozen=True)
class Unkeyed:
    """Marks a parameter that cannot change what a stage computes: changing it does not run the stage again."""


class LoopParams(Params):
    """What every trainer's `with:` has; a trainer derives from it, with its own defaults."""

    epochs: float | None = Field(None, gt=0, description="passes over the samples")
    steps: int | None = Field(None, ge=1, description="optimiser steps, in place of epochs")
    batch: int = Field(64, ge=1, le=65536, description="samples a batch, over all processes")
    accumulate: int = Field(1, ge=1, le=1024, description="batches a step, their gradients averaged")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="adamw, or sgd with Nesterov momentum 0.9")
    lr: float = Field(1e-3, gt=0, description="learning rate at its highest")
    lr_end: float = Field(0.01, ge=0, le=1, description="learning rate at the end, as a fraction of the highest")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="of the learning rate, after the warm-up")
    warmup: int = Field(100, ge=0, description="steps over which the learning rate rises from 0, linearly")
    weight_decay: float = Field(1e-4, ge=0, description="of weights, not of biases, slopes and norms")
    clip: float | None = Field(5.0, gt=0, description="largest gradient norm; null leaves gradients as they are")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of the arithmetic; auto is bfloat16 where the device computes in it, else float32",
    )
    ema: float | None = Field(0.999, gt=0, lt=1, description="decay of the averaged weights; null uses the last ones")
    validate_every: int | None = Field(None, ge=1, description="steps; by default an epoch, or a tenth of the run")
    patience: int | None = Field(None, ge=1, description="validations without a better score before stopping early")
    diverged: float = Field(10.0, gt=1, description="stop when the loss is so many times that of the first interval")
    log_every: int = Field(50, ge=1, description="steps an interval: a row of metrics.csv, a look at the curriculum")
    checkpoint_seconds: Annotated[float, Unkeyed()] = Field(60.0, ge=0, description="between checkpoints")
    checkpoint_steps: Annotated[int | None, Unkeyed()] = Field(None, ge=1, description="between checkpoints, too")

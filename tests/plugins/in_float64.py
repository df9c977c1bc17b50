"""Runs a training recipe in float64: `python in_float64.py RECIPE [SETTING ...]`, under torchrun too."""

from __future__ import annotations

import functools
import sys

import torch

from lprf import stages
from lprf.recipe import load_recipe
from lprf_mtcnn import nets, trainer

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    trainer.normalise = functools.partial(nets.normalise, dtype=torch.float64)
    stages.run(load_recipe(sys.argv[1], sys.argv[2:]))

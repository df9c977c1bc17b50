"""A trainer small enough for tests: a regression with dropout, a norm, a curriculum and mined examples.

As a script: `python tiny_training.py FOLDER JSON-OF-PARAMS [WORKERS]` trains in FOLDER and leaves `weights.pt`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lprf.context import Context
from lprf.files import replacing
from lprf.training import distributed
from lprf.training.loop import Task, train
from lprf.training.params import LoopParams


class TinyParams(LoopParams):
    steps: int | None = 60
    batch: int = 16
    warmup: int = 5
    log_every: int = 10
    validate_every: int | None = 10
    checkpoint_seconds: float = 0.0
    precision: str = "float32"
    dropout: float = 0.2
    norm: bool = True
    pause: float = 0.0


class TinyTask(Task):
    def __init__(self, params: TinyParams):
        middle: list[nn.Module] = [nn.BatchNorm1d(32)] if params.norm else []
        network = nn.Sequential(nn.Linear(8, 32), *middle, nn.PReLU(), nn.Dropout(params.dropout), nn.Linear(32, 1))
        self.networks = {"tiny": network}
        self.params = params
        self.steps_per_epoch = 20
        self.hardness = 1.0

    def batch(self, step, rng, share):
        x = rng.normal(size=(self.params.batch, 8)).astype(np.float32)
        y = np.sin(self.hardness * x.sum(1, keepdims=True))
        rows = share.rows(len(x))
        return {"x": torch.from_numpy(x[rows]), "y": torch.from_numpy(y[rows])}

    def loss(self, batch):
        time.sleep(self.params.pause)
        errors = (self.networks["tiny"](batch["x"]).float() - batch["y"]).square().flatten()
        kept = distributed.hardest(errors, 11)
        loss = distributed.mean(errors[kept])
        return loss, {"all": errors.detach().mean(), "none": float("nan")}

    def validate(self):
        x = torch.linspace(-1, 1, 8 * 64).reshape(64, 8)
        error = (self.networks["tiny"](x) - torch.sin(x.sum(1, keepdim=True))).square().mean()
        return {"score": -error.item()}

    def interval(self, step, metrics):
        if metrics["loss"] < 1.0:
            self.hardness += 0.1
            return True
        return False

    def state(self):
        return {"hardness": self.hardness}

    def load_state(self, state):
        self.hardness = state["hardness"]


def fit(params: TinyParams, folder: Path | None, workers: int = 0, seed: int = 7):
    torch.manual_seed(seed)
    context = Context(
        torch.device("cpu"), torch.float32, weights=None, node="tiny", folder=folder, seed=seed, workers=workers
    )
    task = TinyTask(params)
    return train(task, params, context), task


if __name__ == "__main__":
    root = Path(sys.argv[1])
    distributed.start(torch.device("cpu"))
    trained, _ = fit(TinyParams(**json.loads(sys.argv[2])), root, *map(int, sys.argv[3:]))
    if distributed.is_main():
        with replacing(root / "weights.pt") as beside:
            torch.save(trained.weights, beside)
    distributed.stop()
    # threads of the group that outlive it abort the process, now and then, as it ends
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in names if "gloo" in name], names

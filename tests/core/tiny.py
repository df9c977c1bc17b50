"""A plugin in one file whose stages take no time: `lprf run recipe.yaml --plugin tests/core/tiny.py`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from lprf import weights
from lprf.api import Component, Port, hookimpl
from lprf.component import InputPath, Params, RecipeParam, weights_name
from lprf.training import distributed
from lprf.training.loop import train
from lprf.training.params import Unkeyed

sys.path.insert(0, str(Path(__file__).parent))
from tiny_training import TinyParams, TinyTask


class NumbersParams(Params):
    count: int = 64
    file: InputPath | None = None


class SamplesParams(Params):
    scale: float = 1.0
    note: InputPath | None = None


class TrainerParams(TinyParams):
    init: weights_name("tiny") | None = None
    pause: Annotated[float, Unkeyed()] = 0.0
    checkpoint_seconds: Annotated[float, Unkeyed()] = 60.0
    fail_at: Annotated[int | None, Unkeyed()] = None
    nan_at: int | None = None


class EvaluatorParams(Params):
    recipe: Annotated[str, RecipeParam("overrides")]
    overrides: dict[str, Any] = Field(default_factory=dict)


@hookimpl
def lprf_components() -> list[Component]:
    gives, net = {"weights": Port("Weights")}, {"net": Port("Weights", optional=True)}
    takes = {"samples": Port("Samples")}
    return [
        Component("numbers", "dataset", "tiny:Numbers", NumbersParams),
        Component("samples", "sampler", "tiny:Sampler", SamplesParams, inputs=net),
        Component("kept", "sampler", "tiny:Kept", SamplesParams, inputs=net),
        Component("trainer", "trainer", "tiny:Trainer", TrainerParams, inputs=takes, outputs=gives),
        Component("pnet", "trainer", "tiny:Untrained", Params, inputs=takes, outputs=gives),
        Component("evaluator", "evaluator", "tiny:Evaluator", EvaluatorParams),
    ]


told: list[tuple[str, str]] = []


@hookimpl
def lprf_stage_started(stage):
    told.append(("started", stage.name))


@hookimpl
def lprf_stage_finished(stage):
    assert (stage.folder / "stage.json").is_file()
    told.append(("finished", stage.name))


@hookimpl
def lprf_stage_failed(stage, error):
    told.append(("failed", stage.name))
    raise ValueError("a hook of a plugin is no reason to end a run")


class Numbers:
    def __init__(self, params, context):
        self.params = params
        self.problems = [f"row {i}: broken" for i in range(7)]

    def run(self):
        return {"dataset": self}

    def __len__(self):
        return self.params.count

    def fingerprint(self):
        text = Path(self.params.file).read_text() if self.params.file else ""
        return hashlib.sha256(f"{self.params.count} {text}".encode()).hexdigest()


class Sampler:
    """Leaves a file."""

    def __init__(self, params, context):
        self.params, self.context = params, context

    def run(self, dataset, net=None):
        path = self.context.folder / "samples.npy"
        np.save(path, np.full(len(dataset), self.params.scale))
        self.metrics = {"samples": len(dataset), "nothing": float("nan")}
        return {"samples": path}


class Kept(Sampler):
    """Gives an object, and loads it again in a later run."""

    def run(self, dataset, net=None):
        super().run(dataset, net)
        return self.load()

    def load(self):
        return {"samples": np.load(self.context.folder / "samples.npy")}


class Trainer:
    def __init__(self, params, context):
        self.params, self.context = params, context

    def run(self, samples):
        scale = float(np.load(samples)[0] if isinstance(samples, Path) else samples[0])
        task = TinyTask(self.params)
        loss = task.loss

        def scaled(batch):
            scaled.calls += 1
            if scaled.calls == self.params.fail_at:
                raise RuntimeError("the roof fell in")
            value, metrics = loss(batch)
            factor = float("nan") if scaled.calls == self.params.nan_at else scale
            return value * factor, metrics

        scaled.calls = 0
        task.loss = scaled
        result = train(task, self.params, self.context)
        path = self.context.folder / "tiny.safetensors"
        if distributed.is_main():
            weights.save(path, result.weights["tiny"], {"architecture": "tiny"})
        return {"weights": path}


class Untrained:
    """A PNet as it is made."""

    def __init__(self, params, context):
        self.context = context

    def run(self, samples):
        from lprf_mtcnn.nets import PNet, pnet_metadata

        net = PNet()
        path = weights.save(self.context.folder / "pnet.safetensors", net.state_dict(), pnet_metadata(net))
        return {"weights": path}


class Evaluator:
    def __init__(self, params, context):
        assert isinstance(context.device, torch.device)

    def run(self, dataset, **rebound):
        return {"report": {"summary": {"pictures": len(dataset), "rebound": len(rebound)}, "names": sorted(rebound)}}

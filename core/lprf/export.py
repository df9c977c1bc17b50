"""Networks as ONNX files, and the proof that they read as before. Needs the extra `lprf[onnx]`.

The proof runs the recipe twice: with the networks as they are, and with the files in their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lprf.bench import Side, differences
from lprf.errors import LprfError
from lprf.network import StandIn, networks_of, write
from lprf.onnx_model import OnnxModel, need
from lprf.recipe import Recipe


@dataclass(frozen=True)
class Exported:
    """A network that was written. difference: the largest between the file's numbers and the network's, in the proof;
    largest: the largest of the network's own numbers; None where the proof never came to it."""

    name: str
    path: Path
    difference: float | None
    largest: float | None


@dataclass(frozen=True)
class Proof:
    """What an export gave. texts: as `lprf.bench.differences` says it. pictures, plates, failed: of the run."""

    networks: list[Exported]
    texts: Mapping[str, Any]
    pictures: int
    plates: int
    failed: int


def export(recipe: Recipe, folder: str | Path) -> Proof:
    """Write every network of an inference recipe that can be exported to `folder`, then run the recipe both ways.

    In float32, on the CPU. Raises LprfError: nothing to export, a source that is not there, no extra `onnx`.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        need(module, "lprf export")
    runtime = recipe.runtime.model_copy(update={"precision": "float32", "device": "cpu", "backend": "torch"})
    side = Side(replace(recipe, runtime=runtime))
    networks = [network for node, built in side.graph.steps for network in networks_of(node.component, built)]
    if not networks:
        raise LprfError(f"no component of recipe '{recipe.name}' has a network that can be exported")
    run = side.run(keep=False)
    before = side.answers
    cpu = torch.device("cpu")
    paths = [write(network, Path(folder) / f"{network.name}.onnx", "lprf export") for network in networks]
    stand_ins = [
        _Compared(network, OnnxModel(path, cpu, "lprf export")) for network, path in zip(networks, paths, strict=True)
    ]
    for network, stand_in in zip(networks, stand_ins, strict=True):
        setattr(network.holder, network.attribute, stand_in)
    side.run(keep=False)
    exported = [
        Exported(network.name, path, stand_in.difference, stand_in.largest)
        for network, path, stand_in in zip(networks, paths, stand_ins, strict=True)
    ]
    return Proof(exported, differences(before, side.answers), run.pictures, run.plates, run.failed)


class _Compared(StandIn):
    """A stand-in that is compared with its network at every call, and gives what the file gives."""

    difference: float | None = None
    largest: float | None = None

    def __call__(self, images: Tensor) -> Any:
        truths, values = self.module(images.float()), super().__call__(images)  # models may be given bytes
        for truth, value in [(truths, values)] if isinstance(truths, Tensor) else zip(truths, values, strict=True):
            if truth is not None and truth.numel():
                self.difference = max(self.difference or 0.0, float((value - truth).abs().max()))
                self.largest = max(self.largest or 0.0, float(truth.abs().max()))
        return values

    def many(self, batches: Iterable[Tensor], in_turn: bool = False) -> list[Any]:
        return [self(images) for images in batches]

"""Networks as ONNX files, and the proof that they read as before. Needs the extra `lprf[onnx]`.

A component declares `exports`, "module:function"; the function is given the built implementation and returns its
networks. The proof runs the recipe twice: with the networks as they are, and with the files in their places.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lprf.bench import Side, differences
from lprf.component import import_attribute
from lprf.errors import LprfError
from lprf.files import replacing
from lprf.onnx_model import KEY, OnnxModel, need
from lprf.recipe import Recipe

OPSET = 20


@dataclass(frozen=True)
class Network:
    """One network of a built component.

    name: of the file, without its suffix. holder, attribute: where the component keeps the module, which takes one
    tensor and gives one or several. example: a tensor it takes, with two rows. outputs: what its outputs are called.
    metadata: in JSON's types, what the numbers mean. axes: those of the input whose sizes are free.
    """

    name: str
    holder: Any
    attribute: str
    example: Tensor
    outputs: tuple[str, ...]
    metadata: Mapping[str, Any]
    axes: Mapping[int, str] = field(default_factory=lambda: {0: "batch"})

    @property
    def module(self) -> nn.Module:
        module: nn.Module = getattr(self.holder, self.attribute)
        return module


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
    runtime = recipe.runtime.model_copy(update={"precision": "float32", "device": "cpu"})
    side = Side(replace(recipe, runtime=runtime))
    networks = [
        network
        for node, implementation in side.graph.steps
        if node.component.exports
        for network in import_attribute(node.component.exports)(implementation)
    ]
    if not networks:
        raise LprfError(f"no component of recipe '{recipe.name}' has a network that can be exported")
    run = side.run(keep=False)
    before = side.answers
    stand_ins = []
    for network in networks:
        path = write(network, Path(folder) / f"{network.name}.onnx")
        stand_ins.append(_StandIn(network.module, OnnxModel(path, torch.device("cpu"), "lprf export")))
    for network, stand_in in zip(networks, stand_ins, strict=True):
        setattr(network.holder, network.attribute, stand_in)
    side.run(keep=False)
    exported = [
        Exported(network.name, stand_in.model.path, stand_in.difference, stand_in.largest)
        for network, stand_in in zip(networks, stand_ins, strict=True)
    ]
    return Proof(exported, differences(before, side.answers), run.pictures, run.plates, run.failed)


def write(network: Network, path: Path) -> Path:
    """Write one network, its metadata as JSON under "lprf"; whole or not at all. Raises LprfError."""
    onnx = need("onnx", "lprf export")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of every library it does without
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.module,
                (network.example,),
                input_names=["images"],
                output_names=list(network.outputs),
                dynamic_shapes=(dict.fromkeys(network.axes, torch.export.Dim.DYNAMIC),),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter stumbles over
        raise LprfError(f"{network.name} cannot be exported: {type(error).__name__}: {error}") from error
    finally:
        logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    for axis, name in network.axes.items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = network.axes[0]
    model.producer_name = "lprf"
    model.doc_string = str(network.metadata.get("summary", ""))
    text = json.dumps(dict(network.metadata), ensure_ascii=False, allow_nan=False, sort_keys=True)
    onnx.helper.set_model_props(model, {KEY: text})
    onnx.checker.check_model(model)
    try:
        with replacing(path) as beside:
            beside.write_bytes(model.SerializeToString())
    except OSError as error:
        raise LprfError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


class _StandIn:
    """An exported file in the place of its network, which it is compared with at every call."""

    def __init__(self, module: nn.Module, model: OnnxModel):
        self.module, self.model = module, model
        self.difference: float | None = None
        self.largest: float | None = None

    def __call__(self, images: Tensor) -> Any:
        truth = self.module(images)
        values = iter(self.model(images))
        if isinstance(truth, Tensor):
            return self._compared(next(values), truth)
        return tuple(None if one is None else self._compared(next(values), one) for one in truth)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def _compared(self, value: Tensor, truth: Tensor) -> Tensor:
        if value.numel():
            self.difference = max(self.difference or 0.0, float((value - truth).abs().max()))
            self.largest = max(self.largest or 0.0, float(truth.abs().max()))
        return value

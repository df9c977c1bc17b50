"""One network of a built component, and writing it as an ONNX file. Needs the extra `lprf[onnx]` or `lprf[openvino]`.

A component declares `exports`, "module:function"; the function is given the built implementation and returns its
networks. `lprf export` writes them for other programs, `runtime.backend` runs them elsewhere than in torch.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lprf.component import Component, import_attribute
from lprf.errors import LprfError
from lprf.files import replacing
from lprf.onnx_model import KEY, need

OPSET = 20


@dataclass(frozen=True)
class Network:
    """One network of a built component.

    name: of the file, without its suffix. holder, attribute: where the component keeps the module, which takes one
    tensor and gives one or several. example: a tensor it takes, with two rows. outputs: what its outputs are called.
    metadata: in JSON's types, what the numbers mean. axes: those of the input whose sizes are free. auto: what
    `runtime.precision: auto` may compute it in; below float32 only where that was shown to change next to no text
    (docs/performance.md). exact: whether it stays in float32 whatever `runtime.precision` says. reads: uint8 where it
    is given bytes, for which float32 stands in `example`.
    """

    name: str
    holder: Any
    attribute: str
    example: Tensor
    outputs: tuple[str, ...]
    metadata: Mapping[str, Any]
    axes: Mapping[int, str] = field(default_factory=lambda: {0: "batch"})
    auto: torch.dtype = torch.float32
    exact: bool = False
    reads: torch.dtype = torch.float32

    @property
    def module(self) -> nn.Module:
        module: nn.Module = getattr(self.holder, self.attribute)
        return module


def networks_of(component: Component, built: Any) -> list[Network]:
    """The networks that a built component exports; none where it declares no `exports`."""
    return import_attribute(component.exports)(built) if component.exports else []


class Model(Protocol):
    """An engine's form of a network: a batch of images to a list of tensors, one for each of its outputs."""

    def __call__(self, images: Tensor) -> list[Tensor]: ...

    def many(self, batches: Iterable[Tensor], in_turn: bool = False) -> list[list[Tensor]]: ...


class StandIn:
    """A model in the place of its network: takes and gives what that does, and has its attributes."""

    def __init__(self, network: Network, model: Model):
        self.module, self.model = network.module, model
        device = next((tensor.device for tensor in self.module.parameters()), network.example.device)
        with torch.inference_mode():
            example = self.module(network.example.to(device))
        self.single = isinstance(example, Tensor)
        self.there = [value is not None for value in ([example] if self.single else example)]  # heads may be absent

    def __call__(self, images: Tensor) -> Any:
        if not len(images):  # which not every engine takes
            return self.module(images)
        return self._given(self.model(images))

    def many(self, batches: Iterable[Tensor], in_turn: bool = False) -> list[Any]:
        return [self._given(values) for values in self.model.many(batches, in_turn)]

    def _given(self, values: list[Tensor]) -> Any:
        if self.single:
            return values[0]
        left = iter(values)
        return tuple(next(left) if there else None for there in self.there)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def each(net: nn.Module | StandIn, batches: Iterable[Tensor], dtype: torch.dtype, in_turn: bool = False) -> list[Any]:
    """What a network gives for each of these batches, none of them empty.

    dtype: what a module computes in; a model is given the batches as they are. in_turn: an engine puts all its threads
    to one batch after another; else it may compute several at a time.
    """
    return net.many(batches, in_turn) if isinstance(net, StandIn) else [net(images.to(dtype)) for images in batches]


def write(network: Network, path: Path, who: str) -> Path:
    """Write one network, its metadata as JSON under "lprf"; whole or not at all. Raises LprfError."""
    onnx = need("onnx", who)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of every library it does without
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                copy.deepcopy(network.module).cpu(),
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
    with replacing(path) as beside:
        beside.write_bytes(model.SerializeToString())
    return path

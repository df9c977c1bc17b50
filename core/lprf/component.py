"""What a component is: its declaration, its parameters, and the kinds that fix its ports.

Nothing here imports torch, OpenCV or numpy, so listing, validating and `--help` stay quick.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pydantic

from lprf.errors import PluginError

if TYPE_CHECKING:
    from lprf.weights import WeightsInfo

PortType = Literal["Frames", "Detections", "Plates", "Readings", "Dataset", "Samples", "Weights", "Report"]

M = TypeVar("M")


class Params(pydantic.BaseModel):
    """Base of a component's parameters: its fields are the recipe's `with:`; unknown keys are refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class WeightsParam:
    """Marks a parameter that names weights, with the architecture they must have, or others that will do as well."""

    architecture: str
    others: tuple[str, ...] = ()

    @property
    def architectures(self) -> tuple[str, ...]:
        return (self.architecture, *self.others)


def weights_name(architecture: str, *others: str) -> Any:
    """The type of a parameter that names weights of one of these architectures: `Annotated[str, WeightsParam(…)]`."""
    return Annotated[str, WeightsParam(architecture, others)]


@dataclass(frozen=True)
class PathParam:
    """Marks a parameter that is a path.

    Relative to the recipe's folder where the recipe gives it; `output` paths, and paths given on the command
    line or from Python, are relative to the current folder. With a `suffix` only text that ends so is a path, and
    other text a name.
    """

    output: bool = False
    suffix: str = ""


@dataclass(frozen=True)
class RecipeParam:
    """Marks a parameter that names an inference recipe to run inside this one, as evaluators do.

    `overrides` names the parameter, if any, that holds overrides of that recipe: {"detect.min_plate": [24, 8]}.
    """

    overrides: str | None = None


InputPath = Annotated[str, PathParam()]
OutputPath = Annotated[str, pydantic.Field(min_length=1), PathParam(output=True)]
NameOrYaml = Annotated[str, PathParam(suffix=".yaml")]


def marked(params: type[Params], marker: type[M]) -> dict[str, M]:
    """The parameters whose type carries a marker (WeightsParam, PathParam, RecipeParam), with the marker."""
    found = {}
    for name, info in params.model_fields.items():
        for value in (*info.metadata, *_annotations(info.annotation)):
            if isinstance(value, marker):
                found[name] = value
    return found


def _annotations(annotation: Any) -> Iterator[Any]:
    """What `Annotated` carries, anywhere inside a type such as `list[InputPath] | None`."""
    yield from getattr(annotation, "__metadata__", ())
    for argument in typing.get_args(annotation):
        if not isinstance(argument, str):
            yield from _annotations(argument)


@dataclass(frozen=True)
class Port:
    """One input or output of a component.

    `many` on an input lets a recipe connect a list. `features` are what an output gives beyond its type
    (detections with "corners"), or what an input needs; validation compares them.
    """

    type: PortType
    optional: bool = False
    many: bool = False
    features: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Kind:
    """A kind of component, with the ports that every component of that kind has."""

    name: str
    summary: str
    inputs: Mapping[str, Port] = field(default_factory=dict)
    outputs: Mapping[str, Port] = field(default_factory=dict)
    graph: Literal["infer", "train"] = "infer"


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in [
        Kind("source", "gives frames: photos, video, cameras", outputs={"frames": Port("Frames")}),
        Kind(
            "detector",
            "finds plates in frames",
            inputs={"frames": Port("Frames")},
            outputs={"detections": Port("Detections")},
        ),
        Kind(
            "rectifier",
            "cuts upright plates out of frames",
            inputs={"detections": Port("Detections")},
            outputs={"plates": Port("Plates")},
        ),
        Kind(
            "recognizer",
            "reads the text of plates",
            inputs={"plates": Port("Plates")},
            outputs={"readings": Port("Readings")},
        ),
        Kind("sink", "writes or shows results; declares which of frames, detections, readings it takes"),
        Kind("dataset", "labelled examples", outputs={"dataset": Port("Dataset")}, graph="train"),
        Kind("transform", "makes datasets of datasets; declares its ports", graph="train"),
        Kind(
            "sampler",
            "makes training samples of a dataset",
            inputs={"dataset": Port("Dataset")},
            outputs={"samples": Port("Samples")},
            graph="train",
        ),
        Kind("trainer", "trains networks; declares its ports, one output a network", graph="train"),
        Kind(
            "evaluator",
            "measures on a dataset",
            inputs={"dataset": Port("Dataset")},
            outputs={"report": Port("Report")},
            graph="train",
        ),
    ]
}


@dataclass(frozen=True)
class Component:
    """A declaration: what a recipe may use, light to import; the implementation is imported when a run builds it.

    `impl` is "module:attribute"; it is called as `impl(params, context)`.
    `inputs` and `outputs` are ports beyond the kind's own. Of the kinds whose ports are fixed, further inputs
    must be optional, and none of the kind's ports may be dropped or retyped.
    `version` is raised when the same inputs give other outputs, so that cached stages are made anew.
    `features` tells, from the parameters and the metadata of the weights they name, what the outputs give
    beyond their type: `features(params, {param: WeightsInfo}) -> {"detections": {"corners"}}`.
    `importers` recognise the tensors of pickled checkpoints: "module:function" each, see `lprf.weights`.
    `exports` names the networks of an implementation for `lprf export`: "module:function", see `lprf.network`.
    `padded`: on a GPU it takes rows that hold nothing (`Detections.filled`) and gives a row for each, so that nobody
    waits to cut them off; else they are cut off before it.
    """

    name: str
    kind: str
    impl: str
    params: type[Params] = Params
    version: int = 1
    inputs: Mapping[str, Port] = field(default_factory=dict)
    outputs: Mapping[str, Port] = field(default_factory=dict)
    summary: str = ""
    features: Callable[[Any, Mapping[str, WeightsInfo]], Mapping[str, set[str]]] | None = None
    importers: tuple[str, ...] = ()
    exports: str = ""
    padded: bool = False

    def all_inputs(self) -> dict[str, Port]:
        """The kind's inputs, then the component's own."""
        return {**KINDS[self.kind].inputs, **self.inputs}

    def all_outputs(self) -> dict[str, Port]:
        """The kind's outputs, then the component's own."""
        return {**KINDS[self.kind].outputs, **self.outputs}

    def load(self) -> Callable[..., Any]:
        """Import the implementation.

        Raises PluginError when its module or the name in it is missing or fails on import.
        """
        return import_attribute(self.impl)


def import_attribute(target: str) -> Any:
    """Import "module:attribute", where a plugin (never a recipe) has named it."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginError(f"{target} could not be imported: {type(error).__name__}: {error}") from error


def check_component(component: Component) -> None:
    """Raise PluginError where a declaration breaks the contract of its kind."""
    if component.kind not in KINDS:
        raise PluginError(f"component '{component.name}' has kind '{component.kind}'; kinds are {', '.join(KINDS)}")
    kind = KINDS[component.kind]
    if ":" not in component.impl:
        raise PluginError(f"component '{component.name}': impl must be 'module:attribute', is '{component.impl}'")
    for own, fixed, side in [
        (component.inputs, kind.inputs, "input"),
        (component.outputs, kind.outputs, "output"),
    ]:
        for port_name, port in own.items():
            if port_name in fixed and port.type != fixed[port_name].type:
                raise PluginError(f"component '{component.name}' retypes the {side} '{port_name}' of every {kind.name}")
    if kind.inputs:
        for port_name, port in component.inputs.items():
            if port_name not in kind.inputs and not port.optional:
                raise PluginError(
                    f"component '{component.name}': the input '{port_name}' beyond those of every {kind.name} "
                    f"must be optional, or recipes could not swap it in"
                )
    if component.kind == "sink":
        types = {port.type for port in component.inputs.values()}
        if not types or not types <= {"Frames", "Detections", "Readings"}:
            raise PluginError(f"component '{component.name}': a sink takes one or more of Frames, Detections, Readings")

"""Recipes: the models a recipe file is checked against, and the graph that comes out of the check. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pydantic

from lprf.component import Component, Params


class Runtime(Params):
    """Where and how a recipe runs; none of it changes what a training stage computes."""

    device: str = pydantic.Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = pydantic.Field(
        "auto", description="what networks compute in; auto goes below float32 only where accuracy was shown to hold"
    )
    batch: int = pydantic.Field(8, ge=1, le=4096, description="source items (photos or crops) at a time")
    workers: int = pydantic.Field(2, ge=0, le=256, description="threads or processes that decode and prepare")
    threads: int | None = pydantic.Field(None, ge=1, le=1024, description="CPU threads of the networks; all by default")
    seed: int = pydantic.Field(7, ge=0, lt=2**63, description="of everything random in a training graph")


@dataclass(frozen=True)
class Ref:
    """`node.port`: an output of a node."""

    node: str
    port: str

    def __str__(self) -> str:
        return f"{self.node}.{self.port}"


@dataclass(frozen=True)
class Node:
    """A checked node of a graph.

    inputs: by port; more than one Ref only where the port is `many`. An evaluator's `node.param` rebindings
    are in `rebind`, by that name.
    """

    name: str
    uses: str
    component: Component
    params: Params
    inputs: Mapping[str, tuple[Ref, ...]] = field(default_factory=dict)
    rebind: Mapping[str, Ref] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: every name resolved, every parameter validated, nodes in an order that can run."""

    name: str
    kind: Literal["infer", "train"]
    runtime: Runtime
    nodes: Mapping[str, Node]
    path: Path
    summary: str = ""

    @property
    def folder(self) -> Path:
        """The recipe's folder: weights are looked for there first."""
        return self.path.parent

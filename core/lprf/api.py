"""All that a plugin author imports, declarations and implementations alike.

Declaring a component needs no torch, so what would import it (the data types, `Context`) comes on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lprf.component import (
    KINDS,
    Component,
    InputPath,
    Kind,
    NameOrYaml,
    OutputPath,
    Params,
    PathParam,
    Port,
    RecipeParam,
    WeightsParam,
    weights_name,
)
from lprf.errors import InputFailure, LprfError, PluginError, WeightsError
from lprf.files import replacing
from lprf.hooks import hookimpl

if TYPE_CHECKING:
    from lprf.context import Context
    from lprf.data import (
        Dataset,
        Detections,
        Example,
        Frames,
        Item,
        Origin,
        Plates,
        Reading,
        Readings,
        Source,
        Truth,
        readable,
        readings_by_frame,
    )

_DATA = {
    "Dataset",
    "Detections",
    "Example",
    "Frames",
    "Item",
    "Origin",
    "Plates",
    "Reading",
    "Readings",
    "Source",
    "Truth",
    "readable",
    "readings_by_frame",
}

__all__ = [
    "KINDS",
    "Component",
    "Context",
    "Dataset",
    "Detections",
    "Example",
    "Frames",
    "InputFailure",
    "InputPath",
    "Item",
    "Kind",
    "LprfError",
    "NameOrYaml",
    "Origin",
    "OutputPath",
    "Params",
    "PathParam",
    "Plates",
    "PluginError",
    "Port",
    "Reading",
    "Readings",
    "RecipeParam",
    "Source",
    "Truth",
    "WeightsError",
    "WeightsParam",
    "hookimpl",
    "readable",
    "readings_by_frame",
    "replacing",
    "weights_name",
]


def __getattr__(name: str) -> Any:
    if name == "Context":
        from lprf.context import Context

        return Context
    if name in _DATA:
        from lprf import data

        return getattr(data, name)
    raise AttributeError(f"module 'lprf.api' has no attribute '{name}'")

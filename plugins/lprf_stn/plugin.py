"""The STN plugin: plates straightened by a spatial transformer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lprf.api import Component, Params, WeightsParam, hookimpl


class RectifierParams(Params):
    """Parameters of `stn.rectifier`."""

    weights: Annotated[str, WeightsParam("stn")] = Field("cn-stn", description="name or path of the STN's weights")
    margin: float = Field(
        0.0,
        ge=-0.2,
        le=0.5,
        description="part of its width and height by which a box grows on each side before it is cut",
    )


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="rectifier",
            kind="rectifier",
            impl="lprf_stn.rectifier:StnRectifier",
            params=RectifierParams,
            summary="cuts boxes out and straightens each plate by the affine map that the STN predicts",
            importers=("lprf_stn.importers:seed",),
            exports="lprf_stn.export:networks",
            padded=True,
        )
    ]

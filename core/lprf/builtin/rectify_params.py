"""Parameters of the framework's own rectifiers. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from lprf.component import Params

_Side = Annotated[int, pydantic.Field(ge=1, le=4096)]


class CropParams(Params):
    """Parameters of `core.crop` and `core.perspective`."""

    size: tuple[_Side, _Side] | None = pydantic.Field(
        None, description="height and width of the plates in pixels; by default what their reader asks for"
    )
    margin: float = pydantic.Field(
        0.0, ge=-0.4, le=2.0, description="how far to cut around the plate, in parts of its width and height a side"
    )
    interpolation: Literal["linear", "cubic"] = pydantic.Field("cubic", description="between pixels")

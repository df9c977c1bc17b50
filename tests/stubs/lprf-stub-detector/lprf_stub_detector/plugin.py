"""Declares `stub.detector`."""

import pydantic

from lprf.api import Component, Params, hookimpl


class BlueParams(Params):
    hue: tuple[int, int] = pydantic.Field((100, 130), description="the range of hues that count as blue, 0 to 179")
    min_area: int = pydantic.Field(400, ge=1, description="smallest plate, in square pixels")
    aspect: tuple[float, float] = pydantic.Field((2.0, 6.0), description="the range of width over height")


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            "detector",
            "detector",
            "lprf_stub_detector.detector:BlueDetector",
            params=BlueParams,
            summary="finds blue plates by their colour",
        )
    ]

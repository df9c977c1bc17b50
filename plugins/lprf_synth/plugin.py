"""Declares `synth.plates` and `synth.scenes`. Imports nothing heavy."""

from __future__ import annotations

import pydantic

from lprf.component import Component, Params
from lprf.hooks import hookimpl


class PlatesParams(Params):
    """Parameters of `synth.plates`."""

    count: int = pydantic.Field(100_000, ge=1, le=10**9, description="how many; nothing is kept, so any number will do")
    size: tuple[int, int] = pydantic.Field((24, 94), description="height and width of the crops, pixels")
    difficulty: float = pydantic.Field(
        0.6, ge=0, le=1, description="0: clean and upright; 1: tilted, blurred, dark, dirty. A curriculum raises it"
    )
    country: str = pydantic.Field("cn", description="cn, de, us, xx, or the path of a YAML file that describes plates")
    kinds: dict[str, float] = pydantic.Field(
        default_factory=dict,
        description="shares of the kinds of plates: {blue: 10, green: 4}; the country's own where empty",
    )
    provinces: dict[str, float] = pydantic.Field(
        default_factory=dict, description="shares of provinces by their character; 1 where not named"
    )
    seed: int | None = pydantic.Field(None, ge=0, lt=2**63, description="the run's by default")

    @pydantic.field_validator("size")
    @classmethod
    def _sensible(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(8 <= side <= 2000 for side in value):
            raise ValueError("each side must be 8 to 2000 pixels")
        return value

    @pydantic.field_validator("kinds", "provinces")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in value.values()):
            raise ValueError("a share cannot be negative")
        return value


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="plates",
            kind="dataset",
            impl="lprf_synth.crops:SynthPlates",
            params=PlatesParams,
            summary="rendered plate crops of every kind, at any difficulty",
        ),
    ]

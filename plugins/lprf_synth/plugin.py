"""Declares `synth.plates` and `synth.scenes`. Imports nothing heavy."""

from __future__ import annotations

import pydantic

from lprf.component import Component, NameOrYaml, Params, Port
from lprf.hooks import hookimpl


class PlatesParams(Params):
    """Parameters of `synth.plates`."""

    count: int = pydantic.Field(100_000, ge=1, le=10**9, description="how many; nothing is kept, so any number will do")
    size: tuple[int, int] = pydantic.Field((24, 94), description="height and width of the crops, pixels")
    difficulty: float = pydantic.Field(
        0.6, ge=0, le=1, description="0: clean and upright; 1: tilted, blurred, dark, dirty. A curriculum raises it"
    )
    country: NameOrYaml = pydantic.Field("cn", description="cn, de, eu, us, xx, or a path to a .yaml file")
    kinds: dict[str, float] = pydantic.Field(
        default_factory=dict,
        description="shares of the kinds of plates: {blue: 10, green: 4}; the country's own where empty",
    )
    provinces: dict[str, float] = pydantic.Field(
        default_factory=dict, description="shares of provinces by their character; 1 where not named"
    )
    seed: int | None = pydantic.Field(
        None, ge=0, lt=2**63, description="by default from the run's seed and the node's name"
    )

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


class ScenesParams(Params):
    """Parameters of `synth.scenes`."""

    count: int = pydantic.Field(10_000, ge=1, le=10**9, description="how many; nothing is kept")
    size: tuple[int, int] = pydantic.Field((480, 960), description="least and most of the longer side, pixels")
    plates: int = pydantic.Field(4, ge=0, le=20, description="rendered plates a scene at most, where it has any")
    widths: tuple[float, float] = pydantic.Field((38, 420), description="least and most width of a plate, pixels")
    countries: dict[str, float] = pydantic.Field(
        default_factory=lambda: {"cn": 0.75, "xx": 0.15, "de": 0.05, "us": 0.05},
        min_length=1,
        description="shares of countries, as synth.plates names them",
    )
    empty: float = pydantic.Field(0.15, ge=0, le=1, description="share of scenes without a rendered plate")
    decoys: float = pydantic.Field(0.6, ge=0, le=1, description="share of scenes with signs, grilles and stamped dates")
    swapped: float = pydantic.Field(
        0, ge=0, le=1, description="share of a photo's own plates that a rendered one of their shape covers"
    )
    rendered_ground: float = pydantic.Field(0.1, ge=0, le=1, description="share of scenes on no photo")
    difficulty: float = pydantic.Field(0.8, ge=0, le=1, description="0: clean and upright; 1: tilted, blurred, dark")
    seed: int | None = pydantic.Field(
        None, ge=0, lt=2**63, description="by default from the run's seed and the node's name"
    )

    @pydantic.field_validator("size", "widths")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 8 <= value[0] <= value[1] <= 8000:
            raise ValueError("must be two numbers in ascending order, from 8 to 8000")
        return value


class ReletterParams(Params):
    """Parameters of `synth.reletter`."""

    copies: int = pydantic.Field(4, ge=1, le=1000, description="differently lettered copies of each plate")


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
        Component(
            name="scenes",
            kind="dataset",
            impl="lprf_synth.scenes:Scenes",
            params=ScenesParams,
            inputs={"backgrounds": Port("Dataset", optional=True, many=True)},
            summary="photos with rendered plates in them, and with things that are none, for detectors",
        ),
        Component(
            name="reletter",
            kind="transform",
            impl="lprf_synth.reletter:Reletter",
            params=ReletterParams,
            inputs={"dataset": Port("Dataset")},
            outputs={"dataset": Port("Dataset")},
            summary="Chinese plates of a dataset with their first characters redrawn, every province as often",
        ),
    ]

"""Parameters of `lprnet.recognizer`. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lprf.component import Params, WeightsParam


class RecognizerParams(Params):
    """Parameters of `lprnet.recognizer`."""

    weights: Annotated[str, WeightsParam("lprnet")] = Field("cn-lprnet", description="name or path of the weights")
    decode: Literal["greedy", "beam"] = Field(
        "beam", description="beam: the most probable texts; greedy: the most probable character at each step, quicker"
    )
    beam: int = Field(8, ge=1, le=64, description="how many texts the beam follows at once")
    top: int = Field(3, ge=1, le=64, description="how many texts are given as alternatives, the best one included")
    format: str | None = Field(
        None,
        description="plate format that texts are to fit: cn, de, us, us-ca, your own, or a path to a .yaml file. A "
        "text that fits none is kept where nothing that fits is at all probable",
    )

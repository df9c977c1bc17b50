"""Parameters that every recognizer which decodes has. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from lprf.component import NameOrYaml, Params


class DecodingParams(Params):
    """How texts are made of what a network sees; `lprf.decoding.Decoder` does it."""

    decode: Literal["greedy", "beam"] = Field(
        "beam", description="beam: the most probable texts; greedy: the most probable character at each step, quicker"
    )
    beam: int = Field(8, ge=1, le=64, description="how many texts the beam follows at once; at least `top`")
    top: int = Field(3, ge=1, le=64, description="how many texts are given as alternatives; greedy finds one alone")
    unsure: float = Field(
        0.9,
        ge=0,
        le=1,
        description="confidence below which a reader by slots looks at a plate again, moved, larger and smaller, and "
        "takes the mean of what it sees; 0: never",
    )
    format: NameOrYaml | None = Field(
        None,
        description="plate format that texts are to fit: cn, de, eu, us-any, us-ca, your own, or a path to a .yaml "
        "file. A text is kept and marked as fitting none where nothing that fits is at all probable",
    )

    @pydantic.model_validator(mode="after")
    def _searches(self) -> DecodingParams:
        if self.format is not None and self.decode == "greedy":
            raise ValueError("a `format` needs `decode: beam`: greedy decoding does not look for a text that fits")
        return self

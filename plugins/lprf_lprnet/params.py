"""Parameters of `lprnet.recognizer`. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lprf.component import WeightsParam
from lprf.decoding_params import DecodingParams


class RecognizerParams(DecodingParams):
    """Parameters of `lprnet.recognizer`; those of decoding too."""

    weights: Annotated[str, WeightsParam("lprnet")] = Field("cn-lprnet", description="name or path of the weights")

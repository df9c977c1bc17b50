"""Parameters of the MTCNN components. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from lprf.component import Params, weights_name

_Share = Annotated[float, pydantic.Field(ge=0, le=1)]

# the thresholds that go with what proposes: a CenterNet proposes so little that is no plate that ONet may doubt more
PNET_SCORES, CENTERNET_SCORES = (0.3, 0.8), (0.5, 0.5)


class DetectorParams(Params):
    """Parameters of `mtcnn.detector`."""

    pnet: weights_name("mtcnn.pnet", "centernet") = pydantic.Field(  # type: ignore[valid-type]
        "cn-pnet",
        description="what proposes: PNet's weights, or a CenterNet's, which sees more around a plate and proposes less",
    )
    screen: weights_name("centernet") | None = pydantic.Field(  # type: ignore[valid-type]
        None,
        description="a CenterNet's weights, which say where PNet is to look: on a CPU, where that takes long; null for "
        "everywhere",
    )
    onet: weights_name("mtcnn.onet") = pydantic.Field("cn-onet", description="ONet's weights")  # type: ignore[valid-type]
    min_plate: tuple[Annotated[int, pydantic.Field(ge=8)], Annotated[int, pydantic.Field(ge=3)]] = pydantic.Field(
        (50, 15), description="width and height of the smallest plate wanted, in pixels: smaller is slower"
    )
    factor: float = pydantic.Field(0.707, ge=0.3, le=0.95, description="from one scale of the pyramid to the next")
    thresholds: tuple[_Share, _Share] | None = pydantic.Field(
        None,
        description="scores from which proposals and ONet's plates count; else 0.3, 0.8, with a CenterNet 0.5, 0.5",
    )
    nms: tuple[_Share, _Share, _Share] = pydantic.Field(
        (0.5, 0.7, 0.4),
        description="overlap above which the worse box goes: within a scale, across scales, of ONet's plates",
    )
    nms_onet: Literal["min", "union"] = pydantic.Field(
        "min", description="whether overlap of ONet's plates is a part of the smaller box or of their union"
    )
    refine: int = pydantic.Field(1, ge=0, le=5, description="further passes of ONet over its own boxes: they tighten")
    refined: _Share = pydantic.Field(
        0.2, description="score that a plate must still have in the further passes: less, since they see a plate again"
    )
    whole_pixels: bool = pydantic.Field(
        False, description="round proposals to whole pixels, their last ones included, as the seed does"
    )
    max_proposals: int = pydantic.Field(
        500, ge=1, le=100_000, description="most proposals a photo and scale; what goes beyond is counted in a warning"
    )

    @property
    def scores(self) -> tuple[float, float]:
        """`thresholds`, or what goes with PNet."""
        return self.thresholds or PNET_SCORES

    @property
    def plate_scores(self) -> list[float]:
        """The score above which a box counts as a plate, in each of ONet's passes."""
        return [self.scores[1], *[self.refined] * self.refine]

"""Declares MTCNN's components, `mtcnn.*`. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lprf.api import Component, hookimpl
from lprf_mtcnn import params

if TYPE_CHECKING:
    from lprf.weights import WeightsInfo


def _features(_: params.DetectorParams, weights: Mapping[str, WeightsInfo]) -> Mapping[str, set[str]]:
    corners = "onet" in weights and weights["onet"].metadata.get("corners")
    return {"detections": {"corners"} if corners else set()}


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="detector",
            kind="detector",
            impl="lprf_mtcnn.detector:MtcnnDetector",
            params=params.DetectorParams,
            features=_features,
            importers=("lprf_mtcnn.importers:pnet", "lprf_mtcnn.importers:onet"),
            summary="PNet proposes, ONet decides: arXiv 1604.02878 for plates",
        ),
    ]

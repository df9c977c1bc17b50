"""Declares MTCNN's components, `mtcnn.*`. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lprf.api import Component, Port, hookimpl
from lprf_mtcnn import params, training_params

if TYPE_CHECKING:
    from lprf.weights import WeightsInfo

_TRAINER = {"samples": Port("Samples"), "val": Port("Dataset", optional=True)}


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
            exports="lprf_mtcnn.export:networks",
            summary="PNet proposes, ONet decides: arXiv 1604.02878 for plates",
        ),
        Component(
            name="samples",
            kind="sampler",
            impl="lprf_mtcnn.samples:Sampler",
            params=training_params.SamplesParams,
            inputs={"pnet": Port("Weights", optional=True), "onet": Port("Weights", optional=True)},
            summary="what PNet and ONet learn from, cut out of photos; ONet's is mined with a trained PNet",
        ),
        Component(
            name="pnet-trainer",
            kind="trainer",
            impl="lprf_mtcnn.trainer:PnetTrainer",
            params=training_params.PnetTrainerParams,
            inputs=_TRAINER,
            outputs={"weights": Port("Weights")},
            summary="trains PNet with online hard-example mining",
        ),
        Component(
            name="onet-trainer",
            kind="trainer",
            impl="lprf_mtcnn.trainer:OnetTrainer",
            params=training_params.OnetTrainerParams,
            inputs=_TRAINER,
            outputs={"weights": Port("Weights")},
            summary="trains ONet with online hard-example mining, the plates' corners too",
        ),
    ]

"""Declares `centernet.detector` and `centernet.trainer`. Imports nothing heavy."""

from __future__ import annotations

from lprf.api import Component, Port, hookimpl
from lprf_centernet import params


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="detector",
            kind="detector",
            impl="lprf_centernet.detector:CenterNetDetector",
            params=params.DetectorParams,
            features=lambda *_: {"detections": {"corners"}},
            exports="lprf_centernet.export:networks",
            summary="one network that sees whole cars finds plates and their corners: after arXiv 1904.07850",
        ),
        Component(
            name="trainer",
            kind="trainer",
            impl="lprf_centernet.trainer:CenterNetTrainer",
            params=params.TrainerParams,
            inputs={"datasets": Port("Dataset", many=True), "val": Port("Dataset", optional=True)},
            outputs={"weights": Port("Weights")},
            summary="trains the single-shot detector on photos with boxes, and corners where they are known",
        ),
    ]

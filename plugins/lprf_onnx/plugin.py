"""Declares `onnx.*`: detectors and recognizers that were trained elsewhere. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lprf.api import Component, hookimpl
from lprf_onnx.params import DetectorParams, RecognizerParams


def _features(params: DetectorParams, _: Mapping[str, Any]) -> Mapping[str, set[str]]:
    return {"detections": {"corners"} if params.gives_corners else set()}


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="detector",
            kind="detector",
            impl="lprf_onnx.detector:OnnxDetector",
            params=DetectorParams,
            features=_features,
            summary="finds plates by a YOLO-style ONNX model, with their corners where it gives them",
        ),
        Component(
            name="recognizer",
            kind="recognizer",
            impl="lprf_onnx.recognizer:OnnxRecognizer",
            params=RecognizerParams,
            summary="reads plates by an ONNX model, by CTC or by slots; what `lprf export` writes needs no more said",
        ),
    ]

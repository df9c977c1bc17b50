"""Declares LPRNet's components, `lprnet.*`. Imports nothing heavy."""

from __future__ import annotations

from lprf.component import Component, Port
from lprf.hooks import hookimpl
from lprf_lprnet import params, trainer_params


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="recognizer",
            kind="recognizer",
            impl="lprf_lprnet.recognizer:LprnetRecognizer",
            params=params.RecognizerParams,
            importers=("lprf_lprnet.importers:seed",),
            exports="lprf_lprnet.export:networks",
            padded=True,
            summary="reads plates by LPRNet (arXiv 1806.10447) or by its successor with a slot for each character",
        ),
        Component(
            name="trainer",
            kind="trainer",
            impl="lprf_lprnet.trainer:ReaderTrainer",
            params=trainer_params.TrainerParams,
            inputs={"datasets": Port("Dataset", many=True), "val": Port("Dataset", optional=True)},
            outputs={"stn": Port("Weights", optional=True), "lprnet": Port("Weights")},
            summary="learns to read plates: the recognizer, and the spatial transformer in front of it",
        ),
    ]

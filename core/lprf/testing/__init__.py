"""Conformance suites, one a kind: a plugin's tests inherit the suite of its kind and name the component.

    from lprf.testing import DetectorSuite

    class TestRedDetector(DetectorSuite):
        component = "red.detector"

pytest runs every check of the suite. `params` gives parameters, as `with:` does; a suite says which further
attributes it has. The shipped plugins pass the same suites.
"""

from __future__ import annotations

from lprf.testing.infer import DetectorSuite, RecognizerSuite, RectifierSuite, SinkSuite, SourceSuite
from lprf.testing.suite import ComponentSuite
from lprf.testing.train import (
    DatasetSuite,
    EvaluatorSuite,
    Labelled,
    SamplerSuite,
    TrainerSuite,
    TransformSuite,
)

__all__ = [
    "ComponentSuite",
    "DatasetSuite",
    "DetectorSuite",
    "EvaluatorSuite",
    "Labelled",
    "RecognizerSuite",
    "RectifierSuite",
    "SamplerSuite",
    "SinkSuite",
    "SourceSuite",
    "TrainerSuite",
    "TransformSuite",
]

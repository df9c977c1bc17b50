"""On a GPU nothing is computed on the CPU in between, results are the same, and the host seldom waits."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import lprf
from running import ROOT, run

READ = {"decoding.py:_on_host _to_copy": 1}  # all that the host waits for in a batch: what was read


@pytest.mark.parametrize(
    ("recipe", "overrides", "waits"),
    [
        ("read-plates", {}, READ),
        ("read-plates", {"detect.pnet": "cn-pnet", "runtime.precision": "float16"}, READ),
        ("read-plates", {"rectify.uses": "core.crop", "read.format": "cn"}, READ),
        ("read-crops", {}, {**READ, "decoding.py:_seen nonzero": 1}),  # and which the reader is unsure of
        ("read-plates-eu", {}, None),
        ("detect-plates-far", {}, None),
        ("read-plates", {"rectify.uses": "core.perspective"}, None),
    ],
)
def test_it_reads_as_on_the_cpu(recipe: str, overrides: dict[str, object], waits: dict[str, int] | None) -> None:
    changes = [f"{key}={value}" for key, value in overrides.items()]
    result = run(sys.executable, "-m", "tests.pretended_gpu", recipe, *changes, cwd=ROOT, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["failures"] == []
    on_the_cpu = {**overrides, "runtime.backend": "torch", "runtime.precision": "float32"}
    here = list(lprf.load(recipe, overrides=on_the_cpu).run())
    assert here
    assert [reading[:2] for reading in told["readings"]] == [[reading.source, reading.text] for reading in here]
    boxes = np.array([reading[2:] for reading in told["readings"]])
    # pictures are made smaller by another function there, which rounds otherwise
    np.testing.assert_allclose(boxes, [reading.box for reading in here], rtol=0, atol=2)
    if waits is not None:
        batches = 1 if recipe == "read-crops" else len({reading.source for reading in here})  # photos of many sizes
        assert told["waits"] == {name: count * batches for name, count in waits.items()}

"""`lprf bench` measures what really ran, and tells where two recipes answer differently."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from lprf.bench import differences


def lprf(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lprf", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)


def test_differences_are_counted_and_named() -> None:
    one = {"a": Counter({"京A1": 2}), "b": Counter({"京B2": 1})}
    other = {"a": Counter({"京A1": 1}), "b": Counter({"京B2": 1}), "c": Counter({"": 1})}
    found = differences(one, other)
    assert (found["pictures"], found["differing"]) == (3, 2)
    assert found["first"][0] == {"source": "a", "one": ["京A1", "京A1"], "other": ["京A1"]}
    assert found["first"][1] == {"source": "c", "one": [], "other": [""]}
    assert differences(one, one)["differing"] == 0


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 256, (40, 120, 3), dtype=np.uint8)
        (folder / f"{index}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def test_two_recipes_in_turn(pictures: Path, tmp_path: Path) -> None:
    source = f"crops.path={pictures}"
    done = lprf(
        *("bench", "read-crops", "-s", source, "-s", "rectify.uses=core.crop", "-s", "runtime.batch=2"),
        *("--vs", "read-crops", "--vs-set", source, "--passes", "2", "--json", str(tmp_path / "bench.json")),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    one, other = report["sides"]
    assert (one["pictures"], one["batch"], one["passes"]) == (3, 2, 2)
    assert list(one["nodes_ms"]) == ["crops", "rectify", "read"] and len(report["ratios"]) == 2
    assert set(one["weights"]) == {"read.weights"} and set(other["weights"]) == {"rectify.weights", "read.weights"}
    assert len(one["weights"]["read.weights"]["sha256"]) == 64
    assert "times as fast as read-crops" in done.stdout and "pass 2 of 2" in done.stderr


def test_mistakes_are_told(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = lprf("bench", "read-crops", "-s", f"crops.path={tmp_path / 'empty'}")
    assert nothing.returncode == 2 and "Traceback" not in nothing.stderr
    trains = lprf("bench", "train-recognizer")
    assert trains.returncode == 2 and "only recipes that read" in trains.stderr
    assert lprf("bench", "read-crops", "--passes", "0").returncode == 2


def test_a_picture_that_fails_shows_in_the_exit_code(pictures: Path) -> None:
    (pictures / "bad.jpg").write_bytes(b"no picture")
    done = lprf("bench", "read-crops", "-s", f"crops.path={pictures}", "--passes", "1")
    assert done.returncode == 1 and "1 failed" in done.stdout

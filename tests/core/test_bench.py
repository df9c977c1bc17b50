"""`lprf bench` measures what really ran, and tells where two recipes answer differently."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lprf.bench import differences, forget_host_peak, host_peak
from running import lprf


def test_differences_are_counted_and_named() -> None:
    here, there = (0.0, 0.0, 90.0, 30.0), (300.0, 0.0, 390.0, 30.0)
    one = {"a": [("京A1", here), ("京A1", there)], "b": [("京B2", here)], "d": [("京D4", here), ("京D5", there)]}
    other = {"a": [("京A1", here)], "b": [("京B2", here)], "c": [("", here)], "d": one["d"][::-1]}
    found = differences(one, other)
    assert (found["pictures"], found["differing"]) == (4, 2)
    first, second = found["first"]
    assert first["source"] == "a" and [plate["text"] for plate in first["one"]] == ["京A1", "京A1"]
    assert first["other"] == [{"text": "京A1", "box": [0.0, 0.0, 90.0, 30.0]}]
    assert second == {"source": "c", "one": [], "other": [{"text": "", "box": [0.0, 0.0, 90.0, 30.0]}]}
    assert differences(one, one)["differing"] == 0


@pytest.mark.parametrize(("moved", "differ"), [(20.0, 0), (45.0, 1)])  # 70 of 110 columns in common, and 45 of 135
def test_one_text_at_another_place_is_another_answer(moved: float, differ: int) -> None:
    one = {"a": [("京A1", (0.0, 0.0, 90.0, 30.0))]}
    other = {"a": [("京A1", (moved, 0.0, 90.0 + moved, 30.0))]}
    assert differences(one, other)["differing"] == differ


def test_the_peak_is_that_of_a_pass() -> None:
    before = host_peak()
    if before is None:
        pytest.skip("this system does not tell")
    ballast = bytearray(300_000_000)
    ballast[::4096] = b"1" * len(ballast[::4096])
    held = host_peak()
    assert held is not None and held > 250_000_000
    del ballast
    forget_host_peak()
    after = host_peak()
    assert after is not None and (after < held - 200_000_000 if sys.platform == "linux" else after == held)


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
    assert "times as fast as the second; pair by pair " in done.stdout and "pass 2 of 2" in done.stderr
    for ratio in report["ratios"]:
        assert f" {ratio:.2f}" in done.stdout
    for side in report["sides"]:
        assert list(side["waited_share"]) == ["pictures", "copies", "kernels"]
        assert all(0 <= share <= 1 for share in side["waited_share"].values())
        assert side["host_peak_bytes"] is None or side["host_peak_bytes"] > 100_000_000  # torch alone takes more
        assert side["gpu_peak_bytes"] is None  # of a CPU
        for spread in (side["batch_ms"], *side["nodes_ms"].values()):
            assert 0 < spread["median"] <= spread["p95"]
    assert report["environment"]["torch"] in done.stdout


def test_mistakes_are_told(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = lprf("bench", "read-crops", "-s", f"crops.path={tmp_path / 'empty'}")
    assert nothing.returncode == 2 and "Traceback" not in nothing.stderr
    trains = lprf("bench", "train-recognizer")
    assert trains.returncode == 2 and "one that reads is wanted" in trains.stderr
    for words, told in (
        (["--passes", "0"], "must be 1 or more"),
        (["--json", str(tmp_path)], "is a folder; a file is to be written"),
        (["--vs-set", "crops.path=x"], "--vs-set changes the recipe that --vs names"),
    ):
        done = lprf("bench", "read-crops", *words)
        assert done.returncode == 2 and told in done.stderr


def test_pictures_are_the_same_however_they_are_spelt_and_others_are_told(pictures: Path, tmp_path: Path) -> None:
    one = pictures / "0.png"
    words = ("bench", "read-crops", "-s", f"crops.path={one}", "--passes", "1", "--vs", "read-crops", "--vs-set")
    done = lprf(*words, f"crops.path={pictures}/../{pictures.name}/0.png")
    assert done.returncode == 0 and "their answers are the same" in done.stdout
    assert "they read 1 and 3 pictures" in lprf(*words, f"crops.path={pictures}").stdout


def test_a_picture_that_fails_shows_in_the_exit_code(pictures: Path) -> None:
    (pictures / "bad.jpg").write_bytes(b"no picture")
    done = lprf("bench", "read-crops", "-s", f"crops.path={pictures}", "--passes", "1")
    assert done.returncode == 1 and "1 failed" in done.stdout

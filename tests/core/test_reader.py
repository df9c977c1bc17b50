"""`lprf.load(…).run(…)`: what a program gives, and what it gets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import lprf
from lprf import backend
from lprf.errors import LprfError, RecipeError
from lprf.plugins import Plugins
from lprf.reader import Reader
from lprf.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parent))
import echo
from echo import picture

RECIPE = """
lprf: 1
kind: infer
name: echoes
runtime: {batch: 4}
graph:
  images: {uses: core.images, with: {path: photos}}
  detect: {uses: echo.detector, inputs: {frames: images.frames}}
  rectify: {uses: echo.rectifier, inputs: {detections: detect.detections}}
  read: {uses: echo.recognizer, inputs: {plates: rectify.plates}}
  jsonl: {uses: core.jsonl, inputs: {readings: read.readings}, with: {path: never.jsonl}}
"""
NUMBERS = [1, 2, 4, 8, 11, 13]  # read as they are, one plate each


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    echo.reset()
    (tmp_path / "photos").mkdir()
    for number in NUMBERS:
        (tmp_path / "photos" / f"{number}.png").write_bytes(cv2.imencode(".png", picture(number))[1].tobytes())
    (tmp_path / "echoes.yaml").write_text(RECIPE)
    plugins = Plugins()
    plugins.load_file(echo.PATH)
    sys.modules["echo"] = echo  # the one that this test looks into
    with Reader(load_recipe(tmp_path / "echoes.yaml", {"images.path": str(tmp_path / "photos")}, plugins)) as made:
        yield made
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lprf")]
    assert not Path("never.jsonl").exists() and not (tmp_path / "never.jsonl").exists()


def texts(readings: Iterator[lprf.Reading] | Any) -> list[str]:
    return [reading.text for reading in readings]


EXPECTED = [str(number) for number in NUMBERS]


def test_paths(reader: Reader, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    assert texts(reader.run()) == EXPECTED
    assert texts(reader.run(str(folder))) == texts(reader.run(folder)) == EXPECTED
    assert texts(reader.run(folder / "11.png")) == ["11"]
    assert texts(reader.run([folder / "11.png", str(folder / "2.png")])) == ["11", "2"]
    assert texts(reader.run(f"{folder}/1*.png")) == ["1", "11", "13"]
    (first, *_) = reader.run(folder)
    assert first.source == str(folder / "1.png")
    assert (first.confidence, first.box, first.frame) == (0.25, (0, 0, 8, 8), 0)
    with pytest.raises(LprfError, match=r"path: .*needs a path"):
        list(reader.run(""))
    with pytest.raises(LprfError, match="there is no such file or folder"):
        list(reader.run(tmp_path / "missing"))


def test_pictures(reader: Reader) -> None:
    pictures = [picture(number) for number in NUMBERS]
    assert texts(reader.run(pictures[0])) == ["1"]
    assert texts(reader.run(np.stack(pictures))) == EXPECTED
    assert texts(reader.run(pictures)) == EXPECTED
    assert [len(batch) for batch in echo.seen.batches] == [1, 4, 2, 4, 2]  # what is there goes in batches
    assert texts(reader.run(iter(pictures))) == EXPECTED
    assert texts(reader.run([picture(1), picture(2, 9, 9)])) == ["1", "2"]
    assert texts(reader.run([])) == []
    assert [reading.frame for reading in reader.run(pictures)] == list(range(6))
    assert [reading.source for reading in reader.run(pictures[:1])] == ["array"]
    mirrored = np.ascontiguousarray(pictures[0][:, ::-1])[:, ::-1]
    assert texts(reader.run(mirrored)) == ["1"]  # however it lies in memory


def test_a_camera_loop_is_asked_for_a_frame_when_the_last_is_read(reader: Reader) -> None:
    """Nothing is drawn ahead: each frame's readings come before the next frame is asked for."""
    events: list[str] = []

    def camera() -> Iterator[np.ndarray]:
        for number in NUMBERS:
            events.append(f"frame {number}")
            yield picture(number)

    for reading in reader.run(camera()):
        events.append(f"read {reading.text}")
    assert events == [event for n in NUMBERS for event in (f"frame {n}", f"read {n}")]


def test_what_the_programs_own_loop_raises_is_its_own(reader: Reader) -> None:
    def camera() -> Iterator[np.ndarray]:
        yield picture(1)
        raise ZeroDivisionError("mine")

    readings = reader.run(camera())
    assert next(readings).text == "1"
    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        next(readings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "cannot read a int"),
        ([None], "picture 0 is a NoneType"),
        (np.zeros((4, 4), np.uint8), r"picture 0 is an array of uint8 \[4, 4\]"),
        ([picture(1), np.zeros((4, 4, 3), np.float32)], r"picture 1 is an array of float32 \[4, 4, 3\]"),
    ],
)
def test_what_cannot_be_read_is_said(reader: Reader, given: Any, said: str) -> None:
    with pytest.raises(LprfError, match=said):
        list(reader.run(given))


def test_failures_are_in_the_summary(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "photos" / "3.png").write_text("dear diary")
    assert texts(reader.run()) == EXPECTED
    (failure,) = reader.summary.failures
    assert failure.name.endswith("photos/3.png") and failure.reason.startswith("not a picture")
    assert (reader.summary.frames, reader.summary.plates, reader.summary.failed) == (6, 6, 1)
    assert texts(reader.run([np.zeros((0, 4, 3), np.uint8), picture(1)])) == ["1"]  # an empty cut-out
    assert reader.summary.failed == 1


def test_closed_early_the_threads_end(reader: Reader, tmp_path: Path) -> None:
    readings = reader.run([tmp_path / "photos"] * 20)  # more than is decoded ahead
    next(readings)
    assert [thread for thread in threading.enumerate() if thread.name == "lprf-decode"]
    readings.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "lprf-decode"]
    assert texts(reader.run()) == EXPECTED  # and it can be used again
    reader.close()
    with pytest.raises(LprfError, match="is closed"):
        next(reader.run())


def test_threads_share_a_reader(reader: Reader) -> None:
    pictures = [picture(number) for number in NUMBERS * 20]
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(lambda: texts(reader.run(iter(pictures)))) for _ in range(4)]
        assert [run.result() for run in runs] == [EXPECTED * 20] * 4
    assert [a.text for pair in zip(reader.run(), reader.run(), strict=True) for a in pair] == [
        text for text in EXPECTED for _ in range(2)
    ]


@pytest.mark.skipif(not backend.installed("openvino"), reason="no openvino")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_was_forked_later_is_told() -> None:
    code = """
import os, signal
import numpy as np
import lprf
from lprf.errors import LprfError
reader = lprf.load("detect-plates", overrides={"runtime.backend": "openvino"})
child = os.fork()
if child == 0:
    signal.alarm(60)  # it must not outlive the test, should it wait for ever
    try:
        list(reader.run([np.zeros((60, 80, 3), np.uint8)]))
    except LprfError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert "loaded before the process forked" in done.stdout, done.stderr


def test_wrong_overrides_are_named_like_mistakes_in_a_recipe() -> None:
    with pytest.raises(RecipeError) as mistakes:
        lprf.load("read-plates", overrides={"detect.min_plat": [40, 12], "detekt.x": 1, "runtime.batch": 0})
    text = str(mistakes.value)
    assert "did you mean 'min_plate'?" in text
    assert "did you mean 'detect'?" in text
    assert "runtime.batch" in text
    assert len(mistakes.value.problems) == 3
    with pytest.raises(RecipeError, match=r"runtime\.device"):
        lprf.load("read-plates", device="gpu")
    with pytest.raises(LprfError, match="cuda:99"):
        lprf.load("read-plates", device="cuda:99")
    with pytest.raises(LprfError, match=r"training graph|neither reads nor detects"):
        lprf.load("train-mtcnn")


def test_a_video_recipe_reads_a_programs_frames() -> None:
    with lprf.load("read-video", overrides={"read.decode": "greedy"}, device="cpu") as made:
        assert list(made.run([np.zeros((60, 80, 3), np.uint8)])) == []
        assert made.summary.frames == 1


MEASURE = """
import resource, sys
from lprf.cli import main
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_thousand_photos_need_no_more_memory_than_a_hundred(tmp_path: Path) -> None:
    """Within 10 %: of several sizes, and a fifth of them with something like a plate."""
    rng = np.random.default_rng(0)
    kept = []
    for index in range(10):
        image = rng.integers(60, 120, (90, 160 + 8 * (index % 3), 3), dtype=np.uint8)
        if index % 5 == 0:
            cv2.rectangle(image, (40, 50), (100, 68), (170, 60, 20), -1)
            cv2.putText(image, "A12345", (44, 64), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        kept.append(cv2.imencode(".jpg", image)[1].tobytes())
    peaks = {}
    for count in (100, 1000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            (folder / f"{index}.jpg").write_bytes(kept[index % 10])
        given = [f"images.path={folder}", "jsonl.path=out.jsonl", f"draw.path=drawn{count}", "runtime.device=cpu"]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, "run", "read-plates", *(part for g in given for part in ("-s", g))],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        code, peak = map(int, done.stderr.splitlines()[-1].split())
        assert code == 0, done.stderr
        assert f"{count} photos, " in done.stderr
        assert len(list((tmp_path / f"drawn{count}").iterdir())) == count
        peaks[count] = peak
    assert peaks[1000] <= 1.1 * peaks[100], peaks

"""A distribution by someone who has read tutorials and reference, and no code: its detector in `read-plates`, its
dataset in `train-lprnet`, by editing the recipes. Installed by pip into an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

import tiny_photos
from running import environment, install, run

pytestmark = pytest.mark.slow

FILES = {
    # docs/tutorials/write-a-plugin.md
    "lprf-yard/pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "lprf-yard"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["lprf"]

[project.entry-points.lprf]
yard = "lprf_yard.plugin"

[tool.hatch.build.targets.wheel]
packages = ["lprf_yard"]
""",
    "lprf-yard/lprf_yard/__init__.py": "",
    "lprf-yard/lprf_yard/plugin.py": '''
"""Declares `yard.detector` and `yard.dataset`. Imports nothing heavy."""

import pydantic

from lprf.api import Component, InputPath, Params, hookimpl


class DetectorParams(Params):
    hue: tuple[int, int] = pydantic.Field((100, 130), description="the hues that count, 0 to 179; blue by default")
    min_area: int = pydantic.Field(400, ge=1, description="smallest plate, in square pixels")


class DatasetParams(Params):
    path: InputPath = pydantic.Field(description="the list: picture, text, x1, y1, x2, y2, between tabs")


@hookimpl
def lprf_components():
    return [
        Component(
            name="detector",
            kind="detector",
            impl="lprf_yard.detector:YardDetector",
            params=DetectorParams,
            summary="finds plates by their colour",
        ),
        Component(
            name="dataset",
            kind="dataset",
            impl="lprf_yard.dataset:YardDataset",
            params=DatasetParams,
            summary="the pictures of our yard, with the list that the guard keeps",
        ),
    ]
''',
    "lprf-yard/lprf_yard/detector.py": """
import cv2
import numpy as np
import torch

from lprf.api import Detections


class YardDetector:
    def __init__(self, params, context):
        self.params = params
        self.device = context.device

    def __call__(self, frames):
        rows = [(row, box) for row, image in enumerate(frames.images.cpu().numpy()) for box in self.boxes(image)]
        return Detections(
            frames=frames,
            frame=torch.tensor([row for row, _ in rows], dtype=torch.int64, device=self.device),
            boxes=torch.tensor([box for _, box in rows], dtype=torch.float32, device=self.device).reshape(-1, 4),
            scores=torch.ones(len(rows), device=self.device),
        )

    def boxes(self, image):
        low, high = self.params.hue
        coloured = cv2.inRange(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), (low, 90, 60), (high, 255, 255))
        coloured = cv2.morphologyEx(coloured, cv2.MORPH_CLOSE, np.ones((5, 15), np.uint8))
        contours, _ = cv2.findContours(coloured, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        found = [cv2.boundingRect(contour) for contour in contours]
        return [(x, y, x + w, y + h) for x, y, w, h in found if w * h > self.params.min_area and 2 < w / h < 6]
""",
    # docs/explanation/plugins.md: `run()` gives datasets by port; docs/reference/data.md: Dataset, Example, Truth
    "lprf-yard/lprf_yard/dataset.py": """
import hashlib
from pathlib import Path

import cv2

from lprf.api import Example, InputFailure, Truth


class YardDataset:
    problems = ()

    def __init__(self, params, context):
        self.list = Path(params.path)
        self.rows = [line.split("\\t") for line in self.list.read_text(encoding="utf-8").splitlines()]

    def run(self):
        return {"dataset": self}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        name, text, *box = self.rows[index]
        return Example(name, lambda: self.read(name), (Truth(tuple(map(float, box)), None, text),))

    def read(self, name):
        image = cv2.imread(str(self.list.parent / name))
        if image is None:
            raise InputFailure(name, "cannot be read")
        return image

    def fingerprint(self):
        return hashlib.sha256(repr(sorted(self.rows)).encode()).hexdigest()
""",
    "lprf-yard/tests/test_yard.py": """
from lprf.testing import DetectorSuite


class TestYardDetector(DetectorSuite):
    component = "yard.detector"
""",
    "read.yaml": """
lprf: 1
kind: infer
name: read-yard
extends: read-plates
graph:
  images: {with: {path: pictures}}
  detect: {uses: yard.detector, with: {min_area: 300}}
  jsonl: {with: {path: runs/read-yard/readings.jsonl}}
  draw: {with: {path: runs/read-yard}}
""",
    "train.yaml": """
lprf: 1
kind: train
name: train-yard
extends: train-lprnet
runtime: {device: cpu}
graph:
  data: {uses: yard.dataset, with: {path: pictures/list.txt}}
  test: {uses: yard.dataset, with: {path: pictures/list.txt}}
  lprnet: {with: {width: 0.25, steps: 10, batch: 8, validate_every: 10}}
""",
}
PICTURES = 20


def picture(seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A blue plate in a grey yard: uint8 [h, w, 3] BGR, the plate's corners, its text."""
    image, corners, text = tiny_photos.photo(seed)
    plate = cv2.fillPoly(np.zeros(image.shape[:2], np.uint8), [corners.astype(np.int32)], 255)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.where(plate[..., None] > 0, image, grey), corners, text


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Python with the distribution installed, and a folder with the recipes, and pictures with a list."""
    folder = tmp_path_factory.mktemp("yard")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.lstrip(), encoding="utf-8")
    (folder / "pictures").mkdir()
    lines = []
    for seed in range(PICTURES):
        image, corners, text = picture(seed)
        cv2.imwrite(str(folder / "pictures" / f"{seed}.png"), image)
        lines.append("\t".join([f"{seed}.png", text, *map(str, [*corners.min(0), *corners.max(0)])]))
    (folder / "pictures" / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    python = environment(folder / "env", with_lprf=True)
    shutil.copytree(folder / "lprf-yard", folder / "built")
    install(python, folder / "built")
    return python, folder


def lprf(yard: tuple[Path, Path], *words: str) -> subprocess.CompletedProcess[str]:
    python, folder = yard
    return run(python, "-m", "lprf", *words, cwd=folder)


def test_it_is_listed_with_its_parameters(yard: tuple[Path, Path]) -> None:
    assert "yard.dataset" in lprf(yard, "components", "--kind", "dataset").stdout
    shown = lprf(yard, "components", "yard.detector")
    assert "min_area: integer, at least 1 = 400" in shown.stdout


@pytest.mark.parametrize("recipe", ["read.yaml", "train.yaml"])
def test_the_recipes_that_use_it_are_valid(recipe: str, yard: tuple[Path, Path]) -> None:
    done = lprf(yard, "validate", recipe)
    assert done.returncode == 0, done.stderr
    shown = lprf(yard, "show", recipe).stdout
    assert "yard." in shown and "mtcnn.detector" not in shown and "ccpd.dataset" not in shown
    node = "detect" if recipe == "read.yaml" else "data"
    wrong = lprf(yard, "validate", recipe, "-s", f"{node}.hues=3")
    assert wrong.returncode == 2 and f"graph.{node}.with.hues: unknown key 'hues'" in wrong.stderr


def test_its_detector_reads_plates(yard: tuple[Path, Path]) -> None:
    _, folder = yard
    done = lprf(yard, "run", "read.yaml", "-s", "images.path=pictures/*.png")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (folder / "runs/read-yard/readings.jsonl").read_text("utf-8").splitlines()]
    found = 0
    for seed in range(PICTURES):
        _, corners, _ = picture(seed)
        truth = np.concatenate([corners.min(0), corners.max(0)])
        boxes = [row["box"] for row in rows if Path(row["source"]).name == f"{seed}.png"]
        found += any(np.abs(np.array(box) - truth).max() < 8 for box in boxes)
    assert found >= 0.8 * PICTURES  # a plate in the shade is not blue enough for it


def test_its_dataset_trains_and_tests_a_recognizer(yard: tuple[Path, Path]) -> None:
    _, folder = yard
    done = lprf(yard, "run", "train.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((folder / "runs/train-yard/weights").glob("*lprnet*.safetensors"))
    (report,) = (folder / "runs/train-yard/evaluate").glob("*/report.json")
    assert json.loads(report.read_text("utf-8"))["counts"]["plates"] == PICTURES


def test_its_detector_stands_in_a_comparison(yard: tuple[Path, Path]) -> None:
    _, folder = yard
    words = ["--rectify", "core.crop", "--pictures", "8", "--timed", "2", "--passes", "1", "--json", "compare.json"]
    chosen = ["--detect", "yard.detector,yard.detector hue=[0,5]"]
    done = lprf(yard, "compare", "yard.dataset path=pictures/list.txt", *chosen, *words)
    assert done.returncode == 0, done.stderr
    blue, red = json.loads((folder / "compare.json").read_text("utf-8"))["rows"]
    assert blue["found"]["total"] == red["found"]["total"] == 8
    assert blue["found"]["hits"] >= 4 > red["found"]["hits"]


def test_the_suite_of_the_tutorial_passes(yard: tuple[Path, Path]) -> None:
    python, folder = yard
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=folder / "lprf-yard")
    assert done.returncode == 0, done.stdout

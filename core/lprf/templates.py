"""What `lprf new-plugin` writes; NAME stands for the plugin's name, KIND for the component's kind."""

from __future__ import annotations

PYPROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "lprf-NAME"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["lprf"]

[project.entry-points.lprf]
NAME = "lprf_NAME.plugin"

[tool.hatch.build.targets.wheel]
packages = ["lprf_NAME"]
"""


def _declaration(cls: str, field: str, rest: str = "") -> str:
    port = "Port, " if rest else ""
    return f'''"""Declares `NAME.KIND`. Imports nothing heavy."""

from pathlib import Path

import pydantic

from lprf.api import Component, {"OutputPath, " if "OutputPath" in field else ""}Params, {port}hookimpl


class {cls}Params(Params):
    {field}


@hookimpl
def lprf_components() -> list[Component]:
    return [Component("KIND", "KIND", "lprf_NAME.KIND:{cls}", {cls}Params, summary="an example"{rest})]


@hookimpl
def lprf_recipes() -> Path:
    return Path(__file__).parent / "recipes"
'''


COMPONENTS = {
    "detector": (
        _declaration("Detector", 'blueness: int = pydantic.Field(80, ge=0, le=255, description="blue above red")'),
        '''"""Everything blue in a frame as one plate: put your detector here."""

import torch

from lprf.api import Context, Detections, Frames
from lprf_NAME.plugin import DetectorParams


class Detector:
    def __init__(self, params: DetectorParams, context: Context):
        self.params = params

    def __call__(self, frames: Frames) -> Detections:
        blue = frames.images[..., 0].int() - frames.images[..., 2].int() > self.params.blueness
        frame = blue.flatten(1).any(1).nonzero()[:, 0]
        boxes = torch.zeros(len(frame), 4, device=blue.device)
        for box, row in zip(boxes, frame.tolist(), strict=True):
            y, x = blue[row].nonzero().unbind(1)
            box[:] = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        return Detections(frames, frame, boxes, torch.ones_like(boxes[:, 0]))
''',
    ),
    "rectifier": (
        _declaration("Rectifier", 'size: tuple[int, int] | None = pydantic.Field(None, description="height, width")'),
        '''"""The box, stretched: put your rectifier here."""

import torch

from lprf.api import Context, Detections, Plates
from lprf_NAME.plugin import RectifierParams


class Rectifier:
    def __init__(self, params: RectifierParams, context: Context):
        self.size = params.size or context.plate_size or (24, 94)

    def __call__(self, detections: Detections) -> Plates:
        images = torch.zeros(len(detections), 3, *self.size, device=detections.boxes.device)
        for i, (frame, box) in enumerate(zip(detections.frame.tolist(), detections.boxes.tolist(), strict=True)):
            x1, y1, x2, y2 = int(box[0]), int(box[1]), int(box[2] + 0.999), int(box[3] + 0.999)
            cut = detections.frames.images[frame, y1:y2, x1:x2].permute(2, 0, 1)[None].float()
            images[i] = torch.nn.functional.interpolate(cut, self.size, mode="bilinear")[0]
        return Plates(detections, torch.arange(len(images), device=images.device), images)
''',
    ),
    "recognizer": (
        _declaration("Recognizer", 'text: str = pydantic.Field("ABC123", description="what every plate reads")'),
        '''"""The same text for every plate: put your reader here."""

import torch

from lprf.api import Context, Plates, Readings
from lprf_NAME.plugin import RecognizerParams


class Recognizer:
    size = (24, 94)  # height and width of the plates it reads

    def __init__(self, params: RecognizerParams, context: Context):
        self.text = params.text

    def __call__(self, plates: Plates) -> Readings:
        n, device = len(plates), plates.images.device
        characters = [[0.5] * len(self.text) for _ in range(n)]
        alternatives = [[(self.text, 0.5)] for _ in range(n)]
        confidences = torch.full((n,), 0.5, device=device)
        return Readings(plates, torch.arange(n, device=device), [self.text] * n, confidences, characters, alternatives)
''',
    ),
    "sink": (
        _declaration(
            "Sink",
            'path: OutputPath = pydantic.Field("boxes.txt", description="the file to write")',
            ',\n                      inputs={"detections": Port("Detections")}',
        ),
        '''"""A line of text for each plate: put what you do with results here."""

from lprf.api import Context, Detections, readings_by_frame, replacing
from lprf_NAME.plugin import SinkParams


class Sink:
    def __init__(self, params: SinkParams, context: Context):
        self.output, self.lines = params.path, []

    def write(self, detections: Detections) -> None:
        for plate in readings_by_frame(detections)[0]:
            self.lines.append(f"{plate.source} {plate.box}")

    def fail(self, name: str, reason: str) -> None:
        self.lines.append(ascii(f"{name} failed: {reason}"))

    def close(self) -> None:
        with replacing(self.output) as beside:
            beside.write_text("\\n".join(self.lines), encoding="utf-8", errors="backslashreplace")
''',
    ),
    "source": (
        _declaration("Source", 'count: int = pydantic.Field(3, ge=1, le=1000, description="how many pictures")'),
        '''"""Pictures of a blue plate: put where your pictures come from here."""

import numpy as np
import torch

from lprf.api import Context, Frames, Item, Origin
from lprf_NAME.plugin import SourceParams


class Source:
    live = False

    def __init__(self, params: SourceParams, context: Context):
        self.total = params.count

    def items(self):
        for i in range(self.total):
            yield Item(Origin(f"picture {i}"), self.draw)

    def draw(self) -> np.ndarray:
        image = np.full((240, 320, 3), 110, np.uint8)
        image[100:130, 100:200] = (180, 80, 20)
        return image

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        return image.shape[:2]

    def batch(self, origins, images):
        return {"frames": Frames(torch.from_numpy(np.stack(images)), list(origins))}
''',
    ),
}

_HEAD = "lprf: 1\nkind: infer\nname: NAME-example\nextends: read-plates\ngraph:\n"
RECIPES = {
    "detector": f"{_HEAD}  detect: {{uses: NAME.detector}}\n",
    "rectifier": f"{_HEAD}  rectify: {{uses: NAME.rectifier}}\n",
    "recognizer": f"{_HEAD}  rectify: {{uses: core.crop}}\n  read: {{uses: NAME.recognizer}}\n",
    "sink": f"{_HEAD}  boxes: {{uses: NAME.sink, inputs: {{detections: detect.detections}}}}\n",
    "source": f"{_HEAD}  images: {{uses: NAME.source}}\n",
}

TESTS = {
    kind: f"from lprf.testing import {kind.title()}Suite\n\n\n"
    f'class TestOurs({kind.title()}Suite):\n    component = "NAME.KIND"\n'
    + ('    path = "boxes.txt"\n' if kind == "sink" else "")
    for kind in COMPONENTS
}

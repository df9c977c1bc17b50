"""What `lprf new-plugin` writes, a template a kind; NAME stands for the plugin's name, KIND for the kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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

_DECLARATION = '''"""Declares `NAME.KIND`. Imports nothing heavy."""

from pathlib import Path

import pydantic

IMPORTS


class CLASSParams(BASE):
    PARAMS


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="KIND",
            kind="KIND",
            impl="lprf_NAME.KIND:CLASS",
            params=CLASSParams,
            PORTS
            summary="an example",
        )
    ]


@hookimpl
def lprf_recipes() -> Path:
    return Path(__file__).parent / "recipes"
'''


@dataclass(frozen=True)
class Template:
    """A kind's example.

    params: fields of its class of parameters, which derives from `base`. ports: what it declares beyond its kind.
    code: the implementation. recipe: uses it. suite: what its tests set beyond `component`.
    files, pictures: what stands beside the recipe: texts by their path, and bundled samples that are copied there.
    """

    params: tuple[str, ...]
    code: str
    recipe: str
    base: str = "Params"
    ports: tuple[str, ...] = ()
    suite: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)

    def declaration(self, kind: str) -> str:
        """The module `plugin.py`."""
        text = _DECLARATION.replace("CLASS", kind.title()).replace("BASE", self.base)
        text = text.replace("    PARAMS\n", "".join(f"    {line}\n" for line in self.params))
        text = text.replace("            PORTS\n", "".join(f"            {line},\n" for line in self.ports))
        own = ("InputPath", "OutputPath", "Params", "Port")
        used = sorted(["Component", *(name for name in own if f" {name}" in text or f"({name}" in text), "hookimpl"])
        imports = f"from lprf.api import {', '.join(used)}"
        if self.base == "LoopParams":
            imports += "\nfrom lprf.training.params import LoopParams"
        return text.replace("IMPORTS", imports)

    def tests(self, kind: str) -> str:
        """The module of its tests."""
        suite = f'class TestOurs({kind.title()}Suite):\n    component = "NAME.KIND"\n{self.suite}'
        imports = "from pathlib import Path\n\nimport lprf_NAME\n" if "Path" in self.suite else ""
        return f"{imports}from lprf.testing import {kind.title()}Suite\n\n\n{suite}"


_READS = "lprf: 1\nkind: infer\nname: NAME-example\nextends: read-plates\ngraph:\n"
_TRAINS = "lprf: 1\nkind: train\nname: NAME-example\ngraph:\n"
_SCENES = _TRAINS + "  data: {uses: synth.scenes, with: {count: 6, size: [320, 480], widths: [60, 160]}}\n"
_TABLE = """file,text,x1,y1,x2,y2
scene-3.jpg,晋WJV4328,221,484,445,569
scene-5.jpg,豫BG01594,92,283,252,327
"""

TEMPLATES = {
    "source": Template(
        params=('count: int = pydantic.Field(3, ge=1, le=1000, description="how many pictures")',),
        code='''"""Pictures of a blue plate: put where your pictures come from here."""

import numpy as np
import torch

from lprf.api import Context, Frames, Item, Origin
from lprf_NAME.plugin import SourceParams


class Source:
    live = False

    def __init__(self, params: SourceParams, context: Context):
        self.total = params.count

    def items(self):
        return (Item(Origin(f"picture {i}"), self.draw) for i in range(self.total))

    def draw(self) -> np.ndarray:
        image = np.full((240, 320, 3), 110, np.uint8)
        image[100:130, 100:200] = (180, 80, 20)
        return image

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        return image.shape[:2]

    def batch(self, origins, images):
        return {"frames": Frames(torch.from_numpy(np.stack(images)), list(origins))}
''',
        recipe=f"{_READS}  images: {{uses: NAME.source}}\n",
    ),
    "detector": Template(
        params=('blueness: int = pydantic.Field(80, ge=0, le=255, description="blue above red")',),
        code='''"""Everything blue in a frame as one plate: put your detector here."""

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
        recipe=f"{_READS}  detect: {{uses: NAME.detector}}\n",
    ),
    "rectifier": Template(
        params=('size: tuple[int, int] | None = pydantic.Field(None, description="height, width")',),
        code='''"""The box, stretched: put your rectifier here."""

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
        recipe=f"{_READS}  rectify: {{uses: NAME.rectifier}}\n",
    ),
    "recognizer": Template(
        params=('text: str = pydantic.Field("ABC123", description="what every plate reads")',),
        code='''"""The same text for every plate: put your reader here."""

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
        recipe=f"{_READS}  rectify: {{uses: core.crop}}\n  read: {{uses: NAME.recognizer}}\n",
    ),
    "sink": Template(
        params=('path: OutputPath = pydantic.Field("boxes.txt", description="the file to write")',),
        ports=('inputs={"detections": Port("Detections")}',),
        code='''"""A line of text for each plate: put what you do with results here."""

from lprf.api import Context, Detections, readings_by_frame, replacing
from lprf_NAME.plugin import SinkParams


class Sink:
    def __init__(self, params: SinkParams, context: Context):
        self.output, self.lines = params.path, []

    def write(self, detections: Detections) -> None:
        for plate in readings_by_frame(detections)[0]:
            self.lines.append(ascii(f"{plate.source} {plate.box}"))

    def fail(self, name: str, reason: str) -> None:
        self.lines.append(ascii(f"{name} failed: {reason}"))

    def close(self) -> None:
        with replacing(self.output) as beside:
            beside.write_text("\\n".join(self.lines), encoding="utf-8")
''',
        recipe=f"{_READS}  boxes: {{uses: NAME.sink, inputs: {{detections: detect.detections}}}}\n",
        suite='    path = "boxes.txt"\n',
    ),
    "dataset": Template(
        params=('path: InputPath = pydantic.Field(description="folder of pictures, with a plates.csv")',),
        code='''"""Pictures labelled by a table: put how yours are labelled here."""

import csv
import hashlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from lprf.api import Context, Example, InputFailure, Truth
from lprf_NAME.plugin import DatasetParams


class Dataset:
    problems = ()  # a line for each row that was left out

    def __init__(self, params: DatasetParams, context: Context):
        self.folder = Path(params.path)
        self.rows = list(csv.DictReader((self.folder / "plates.csv").read_text(encoding="utf-8").splitlines()))

    def run(self) -> dict[str, "Dataset"]:
        return {"dataset": self}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        box = tuple(float(row[side]) for side in ("x1", "y1", "x2", "y2"))
        return Example(row["file"], partial(self.read, row["file"]), (Truth(box, text=row["text"]),))

    def read(self, name: str) -> np.ndarray:
        if (image := cv2.imread(str(self.folder / name))) is None:
            raise InputFailure(name, "is no picture")
        return image

    def fingerprint(self) -> str:  # of names, sizes and labels
        sizes = [(self.folder / row["file"]).stat().st_size for row in self.rows]
        return hashlib.sha256(repr((self.rows, sizes)).encode()).hexdigest()
''',
        recipe=_TRAINS + "  data: {uses: NAME.dataset, with: {path: pictures}}\n"
        "  evaluate: {uses: core.evaluate, inputs: {dataset: data.dataset}, with: {recipe: read-plates}}\n",
        suite='    params = {"path": str(Path(lprf_NAME.__file__).parent / "recipes" / "pictures")}\n',
        files={"pictures/plates.csv": _TABLE},
        pictures={"pictures/scene-3.jpg": "photos/scene-3.jpg", "pictures/scene-5.jpg": "photos/scene-5.jpg"},
    ),
    "transform": Template(
        params=('width: int = pydantic.Field(80, ge=1, description="least width of plates, pixels")',),
        ports=('inputs={"dataset": Port("Dataset")}', 'outputs={"dataset": Port("Dataset")}'),
        code='''"""The pictures without narrow plates: put what you do with labelled pictures here."""

from lprf.api import Context, Dataset, Example
from lprf_NAME.plugin import TransformParams


class Transform:
    def __init__(self, params: TransformParams, context: Context):
        self.width = params.width

    def run(self, dataset: Dataset) -> dict[str, Dataset]:
        self.dataset, self.problems = dataset, dataset.problems
        self.rows = [row for row in range(len(dataset)) if self.keeps(dataset[row])]
        return {"dataset": self}

    def keeps(self, example: Example) -> bool:
        return all(plate.box[2] - plate.box[0] >= self.width for plate in example.plates)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.dataset[self.rows[index]]

    def fingerprint(self) -> str:
        return f"NAME.KIND {self.width} {self.dataset.fingerprint()}"
''',
        recipe=_SCENES + "  wide: {uses: NAME.transform, inputs: {dataset: data.dataset}}\n"
        "  evaluate: {uses: core.evaluate, inputs: {dataset: wide.dataset}, with: {recipe: detect-plates}}\n",
    ),
    "sampler": Template(
        params=('size: tuple[int, int] = pydantic.Field((24, 94), description="height, width of a sample")',),
        code='''"""Plates, and as large pieces of what is around them: put what your network learns from here."""

from pathlib import Path

import numpy as np
import torch

from lprf.api import Context, Dataset, Example, LprfError, readable, replacing
from lprf.boxes import overlaps
from lprf.sampling import sample_boxes
from lprf_NAME.plugin import SamplerParams


class Sampler:
    def __init__(self, params: SamplerParams, context: Context):
        self.size, self.path = params.size, context.folder / "samples.npz"
        self.generator = torch.Generator().manual_seed(context.seed)

    def run(self, dataset: Dataset) -> dict[str, Path]:
        made = [self.crops(example, image) for example, image in readable(dataset) if example.plates]
        if not made:
            raise LprfError("there is no plate to make samples of")
        images, labels = (torch.cat(parts).numpy() for parts in zip(*made, strict=True))
        with replacing(self.path) as beside:
            np.savez(beside, images=images, labels=labels)
        return {"samples": self.path}

    def crops(self, example: Example, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        plates = torch.tensor([plate.box for plate in example.plates])
        size, room = plates[:, 2:] - plates[:, :2], torch.tensor(image.shape[1::-1])
        corner = torch.rand(len(plates), 2, generator=self.generator) * (room - size)
        moved = torch.cat([corner, corner + size], dim=1)
        boxes = torch.cat([plates, moved[overlaps(moved, plates).amax(1) == 0]])
        cut = sample_boxes(torch.from_numpy(image)[None], torch.zeros(len(boxes), dtype=torch.int64), boxes, self.size)
        return cut.round().to(torch.uint8), torch.arange(len(boxes)) < len(plates)
''',
        recipe=_SCENES + "  samples: {uses: NAME.sampler, inputs: {dataset: data.dataset}}\n",
    ),
    "trainer": Template(
        base="LoopParams",
        params=('steps: int | None = pydantic.Field(20, ge=1, description="optimiser steps")',),
        ports=('inputs={"dataset": Port("Dataset")}', 'outputs={"weights": Port("Weights")}'),
        code='''"""A network that tells pictures with a plate from those without: put yours, and its loss, here."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from lprf import weights
from lprf.api import Context, Dataset, readable
from lprf.training import distributed
from lprf.training.loop import Task, train
from lprf_NAME.plugin import TrainerParams


class Trainer(Task):
    def __init__(self, params: TrainerParams, context: Context):
        self.params, self.context = params, context
        net = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 15 * 15, 1))
        self.networks = {"net": net.to(context.device)}

    def run(self, dataset: Dataset) -> dict[str, Path]:
        found = [(cv2.resize(image, (64, 64)), bool(example.plates)) for example, image in readable(dataset)]
        images, labels = zip(*found, strict=True)
        self.images, self.labels = torch.from_numpy(np.stack(images)), torch.tensor(labels).float()
        trained = train(self, self.params, self.context)
        path = self.context.folder / "net.safetensors"
        if distributed.is_main():
            weights.save(path, trained.weights["net"], {"architecture": "NAME-net"})
        return {"weights": path}

    def batch(self, step, rng, share):
        rows = rng.integers(len(self.images), size=self.params.batch)[share.rows(self.params.batch)]
        return self.images[rows], self.labels[rows]

    def loss(self, batch):
        scores = self.networks["net"](batch[0].permute(0, 3, 1, 2) / 255).flatten()
        return nn.functional.binary_cross_entropy_with_logits(scores.float(), batch[1]), {}
''',
        recipe=_SCENES.replace("6,", "12, empty: 0.5,")
        + "  train: {uses: NAME.trainer, inputs: {dataset: data.dataset}}\n",
    ),
    "evaluator": Template(
        params=('attribute: str = pydantic.Field("province", description="by which attribute plates are counted")',),
        code='''"""How many plates there are of each kind: put what you measure here."""

from collections import Counter
from typing import Any

from lprf.api import Context, Dataset
from lprf_NAME.plugin import EvaluatorParams


class Evaluator:
    def __init__(self, params: EvaluatorParams, context: Context):
        self.attribute = params.attribute

    def run(self, dataset: Dataset) -> dict[str, Any]:
        plates = [plate for row in range(len(dataset)) for plate in dataset[row].plates]
        counts = Counter(plate.attributes.get(self.attribute, "unknown") for plate in plates)
        return {"report": {"summary": {"plates": len(plates), "kinds": len(counts)}, "counts": dict(counts)}}
''',
        recipe=_TRAINS + "  data: {uses: synth.plates, with: {count: 200}}\n"
        "  evaluate: {uses: NAME.evaluator, inputs: {dataset: data.dataset}}\n",
    ),
}

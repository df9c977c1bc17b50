"""Datasets made of datasets: `core.split`, `core.concat`, `core.subset`, `core.crop-plates`.

All are views: nothing is copied, and pictures are cut when they are asked for.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from lprf.builtin.params import CropPlatesParams, SplitParams, SubsetParams
from lprf.component import Params
from lprf.context import Context
from lprf.data import Dataset, Example, Truth
from lprf.errors import InputFailure, LprfError


def combined(*parts: str) -> str:
    """The fingerprint of a dataset that is made of these parts, in this order."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def source_of(dataset: Dataset, index: int) -> str:
    """The name of an example, without making the example where the dataset can tell."""
    told = getattr(dataset, "source", None)
    return told(index) if told is not None else dataset[index].source


@dataclass
class View:
    """Some examples of a dataset, in the order of `indices`."""

    dataset: Dataset
    indices: Sequence[int]
    problems: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.dataset[self.indices[index]]

    def source(self, index: int) -> str:
        return source_of(self.dataset, self.indices[index])

    def fingerprint(self) -> str:
        return combined("view", self.dataset.fingerprint(), *map(str, self.indices))


class Split:
    """`core.split`: parts that share no plate.

    Pictures that share a plate's text, directly or through others, stay together; each such family goes where its
    province (and the whole) lacks most, in an order drawn by the seed. Raises LprfError where a part that was asked
    for stays empty.
    """

    def __init__(self, params: SplitParams, context: Context):
        self.shares = {name: share for name in ("train", "val", "test") if (share := getattr(params, name)) > 0}
        self.by = params.by
        self.seed = context.seed

    def run(self, dataset: Dataset) -> dict[str, View]:
        strata: dict[str, list[list[int]]] = {}
        for family in self._families(dataset):
            strata.setdefault(_stratum(dataset[family[0]]), []).append(family)
        rest = 1 - sum(self.shares.values())
        shares = {**self.shares, **({"": rest} if rest > 1e-9 else {})}
        parts: dict[str, list[int]] = {name: [] for name in shares}
        total = 0
        for name in sorted(strata):
            families = strata[name]
            random.Random(f"{self.seed} {name}").shuffle(families)
            families.sort(key=len, reverse=True)  # the large ones first, while there is room to balance them
            here = dict.fromkeys(shares, 0)
            seen = 0
            for family in families:
                seen += len(family)
                total += len(family)
                part = max(shares, key=lambda p: shares[p] * (seen + total) - here[p] - len(parts[p]))
                parts[part].extend(family)
                here[part] += len(family)
        empty = [name for name in self.shares if not parts[name]]
        if empty:
            raise LprfError(f"the split leaves {' and '.join(empty)} empty: there are only {len(dataset)} pictures")
        # problems are told once, by the first part
        problems = [dataset.problems, *[()] * len(self.shares)]
        return {name: View(dataset, sorted(parts[name]), problems[i]) for i, name in enumerate(self.shares)}

    def _families(self, dataset: Dataset) -> list[list[int]]:
        """Indices of pictures that must stay together, each list and the whole ascending."""
        if self.by == "image":
            return [[index] for index in range(len(dataset))]
        parent = list(range(len(dataset)))

        def root(index: int) -> int:
            while parent[index] != index:
                parent[index] = parent[parent[index]]
                index = parent[index]
            return index

        first: dict[str, int] = {}
        for index in range(len(dataset)):
            for plate in dataset[index].plates:
                if plate.text:
                    a, b = sorted((root(first.setdefault(plate.text, index)), root(index)))
                    parent[b] = a
        families: dict[int, list[int]] = {}
        for index in range(len(dataset)):
            families.setdefault(root(index), []).append(index)
        return list(families.values())


def _stratum(example: Example) -> str:
    text = next((plate.text for plate in example.plates if plate.text), None)
    if text is not None:
        return text[0] if not text[0].isascii() else "text"
    return "plates" if example.plates else "none"


@dataclass
class Joined:
    """Several datasets one after the other. Where names clash, the position of the input stands before each."""

    datasets: Sequence[Dataset]
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *(len(dataset) for dataset in self.datasets)]).tolist()
        self.problems = [problem for dataset in self.datasets for problem in dataset.problems]
        names = [source_of(dataset, index) for dataset in self.datasets for index in range(len(dataset))]
        self.clash = len(set(names)) < len(names)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        example = self.datasets[number][index - self.starts[number]]
        return replace(example, source=f"{number}:{example.source}") if self.clash else example

    def fingerprint(self) -> str:
        return combined("joined", *(dataset.fingerprint() for dataset in self.datasets))


class Concat:
    """`core.concat`: all examples of several datasets."""

    def __init__(self, params: Params, context: Context):
        pass

    def run(self, datasets: Sequence[Dataset]) -> dict[str, Joined]:
        return {"dataset": Joined(list(datasets))}


class Subset:
    """`core.subset`: those of a group, with an attribute, or a number of them drawn by the seed; order is kept."""

    def __init__(self, params: SubsetParams, context: Context):
        self.params = params
        self.seed = context.seed

    def run(self, dataset: Dataset) -> dict[str, View]:
        chosen = [index for index in range(len(dataset)) if self._wanted(dataset[index])]
        number = len(chosen)
        if self.params.fraction is not None:
            number = max(1, round(number * self.params.fraction))
        if self.params.n is not None:
            number = min(number, self.params.n)
        if number < len(chosen):
            chosen = sorted(random.Random(self.seed).sample(chosen, number))
        if not chosen:
            raise LprfError(f"none of {len(dataset)} pictures is of the subset that was asked for")
        return {"dataset": View(dataset, chosen, dataset.problems)}

    def _wanted(self, example: Example) -> bool:
        if self.params.groups is not None and example.group not in self.params.groups:
            return False
        if self.params.plates is not None and bool(example.plates) != self.params.plates:
            return False
        allowed = {key: [value] if isinstance(value, str) else value for key, value in self.params.where.items()}
        return not allowed or any(
            all(plate.attributes.get(key) in values for key, values in allowed.items()) for plate in example.plates
        )


class CropPlates:
    """`core.crop-plates`: every labelled plate as a picture of its own, cut when it is asked for.

    A plate's name is its photo's with `#` and its number. The label's box and corners are those within the crop.
    """

    def __init__(self, params: CropPlatesParams, context: Context):
        self.params = params
        self.seed = context.seed

    def run(self, dataset: Dataset) -> dict[str, CutOut]:
        rows = []
        for index in range(len(dataset)):
            for number, plate in enumerate(dataset[index].plates):
                if self.params.texts_only and not plate.text:
                    continue
                if self.params.cut == "corners" and plate.corners is None:
                    continue
                rows.append((index, number))
        if not rows:
            raise LprfError(f"none of {len(dataset)} pictures has a plate that can be cut by its {self.params.cut}")
        return {"dataset": CutOut(dataset, rows, self.params, self.seed)}


@dataclass
class CutOut:
    """The plates of a dataset; `rows` are (picture, plate)."""

    dataset: Dataset
    rows: Sequence[tuple[int, int]]
    params: CropPlatesParams
    seed: int

    def __post_init__(self) -> None:
        self.problems = self.dataset.problems

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        picture, number = self.rows[index]
        example = self.dataset[picture]
        plate = example.plates[number]
        source = f"{example.source}#{number}"
        if self.params.cut == "corners":
            assert plate.corners is not None
            width, height = upright_size(plate.corners)
            corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
            truth = replace(plate, box=(0.0, 0.0, float(width), float(height)), corners=corners)
            return Example(source, partial(_warped, example, plate.corners), (truth,), example.group)
        area = self._area(plate, source)
        x1, y1, x2, y2 = plate.box
        truth = replace(
            plate,
            box=(x1 - area[0], y1 - area[1], x2 - area[0], y2 - area[1]),
            corners=None if plate.corners is None else plate.corners - np.array(area[:2], np.float32),
        )
        return Example(source, partial(_cut, example, area), (truth,), example.group)

    def _area(self, plate: Truth, source: str) -> tuple[int, int, int, int]:
        """Whole pixels to cut, x1 y1 x2 y2: the box, each side moved by a margin of its own."""
        low, high = self.params.margin
        draw = random.Random(f"{self.seed} {source}")
        x1, y1, x2, y2 = plate.box
        height = y2 - y1
        left, top, right, bottom = (draw.uniform(low, high) * height for _ in range(4))
        return (
            max(0, math.floor(x1 - left)),
            max(0, math.floor(y1 - top)),
            max(1, math.ceil(x2 + right)),
            max(1, math.ceil(y2 + bottom)),
        )

    def fingerprint(self) -> str:
        return combined("crops", self.dataset.fingerprint(), self.params.model_dump_json(), str(self.seed))


def upright_size(corners: np.ndarray) -> tuple[int, int]:
    """(width, height) in whole pixels of the upright plate behind four corners: the longer of opposite sides."""
    top, right, bottom, left = (float(np.linalg.norm(corners[(i + 1) % 4] - corners[i])) for i in range(4))
    return max(1, round(max(top, bottom))), max(1, round(max(left, right)))


def _cut(example: Example, area: tuple[int, int, int, int]) -> np.ndarray:
    image = example.image()
    x1, y1, x2, y2 = area
    crop = image[y1:y2, x1:x2]
    if crop.size == 0:
        raise InputFailure(example.source, "the plate's box lies outside the photo")
    return np.ascontiguousarray(crop)


def _warped(example: Example, corners: np.ndarray) -> np.ndarray:
    import cv2

    width, height = upright_size(corners)
    # corners are on the grid between pixels, OpenCV's coordinates are pixels' centres
    upright = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32) - 0.5, upright)
    return cv2.warpPerspective(
        example.image(), matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )

"""Labelled pictures from folders and tables: `core.labelled-crops`, `core.table-dataset`, `core.photos`.

Indexing reads names, tables and the headers of pictures, never their pixels. A row that makes no sense is skipped
and named in `problems`; it never ends a run.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lprf.builtin import images
from lprf.builtin.headers import read_header
from lprf.builtin.io_params import SUFFIXES
from lprf.builtin.params import CropsDatasetParams, PhotosDatasetParams, TableDatasetParams
from lprf.context import Context
from lprf.data import Example, Truth
from lprf.errors import InputFailure, LprfError

Box = tuple[float, float, float, float]


def read_picture(path: Path, source: str) -> np.ndarray:
    """Decode a labelled picture as `core.images` does: uint8 [H, W, 3] BGR, upright.

    Raises InputFailure: missing, unreadable, or truncated. Half a picture is not what its label describes.
    """
    try:
        found = images.read_picture(str(path))
    except InputFailure as failure:
        raise InputFailure(source, failure.reason) from None
    if isinstance(found, tuple):
        raise InputFailure(source, found[1].partition(":")[0])
    return found


def picture_size(path: Path, source: str) -> tuple[int, int]:
    """(width, height) of a picture as `read_picture` gives it, by its header where that tells. Raises InputFailure."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe waits for ever
            raise InputFailure(source, "is not a regular file")
        with path.open("rb") as file:
            turned = re.search(b"Exif|eXIf", file.read(65536))
            file.seek(0)
            header = read_header(file)
    except FileNotFoundError:
        raise InputFailure(source, "there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputFailure(source, f"cannot be read: {error}") from None
    if header is not None and header.kind in ("JPEG", "PNG", "BMP") and not turned:
        return header.width, header.height
    height, width = read_picture(path, source).shape[:2]
    return width, height


@dataclass(frozen=True)
class Picture:
    """A row of a `Pictures` dataset."""

    source: str
    path: Path
    plates: tuple[Truth, ...]
    group: str = ""


@dataclass
class Pictures:
    """A Dataset of picture files, indexed in memory, in the order given."""

    name: str
    pictures: Sequence[Picture]
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Example:
        picture = self.pictures[index]
        return Example(
            picture.source, partial(read_picture, picture.path, picture.source), picture.plates, picture.group
        )

    def run(self) -> dict[str, Pictures]:
        return {"dataset": self}

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.name.encode())
        for picture in sorted(self.pictures, key=lambda picture: picture.source):
            size = picture.path.stat().st_size if picture.path.exists() else -1
            digest.update(f"{picture.source}\0{size}\0{picture.group}\n".encode(errors="surrogateescape"))
            for plate in picture.plates:
                digest.update(truth_text(plate).encode(errors="surrogateescape"))
        return digest.hexdigest()


def truth_text(plate: Truth) -> str:
    """All of a label as one line, for fingerprints."""
    corners = None if plate.corners is None else plate.corners.round(3).tolist()
    box = [round(float(value), 3) for value in plate.box]
    return json.dumps([box, corners, plate.text, sorted(plate.attributes.items())], ensure_ascii=False) + "\n"


def labelled_crops(params: CropsDatasetParams, context: Context) -> Pictures:
    """Ready-cut plates whose names hold their texts; the box is the whole picture."""
    folder = _folder(params.path)
    pattern = re.compile(params.text)
    found = Pictures("core.labelled-crops", [])
    pictures = []
    for name in pictures_in(folder):
        match = pattern.search(Path(name).stem)
        text = "" if match is None else match.group(1 if pattern.groups else 0) or ""
        if not text:
            found.problems.append(f"{name}: no text in the name")
            continue
        try:
            width, height = picture_size(folder / name, name)
        except InputFailure as failure:
            found.problems.append(f"{name}: {failure.reason}")
            continue
        plate = Truth((0.0, 0.0, float(width), float(height)), None, text, _province(text))
        pictures.append(Picture(name, folder / name, (plate,), params.group))
    return _whole(found, pictures, params.path)


def photos(params: PhotosDatasetParams, context: Context) -> Pictures:
    """Photos without plates."""
    folder = _folder(params.path)
    found = Pictures("core.photos", [])
    pictures = [Picture(name, folder / name, (), params.group) for name in pictures_in(folder)]
    return _whole(found, pictures, params.path)


def table_dataset(params: TableDatasetParams, context: Context) -> Pictures:
    """Pictures labelled by tables: CSV, YOLO's text files, COCO's JSON."""
    path = Path(params.path)
    tables = [path]
    if glob.has_magic(params.path):
        tables = sorted(Path(name) for name in glob.glob(params.path))  # noqa: PTH207
    if not tables or not tables[0].exists():
        raise LprfError(f"there are no labels at {params.path}")
    if path.is_dir() and (path / "labels.csv").is_file():
        tables = [path / "labels.csv"]
    form = params.format
    if form == "auto":
        form = "yolo" if tables[0].is_dir() else "coco" if tables[0].suffix.lower() == ".json" else "csv"
    base = Path(params.images) if params.images else tables[0] if tables[0].is_dir() else tables[0].parent
    found = Pictures("core.table-dataset", [])
    rows: dict[str, list[_Row]] = {}
    readers = {"csv": _csv_rows, "yolo": _yolo_rows, "coco": _coco_rows}
    for table in tables:
        try:
            for name, row in readers[form](table, base, params, found.problems):
                rows.setdefault(name, [])
                if row is not None:
                    rows[name].append(row)
        except csv.Error as error:
            raise LprfError(f"{table} is not CSV: {error}") from None
    pictures = []
    for name in sorted(rows):
        try:
            size = picture_size(base / name, name)
        except InputFailure as failure:
            found.problems.append(f"{name}: {failure.reason}")
            continue
        plates: list[Truth] = []
        for row in rows[name]:
            try:
                plate = row.truth(size)
            except ValueError as error:
                found.problems.append(f"{name}: {row.place}: {error}")
                continue
            # one plate found can only be one of two
            if any(plate.box == other.box and plate.text == other.text for other in plates):
                found.problems.append(f"{name}: {row.place}: a plate that was labelled before")
            else:
                plates.append(plate)
        if rows[name] and not plates:
            continue  # a photo whose every label is wrong is not a photo without plates
        group = params.group
        if params.group_by:
            group = next((plate.attributes.get(params.group_by, "") for plate in plates), "") or group
        pictures.append(Picture(name, base / name, tuple(plates), group))
    return _whole(found, pictures, params.path)


@dataclass(frozen=True)
class _Row:
    """One label before its picture's size is known. `shape` gives its box or its corners."""

    place: str
    shape: Callable[[tuple[int, int]], Box | np.ndarray]
    text: str | None
    attributes: Mapping[str, str]

    def truth(self, size: tuple[int, int]) -> Truth:
        """The label, its box clipped to the picture of (width, height). Raises ValueError with the reason."""
        shape = self.shape(size)
        corners = None
        if isinstance(shape, np.ndarray):
            corners = shape.astype(np.float32)
            box = (*map(float, shape.min(axis=0)), *map(float, shape.max(axis=0)))
        else:
            box = shape
        x1, y1, x2, y2 = box
        if not all(math.isfinite(value) for value in box):
            raise ValueError("the box is not of finite numbers")
        if x2 <= x1 or y2 <= y1:
            raise ValueError(f"the box {x1:g} {y1:g} {x2:g} {y2:g} is empty")
        width, height = size
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            raise ValueError(f"the box {x1:g} {y1:g} {x2:g} {y2:g} lies outside the photo of {width} × {height}")
        # a plate is cut as large as its corners say
        if corners is not None and (x1 < -width or y1 < -height or x2 > 2 * width or y2 > 2 * height):
            raise ValueError(f"a corner lies far outside the photo of {width} × {height}")
        return Truth(inside, corners, self.text, {**_province(self.text), **self.attributes})


def _province(text: str | None) -> dict[str, str]:
    """The attribute, where a text begins with a province's character, as Chinese ones do."""
    return {"province": text[0]} if text and not text[0].isascii() else {}


def _fixed(shape: Box | np.ndarray, size: tuple[int, int]) -> Box | np.ndarray:
    return shape


_CORNERS = ["tl_x", "tl_y", "tr_x", "tr_y", "br_x", "br_y", "bl_x", "bl_y"]
_SHAPES: list[tuple[list[str], Callable[..., Box | np.ndarray]]] = [
    (_CORNERS, lambda *values: np.array(values, np.float64).reshape(4, 2)),
    (
        ["centre_x", "centre_y", "width", "height", "rotation_degrees"],
        lambda cx, cy, width, height, angle: rotated_corners(cx, cy, width, height, angle),
    ),
    (["x1", "y1", "x2", "y2"], lambda *values: values),
    (["x", "y", "width", "height"], lambda x, y, width, height: (x, y, x + width, y + height)),
    (
        ["centre_x", "centre_y", "width", "height"],
        lambda cx, cy, width, height: (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2),
    ),
]
_FIELDS = {"file", "text", *(name for names, _ in _SHAPES for name in names)}


def rotated_corners(cx: float, cy: float, width: float, height: float, angle: float) -> np.ndarray:
    """Corners TL TR BR BL, float64 [4, 2], of a box turned by `angle` degrees, clockwise on the screen.

    Tables differ in which side they call the width (OpenCV's own convention changed), so the turn is brought
    between -45 and 45 degrees by exchanging the sides: plates are not photographed standing on end.
    """
    turns = round(angle / 90)
    angle -= 90 * turns
    if turns % 2:
        width, height = height, width
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across = np.array([cosine, sine]) * width / 2
    down = np.array([-sine, cosine]) * height / 2
    centre = np.array([cx, cy])
    return np.array([centre - across - down, centre + across - down, centre + across + down, centre - across + down])


def _csv_rows(
    table: Path, base: Path, params: TableDatasetParams, problems: list[str]
) -> Iterator[tuple[str, _Row | None]]:
    text = _read_text(table)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        problems.append(f"{table.name}: empty")
        return
    delimiter = next((mark for mark in "\t;," if mark in lines[0]), ",")
    # line by line: a stray quotation mark must not swallow the rows behind it
    numbered = ((n, line) for n, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip())
    rows = ((n, next(csv.reader([line], delimiter=delimiter))) for n, line in numbered)
    header = list(params.header) if params.header else [name.strip() for name in next(rows)[1]]
    unknown = sorted(set(params.columns.values()) - set(header))
    if unknown:
        raise LprfError(f"{table} has no column {', '.join(unknown)}; it has {', '.join(header)}")
    # a column given for a field serves that field alone, so that another table's `x` can be our `centre_x`
    own = {column: name for name, column in params.columns.items()}
    names = [own.get(column, column if column not in own.values() else f"_{column}") for column in header]
    if "file" not in names:
        raise LprfError(f"{table} has no column 'file'; `columns` says which one it is, or `header` names them all")
    if "text" in names and not any(set(fields) <= set(names) for fields, _ in _SHAPES):
        forms = "; or ".join(", ".join(fields) for fields, _ in _SHAPES)
        raise LprfError(f"{table} has texts and no boxes: a box is {forms}; it has the columns {', '.join(header)}")
    for number, values in rows:
        if not any(value.strip() for value in values):
            continue
        place = f"{table.name}:{number}"
        if len(values) != len(names):
            problems.append(f"{place}: {len(values)} values for {len(names)} columns")
            continue
        row = {name: value.strip() for name, value in zip(names, values, strict=True)}
        name = row["file"].replace("\\", "/")
        if not name:
            problems.append(f"{place}: no file named")
            continue
        attributes = {key: value for key, value in row.items() if key not in _FIELDS and value}
        for fields, make in _SHAPES:
            given = [row.get(key, "") for key in fields]
            if not all(given):
                continue
            try:
                numbers = [float(value) for value in given]
            except ValueError:
                problems.append(f"{name}: {place}: not a number among {' '.join(given)}")
                break
            shape = make(*numbers)
            yield name, _Row(place, partial(_fixed, shape), row.get("text") or None, attributes)
            break
        else:
            if any(row.get(key) for key in _FIELDS - {"file"}):
                problems.append(f"{name}: {place}: neither a whole box nor four corners")
            else:
                yield name, None  # a row without a box: a picture without plates


def _yolo_rows(
    folder: Path, base: Path, params: TableDatasetParams, problems: list[str]
) -> Iterator[tuple[str, _Row | None]]:
    """A text file a picture, beside it or in `labels/` for `images/`: class, then centre and size or four corners."""
    if not folder.is_dir():
        raise LprfError(f"{folder} is not a folder: YOLO's labels are a text file a picture")
    seen: set[str] = set()
    for name in pictures_in(base):
        labels = _yolo_labels(folder, base, name)
        if labels is None:
            problems.append(f"{name}: no label file")
            continue
        yield name, None
        for number, line in enumerate(_read_text(labels).splitlines(), 1):
            values = line.split()
            if not values:
                continue
            place = f"{labels.name}:{number}"
            try:
                kind, *numbers = int(values[0]), *map(float, values[1:])
            except ValueError:
                problems.append(f"{name}: {place}: not numbers")
                continue
            seen.add(str(kind))
            if params.classes is not None and str(kind) not in map(str, params.classes):
                continue
            if len(numbers) not in (4, 8):
                problems.append(f"{name}: {place}: {len(numbers)} numbers after the class, expected 4 or 8")
                continue
            yield name, _Row(place, partial(_yolo_shape, numbers), None, {})
    _check_classes(params, seen, str(folder))


def _yolo_labels(folder: Path, base: Path, name: str) -> Path | None:
    beside = (base / name).with_suffix(".txt")
    apart = folder / Path(name).with_suffix(".txt")
    parts = Path(name).parts
    swapped = base.joinpath(*("labels" if part == "images" else part for part in parts)).with_suffix(".txt")
    sibling = base.parent / "labels" / Path(name).with_suffix(".txt")
    return next((path for path in (beside, apart, swapped, sibling) if path.is_file()), None)


def _yolo_shape(numbers: Sequence[float], size: tuple[int, int]) -> Box | np.ndarray:
    width, height = size
    if len(numbers) == 8:
        return np.array(numbers).reshape(4, 2) * [width, height]
    cx, cy, w, h = numbers
    return (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height


def _coco_rows(
    table: Path, base: Path, params: TableDatasetParams, problems: list[str]
) -> Iterator[tuple[str, _Row | None]]:
    try:
        data = json.loads(_read_text(table))
        names = {image["id"]: str(image["file_name"]).replace("\\", "/") for image in data["images"]}
        categories = {entry["id"]: str(entry["name"]) for entry in data.get("categories", [])}
        if not isinstance(annotations := data["annotations"], list):
            raise TypeError("annotations is not a list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LprfError(f"{table} is not COCO's JSON: {type(error).__name__}: {error}") from None
    for name in names.values():
        yield name, None
    seen = set(categories.values())
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            problems.append(f"{table.name}: annotation {number}: not an object")
            continue
        place = f"annotation {annotation.get('id', number)}"
        further = annotation.get("attributes") or {}
        try:
            name = names.get(annotation.get("image_id"), "")
            kind = categories.get(annotation.get("category_id"), str(annotation.get("category_id")))
            own = {**annotation, **further}
        except TypeError as error:
            problems.append(f"{table.name}: {place}: image_id, category_id or attributes: {error}")
            continue
        seen.add(kind)
        if params.classes is not None and kind not in map(str, params.classes):
            continue
        if annotation.get("iscrowd"):
            continue
        try:
            x, y, width, height = (float(value) for value in annotation["bbox"])
        except (KeyError, TypeError, ValueError, OverflowError):
            problems.append(f"{name or table.name}: {place}: no bbox of four numbers")
            continue
        if not name:
            problems.append(f"{table.name}: {place}: of a picture that is not listed")
            continue
        text = own.get(params.columns.get("text", "text"))
        attributes = {key: str(value) for key, value in further.items() if key != "text"}
        try:
            json.dumps([name, text, attributes], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            problems.append(f"{table.name}: {place}: a text with half of a surrogate pair in it")
            continue
        shape = (x, y, x + width, y + height)
        yield name, _Row(place, partial(_fixed, shape), str(text) if text else None, attributes)
    _check_classes(params, seen, str(table))


def _check_classes(params: TableDatasetParams, seen: set[str], where: str) -> None:
    """Raises LprfError where no class is one that is asked for: every picture would count as one without plates."""
    wanted = list(map(str, params.classes or ()))
    if wanted and seen and not seen.intersection(wanted):
        there = ", ".join(images.show(kind) for kind in sorted(seen)[:20])
        raise LprfError(f"{where}: nothing is of the classes {', '.join(wanted)}; there are {there}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LprfError(f"the labels cannot be read: {path}: {error}") from None


def _folder(path: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise LprfError(f"the folder of pictures is not there: {path}")
    return folder


def pictures_in(folder: Path, suffixes: Container[str] = SUFFIXES) -> Iterator[str]:
    """The pictures below a folder, as relative paths, in sorted order."""
    for here, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield (Path(here).relative_to(folder) / name).as_posix()


def _whole(found: Pictures, pictures: Iterable[Picture], path: Any) -> Pictures:
    found.pictures = list(pictures)
    if not found.pictures:
        example = f"; for example {found.problems[-1]}" if found.problems else ""
        raise LprfError(f"{path} holds no pictures that can be used{example}")
    return found

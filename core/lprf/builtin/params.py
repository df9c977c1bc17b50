"""Parameters of the framework's own datasets, transforms and evaluator. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from lprf.component import InputPath, OutputPath, Params, RecipeParam
from lprf.training.params import Unkeyed


class CropsDatasetParams(Params):
    """Parameters of `core.labelled-crops`."""

    path: InputPath = pydantic.Field(description="folder of plate crops, searched with its sub-folders")
    text: str = pydantic.Field(
        r"^([^_.]+)",
        description="regular expression that finds the text in a file's name without its suffix; its first group, "
        "where it has one. By default all up to the first `_` or `.`",
    )
    group: str = pydantic.Field("", description="the group these pictures are reported under")

    @pydantic.field_validator("text")
    @classmethod
    def _compiles(cls, value: str) -> str:
        import re

        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value


class PhotosDatasetParams(Params):
    """Parameters of `core.photos`."""

    path: InputPath = pydantic.Field(description="folder of photos without any plate, searched with its sub-folders")
    group: str = pydantic.Field("", description="the group these pictures are reported under")


class TableDatasetParams(Params):
    """Parameters of `core.table-dataset`."""

    path: InputPath = pydantic.Field(
        description="a CSV file, a pattern of several (us/*.txt), a folder with a labels.csv, a folder of YOLO's "
        "text files, or COCO's .json"
    )
    format: Literal["auto", "csv", "yolo", "coco"] = pydantic.Field("auto", description="auto goes by the path")
    images: InputPath | None = pydantic.Field(None, description="folder of the pictures; the labels' own by default")
    columns: dict[str, str] = pydantic.Field(
        default_factory=dict,
        description="our field: the table's column, where they differ. Fields are file, text, and a box (x1 y1 x2 y2; "
        "x y width height; centre_x centre_y width height, with rotation_degrees or without) or corners (tl_x tl_y "
        "tr_x tr_y br_x br_y bl_x bl_y), in pixels; other columns become attributes: colour, country",
    )
    header: list[str] | None = pydantic.Field(
        None, min_length=2, description="the columns' names, for a table that has no line of them"
    )
    classes: list[str | int] | None = pydantic.Field(
        None, min_length=1, description="the classes that are plates: YOLO's numbers, COCO's names; all by default"
    )
    group: str = pydantic.Field("", description="the group these pictures are reported under")
    group_by: str | None = pydantic.Field(None, description="the attribute whose value is the group: colour")


class AugmentParams(Params):
    """Parameters of `core.augment`."""

    strength: float = pydantic.Field(0.5, ge=0, le=1, description="0: almost as it is, 1: as bad as street cameras get")
    copies: int = pydantic.Field(1, ge=1, le=1000, description="differently augmented copies of each picture")


class SplitParams(Params):
    """Parameters of `core.split`."""

    train: float = pydantic.Field(0.8, ge=0, le=1, description="share of the pictures that goes to `train`")
    val: float = pydantic.Field(0.2, ge=0, le=1, description="share of the pictures that goes to `val`")
    test: float = pydantic.Field(0.0, ge=0, le=1, description="share of the pictures that goes to `test`")
    by: Literal["plate", "image"] = pydantic.Field(
        "plate", description="plate: no plate's text stands in two parts; image: each picture on its own"
    )

    @pydantic.model_validator(mode="after")
    def _at_most_all(self) -> SplitParams:
        total = self.train + self.val + self.test
        if not 0 < total <= 1 + 1e-9:
            raise ValueError(f"train, val and test together must be above 0 and at most 1, are {total:g}")
        return self


class SubsetParams(Params):
    """Parameters of `core.subset`; all conditions hold together, then the number is drawn."""

    n: int | None = pydantic.Field(None, ge=1, description="at most so many pictures, drawn by the run's seed")
    fraction: float | None = pydantic.Field(None, gt=0, le=1, description="this share of the pictures, drawn likewise")
    groups: list[str] | None = pydantic.Field(None, min_length=1, description="only pictures of these groups")
    where: dict[str, str | list[str]] = pydantic.Field(
        default_factory=dict,
        description="attribute: value, or a list of them; only pictures with such a plate: {colour: green}",
    )
    plates: bool | None = pydantic.Field(None, description="true: only pictures with plates; false: only those without")


class CropPlatesParams(Params):
    """Parameters of `core.crop-plates`."""

    cut: Literal["box", "corners"] = pydantic.Field(
        "box", description="box: the upright box with a margin; corners: the plate made upright by its four corners"
    )
    margin: tuple[float, float] = pydantic.Field(
        (0.0, 0.0),
        description="least and most that each side of a box moves out (in, where negative), as a share of the box's "
        "height; drawn a plate by the run's seed",
    )
    texts_only: bool = pydantic.Field(True, description="leave out plates whose text nobody noted")

    @pydantic.field_validator("margin")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not -0.4 <= value[0] <= value[1] <= 5:
            raise ValueError("margin must be two numbers in ascending order, from -0.4 to 5")
        return value


class AuditParams(Params):
    """Parameters of `core.audit`."""

    allow_leakage: bool = pydantic.Field(
        False, description="only report where a plate or a picture stands in two of train, val and test"
    )
    content: bool = pydantic.Field(
        True, description="compare the pictures themselves too; decodes each one (some 10 ms for a CCPD photo)"
    )
    path: OutputPath | None = pydantic.Field(None, description="also write the report here, as JSON")


_Overlap = Annotated[float, pydantic.Field(gt=0, le=1)]


class EvaluateParams(Params):
    """Parameters of `core.evaluate`."""

    recipe: Annotated[str, RecipeParam("overrides")] = pydantic.Field(
        description="the inference recipe that is measured: its name or file. Its source is replaced by the dataset, "
        "its sinks are left out"
    )
    overrides: dict[str, Any] = pydantic.Field(
        default_factory=dict,
        description="changes to that recipe, as -s makes them: {detect.min_plate: [24, 8]}, or {detect: {min_plate: "
        "[24, 8]}}; its device and its workers are those of the run",
    )
    iou: _Overlap = pydantic.Field(
        0.5, description="overlap (intersection over union) from which a plate counts as found; 0.4 for loose labels"
    )
    ious: list[_Overlap] = pydantic.Field(
        [0.5, 0.7], description="overlaps at which detection is measured, beside `iou`"
    )
    smallest: tuple[pydantic.PositiveInt, pydantic.PositiveInt] | None = pydantic.Field(
        None,
        description="width and height of the smallest plate asked for, in pixels: labels of less area, and what finds "
        "one of them, count neither way",
    )
    groups: list[str] = pydantic.Field(
        default_factory=list, description="the order in which groups stand in tables; others follow by name"
    )
    failures: int = pydantic.Field(
        24, ge=0, le=1000, description="how many of the worst failures of each kind the report shows as pictures"
    )
    path: Annotated[OutputPath | None, Unkeyed()] = pydantic.Field(
        None, description="folder for copies of report.html and report.json, which lie in the stage's folder anyway"
    )

    @pydantic.field_validator("overrides")
    @classmethod
    def _flat(cls, value: dict[str, Any]) -> dict[str, Any]:
        """`-s evaluate.overrides.detect.factor=0.8` comes as {detect: {factor: 0.8}}."""
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            nested = "." not in key and isinstance(inner, dict)
            flat |= {f"{key}.{name}": item for name, item in inner.items()} if nested else {key: inner}
        return flat

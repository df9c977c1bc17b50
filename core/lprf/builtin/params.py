"""Parameters of the framework's own datasets, transforms and evaluator. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

import pydantic

from lprf.component import InputPath, Params


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

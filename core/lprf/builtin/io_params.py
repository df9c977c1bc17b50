"""Parameters of the sources and sinks. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

import pydantic

from lprf.component import InputPath, OutputPath, Params

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


class ImagesParams(Params):
    """Parameters of `core.images`."""

    path: InputPath | list[InputPath] = pydantic.Field(
        description="a picture; a folder of them; a pattern (holiday/**/*.jpg); a .txt with a path a line, relative to "
        "itself; or a list of such"
    )
    recursive: bool = pydantic.Field(True, description="search the sub-folders of a folder too")
    suffixes: list[str] = pydantic.Field(
        list(SUFFIXES), min_length=1, description="what the names of pictures end in, in folders and patterns"
    )
    max_megapixels: float = pydantic.Field(
        100, gt=0, le=1000, description="larger pictures are refused, by their headers, in millions of pixels"
    )

    @pydantic.field_validator("path")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not value or not all(value):
            raise ValueError("needs a path")
        return value

    @pydantic.field_validator("suffixes")
    @classmethod
    def _dotted(cls, value: list[str]) -> list[str]:
        return [("" if suffix.startswith(".") else ".") + suffix.lower() for suffix in value]


class CropsParams(ImagesParams):
    """Parameters of `core.crops`."""


class VideoParams(Params):
    """Parameters of `core.video`."""

    path: InputPath | Annotated[int, pydantic.Field(ge=0)] = pydantic.Field(
        description="a video file, the number of a camera (0 is the first), or the URL of a stream (rtsp://…)"
    )
    every: int = pydantic.Field(1, ge=1, le=1_000_000, description="read every n-th frame")
    reconnect: float = pydantic.Field(
        1,
        ge=0,
        le=3600,
        description="seconds to wait before a lost camera or stream is opened again, doubled up to "
        "60 at each failure; 0 ends the run instead",
    )
    attempts: int | None = pydantic.Field(
        None,
        ge=1,
        description="end the run when opening a lost stream has failed this often in a row; never by default",
    )


class TableParams(Params):
    """Parameters of `core.table`."""

    limit: int | None = pydantic.Field(None, ge=0, description="show at most so many plates, then only their number")


class JsonlParams(Params):
    """Parameters of `core.jsonl`."""

    path: OutputPath = pydantic.Field(description="the file to write; - is standard output")
    follow: bool = pydantic.Field(
        False,
        description="write into the file itself from the start, after what it holds, so that it can be followed while "
        "the run goes on; by default the file is put in place whole, at the end",
    )


class CsvParams(JsonlParams):
    """Parameters of `core.csv`."""


class AnnotateParams(Params):
    """Parameters of `core.annotate`."""

    path: OutputPath = pydantic.Field(
        description="a folder for pictures, or a video file (.mp4, .avi, .mkv, .mov) for the frames of a video"
    )
    only_found: bool = pydantic.Field(False, description="write only pictures in which something was found")
    fps: float | None = pydantic.Field(
        None,
        gt=0,
        le=1000,
        description="frames a second of a video file; by default as the frames' times tell, else 25",
    )
    quality: int = pydantic.Field(90, ge=1, le=100, description="JPEG quality of pictures that come from JPEG or video")

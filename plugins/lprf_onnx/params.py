"""Parameters of `onnx.detector` and `onnx.recognizer`. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from lprf.component import InputPath, Params
from lprf.decoding_params import DecodingParams

_Side = Annotated[int, Field(ge=8, le=8192)]
_Scale = Annotated[float, Field(gt=0)]
Colours = Literal["RGB", "BGR", "grey"]
Mean = float | tuple[float, float, float]
Scale = _Scale | tuple[_Scale, _Scale, _Scale]


class ModelParams(Params):
    """What both have: the model, and what it reads."""

    model: InputPath = Field(description="path of the .onnx file")
    size: tuple[_Side, _Side] | None = Field(
        None, description="height and width of the model's input; needed where the model leaves them open"
    )
    batch: int | None = Field(
        None, ge=1, le=4096, description="the batch of a model that takes no other; null: it takes any number"
    )
    output: str | None = Field(None, description="name of the output that counts; by default the first")


class DetectorParams(ModelParams):
    """Parameters of `onnx.detector`."""

    layout: Literal["yolo", "yolo-face", "yolov8", "yolov8-pose", "end-to-end"] = Field(
        description="what the output says of a box; x y is its centre. yolo: x y w h, objectness, classes. yolo-face: "
        "x y w h, objectness, four corners, classes. yolov8: x y w h, classes. yolov8-pose: x y w h, classes, "
        "four corners. end-to-end: x1 y1 x2 y2, score, class, after suppression"
    )
    transposed: bool | None = Field(
        None,
        description="whether the output is [batch, values, boxes] and not [batch, boxes, values]; by default it is for "
        "yolov8 and yolov8-pose",
    )
    classes: int = Field(1, ge=1, le=10_000, description="how many classes the model tells apart")
    plates: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="the classes, from 0, that are plates; by default all of them"
    )
    corners: tuple[int, int, int, int] = Field(
        (0, 1, 2, 3), description="which of the model's four points is top left, top right, bottom right, bottom left"
    )
    resize: Literal["centre", "corner", "stretch"] = Field(
        "centre",
        description="how a frame is fitted into the input: keeping its shape, in the centre or in the top left corner "
        "of a grey ground (letterbox), or stretched",
    )
    ground: float = Field(114.0, ge=0, le=255, description="the grey around a frame that keeps its shape")
    colours: Colours = Field("RGB", description="order of the input's channels")
    mean: Mean = Field(0.0, description="subtracted from pixels of 0 to 255, for all channels or for each")
    scale: Scale = Field(255.0, description="what is left is divided by it")
    threshold: float = Field(0.4, ge=0, le=1, description="score from which a plate counts")
    nms: float = Field(0.5, ge=0, le=1, description="overlap (of the union) above which the worse box goes")
    max_plates: int = Field(300, ge=1, le=10_000, description="most plates a frame")

    @pydantic.model_validator(mode="after")
    def _fits(self) -> DetectorParams:
        if sorted(self.corners) != [0, 1, 2, 3]:
            raise ValueError("`corners` must name each of the points 0, 1, 2, 3 once")
        if self.plates is not None and max(self.plates) >= self.classes:
            raise ValueError(f"`plates` names class {max(self.plates)}, but `classes` is {self.classes}, from 0")
        return self

    @property
    def gives_corners(self) -> bool:
        return self.layout in ("yolo-face", "yolov8-pose")


class RecognizerParams(ModelParams, DecodingParams):
    """Parameters of `onnx.recognizer`: what is null stands in the model's metadata, if `lprf export` wrote it."""

    alphabet: str | None = Field(
        None, min_length=1, max_length=10_000, description="the characters of the classes in order, without the blank"
    )
    blank: Literal["first", "last"] | None = Field(
        None, description="where the class stands that means no character; last where nothing says otherwise"
    )
    decoder: Literal["ctc", "slots"] | None = Field(
        None, description="ctc: time steps, repetitions are merged; slots: one character each, up to the first blank"
    )
    axes: Literal["NTC", "NCT", "TNC"] | None = Field(
        None, description="the output's axes: N plates, T time steps or slots, C classes"
    )
    values: Literal["logits", "probabilities"] = Field(
        "logits", description="what the output holds; log-probabilities are logits"
    )
    colours: Colours | None = Field(None, description="order of the input's channels")
    mean: Mean | None = Field(None, description="subtracted from pixels of 0 to 255, for all channels or for each")
    scale: Scale | None = Field(None, description="what is left is divided by it")

    @pydantic.model_validator(mode="after")
    def _once(self) -> RecognizerParams:
        if self.alphabet is not None and len(set(self.alphabet)) < len(self.alphabet):
            raise ValueError("`alphabet` names a character twice")
        return self

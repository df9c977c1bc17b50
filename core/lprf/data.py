"""What flows between components: flat rows with a parent index, never nested lists.

A batch of frames becomes one batch of detections, one of plates, one of readings, all on one device. Each holds
its parent batch beside the row index, so that whoever wants the full frame needs no extra port.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lprf.errors import InputFailure, LprfError

logger = logging.getLogger("lprf.data")


@dataclass(frozen=True)
class Origin:
    """Where a frame came from: a path, URL or label; the frame's index in it; its time in seconds, if known."""

    name: str
    index: int = 0
    time: float | None = None


@dataclass(frozen=True)
class Frames:
    """A batch of frames of one size.

    images: uint8 [B, H, W, 3], BGR.
    sources: B origins.
    """

    images: Tensor
    sources: list[Origin]

    def __len__(self) -> int:
        return len(self.sources)

    def row(self, index: int) -> Frames:
        """The batch of one frame."""
        return Frames(self.images[index : index + 1], self.sources[index : index + 1])

    def to(self, device: torch.device) -> Frames:
        return replace(self, images=self.images.to(device, non_blocking=True))


class Filled:
    """How many rows of a batch hold something, where only a GPU knows yet: the first ones.

    told: int64 [1 or more], on the GPU: how many rows, and what `tell` is called with when the host knows it.
    """

    def __init__(self, told: Tensor, tell: Callable[..., None]):
        self.told, self.tell = told, tell
        self._rows: int | None = None

    def rows(self, told: Sequence[int] | None = None) -> int:
        """How many. told: the numbers, where they came to the host with others; else the first call waits for them."""
        if self._rows is None:
            self._rows, *rest = self.told.tolist() if told is None else told
            self.tell(*rest)
        return self._rows


@dataclass(frozen=True)
class Detections:
    """Plates found in a batch of frames, N in all.

    frames: the batch they were found in.
    frame: int64 [N], the row of `frames` that each lies in, ascending.
    boxes: float32 [N, 4], x1 y1 x2 y2 in pixels of the frame, half-open: a box that covers the frame is 0 0 W H.
    scores: float32 [N], in 0 to 1.
    corners: float32 [N, 4, 2], TL TR BR BL in the plate's own reading direction, or None.
    extra: {name: Tensor [N, ...]}: colour, rows, track. "given" (bool) marks boxes that nothing detected.
    filled: on a GPU, where N is the room that there was: which rows hold a plate. The others' boxes are 0 0 0 0. Only
        components that are declared `padded` ever see such a batch.
    """

    frames: Frames
    frame: Tensor
    boxes: Tensor
    scores: Tensor
    corners: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    filled: Filled | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self, index: Tensor | slice, frames: Frames | None = None, frame: Tensor | None = None) -> Detections:
        """The detections at `index` (int64 [M], or a slice), in that order; `frames` and `frame` replace the parent."""
        return Detections(
            frames=self.frames if frames is None else frames,
            frame=self.frame[index] if frame is None else frame,
            boxes=self.boxes[index],
            scores=self.scores[index],
            corners=None if self.corners is None else self.corners[index],
            extra={name: values[index] for name, values in self.extra.items()},
        )


@dataclass(frozen=True)
class Plates:
    """Upright plates cut out of frames, N in all, N at most the number of detections.

    detections: the batch they were cut from.
    detection: int64 [N], the row of `detections` each was cut from, ascending.
    images: float32 [N, 3, h, w], 0 to 255, BGR, one size; each network normalises for itself.
    """

    detections: Detections
    detection: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.detection)


@dataclass(frozen=True)
class Readings:
    """The texts of plates, N in all.

    plates: the batch that was read.
    plate: int64 [N], the row of `plates` each was read from, ascending.
    texts: N strings, "" where nothing was read.
    confidences: float32 [N], the probability of the text, summed over alignments, in 0 to 1.
    characters: N lists, one probability a character of the text.
    alternatives: N lists of (text, confidence), most probable first, the text itself included.
    fits: N booleans, whether the text fits the plate format that was asked for; None where none was.
    """

    plates: Plates
    plate: Tensor
    texts: list[str]
    confidences: Tensor
    characters: list[list[float]]
    alternatives: list[list[tuple[str, float]]]
    fits: list[bool] | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Reading:
    """One detection and what was read of it, on the host: what sinks write and `lprf.load(…).run(…)` gives.

    text, confidence: "" and 0 where nothing was read, and in a graph that only detects: there see `detection_score`.
    box: x1 y1 x2 y2, pixels of the frame, half-open. corners: four (x, y), TL TR BR BL, or None.
    detection_score: None where the box was given and not detected.
    fits: whether the text fits the plate format that was asked for; None where none was.
    """

    source: str
    frame: int
    time: float | None
    text: str
    confidence: float
    characters: list[float]
    alternatives: list[tuple[str, float]]
    box: tuple[float, float, float, float]
    detection_score: float | None
    corners: list[tuple[float, float]] | None
    fits: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """The reading as JSON's types, in the order in which a line of `core.jsonl` has them; `fits` if it is known."""
        return {
            "source": self.source,
            "frame": self.frame,
            "time": self.time,
            "text": self.text,
            "confidence": round(self.confidence, 6),
            "characters": [round(value, 4) for value in self.characters],
            "alternatives": [[text, round(value, 6)] for text, value in self.alternatives],
            "box": [round(value, 2) for value in self.box],
            "detection_score": None if self.detection_score is None else round(self.detection_score, 4),
            "corners": None if self.corners is None else [[round(x, 2), round(y, 2)] for x, y in self.corners],
            **({} if self.fits is None else {"fits": self.fits}),
        }


def amiss(value: Any) -> str:
    """What is wrong with the form of Detections, Plates or Readings that a component gave, in words; else "".

    The numbers themselves are looked at on a CPU alone, where nobody waits for them.
    """
    n = len(value) if isinstance(value, Detections | Plates | Readings) else 0
    forms: list[tuple[str, torch.Tensor | None, tuple[int, ...], torch.dtype]] = []
    lists: list[tuple[str, Any]] = []
    if isinstance(value, Detections):
        forms = [
            ("frame", value.frame, (n,), torch.int64),
            ("boxes", value.boxes, (n, 4), torch.float32),
            ("scores", value.scores, (n,), torch.float32),
            ("corners", value.corners, (n, 4, 2), torch.float32),
        ]
        lists = list(value.extra.items())
    elif isinstance(value, Plates):
        images = value.images
        forms = [
            ("detection", value.detection, (n,), torch.int64),
            ("images", images, (n, 3, *images.shape[2:4]), torch.float32),
        ]
    elif isinstance(value, Readings):
        forms = [
            ("plate", value.plate, (n,), torch.int64),
            ("confidences", value.confidences, (n,), torch.float32),
        ]
        lists = [(name, getattr(value, name)) for name in ("characters", "alternatives", "fits")]
        if not all(isinstance(text, str) for text in value.texts):
            return f"texts that are {type(next(x for x in value.texts if not isinstance(x, str))).__name__}"
    for name, tensor, shape, dtype in forms:
        if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != dtype or len(shape) != tensor.ndim):
            wanted = f"{str(dtype)[6:]} {list(shape)}"
            return f"{name} of {str(tensor.dtype)[6:]} {list(tensor.shape)} for {wanted}"
    for name, column in lists:
        if column is not None and len(column) != n:
            return f"{len(column)} {name} for {n}"
    if isinstance(value, Detections) and n and value.boxes.device.type == "cpu":
        if not bool(value.boxes.isfinite().all()):
            return "a box that is not finite"
        if bool((value.boxes[:, 2:] < value.boxes[:, :2]).any()):
            return "a box whose x2 or y2 comes before x1 or y1"
    return ""


def readings_by_frame(value: Detections | Readings) -> list[list[Reading]]:
    """One list of `Reading`s a frame of the batch, one for each detection, "" where nothing was read."""
    readings = value if isinstance(value, Readings) else None
    detections = readings.plates.detections if readings is not None else value
    assert isinstance(detections, Detections)
    read: dict[int, int] = {}
    confidences: list[float] = []
    if readings is not None:
        read = {d: r for r, d in enumerate(readings.plates.detection[readings.plate].tolist())}
        confidences = readings.confidences.tolist()
    boxes, scores = detections.boxes.tolist(), detections.scores.tolist()
    corners = None if detections.corners is None else detections.corners.tolist()
    given = detections.extra["given"].tolist() if "given" in detections.extra else None
    result: list[list[Reading]] = [[] for _ in detections.frames.sources]
    for row, frame in enumerate(detections.frame.tolist()):
        origin = detections.frames.sources[frame]
        points = [] if corners is None else [(x, y) for x, y in corners[row]]
        found: dict[str, Any] = {"text": "", "confidence": 0.0, "characters": [], "alternatives": []}
        if readings is not None and (r := read.get(row)) is not None:
            found = {
                "text": readings.texts[r],
                "confidence": confidences[r],
                "characters": readings.characters[r],
                "alternatives": readings.alternatives[r],
                "fits": None if readings.fits is None else readings.fits[r],
            }
        result[frame].append(
            Reading(
                source=origin.name,
                frame=origin.index,
                time=origin.time,
                box=tuple(boxes[row]),
                detection_score=None if given is not None and given[row] else scores[row],
                corners=None if not points or any(math.isnan(x) for point in points for x in point) else points,
                **found,
            )
        )
    return result


def split_by_frame(value: Any) -> list[Any]:
    """A batch as one value of the same type a frame; rows and parents are views."""
    if isinstance(value, Frames):
        return [value.row(row) for row in range(len(value))]
    if isinstance(value, Detections):
        sizes = _counts(value.frame, len(value.frames))
        boxes, scores = value.boxes.split(sizes), value.scores.split(sizes)
        corners = value.corners.split(sizes) if value.corners is not None else [None] * len(sizes)
        extra = {name: column.split(sizes) for name, column in value.extra.items()}
        return [
            Detections(
                value.frames.row(row),
                torch.zeros(size, dtype=torch.int64, device=value.frame.device),
                boxes[row],
                scores[row],
                corners[row],
                {name: parts[row] for name, parts in extra.items()},
            )
            for row, size in enumerate(sizes)
        ]
    if isinstance(value, Plates):
        parents = split_by_frame(value.detections)
        sizes = _counts(value.detections.frame[value.detection], len(parents))
        starts = itertools.accumulate((len(parent) for parent in parents), initial=0)
        rows = zip(parents, value.detection.split(sizes), value.images.split(sizes), starts, strict=False)
        return [Plates(parent, detection - start, images) for parent, detection, images, start in rows]
    if isinstance(value, Readings):
        parents = split_by_frame(value.plates)
        frame = value.plates.detections.frame[value.plates.detection[value.plate]]
        sizes = _counts(frame, len(parents))
        starts = itertools.accumulate((len(parent) for parent in parents), initial=0)
        ends = itertools.accumulate(sizes)
        parts = zip(parents, value.plate.split(sizes), value.confidences.split(sizes), starts, ends, strict=False)
        return [
            Readings(
                parent,
                plate - start,
                value.texts[end - len(plate) : end],
                confidences,
                value.characters[end - len(plate) : end],
                value.alternatives[end - len(plate) : end],
                None if value.fits is None else value.fits[end - len(plate) : end],
            )
            for parent, plate, confidences, start, end in parts
        ]
    raise TypeError(f"no batch: {type(value).__name__}")


def _counts(rows: torch.Tensor, of: int) -> list[int]:
    return torch.bincount(rows, minlength=of).tolist()


def trimmed(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The same batches without the rows that hold nothing, see `Detections.filled`; the host may wait for a GPU."""
    memo: dict[int, Any] = {}
    return {key: _trimmed(value, memo) for key, value in values.items()}


def _trimmed(value: Any, memo: dict[int, Any]) -> Any:
    """A parent that several values share is cut once."""
    if id(value) not in memo:
        memo[id(value)] = value
        if isinstance(value, Readings):
            memo[id(value)] = replace(value, plates=_trimmed(value.plates, memo))
        elif isinstance(value, Plates) and value.detections.filled is not None:
            rows = slice(value.detections.filled.rows())
            parent = _trimmed(value.detections, memo)
            memo[id(value)] = Plates(parent, value.detection[rows], value.images[rows])
        elif isinstance(value, Detections) and value.filled is not None:
            memo[id(value)] = value.rows(slice(value.filled.rows()))
    return memo[id(value)]


def to_host(value: Any, memo: dict[int, Any]) -> Any:
    """`value` on the host; copies are only begun. A parent that several values share is copied once."""
    if id(value) not in memo:
        memo[id(value)] = begin_copy(value, torch.device("cpu"), lambda parent: to_host(parent, memo))
    return memo[id(value)]


def begin_copy(value: Any, device: torch.device, parent: Callable[[Any], Any]) -> Any:
    """A batch on `device`, its parent as `parent` gives it."""

    def move(column: torch.Tensor) -> torch.Tensor:
        return column.to(device, non_blocking=True)

    if isinstance(value, Frames):
        return value.to(device)
    if isinstance(value, Detections):
        return Detections(
            parent(value.frames),
            move(value.frame),
            move(value.boxes),
            move(value.scores),
            None if value.corners is None else move(value.corners),
            {name: move(column) for name, column in value.extra.items()},
        )
    if isinstance(value, Plates):
        return Plates(parent(value.detections), move(value.detection), move(value.images))
    if isinstance(value, Readings):
        return replace(value, plates=parent(value.plates), plate=move(value.plate), confidences=move(value.confidences))
    return value


@dataclass(frozen=True)
class Item:
    """One thing a source offers: cheap to make; `load` decodes it, in a background thread.

    load: gives uint8 [H, W, 3] BGR, or raises InputFailure. It may return (image, warning) where a picture
    could be read only in part: the warning is reported with its name, and counts as a failure in the exit code.
    """

    origin: Origin
    load: Callable[[], np.ndarray | tuple[np.ndarray, str]]


class Source(Protocol):
    """What the implementation of a source has.

    live: a camera or stream: frames that cannot wait; the newest is kept, older ones are dropped and counted.
    total: how many items there are, or None where nobody knows.
    A live source may also have `reconnects`, how often it was lost and found again, and `stop()`, which ends its
    waiting.
    """

    live: bool
    total: int | None

    def items(self) -> Iterator[Item]:
        """Name the items, in order, without decoding them (a video decodes as it goes)."""
        ...

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        """Images of equal `shape` may share a batch: (H, W) for photos; something coarser where they are padded."""
        ...

    def batch(self, origins: Sequence[Origin], images: Sequence[np.ndarray]) -> Mapping[str, Any]:
        """The outputs by port for one batch, on the host: {"frames": Frames, …}."""
        ...


@dataclass(frozen=True)
class Truth:
    """A labelled plate.

    box: x1 y1 x2 y2, pixels, half-open. corners: float32 [4, 2] TL TR BR BL in the reading direction, or None.
    text: None where nobody noted it. attributes: colour, country, province and the like, as strings.
    """

    box: tuple[float, float, float, float]
    corners: np.ndarray | None = None
    text: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """One labelled picture.

    source: its name, unique in the dataset. image: decodes it: uint8 [H, W, 3] BGR; raises InputFailure.
    group: metrics are reported per group ("" where there is but one).
    """

    source: str
    image: Callable[[], np.ndarray]
    plates: tuple[Truth, ...]
    group: str = ""


class Dataset(Protocol):
    """Labelled examples: indexable, cheap to index (pictures are decoded by `Example.image`), safe to fork.

    problems: one line for each row that was skipped, with its name and the reason.
    A dataset may also have `source(index)`, an example's name where that costs less than the example.
    """

    problems: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def fingerprint(self) -> str:
        """A hash of what the dataset holds (sorted relative names, sizes, labels), not of where it lies."""
        ...


def readable(dataset: Dataset) -> Iterator[tuple[Example, np.ndarray]]:
    """Every example with its picture, uint8 [H, W, 3] BGR; those that cannot be read are named in a warning each.

    Raises LprfError where not one can be read.
    """
    found = False
    for index in range(len(dataset)):
        example = dataset[index]
        try:
            image = example.image()
        except InputFailure as failure:
            logger.warning("left out: %s", failure)
            continue
        found = True
        yield example, image
    if not found:
        raise LprfError(f"none of the {len(dataset)} pictures can be read")

"""A plugin in one file: sources, a detector, a recognizer and a sink whose every step a test can see and upset."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lprf.api import Component, Params, Port, hookimpl
from lprf.data import Detections, Frames, Item, Origin, Plates, Reading, Readings, readings_by_frame


class UpsetParams(Params):
    raise_at: int | None = None
    raise_always: bool = False
    seconds: float = 0.0


@hookimpl
def lprf_components() -> list[Component]:
    found = {"readings": Port("Readings", optional=True), "detections": Port("Detections", optional=True)}
    return [
        Component("source", "source", "echo:Listed"),
        Component("detector", "detector", "echo:Everything", UpsetParams),
        Component("rectifier", "rectifier", "echo:Corner"),
        Component("recognizer", "recognizer", "echo:Reader"),
        Component("sink", "sink", "echo:Sink", UpsetParams, inputs=found),
    ]


@dataclass
class Seen:
    """What the components of this file have seen since `reset`; what `Listed` is to give."""

    items: Callable[[], Iterator[Item]] = lambda: iter(())
    live: bool = False
    batches: list[list[str]] = field(default_factory=list)
    frames: list[weakref.ref[torch.Tensor]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    closed: int = 0
    decoded: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)


seen = Seen()


def reset() -> Seen:
    """Forget everything, in place."""
    seen.__dict__.update(Seen().__dict__)
    return seen


def picture(number: int, height: int = 8, width: int = 8) -> np.ndarray:
    """A picture that holds its number: what `Reader` reads in it."""
    image = np.zeros((height, width, 3), np.uint8)
    image[0, 0] = number // 256, number % 256, 77
    return image


def item(number: int, height: int = 8, width: int = 8) -> Item:
    def load() -> np.ndarray:
        seen.decoded += 1
        return picture(number, height, width)

    return Item(Origin(str(number), number), load)


class Listed:
    """Gives `seen.items()`."""

    total = None

    def __init__(self, params: Params, context: object):
        self.live = seen.live

    def items(self) -> Iterator[Item]:
        return seen.items()

    def stop(self) -> None:
        seen.stopped.set()

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        return image.shape[:2]

    def batch(self, origins, images):
        return {"frames": Frames(torch.from_numpy(np.stack(images)), list(origins))}


class Everything:
    """One detection a frame, all of it; of frames whose number divides by 5, none, and by 7, two."""

    def __init__(self, params: UpsetParams, context: object):
        self.params = params

    def __call__(self, frames: Frames) -> Detections:
        seen.batches.append([origin.name for origin in frames.sources])
        seen.frames.append(weakref.ref(frames.images))
        time.sleep(self.params.seconds)
        numbers = _numbers(frames.images)
        if self.params.raise_always or self.params.raise_at in numbers:
            raise ValueError("the roof fell in")
        rows = [row for row, n in enumerate(numbers) for _ in range(0 if n % 5 == 0 else 2 if n % 7 == 0 else 1)]
        height, width = frames.images.shape[1:3]
        boxes = torch.tensor([[0.0, 0.0, width, height]]).repeat(len(rows), 1)
        return Detections(frames, torch.tensor(rows, dtype=torch.int64), boxes, torch.full((len(rows),), 0.5))


class Corner:
    def __init__(self, params: Params, context: object):
        pass

    def __call__(self, detections: Detections) -> Plates:
        images = detections.frames.images[detections.frame][:, :4, :4].permute(0, 3, 1, 2).float()
        return Plates(detections, torch.arange(len(detections)), images)


class Reader:
    """The number of the frame; nothing where it divides by 3."""

    def __init__(self, params: Params, context: object):
        pass

    def __call__(self, plates: Plates) -> Readings:
        numbers = _numbers(plates.images.permute(0, 2, 3, 1).byte())
        kept = torch.tensor([row for row, n in enumerate(numbers) if n % 3], dtype=torch.int64)
        texts = [str(numbers[row]) for row in kept.tolist()]
        return Readings(
            plates,
            kept,
            texts,
            torch.full((len(kept),), 0.25),
            [[0.5] * len(text) for text in texts],
            [[(text, 0.25)] for text in texts],
        )


class Sink:
    def __init__(self, params: UpsetParams, context: object):
        self.params = params

    def write(self, readings: Readings | None = None, detections: Detections | None = None) -> None:
        value = readings if readings is not None else detections
        assert value is not None
        parent = value.plates.detections if isinstance(value, Readings) else value
        (origin,) = parent.frames.sources
        time.sleep(self.params.seconds)
        if self.params.raise_always or origin.index == self.params.raise_at:
            raise ValueError("no ink")
        seen.written.append(origin.name)
        seen.readings += readings_by_frame(value)[0]

    def fail(self, name: str, reason: str) -> None:
        seen.failed.append((name, reason))

    def close(self) -> None:
        seen.closed += 1


def _numbers(images: torch.Tensor) -> list[int]:
    pixels = images[:, 0, 0].tolist()
    assert all(pixel[2] == 77 for pixel in pixels)
    return [pixel[0] * 256 + pixel[1] for pixel in pixels]


PATH = Path(__file__)

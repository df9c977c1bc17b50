"""`core.video`: the frames of a video file, a camera or a network stream."""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lprf.builtin.images import no_stderr, show
from lprf.builtin.io_params import VideoParams
from lprf.context import Context
from lprf.data import Frames, Item, Origin
from lprf.errors import InputFailure, LprfError

logger = logging.getLogger("lprf.video")

LONGEST_WAIT = 60.0  # seconds between two tries to open a lost stream
TIMEOUT = 10_000  # milliseconds that opening a stream, or its next frame, may take


class Video:
    """Every n-th frame. A camera or stream is live: it is opened again when it is lost, and never ends by itself.

    reconnects: how often a live source was opened again.
    """

    def __init__(self, params: VideoParams, context: Context):
        self.params = params
        path = params.path
        self.live = isinstance(path, int) or "://" in path
        # without the user and the password that an address may hold
        self.label = f"camera {path}" if isinstance(path, int) else re.sub(r"(?<=://)[^/@]*@", "", path)
        self.reconnects = 0
        self.stopped = threading.Event()

    @functools.cached_property
    def total(self) -> int | None:
        """How many frames a file says it gives. Raises LprfError where there is no such file."""
        path = self.params.path
        if not isinstance(path, str) or self.live:
            return None
        if not os.path.isfile(path):  # noqa: PTH113
            what = "is not a video file" if os.path.exists(path) else "there is no such file"  # noqa: PTH110
            raise LprfError(f"{show(path)}: {what}")
        count = self._counted(path)
        return -(-count // self.params.every) if count > 0 else None

    def items(self) -> Iterator[Item]:
        self.stopped.clear()
        return self._live() if self.live else self._file()

    def stop(self) -> None:
        """End the waiting for a stream that is lost."""
        self.stopped.set()

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        return image.shape[:2]

    def batch(self, origins: Sequence[Origin], images: Sequence[np.ndarray]) -> Mapping[str, Any]:
        return {"frames": Frames(torch.from_numpy(np.stack(images)), list(origins))}

    def _file(self) -> Iterator[Item]:
        capture = _open(self.params.path)
        if not capture.isOpened():
            yield _failed(Origin(self.label), "cannot be opened as a video")
            return
        rate = capture.get(cv2.CAP_PROP_FPS)
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        index = 0
        try:
            while capture.grab():
                if index % self.params.every == 0:
                    seconds = index / rate if rate > 0 else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                    yield _item(Origin(self.label, index, round(seconds, 3)), *capture.retrieve())
                index += 1
        finally:
            capture.release()
        if index == 0:
            yield _failed(Origin(self.label), "no frame of it can be decoded")
        elif index < expected - max(2, expected // 100):  # containers count a frame or two more than they hold
            yield _failed(Origin(self.label, index), f"ends after frame {index} of {expected}: it is cut short")

    def _live(self) -> Iterator[Item]:
        index = failures = 0
        wait = self.params.reconnect
        began = time.monotonic()
        seen = False
        while not self.stopped.is_set():
            capture = _open(self.params.path)
            opened = False
            try:
                while not self.stopped.is_set() and capture.grab():
                    if not opened and seen:
                        self.reconnects += 1
                    opened = seen = True
                    failures, wait = 0, self.params.reconnect
                    if index % self.params.every == 0:
                        origin = Origin(self.label, index, round(time.monotonic() - began, 3))
                        yield _item(origin, *capture.retrieve())
                    index += 1
            finally:
                capture.release()
            failures += 0 if opened else 1
            if not self.params.reconnect:
                if not seen:
                    raise LprfError(f"{show(self.label)}: cannot be opened")
                return
            if self.params.attempts is not None and failures >= self.params.attempts:
                yield _failed(Origin(self.label, index), f"could not be opened, {failures} times in a row")
                return
            lost = "was lost" if opened else "cannot be opened"
            logger.warning("%s: %s; trying again in %g s", show(self.label), lost, wait)
            self.stopped.wait(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    def _counted(self, path: str) -> int:
        capture = _open(path)
        try:
            return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        finally:
            capture.release()


def _open(path: str | int) -> Any:
    if isinstance(path, int):
        return cv2.VideoCapture(path)
    if "://" in path:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT]
        return cv2.VideoCapture(path, cv2.CAP_FFMPEG, limits)
    # OpenCV takes a "%02d" in a name for a sequence of pictures, and wants names it can encode
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise LprfError(f"{show(path)}: OpenCV opens no video whose name is not Unicode; rename it") from None
    with no_stderr():  # of a file that is no video we tell ourselves
        return cv2.VideoCapture(str(Path(path).resolve()), cv2.CAP_FFMPEG)


def _item(origin: Origin, good: bool, image: Any) -> Item:
    if not good or image is None:
        return _failed(origin, "a frame that cannot be decoded")
    return Item(origin, lambda: image)


def _failed(origin: Origin, reason: str) -> Item:
    def load() -> np.ndarray:
        raise InputFailure(show(origin.name), reason)

    return Item(origin, load)

"""`core.annotate`: what was found, drawn on pictures or on a video."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lprf.builtin.images import show
from lprf.builtin.io_params import AnnotateParams
from lprf.builtin.lines import of_frame
from lprf.context import Context
from lprf.data import Detections, Frames, Origin, Reading, Readings
from lprf.errors import LprfError
from lprf.files import replacing

VIDEOS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
COLOUR = (40, 200, 60)  # BGR
DEFAULT_FPS = 25.0
LONGEST_NAME = 255  # bytes that a name may have on most disks


class Annotate:
    """Draws on a copy of each frame; pictures are put in place whole, a video when it is closed.

    A picture keeps its name; one of the same name from another folder gets a few letters of its path's hash too.
    """

    def __init__(self, params: AnnotateParams, context: Context):
        self.params = params
        self.path = Path(params.path)
        self.is_video = self.path.suffix.lower() in VIDEOS
        if not self.is_video and self.path.exists() and not self.path.is_dir():
            raise LprfError(f"{params.path}: is a file; a folder for pictures or the name of a video is wanted")
        self.names: dict[str, str] = {}
        self.waiting: tuple[Origin, np.ndarray] | None = None
        self.writer: Any = None
        self.size = (0, 0)
        self.written = 0
        self.part = self.path.parent / f".{self.path.stem}.part{self.path.suffix}"

    @property
    def output(self) -> str | None:
        return str(self.path) if self.written else None

    def write(
        self,
        frames: Frames | None = None,
        readings: Readings | None = None,
        detections: Detections | None = None,
        **_: Any,
    ) -> None:
        if frames is None:
            return
        self._spare(frames.sources[0])
        found = of_frame(readings, detections)
        if self.params.only_found and not found and not self.is_video:
            return
        image = np.ascontiguousarray(frames.images[0].numpy()).copy()
        draw(image, found)
        if self.is_video:
            self._frame(frames.sources[0], image)
        else:
            self._picture(frames.sources[0], image)

    def fail(self, name: str, reason: str) -> None:
        """There is nothing to draw on."""

    def close(self) -> None:
        if not self.is_video:
            return
        if self.waiting is not None and self.writer is None:  # a video of one frame
            self._start(self.waiting[1], self.params.fps or DEFAULT_FPS)
        self.waiting = None
        if self.writer is not None:
            self.writer.release()
            self.writer = None
            self._check()
            self.part.replace(self.path)

    def abandon(self) -> None:
        """Leave a video of a run that failed beside what stands in its place."""
        if self.writer is not None:
            self.writer.release()
            self.path = self.part

    def _spare(self, origin: Origin) -> None:
        """Raises LprfError where what is drawn could replace what it is drawn on, or be taken for it another time."""
        if self.path.exists() and os.path.exists(origin.name):  # noqa: PTH110
            here, place = Path(origin.name).resolve(), self.path.resolve()
            if here == place or place in here.parents:
                raise LprfError(
                    f"{show(origin.name)}: lies where what is drawn goes ({self.path}), which would replace it, or be "
                    f"read as a photo; draw to another path, or read from another"
                )

    def _check(self) -> None:
        """OpenCV says nothing of frames that it could not write. Raises LprfError where the file lacks any."""
        capture = cv2.VideoCapture(str(self.part))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if frames < self.written:
            self.part.unlink(missing_ok=True)
            raise LprfError(f"{self.path}: only {frames} of {self.written} frames could be written; is the disk full?")

    def _picture(self, origin: Origin, image: np.ndarray) -> None:
        suffix = Path(origin.name).suffix.lower()
        suffix = suffix if suffix in LOSSLESS else ".jpg"
        parameters = [cv2.IMWRITE_JPEG_QUALITY, self.params.quality] if suffix == ".jpg" else []
        good, data = cv2.imencode(suffix, image, parameters)
        if not good:
            raise LprfError(f"{show(origin.name)}: its annotated picture could not be encoded")
        target = self.path / self._name(origin, suffix)
        with replacing(target) as beside:
            beside.write_bytes(data.tobytes())
        self.written += 1

    def _name(self, origin: Origin, suffix: str) -> str:
        """A file's own name; frames of one source are numbered."""
        stem = os.path.splitext(os.path.basename(origin.name.rstrip("/")))[0] or "frame"  # noqa: PTH119, PTH122
        number = f"-{origin.index:06d}" if origin.time is not None or origin.index else ""
        name = stem + number + suffix
        if len(os.fsencode(name)) > LONGEST_NAME or self.names.setdefault(name, origin.name) != origin.name:
            path = hashlib.sha256(origin.name.encode(errors="surrogateescape")).hexdigest()[:8]
            name = f"{stem[:40]}-{path}{number}{suffix}"
        return name

    def _frame(self, origin: Origin, image: np.ndarray) -> None:
        """The rate is known with the second frame, so the first one waits for it."""
        if self.writer is None and self.waiting is None:
            self.waiting = (origin, image)
            return
        if self.writer is None and self.waiting is not None:
            before, first = self.waiting
            step = (origin.time or 0) - (before.time or 0)
            self._start(first, self.params.fps or (1 / step if step > 0 else DEFAULT_FPS))
        if (image.shape[1], image.shape[0]) != self.size:
            image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        self.writer.write(image)
        self.written += 1

    def _start(self, first: np.ndarray, fps: float) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.size = (first.shape[1], first.shape[0])
        code = cv2.VideoWriter_fourcc(*VIDEOS[self.path.suffix.lower()])  # type: ignore[attr-defined]
        self.writer = cv2.VideoWriter(str(self.part), code, min(fps, 240.0), self.size)
        if not self.writer.isOpened():
            raise LprfError(f"{self.path}: OpenCV cannot write such a video here; try .avi")
        self.writer.write(first)
        self.written = 1


def draw(image: np.ndarray, found: list[Reading]) -> None:
    """Draw plates into `image` (uint8 [H, W, 3] BGR), in place: the corners, or else the box, and the text.

    A "?" follows a text that fits no plate format.
    """
    height, width = image.shape[:2]
    line = max(1, round(min(height, width) / 300))
    for reading in found:
        x1, y1, x2, y2 = (round(value) for value in reading.box)
        if reading.corners is not None:
            points = np.array(reading.corners).round().astype(np.int32)
            cv2.polylines(image, [points], True, COLOUR, line, cv2.LINE_AA)
        else:
            cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), COLOUR, line)
        text = reading.text or (f"{reading.detection_score:.2f}" if reading.detection_score is not None else "")
        if text:
            _label(image, text + (" ?" if reading.fits is False else ""), x1, y1, y2)


def _label(image: np.ndarray, text: str, x: int, top: int, bottom: int) -> None:
    """Text on a filled ground above the box; below it where there is no room."""
    height, width = image.shape[:2]
    size = max(12, min(round(min(height, width) / 22), 48))
    (w, h), put = _text(text, size)
    pad = max(2, size // 6)
    y = top - h - 2 * pad if top - h - 2 * pad >= 0 else min(bottom, max(0, height - h - 2 * pad))
    x = max(0, min(x, width - w - 2 * pad))
    cv2.rectangle(image, (x, y), (x + w + 2 * pad, y + h + 2 * pad), COLOUR, cv2.FILLED)
    put(image, x + pad, y + pad)


def _text(text: str, size: int) -> Any:
    """((width, height) in pixels, a function that puts the text with its top left at x, y)."""
    if hasattr(cv2, "FontFace"):  # OpenCV 5 brings a font that has Chinese
        font = cv2.FontFace("uni")
        box = cv2.getTextSize((4096, 4096), text, (0, 0), font, size, 600)
        left, top, w, h = box

        def put(image: np.ndarray, x: int, y: int) -> None:
            cv2.putText(image, text, (x - left, y - top), (0, 0, 0), font, size, 600)

        return (w, h), put
    plain = ascii_text(text)
    (w, h), below = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, size / 30, 2)

    def put_plain(image: np.ndarray, x: int, y: int) -> None:
        at = (x, y + h)
        cv2.putText(image, plain, at, cv2.FONT_HERSHEY_SIMPLEX, size / 30, (0, 0, 0), 2, cv2.LINE_AA)

    return (w, h + below), put_plain


def ascii_text(text: str) -> str:
    """What a font without Chinese can show: other characters as "?"."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(character if " " <= character <= "~" else "?" for character in plain)

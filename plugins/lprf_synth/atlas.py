"""The glyph atlas: distance fields of characters, and grey masks made of them at any stroke weight and size."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

PATH = Path(__file__).parent / "glyphs.npz"

Face = Literal["plate", "road", "block", "sans", "uni"]

CELL = (45, 90)  # mm, a character of GA 36
MARGIN = 6  # mm around the cell in a field, one pixel a mm
FAINTEST = 0.65  # of a character's ink, where a part of it is faint
UNIT = 0.1  # mm, a step of a field's uint8


@functools.cache
def fields() -> dict[str, dict[str, np.ndarray]]:
    """{face: {character: uint8 [102, 57]}}: distance to the nearest stroke's centre line in steps of 0.1 mm."""
    with np.load(PATH, allow_pickle=False) as stored:
        return {
            face: dict(zip(str(stored[f"{face}_characters"]), stored[f"{face}_fields"], strict=True))
            for face in get_args(Face)
        }


def field(character: str, face: str = "plate") -> np.ndarray:
    """The field of a character in a face; where that has none, in the one that goes with it. Raises KeyError."""
    atlas = fields()
    for name in (face, "uni", "plate") if face == "sans" else (face, "plate", "uni"):
        if character in atlas[name]:
            return atlas[name][character]
    raise KeyError(character)


def missing(text: str, faces: Iterable[Face]) -> str:
    """The characters of a text, spaces aside, that one of these faces cannot draw, see `field`."""
    atlas = fields()
    drawn = [atlas[face].keys() | atlas["plate"].keys() | atlas["uni"].keys() for face in faces]
    return "".join(c for c in dict.fromkeys(text) if c != " " and not all(c in some for some in drawn))


def reshaped(glyph: np.ndarray, rng: np.random.Generator, most: float = 0.06) -> np.ndarray:
    """A mask (uint8 [h, w]) with its parts wider, narrower, higher and lower, smoothly, by up to `most` of its sides,
    and some of them fainter.

    Makers draw a Chinese character each in their own proportions, of which a face has one; paint and light do the rest.
    """
    h, w = glyph.shape
    moved = rng.uniform(-most, most, (2, 3, 2)).astype(np.float32)
    across, down = (cv2.resize(part, (w, h), interpolation=cv2.INTER_CUBIC) for part in moved)
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    moved_glyph = cv2.remap(glyph, x + across * w, y + down * h, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    faint = cv2.resize(rng.uniform(FAINTEST, 1, (4, 3)).astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
    return (moved_glyph * faint).astype(np.uint8)


@functools.lru_cache(maxsize=20_000)
def mask(character: str, face: str, width: int, height: int, weight: float) -> np.ndarray:
    """uint8 [h, w]: the glyph in a cell of `width` x `height` pixels, 255 within strokes of `weight` mm (of 45 x 90).

    The mask is the cell and its margin: (h, w) is about 102/90 and 57/45 of (height, width); its middle is the
    cell's middle. Do not write to it.
    """
    distance = field(character, face).astype(np.float32) * UNIT
    size = (
        max(1, round(width * (CELL[0] + 2 * MARGIN) / CELL[0])),
        max(1, round(height * (CELL[1] + 2 * MARGIN) / CELL[1])),
    )
    ramp = 0.5 * (CELL[0] / width + CELL[1] / height) if width >= CELL[0] else 1.0
    grey = np.clip((weight / 2 - distance) / ramp + 0.5, 0, 1) * 255
    if size != (grey.shape[1], grey.shape[0]):
        shrink = size[0] <= grey.shape[1] and size[1] <= grey.shape[0]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    result = np.round(grey).astype(np.uint8)
    result.flags.writeable = False
    return result

"""What stands on plates beside their characters: marks in gaps, stars, landscapes, relief."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
import pydantic

Level = Annotated[int, pydantic.Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
Box = tuple[float, float, pydantic.PositiveFloat, pydantic.PositiveFloat]
Mark = Literal["none", "hyphen", "dot", "seals", "shield", "blot"]

VIVID: tuple[Colour, ...] = ((40, 40, 200), (60, 140, 60), (190, 90, 30), (40, 170, 230), (60, 60, 60), (200, 200, 205))


def pick(colours: Sequence[Colour], rng: np.random.Generator) -> Colour:
    """One of some R G B colours, as B G R, a little off."""
    r, g, b = colours[int(rng.integers(len(colours)))]
    b, g, r = (int(min(255, max(0, value + d))) for value, d in zip((b, g, r), rng.normal(0, 10, 3), strict=True))
    return b, g, r


def draw_mark(image: np.ndarray, mark: Mark, gap: Box, ink: Colour, seed: int, scale: float) -> None:
    """Draw what divides two groups into the gap between them (x y width height, mm): uint8 BGR, in place."""
    rng = np.random.default_rng(seed)
    x, y, width, height = gap
    middle = np.array([x + width / 2, y + height / 2])
    r = min(width, height) / 2

    def at(point: np.ndarray) -> tuple[int, int]:
        return round(float(point[0]) * scale * 16), round(float(point[1]) * scale * 16)

    def colour() -> Colour:
        return VIVID[int(rng.integers(len(VIVID)))]

    if mark == "hyphen":
        reach = np.array([0.36 * width, 0.06 * height * rng.uniform(0.7, 1.2)])
        cv2.rectangle(image, at(middle - reach), at(middle + reach), ink, -1, cv2.LINE_AA, 4)
    elif mark == "dot":
        cv2.circle(image, at(middle), round(0.28 * r * scale * 16), ink, -1, cv2.LINE_AA, 4)
    elif mark == "seals":
        for side in (-1, 1):
            disc = middle + np.array([0, side * r * rng.uniform(0.7, 1.1)])
            cv2.circle(image, at(disc), round(rng.uniform(0.55, 0.75) * r * scale * 16), colour(), -1, cv2.LINE_AA, 4)
            cv2.circle(image, at(disc), round(0.3 * r * scale * 16), (215, 215, 215), -1, cv2.LINE_AA, 4)
    elif mark == "shield":
        w, h = 0.6 * r, 0.8 * r
        shape = middle + np.array([[-w, -h], [w, -h], [w, 0.2 * h], [0, h], [-w, 0.2 * h]])
        cv2.fillPoly(image, [np.array([at(point) for point in shape])], colour(), cv2.LINE_AA, 4)
        bar = np.array([0.5 * w, 0])
        cv2.line(image, at(middle - bar), at(middle + bar), (235, 235, 235), 1, cv2.LINE_AA, 4)
    elif mark == "blot":  # a state's outline, an animal, a flower
        turns = np.linspace(0, 2 * np.pi, 9)[:-1]
        reach = rng.uniform(0.35, 1.0, (8, 1)) * np.stack([np.cos(turns), np.sin(turns)], 1)
        shape = middle + reach * (0.75 * r, r * rng.uniform(0.75, 1.3))
        cv2.fillPoly(image, [np.array([at(point) for point in shape])], colour(), cv2.LINE_AA, 4)


def draw_stars(image: np.ndarray, band: Box, scale: float) -> None:
    """The twelve stars of the European Union in the upper half of a band (x y width height, mm)."""
    x, y, width, height = band
    for turn in np.arange(12) * np.pi / 6:
        star = x + width / 2 + 0.32 * width * np.cos(turn), y + height * 0.32 + 0.32 * width * np.sin(turn)
        centre = round(star[0] * scale * 16), round(star[1] * scale * 16)
        cv2.circle(image, centre, round(0.055 * width * scale * 16), (60, 205, 240), -1, cv2.LINE_AA, 4)


def landscape(image: np.ndarray, seed: int) -> np.ndarray:
    """Faint hills, a sun, a flower: what is printed behind the characters. uint8 BGR."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    over = image.copy()
    for _ in range(int(rng.integers(1, 4))):
        tone = rng.integers(60, 250, 3).tolist()
        if rng.random() < 0.6:
            level = rng.uniform(0.45, 1.0) + rng.uniform(-0.25, 0.25, 7)
            ridge = np.stack([np.linspace(0, width, 7), np.clip(level, 0.2, 1) * height], 1)
            cv2.fillPoly(over, [np.vstack([ridge, [[width, height], [0, height]]]).astype(np.int32)], tone, cv2.LINE_AA)
        else:
            middle = int(rng.uniform(0, width)), int(rng.uniform(0, height))
            cv2.circle(over, middle, int(rng.uniform(0.1, 0.4) * height), tone, -1, cv2.LINE_AA)
    share = rng.uniform(0.15, 0.5)
    return cv2.addWeighted(over, share, image, 1 - share, 0)


def relief(image: np.ndarray, ink: np.ndarray, depth: float, scale: float) -> np.ndarray:
    """Light from above on stamped characters: edges facing it brighter, others darker. ink: their mask, uint8."""
    soft = cv2.GaussianBlur(ink, (0, 0), max(0.6, 1.2 * scale)).astype(np.float32)
    slope = cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3) + 0.5 * cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3)
    return np.clip(image + (slope * (depth / 255))[:, :, None], 0, 255).astype(np.uint8)

"""CCPD's file names: each holds the whole label of its picture.

`area-tilt_tilt-x1&y1_x2&y2-corners-p_a_c_c_c_c_c-brightness-blurriness.jpg`: the four corners run clockwise from
the bottom right; the text is indices into three tables, 7 characters, or 8 on the green plates of CCPD2020.
From *Towards End-to-End License Plate Detection and Recognition: A Large Dataset and Baseline* (ECCV 2018).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROVINCES = "皖沪津渝冀晋蒙辽吉黑苏浙京闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新警学O"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZO"
CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789O"
WIDTH, HEIGHT = 720, 1160

_POINT = r"-?\d+&-?\d+"
_NAME = re.compile(
    rf"(\d+)-(-?\d+)_(-?\d+)-({_POINT}_{_POINT})-({_POINT}(?:_{_POINT}){{3}})-(\d+(?:_\d+){{6,7}})-(-?\d+)-(-?\d+)"
)


@dataclass(frozen=True)
class Label:
    """What a file name says.

    box: x1 y1 x2 y2. corners: four (x, y), TL TR BR BL. tilt: horizontal and vertical, in degrees, 90 upright.
    """

    text: str
    box: tuple[float, float, float, float]
    corners: tuple[tuple[float, float], ...]
    tilt: tuple[int, int]
    brightness: int
    blurriness: int


def parse(stem: str) -> Label:
    """Read a file name without its suffix. Raises ValueError with the reason."""
    match = _NAME.fullmatch(stem)
    if match is None:
        raise ValueError("the name is not of CCPD's form")
    _, tilt, other_tilt, box_text, corner_text, index_text, brightness, blurriness = match.groups()
    (x1, y1), (x2, y2) = _points(box_text)
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"the box {x1} {y1} {x2} {y2} is empty")
    if x2 <= 0 or y2 <= 0 or x1 >= WIDTH or y1 >= HEIGHT:
        raise ValueError(f"the box {x1} {y1} {x2} {y2} lies outside the photo of {WIDTH} × {HEIGHT}")
    bottom_right, bottom_left, top_left, top_right = _points(corner_text)
    corners = (top_left, top_right, bottom_right, bottom_left)
    if _area(corners) <= 0:
        raise ValueError("the corners do not run clockwise from the bottom right")
    if any(not (-WIDTH <= x <= 2 * WIDTH and -HEIGHT <= y <= 2 * HEIGHT) for x, y in corners):
        raise ValueError(f"a corner lies far outside the photo of {WIDTH} × {HEIGHT}")
    indices = [int(part) for part in index_text.split("_")]
    tables = (PROVINCES, LETTERS, *[CHARACTERS] * (len(indices) - 2))
    if any(index >= len(table) for index, table in zip(indices, tables, strict=True)):
        raise ValueError("an index of a character is beyond its table")
    text = "".join(table[index] for index, table in zip(indices, tables, strict=True))
    if text[0] == "O":
        raise ValueError("the province is the O that stands for no character")
    # The vertices are points on the photo's grid of pixels, so the box is half-open as it stands.
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(WIDTH)), min(y2, float(HEIGHT)))
    return Label(text, box, corners, (int(tilt), int(other_tilt)), int(brightness), int(blurriness))


def _points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split("&") for point in text.split("_"))]


def _area(corners: tuple[tuple[float, float], ...]) -> float:
    """Twice the area by the shoelace formula, positive where the corners run clockwise on the screen."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True))

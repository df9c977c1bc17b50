"""Rebuild `glyphs.npz`: `python -m lprf_synth.build_atlas [OUT]`. Needs OpenCV 5, whose built-in faces it draws with.

A glyph is kept as a distance field: at every point of its cell the distance to the nearest centre line of a stroke.
One field then gives the glyph at every stroke weight, by a threshold. The faces:

plate  Latin letters and digits from `strokes.py`, in the proportions of Chinese plates
sans   the same characters from OpenCV's `sans`, thinned to their centre lines; its zero is slashed, so O stands in
road   those that European plates draw otherwise, from `strokes.py`; the rest is `plate`
block  those that American plates draw otherwise; the rest is `plate`
uni    Chinese characters from OpenCV's `uni`, thinned likewise, which makes their strokes even when they are
       stretched to a plate's 1:2 and lets them be thickened
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lprf.files import replacing
from lprf_synth.atlas import CELL, MARGIN, PATH, UNIT
from lprf_synth.strokes import BLOCK, HEIGHT, INNER, ROAD, STROKES, THINNER, WIDTH, Stroke, outline

PROVINCES = "京津冀晋蒙辽吉黑沪苏浙皖闽赣鲁豫鄂湘粤桂琼渝川贵云藏陕甘青宁新"
SPECIAL = "警学挂港澳使领军空海北沈兰济南广成民航应急试超"
STREET = (
    "店行中国人大小车汽修销务众美食饭酒楼超市药房银宾馆服装电话洗专卖烟茶水果五金建材家私快餐烧烤火锅理发足浴"
    "停止禁出租入口前方路东西上海门安全消防监控出售招转让办证年月日时分秒星期一二三四六七八九十"
)
LATIN = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER = "abdefghiklmnoprstuwy"

FINE = 4  # pixels a millimetre while drawing


def field_of_lines(lines: list[np.ndarray]) -> np.ndarray:
    """uint8 [102, 57]: distance to the nearest of `lines` (points in mm from the cell's centre-line corner)."""
    width, height = CELL[0] + 2 * MARGIN, CELL[1] + 2 * MARGIN
    canvas = np.full((height * FINE, width * FINE), 255, np.uint8)
    offset = MARGIN + (CELL[0] - WIDTH) / 2
    for line in lines:
        points = np.round((line + offset) * FINE * 16).astype(np.int32)
        cv2.polylines(canvas, [points], False, 0, 1, cv2.LINE_8, 4)
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / FINE
    small = cv2.resize(distance, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(np.round(small / UNIT), 0, 100).astype(np.uint8)


def thin(mask: np.ndarray) -> np.ndarray:
    """The centre lines of a bool mask, one pixel wide (Zhang and Suen 1984)."""
    mask = np.pad(mask, 1).astype(np.uint8)
    changed = True
    while changed:
        changed = False
        for step in range(2):
            n = [
                np.roll(mask, shift, (0, 1))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            count = sum(n)
            turns = sum((n[i] == 0) & (n[(i + 1) % 8] == 1) for i in range(8))
            a, b = (n[0] * n[2] * n[4], n[2] * n[4] * n[6]) if step == 0 else (n[0] * n[2] * n[6], n[0] * n[4] * n[6])
            gone = (mask == 1) & (count >= 2) & (count <= 6) & (turns == 1) & (a == 0) & (b == 0)
            if gone.any():
                mask[gone] = 0
                changed = True
    return mask[1:-1, 1:-1].astype(bool)


def thinned(character: str, face: str, weight: int) -> list[np.ndarray]:
    """Centre lines of a font's glyph, stretched to the cell, as short pieces; narrow glyphs keep their width."""
    size = 150
    canvas = np.full((size * 2, size * 2), 0, np.uint8)
    cv2.putText(canvas, character, (size // 2, size * 3 // 2), 255, cv2.FontFace(face), size, weight)
    ys, xs = np.nonzero(thin(canvas > 127))
    points = {(x, y) for x, y in zip(xs.tolist(), ys.tolist(), strict=True)}
    left, top, width, height = xs.min(), ys.min(), float(np.ptp(xs)), float(np.ptp(ys))
    scale_y = HEIGHT / height
    scale_x = WIDTH / max(width, 1)
    if face == "sans":
        if character.islower():
            scale_y = HEIGHT / 105.0
            base = size * 3 // 2
            top = base - 105.0
        if width < 0.35 * height and character in "1IJilt":  # narrow ones stay narrow, centred
            scale_x = min(scale_x, 0.55 * scale_y)
    shift = (WIDTH - width * scale_x) / 2
    lines = []
    for x, y in points:
        for dx, dy in ((1, 0), (0, 1), (1, 1), (-1, 1)):
            if (x + dx, y + dy) in points:
                ends = np.array([[x - left, y - top], [x + dx - left, y + dy - top]], float)
                lines.append(ends * [scale_x, scale_y] + [shift, 0])
    return lines


def drawn(strokes: dict[str, list[Stroke]]) -> dict[str, np.ndarray]:
    """{character: its field}; what of it is thinner counts as further off."""
    fields = {}
    for character, lines in strokes.items():
        fields[character] = field_of_lines([outline(stroke) for stroke in lines])
        if strokes is STROKES and character in INNER:
            inner = field_of_lines([outline(stroke) for stroke in INNER[character]])
            further = np.minimum(100, inner.astype(int) + round(THINNER / 2 / UNIT)).astype(np.uint8)
            fields[character] = np.minimum(fields[character], further)
    return fields


def build(out: Path) -> None:
    fields = {"plate": drawn(STROKES), "road": drawn(ROAD), "block": drawn(BLOCK), "sans": {}, "uni": {}}
    for character in LATIN + LOWER:
        looks = "O" if character == "0" else character
        fields["sans"][character] = field_of_lines(thinned(looks, "sans", 300))
    for character in dict.fromkeys(PROVINCES + SPECIAL + STREET.replace("一", "")):
        fields["uni"][character] = field_of_lines(thinned(character, "uni", 400))
    with replacing(out) as beside, beside.open("wb") as file:
        stored: dict[str, Any] = {}
        for face, glyphs in fields.items():
            stored[f"{face}_fields"] = np.stack(list(glyphs.values()))
            stored[f"{face}_characters"] = np.array("".join(glyphs))
        np.savez_compressed(file, **stored)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)

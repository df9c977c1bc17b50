"""The Latin letters and digits of Chinese plates as strokes: centre lines in millimetres, drawn for this project.

A character of GA 36 is 45 x 90 mm with strokes of about 10 mm, so its centre lines fill 35 x 80 mm. A stroke is a
list of points (x, y) or (x, y, r): r is the length cut from both sides of that corner and rounded. A stroke whose
first point comes back as its last is closed.
"""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT = 35.0, 80.0

Stroke = list[tuple[float, ...]]


def _ring(left: float, top: float, right: float, bottom: float, r: float) -> Stroke:
    return [(left, top, r), (right, top, r), (right, bottom, r), (left, bottom, r), (left, top, r)]


_P: list[Stroke] = [[(0, 80), (0, 0), (35, 0, 24), (35, 44, 24), (0, 44)]]

STROKES: dict[str, list[Stroke]] = {
    "0": [_ring(0, 0, 35, 80, 27)],
    "1": [[(12, 7), (17.5, 0), (17.5, 80)]],
    "2": [[(1, 23), (1, 0, 24), (34, 0, 24), (34, 38, 18), (0, 80), (35, 80)]],
    "3": [
        [(1, 19), (1, 0, 22), (33, 0, 22), (33, 37, 20), (13, 37)],
        [(13, 37), (35, 37, 24), (35, 80, 26), (0, 80, 24), (0, 60)],
    ],
    "4": [[(16, 0), (0, 58), (35, 58)], [(25, 36), (25, 80)]],
    "5": [[(33, 0), (5, 0), (2, 39)], [(2, 39), (5, 30, 8), (35, 29, 24), (35, 80, 26), (0, 80, 24), (0, 61)]],
    "6": [_ring(0, 32, 35, 80, 26), [(22, 0), (1, 50)]],
    "7": [[(0, 0), (35, 0), (12, 80)]],
    "8": [_ring(2, 0, 33, 36, 20), _ring(0, 36, 35, 80, 24)],
    "9": [_ring(0, 0, 35, 48, 26), [(13, 80), (34, 30)]],
    "A": [[(0, 80), (17.5, 0), (35, 80)], [(6, 55), (29, 55)]],
    "B": [
        [(0, 38), (32, 38, 20), (32, 0, 20), (0, 0), (0, 80), (35, 80, 22), (35, 38, 22), (0, 38)],
    ],
    "C": [[(35, 22), (35, 0, 26), (0, 0, 26), (0, 80, 26), (35, 80, 26), (35, 58)]],
    "D": [[(0, 0), (35, 0, 27), (35, 80, 27), (0, 80), (0, 0)]],
    "E": [[(35, 0), (0, 0), (0, 80), (35, 80)], [(0, 39), (31, 39)]],
    "F": [[(35, 0), (0, 0), (0, 80)], [(0, 40), (31, 40)]],
    "G": [[(35, 22), (35, 0, 26), (0, 0, 26), (0, 80, 26), (35, 80, 26), (35, 46), (19, 46)]],
    "H": [[(0, 0), (0, 80)], [(35, 0), (35, 80)], [(0, 39), (35, 39)]],
    "I": [[(17.5, 0), (17.5, 80)]],
    "J": [[(32, 0), (32, 80, 24), (1, 80, 24), (1, 60)]],
    "K": [[(0, 0), (0, 80)], [(34, 0), (0, 49)], [(11, 34), (35, 80)]],
    "L": [[(0, 0), (0, 80), (35, 80)]],
    "M": [[(0, 80), (0, 0), (17.5, 54), (35, 0), (35, 80)]],
    "N": [[(0, 80), (0, 0), (35, 80), (35, 0)]],
    "O": [_ring(0, 0, 35, 80, 24)],
    "P": _P,
    "Q": [_ring(0, 0, 35, 80, 27), [(20, 59), (36, 82)]],
    "R": [*_P, [(16, 44), (35, 80)]],
    "S": [[(34, 20), (34, 0, 24), (1, 0, 24), (1, 37, 22), (35, 41, 22), (35, 80, 24), (0, 80, 24), (0, 59)]],
    "T": [[(0, 0), (35, 0)], [(17.5, 0), (17.5, 80)]],
    "U": [[(0, 0), (0, 80, 27), (35, 80, 27), (35, 0)]],
    "V": [[(0, 0), (17.5, 80), (35, 0)]],
    "W": [[(0, 0), (8.5, 80), (17.5, 15), (26.5, 80), (35, 0)]],
    "X": [[(0, 0), (35, 80)], [(35, 0), (0, 80)]],
    "Y": [[(0, 0), (17.5, 40), (35, 0)], [(17.5, 40), (17.5, 80)]],
    "Z": [[(1, 0), (34, 0), (0, 80), (35, 80)]],
    "-": [[(4, 40), (31, 40)]],
    ".": [[(17.5, 79), (17.5, 80)]],
    ":": [[(17.5, 25), (17.5, 26)], [(17.5, 65), (17.5, 66)]],
    "/": [[(30, 0), (5, 80)]],
}


def outline(stroke: Stroke, steps: int = 10) -> np.ndarray:
    """The stroke's centre line with its corners rounded: float64 [N, 2], millimetres."""
    closed = stroke[0] == stroke[-1]
    points = stroke[:-1] if closed else stroke
    line: list[np.ndarray] = []
    for i, (x, y, *rest) in enumerate(points):
        corner = np.array([x, y], float)
        if not rest:
            line.append(corner)
            continue
        sides = []
        for other in (points[i - 1], points[(i + 1) % len(points)]):
            toward = np.array(other[:2], float) - corner
            length = float(np.hypot(*toward))
            # half a side where both of its ends are rounded, so that two corners meet in the middle
            cut = min(rest[0], length / 2 if len(other) > 2 else length)
            sides.append(toward / length * cut)
        t = np.linspace(0, 1, steps)[:, None]
        start, end = corner + sides[0], corner + sides[1]
        near, far = corner + sides[0] * 0.45, corner + sides[1] * 0.45  # a cubic close to a quarter of an ellipse
        line.extend((1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * near + 3 * t**2 * (1 - t) * far + t**3 * end)
    if closed:
        line.append(line[0])
    return np.array(line)

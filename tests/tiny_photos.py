"""Small photos with a rendered plate each, named as CCPD names them: training that takes seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from lprf.data import Example
from lprf_ccpd.names import CHARACTERS, LETTERS, PROVINCES
from lprf_synth.plates import draw, kinds, plain, sample_style, sample_text


def photo(seed: int, size: tuple[int, int] = (200, 320)) -> tuple[np.ndarray, np.ndarray, str]:
    """Uint8 [h, w, 3] BGR, corners int [4, 2] TL TR BR BL, and the text of the plate in it."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.integers(40, 170, (height // 16, width // 16, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    kind = kinds("cn")["blue"]
    text = sample_text(kind, rng)
    plate = draw(kind, text, sample_style(kind, rng, 0.1), 0.5)
    wide = rng.uniform(70, 120)
    high = wide * plate.shape[0] / plate.shape[1]
    x, y = rng.uniform(10, width - wide - 10), rng.uniform(10, height - high - 14)
    tilt = rng.uniform(-4, 4)
    corners = np.array([[x, y], [x + wide, y + tilt], [x + wide, y + tilt + high], [x, y + high]]).round()
    h, w = plate.shape[:2]
    flat = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(flat - 0.5, corners.astype(np.float32) - 0.5)
    cv2.warpPerspective(plate, matrix, (width, height), image, borderMode=cv2.BORDER_TRANSPARENT)
    return image, corners.astype(int), plain(text)


def write_ccpd(folder: Path, count: int, first: int = 0) -> Path:
    """Write photos `first` to `first + count` as CCPD's are named; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        image, corners, text = photo(seed)
        (x1, y1), (x2, y2) = corners.min(0), corners.max(0)
        points = "_".join(f"{x}&{y}" for x, y in corners[[2, 3, 0, 1]])
        tables = (PROVINCES, LETTERS, *[CHARACTERS] * (len(text) - 2))
        codes = "_".join(str(table.index(c)) for table, c in zip(tables, text, strict=True))
        name = f"{seed:04}-90_90-{x1}&{y1}_{x2}&{y2}-{points}-{codes}-120-50.jpg"
        cv2.imwrite(str(folder / name), image)
    return folder


if __name__ == "__main__":
    import sys

    write_ccpd(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))


class Listed:
    """A dataset of examples that are there already."""

    def __init__(self, *examples: Example):
        self.examples = examples
        self.problems: list[str] = []

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def fingerprint(self) -> str:
        return str(len(self))

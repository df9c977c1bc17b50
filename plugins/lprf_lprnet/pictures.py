"""What the recognizer learns from: real plates cut anew each time they are drawn, and rendered ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lprf.builtin.augment import degrade
from lprf.data import Dataset, Example, Truth
from lprf.errors import InputFailure, LprfError
from lprf.training.shares import Odds

logger = logging.getLogger("lprf.training")

AROUND = 0.3  # part of a plate's width and height that is kept on each side, to cut from
DETAIL = 1.4  # a kept plate is at most so many times the network's input
CACHE = 3_000_000_000  # bytes of kept pictures; further ones are decoded whenever they are drawn
_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)


@dataclass(frozen=True)
class Kept:
    """A plate and what is around it: image uint8 [H, W, 3] BGR; its box's corners, and its own where known, [4, 2]."""

    image: np.ndarray
    box: np.ndarray
    corners: np.ndarray | None
    text: str


class Real:
    """Labelled plates of real pictures, drawn by the power `balance` of how many share their first character.

    Plates without a text, or with one that the alphabet cannot write, and pictures that cannot be read are named in
    `problems` and left out.
    """

    def __init__(self, dataset: Dataset, size: tuple[int, int], alphabet: str, longest: int, balance: float):
        self.dataset, self.size = dataset, size
        self.problems: list[str] = list(dataset.problems)
        self.rows: list[tuple[int, int, str]] = []
        self.cache: dict[int, Kept] = {}
        cached, strange = 0, 0
        for index in range(len(dataset)):
            example = dataset[index]
            for number, plate in enumerate(example.plates):
                if not plate.text:
                    continue
                if fault := _fault(plate.text, alphabet, longest):
                    self.problems.append(f"{example.source}: {fault}")
                    strange += 1
                    continue
                if cached < CACHE:
                    try:
                        kept = keep(example, plate, size)
                    except InputFailure as failure:
                        self.problems.append(str(failure))
                        continue
                    self.cache[len(self.rows)] = kept
                    cached += kept.image.nbytes
                self.rows.append((index, number, plate.text))
        if not self.rows:
            raise LprfError(f"none of {len(dataset)} pictures has a plate with a text that can be learnt")
        firsts = Counter(text[0] for _, _, text in self.rows)
        self.odds = Odds([firsts[text[0]] ** (balance - 1) for _, _, text in self.rows], "plates")
        self.strange = strange

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rng: np.random.Generator, strength: float) -> tuple[np.ndarray, str]:
        """A plate, cut and degraded: uint8 [h, w, 3] BGR, and its text."""
        row = self.odds.pick(rng)
        for step in range(len(self.rows)):
            try:
                kept = self._kept((row + step) % len(self.rows))
            except InputFailure as failure:
                logger.warning("%s; another is taken", failure)
                continue
            return degrade(cut(kept, rng, strength, self.size), rng, strength), kept.text
        raise LprfError("none of the pictures can be read any more")

    def _kept(self, row: int) -> Kept:
        if row in self.cache:
            return self.cache[row]
        index, number, _ = self.rows[row]
        example = self.dataset[index]
        return keep(example, example.plates[number], self.size)


class Rendered:
    """Plates of a dataset that renders them at any difficulty (`image_at`), as `synth.plates` does."""

    def __init__(self, dataset: Dataset, alphabet: str, longest: int):
        self.dataset, self.alphabet, self.longest = dataset, alphabet, longest
        self.problems = list(dataset.problems)

    def __len__(self) -> int:
        return len(self.dataset)

    def draw(self, rng: np.random.Generator, strength: float) -> tuple[np.ndarray, str]:
        """As `Real.draw`. Raises LprfError where the text cannot be learnt: what is rendered is asked for."""
        image: np.ndarray
        image, text = self.dataset.image_at(int(rng.integers(len(self.dataset))), strength)  # type: ignore[attr-defined]
        if fault := _fault(text, self.alphabet, self.longest):
            raise LprfError(f"a rendered plate cannot be learnt: {fault}")
        return image, text


def pictures(dataset: Dataset, size: tuple[int, int], alphabet: str, longest: int, balance: float) -> Real | Rendered:
    """What draws from a dataset: rendered where it can render, real otherwise."""
    if hasattr(dataset, "image_at"):
        return Rendered(dataset, alphabet, longest)
    logger.info("cutting the plates out of %d pictures", len(dataset))
    return Real(dataset, size, alphabet, longest, balance)


def _fault(text: str, alphabet: str, longest: int) -> str | None:
    """Why a text cannot be learnt."""
    if outside := "".join(sorted(set(text) - set(alphabet))):
        return f"its text '{text}' has {outside}, which the alphabet has not"
    return f"its text '{text}' is longer than {longest}" if len(text) > longest else None


def keep(example: Example, plate: Truth, size: tuple[int, int]) -> Kept:
    """Cut a plate with what is around it, made smaller where it has more detail than the network can see."""
    image = example.image()
    x1, y1, x2, y2 = plate.box
    if x2 - x1 < 2 or y2 - y1 < 2:
        raise InputFailure(example.source, "its plate's box is empty")
    wide, high = AROUND * (x2 - x1), AROUND * (y2 - y1)
    left, top = max(0, int(x1 - wide)), max(0, int(y1 - high))
    part = image[top : int(np.ceil(y2 + high)), left : int(np.ceil(x2 + wide))]
    if part.shape[0] < 2 or part.shape[1] < 2:
        raise InputFailure(example.source, "the plate's box lies outside the photo")
    box = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32) - (left, top)
    corners = None if plate.corners is None else (plate.corners - (left, top)).astype(np.float32)
    shrink = min(DETAIL * size[1] / (x2 - x1), DETAIL * size[0] / (y2 - y1) * 1.5)
    if shrink < 1:
        to = (max(2, round(part.shape[1] * shrink)), max(2, round(part.shape[0] * shrink)))
        scale = np.array([to[0] / part.shape[1], to[1] / part.shape[0]], np.float32)
        part = cv2.resize(part, to, interpolation=cv2.INTER_AREA)
        box, corners = box * scale, None if corners is None else corners * scale
    return Kept(np.ascontiguousarray(part), box.astype(np.float32), corners, plate.text or "")


def cut(kept: Kept, rng: np.random.Generator, strength: float, size: tuple[int, int]) -> np.ndarray:
    """Cut a plate as detectors and rectifiers do, each a little off: uint8 [h, w, 3] BGR."""
    source = kept.box
    if kept.corners is not None and rng.random() < 0.5:
        share = rng.random() if rng.random() < 0.5 else 1.0  # wholly upright, or on the way there
        source = kept.box + (kept.corners - kept.box) * np.float32(share)
    s = float(strength)
    unit = _SQUARE.astype(np.float64)
    grow = 1 + rng.normal(0.02, 0.02 + 0.05 * s, 2)  # below 1 cuts the borders off
    unit = (unit - 0.5) * grow + 0.5 + rng.normal(0, 0.008 + 0.022 * s, 2) + rng.normal(0, 0.006 + 0.02 * s, (4, 2))
    unit[:, 1] += (unit[:, 0] - 0.5) * rng.normal(0, 0.03 + 0.12 * s)  # roll, in parts of the height
    unit[:, 0] += (unit[:, 1] - 0.5) * rng.normal(0, 0.01 + 0.03 * s)  # shear, in parts of the width
    place = cv2.getPerspectiveTransform(_SQUARE, source)
    moved = cv2.perspectiveTransform(unit[None].astype(np.float32), place)[0]
    height, width = size
    upright = _SQUARE * np.array([width, height], np.float32)
    matrix = cv2.getPerspectiveTransform((moved - 0.5).astype(np.float32), upright - 0.5)  # pixels' centres
    how = _INTERPOLATIONS[int(rng.integers(2))]
    return cv2.warpPerspective(kept.image, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)


def whole(example: Example, plate: Truth, size: tuple[int, int]) -> np.ndarray:
    """A plate as reading sees it, its box cut out and resized: uint8 [h, w, 3] BGR. Raises InputFailure."""
    x1, y1, x2, y2 = (round(v) for v in plate.box)
    part = example.image()[max(0, y1) : y2, max(0, x1) : x2]
    if part.size == 0:
        raise InputFailure(example.source, "the plate's box lies outside the photo")
    return cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)


def labelled(datasets: Sequence[Dataset]) -> list[tuple[Example, Truth]]:
    """All plates with a text, in order."""
    return [(e, p) for d in datasets for e in (d[i] for i in range(len(d))) for p in e.plates if p.text]

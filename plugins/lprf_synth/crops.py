"""`synth.plates`: rendered plate crops with their texts, as many as wanted, at any difficulty."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lprf.builtin.augment import degrade
from lprf.data import Example, Truth
from lprf.errors import LprfError
from lprf.training.shares import Odds
from lprf_synth.plates import Holder, Kind, blend, draw, identity, kinds, plain, sample_style, sample_text, word_mask

if TYPE_CHECKING:
    from lprf.context import Context
    from lprf_synth.plugin import PlatesParams

VERSION = 4

DEALERS = "汽车销售服务店专卖美修行大众"


def view(size: tuple[float, float], rng: np.random.Generator, difficulty: float) -> np.ndarray:
    """The corners of a flat plate seen from somewhere: float64 [4, 2] TL TR BR BL, in plate widths about its middle.

    size: of the plate, mm. The harder, the more it is rolled, turned and sheared.
    """
    d = difficulty
    roll, yaw, pitch, shear = rng.normal(0, 1, 4) * (0.01 + 0.1 * d, 0.08 + 0.42 * d, 0.06 + 0.25 * d, 0.02 + 0.1 * d)
    yaw, pitch, roll = np.clip((yaw, pitch, roll), (-1.0, -0.8, -0.4), (1.0, 0.8, 0.4))
    half = np.array([0.5, 0.5 * size[1] / size[0]])
    flat = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    flat[:, 1] += 0.3 * shear * flat[:, 0]  # what a bent bumper does
    flat[:, 0] -= shear * flat[:, 1]
    x, y = flat[:, 0] * np.cos(yaw), flat[:, 1] * np.cos(pitch)
    z = flat[:, 0] * np.sin(yaw) + flat[:, 1] * np.sin(pitch)
    far = rng.uniform(3.0, 9.0)
    seen = np.stack([x, y], 1) / (1 + z / far)[:, None]
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    return seen @ turn


@dataclass(frozen=True)
class Crop:
    """Where a plate lies in its crop: corners float64 [4, 2], pixels of the crop (half-open), TL TR BR BL."""

    corners: np.ndarray
    size: tuple[int, int]


def frame_crop(kind: Kind, rng: np.random.Generator, size: tuple[int, int], difficulty: float) -> Crop:
    """Choose how the crop was cut: upright boxes around tilted plates as detectors give them, or rectified ones.

    size: (h, w) in pixels.
    """
    height, width = size
    d = difficulty
    scale = np.array([width, height], float)
    if rng.random() < 0.35:  # rectified by corners, each a little off
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
        inset = rng.normal(0.01, 0.01 + 0.02 * d, 2)
        corners = corners * (1 - 2 * inset) + inset + rng.normal(0, 0.005 + 0.025 * d, (4, 2))
        return Crop(corners * scale, size)
    seen = view(kind.size, rng, d)
    low, high = seen.min(0), seen.max(0)
    extent = high - low
    spread = np.array([0.012 + 0.03 * d, 0.03 + 0.07 * d])
    before, after = (np.clip(rng.normal(0.4, 1, 2) * spread, -0.04, 0.35) for _ in range(2))
    low, high = low - before * extent, high + after * extent
    return Crop((seen - low) / (high - low) * scale, size)


def draw_frame(
    wide: np.ndarray, place: tuple[int, int, int, int], rng: np.random.Generator, scale: float
) -> tuple[int, int, int, int]:
    """Draw a plate's frame, now and then with a dealer's words, into `wide` (uint8 BGR) around `place` (x y w h).

    At most 9 mm wide at the sides and 22 mm above and below. scale: pixels a mm. Returns its x1 y1 x2 y2.
    """
    x, y, width, height = place
    left, right = (round(rng.uniform(2, 9) * scale) for _ in range(2))
    above, below = (round(rng.uniform(2, 22) * scale) for _ in range(2))
    tone = rng.choice((15.0, 35.0, 120.0, 190.0, 230.0)) + rng.normal(0, 12, 3)
    colour = tuple(float(min(255, max(0, value))) for value in tone)
    cv2.rectangle(wide, (x - left, y - above), (x + width + right, y + height + below), colour, -1)
    if below > 8 * scale and rng.random() < 0.6:
        word = "".join(DEALERS[i] for i in rng.integers(0, len(DEALERS), 8)) + str(rng.integers(10**6, 10**8))
        letters = np.zeros(wide.shape[:2], np.uint8)
        word_mask(letters, word, (x + width * 0.1, y + height + below * 0.15, width * 0.8, below * 0.7), "sans", 9)
        band = slice(y + height, y + height + below)
        opposite = np.uint8(235 if tone.mean() < 110 else 25)
        share = letters[band, :, None].astype(np.float32) / 255
        wide[band] = (wide[band] + (opposite - wide[band].astype(np.float32)) * share).astype(np.uint8)
    return x - left, y - above, x + width + right + 1, y + height + below + 1


def draw_holder(
    wide: np.ndarray, place: tuple[int, int, int, int], holder: Holder, rng: np.random.Generator, scale: float
) -> None:
    """Draw a holder with a dealer's words around the plate at `place` (x y w h) and over its edges, into `wide`."""
    x, y, w, h = place

    def mm(reach: tuple[float, float]) -> int:
        return round(float(rng.uniform(*reach)) * scale)

    tone = rng.choice((12.0, 25.0, 40.0, 110.0, 190.0, 235.0)) + rng.normal(0, 8, 3)
    if rng.random() < 0.15:
        tone = rng.uniform(0, 255, 3)
    ink = (235.0 if tone.mean() < 120 else 20.0) + rng.normal(0, 10, 3)
    if rng.random() < 0.2:
        ink = rng.uniform(0, 255, 3)
    left, right = x - mm((2, 12)), x + w + mm((2, 12))
    top, bottom = max(0, y - mm(holder.outside)), min(wide.shape[0], y + h + mm(holder.outside))
    upper, lower = y + mm(holder.above), y + h - mm(holder.below)
    inside = slice(upper, lower), slice(x + mm(holder.sides), x + w - mm(holder.sides))
    seen = wide[inside].copy()
    cv2.rectangle(wide, (left, top), (right, bottom), np.clip(tone, 0, 255).tolist(), -1)
    for start, end, chance in ((top, upper, 0.4), (lower, bottom, 0.75)):
        if end - start < 7 * scale or rng.random() > chance:
            continue
        high = max(4, 2 * round((end - start) * rng.uniform(0.25, 0.4)))  # few sizes, so that masks are cached
        pitch = max(3, round(high * rng.choice((0.5, 0.65, 0.8))))
        count = min(int(rng.integers(5, 22)), int(0.9 * w / pitch))
        word, length = "".join(holder.words[i] for i in rng.integers(0, len(holder.words), count)), count * pitch
        letters = np.zeros(wide.shape[:2], np.uint8)
        box = (x + (w - length) / 2, start + (end - start - high) / 2, length, high)
        word_mask(letters, word, box, "sans", float(rng.choice((9, 13))))
        wide[start:end] = blend(wide[start:end], letters[start:end], tuple(np.clip(ink, 0, 255)))
    wide[inside] = seen


def surround(
    plate: np.ndarray,
    rng: np.random.Generator,
    scale: float,
    holder: Holder | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Put a flat plate on what surrounds plates: bumper or frame, now and then a dealer's words.

    The wider picture (uint8 BGR) and the plate's (x, y) in it. scale: pixels a mm.
    """
    height, width = plate.shape[:2]
    x, y = round(width * 0.14), round(height * 0.42)
    ground = np.empty((2, 2, 3), np.float32)
    ground[:] = rng.uniform(0, 255) * np.exp(rng.normal(0, 0.12, 3))
    ground *= rng.uniform(0.6, 1.3, (2, 2, 1))
    canvas = cv2.resize(np.clip(ground, 0, 255), (width + 2 * x, height + 2 * y), interpolation=cv2.INTER_LINEAR)
    wide = canvas.astype(np.uint8)
    if rng.random() < 0.3:  # the edge of a bumper or a boot lid
        level = int(rng.integers(0, y)) if rng.random() < 0.5 else int(rng.integers(y + height, height + 2 * y))
        wide[:level] = np.clip(wide[:level] * rng.uniform(0.2, 1.8), 0, 255).astype(np.uint8)
    if holder is None and rng.random() < 0.6:
        draw_frame(wide, (x, y, width, height), rng, scale)
    wide[y : y + height, x : x + width] = plate
    if holder is not None and rng.random() < holder.chance:
        draw_holder(wide, (x, y, width, height), holder, rng, scale)
    return wide, (x, y)


def render_crop(
    rng: np.random.Generator,
    kind: Kind | str,
    text: str,
    size: tuple[int, int] = (24, 94),
    difficulty: float = 0.5,
    crop: Crop | None = None,
) -> np.ndarray:
    """Render one plate crop: uint8 [h, w, 3] BGR.

    kind: or a name of China's. text: one of that kind, see `plates.sample_text`. size: (h, w) in pixels.
    difficulty: 0 (clean, upright, a slight jitter) to 1 (tilted, blurred, dark, dirty). crop: drawn where not given.
    """
    if isinstance(kind, str):
        kind = kinds("cn")[kind]
    if crop is None:
        crop = frame_crop(kind, rng, size, difficulty)
    height, width = size
    # the flat plate about 1.7 times as wide as it comes out, the warp at twice the size: no aliasing, little work
    scale = round(1.7 * width / kind.size[0], 3)
    plate = draw(kind, text, sample_style(kind, rng, difficulty), scale)
    wide, (x, y) = surround(plate, rng, scale, kind.holder)
    h, w = plate.shape[:2]
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) + np.array([x, y], np.float32)
    # half-open corners to pixel centres, both ways
    matrix = cv2.getPerspectiveTransform(source - 0.5, (crop.corners * 2 - 0.5).astype(np.float32))
    warped = cv2.warpPerspective(wide, matrix, (2 * width, 2 * height), borderMode=cv2.BORDER_REPLICATE)
    image = cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)
    return degrade(image, rng, difficulty)


class SynthPlates:
    """`count` rendered crops: example `index` is the same for one seed, whoever asks and in what order.

    Each is drawn at 0.3 to 1 times `difficulty`, so that easy ones are never forgotten.
    """

    problems: tuple[str, ...] = ()

    def __init__(self, params: PlatesParams, context: Context | None = None):
        self.params = params
        self.seed = params.seed if params.seed is not None or context is None else context.own_seed
        self.difficulty = params.difficulty
        known = kinds(params.country)
        shares = params.kinds or {name: kind.weight for name, kind in known.items()}
        if unknown := sorted(set(shares) - set(known)):
            raise LprfError(f"no kind of plate '{unknown[0]}' in '{params.country}'; kinds are {', '.join(known)}")
        self.kinds = [known[name] for name, share in shares.items() if share > 0]
        if not self.kinds:
            raise LprfError("every kind of plate has the share 0")
        self.odds = Odds([share for share in shares.values() if share > 0], "kinds")

    def run(self) -> dict[str, SynthPlates]:
        return {"dataset": self}

    def __len__(self) -> int:
        return self.params.count

    def plan(self, index: int) -> tuple[np.random.Generator, Kind, str]:
        """The generator of example `index`, its kind and its text, which do not depend on the difficulty."""
        rng = np.random.default_rng([self.seed or 0, index])
        kind = self.kinds[self.odds.pick(rng)]
        return rng, kind, sample_text(kind, rng, self.params.provinces)

    def image_at(self, index: int, difficulty: float | None = None) -> tuple[np.ndarray, str]:
        """Picture (uint8 [h, w, 3] BGR) and text of example `index`, without the rest of an Example: for trainers."""
        rng, kind, text = self.plan(index)
        level = (self.difficulty if difficulty is None else difficulty) * rng.uniform(0.3, 1)
        return render_crop(rng, kind, text, self.params.size, level), plain(text)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng, kind, text = self.plan(index)
        crop = frame_crop(kind, rng, self.params.size, self.difficulty * rng.uniform(0.3, 1))
        height, width = self.params.size
        attributes = {"kind": kind.name, "country": kind.country}
        if text[0] in kind.provinces:
            attributes["province"] = text[0]
        truth = Truth((0.0, 0.0, float(width), float(height)), crop.corners.astype(np.float32), plain(text), attributes)
        return Example(f"synth-{self.seed or 0}-{index}", lambda: self.image_at(index)[0], (truth,), group=kind.name)

    def fingerprint(self) -> str:
        told = f"synth.plates {VERSION} {self.seed} {self.difficulty} {self.params.model_dump_json(exclude={'seed'})}"
        return hashlib.sha256(f"{told} {identity(self.params.country)}".encode()).hexdigest()

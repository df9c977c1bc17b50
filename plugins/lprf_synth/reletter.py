"""`synth.reletter`: real plates with a drawn first character in place of their own.

Real plates to learn from come from few provinces. A reader that has seen some provinces on real plates and others on
rendered ones alone takes every real plate for one of the first. Here each province comes on real plates.

Where the character stands, how bold and how sharp it is, the plate's other characters tell: its own text is laid over
the picture until it fits (Evangelidis and Psarakis, Parametric Image Alignment Using Enhanced Correlation Coefficient
Maximization, 2008). A plate that its text cannot be laid on is left out.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lprf.data import Dataset, Example, Truth
from lprf.errors import InputFailure, LprfError
from lprf.training.shares import Odds
from lprf_synth.atlas import mask, reshaped
from lprf_synth.plates import Kind, cells, kinds, paste_mask, thinning

if TYPE_CHECKING:
    from lprf.context import Context
    from lprf_synth.plugin import ReletterParams

VERSION = 5

KINDS = {7: "blue", 8: "green"}  # whose layout a text of so many characters has, whatever the plate's colour
FINE = 0.4  # pixels a mm while the text is laid
AROUND = 40.0  # mm about the plate that are looked at then
LIKE = 0.55  # how well a text must fit: correlation of its drawing with the picture
INSETS = ((0, 0), (14, 20), (7, 12), (-12, -10))  # mm of the plate's border that a box leaves out: what to begin from
STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-4)  # laying it
WHOLE = np.empty(0, np.uint8)  # no mask
WEIGHTS = (7.0, 8.5, 10.0, 11.5)  # mm, strokes to choose from
BLURS = (0.5, 1.5, 3.0, 5.0)  # mm, sigmas to choose from
KNOWN = 10  # plates of a province from which on it is drawn less often
BESIDE = 7.0  # mm, what is painted over beside the character's cell


@dataclass(frozen=True)
class Laid:
    """A plate's text laid on a picture.

    to_image: float64 [3, 3], from mm of the plate to pixels. like: how well it fits, 1 at best. weight: of its strokes,
    blur: of its edges (a sigma), both mm.
    """

    to_image: np.ndarray
    like: float
    weight: float
    blur: float


class Reletter:
    """`copies` of each plate of one row, each with a province drawn by chance; what else a picture has stays.

    Provinces that few of the plates are of are drawn more often.
    """

    def __init__(self, params: ReletterParams, context: Context):
        self.params = params
        self.seed = context.seed
        self.provinces = next(iter(kinds("cn").values())).provinces
        self.dataset: Dataset | None = None
        self.rows: list[tuple[int, int, Laid]] = []
        self.odds = Odds([1.0] * len(self.provinces), "provinces")
        self.problems: list[str] = []

    def run(self, dataset: Dataset) -> dict[str, Reletter]:
        self.dataset = dataset
        self.problems = list(dataset.problems)
        self.rows = []
        real = dict.fromkeys(self.provinces, 0)
        for index in range(len(dataset)):
            example = dataset[index]
            for number, plate in enumerate(example.plates):
                if plate.text and plate.text[0] in self.provinces and len(plate.text) in KINDS:
                    real[plate.text[0]] += 1
                    found = self._laid(example, plate)
                    if found is not None and found.like >= LIKE:
                        self.rows.append((index, number, found))
        if not self.rows:
            raise LprfError(
                f"in none of {len(dataset)} pictures a plate begins with a province and looks like its text"
            )
        self.odds = Odds([(1 + count / KNOWN) ** -0.5 for count in real.values()], "provinces")
        return {"dataset": self}

    def _laid(self, example: Example, plate: Truth) -> Laid | None:
        try:
            return lay(example.image(), plate)
        except InputFailure as failure:  # whoever reads it next reports it, too
            self.problems.append(str(failure))
            return None

    def __len__(self) -> int:
        return len(self.rows) * self.params.copies

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        assert self.dataset is not None
        row, number, laid = self.rows[index % len(self.rows)]
        example = self.dataset[row]
        plate = example.plates[number]
        assert plate.text is not None
        rng = np.random.default_rng([self.seed, index])
        province = self.provinces[self.odds.pick(rng)]
        written = replace(plate, text=province + plate.text[1:], attributes={**plate.attributes, "province": province})
        draw = functools.partial(_draw, example, plate.text, laid, province, int(rng.integers(2**62)))
        return replace(example, source=f"{example.source}#{number}{province}{index}", image=draw, plates=(written,))

    def fingerprint(self) -> str:
        assert self.dataset is not None
        told = f"reletter {VERSION} {self.dataset.fingerprint()} {self.params.copies} {self.seed}"
        return hashlib.sha256(told.encode()).hexdigest()


def _draw(example: Example, text: str, laid: Laid, province: str, seed: int) -> np.ndarray:
    return reletter(example.image(), text, laid, province, np.random.default_rng(seed))


def lay(image: np.ndarray, plate: Truth) -> Laid | None:
    """Lay a plate's text on a picture (uint8 [H, W, 3] BGR); None where that does not converge.

    It begins from the plate's corners, or its box as if it were upright, and with the border there or cut off.
    """
    text = plate.text or ""
    long, high = _kind(text).size
    x1, y1, x2, y2 = plate.box
    corners = plate.corners
    if corners is None:
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    upright = np.array([[0, 0], [long, 0], [long, high], [0, high]], np.float32)
    to_flat = cv2.getPerspectiveTransform(corners.astype(np.float32), (upright + AROUND) * FINE)
    size = (round((long + 2 * AROUND) * FINE), round((high + 2 * AROUND) * FINE))
    grey = _warped(image, to_flat, size).mean(2)
    grey -= cv2.GaussianBlur(grey, (0, 0), 30 * FINE)
    drawn = cv2.GaussianBlur(_text_mask(text, FINE, 9.0).astype(np.float32) / 255, (0, 0), 1)
    best, placed, light = 0.0, None, 1
    for along, down in INSETS:
        wide, tall = long / (long - 2 * along), high / (high - 2 * down)
        start = np.array([[wide, 0, (AROUND - along * wide) * FINE], [0, tall, (AROUND - down * tall) * FINE]])
        for sign in (1, -1):  # light characters, dark ones
            try:
                like, found = cv2.findTransformECC(
                    drawn, sign * grey, start.astype(np.float32), cv2.MOTION_AFFINE, STOP, WHOLE, 5
                )
            except cv2.error:  # it did not converge
                continue
            if like > best:
                best, placed, light = like, found, sign
        if best > 0.8:
            break
    if placed is None:
        return None
    mm = np.diag([1 / FINE, 1 / FINE, 1.0])
    to_image = np.linalg.inv(to_flat) @ np.vstack([placed, [0, 0, 1]]) @ np.linalg.inv(mm)
    weight, blur = _pen(image, text, to_image, light)
    return Laid(to_image, float(best), weight, blur)


def _pen(image: np.ndarray, text: str, to_image: np.ndarray, light: int) -> tuple[float, float]:
    """Weight and blur (mm) with which the text's letters and digits are most like the picture's."""
    long, high = _kind(text).size
    scale = _scale(to_image, long, high)
    left = round(70 * scale)  # mm: the first character, which is drawn otherwise than real ones, is left out
    flat = _warped(image, _at(scale) @ np.linalg.inv(to_image), (round(long * scale), round(high * scale)))
    grey = light * flat.mean(2)[:, left:]
    pens = {}
    for weight in WEIGHTS:
        drawn = _text_mask(text, scale, weight)[:, left:].astype(np.float32)
        for blur in BLURS:
            soft = cv2.GaussianBlur(drawn, (0, 0), max(0.3, blur * scale))
            pens[weight, blur] = float(np.corrcoef(soft.ravel(), grey.ravel())[0, 1])
    return max(pens, key=lambda pen: pens[pen])


def reletter(image: np.ndarray, text: str, laid: Laid, province: str, rng: np.random.Generator) -> np.ndarray:
    """A copy of the picture (uint8 [H, W, 3] BGR) with `province` drawn over the first character of its plate.

    The plate's own background goes on over the place; ink, weight and sharpness are those of its other characters.
    """
    kind = _kind(text)
    scale = _scale(laid.to_image, *kind.size)
    (_, (x, y, w, h)), *others = cells(kind, text)
    left, top = x - BESIDE, y - BESIDE
    size = (round((w + 2 * BESIDE) * scale), round((h + 2 * BESIDE) * scale))
    to_patch = _at(scale, left, top) @ np.linalg.inv(laid.to_image)
    patch = _warped(image, to_patch, size)
    back, grain = _ground(patch)
    ink = _ink(image, others[:3], laid, scale, back.mean((0, 1)))
    weight = round(2 * laid.weight * rng.uniform(0.7, 1.15) * thinning(province)) / 2
    face = "plate" if rng.random() < 0.75 else "uni"
    wide, tall = round(w * scale * rng.uniform(0.88, 1.04)), round(h * scale * rng.uniform(0.92, 1.02))
    glyph = reshaped(mask(province, face, max(3, wide), max(5, tall), weight), rng)
    inked = np.zeros((size[1], size[0]), np.uint8)
    middle = np.array(size) / 2 + rng.normal(0, scale, 2)
    paste_mask(inked, glyph, (middle[0], middle[1]))
    soft = max(0.3, laid.blur * scale * rng.uniform(0.45, 0.95))  # less: what fits a little off is blurred for it
    cover = cv2.GaussianBlur(inked.astype(np.float32) / 255, (0, 0), soft)[:, :, None]
    drawn = back + (ink - back) * cover
    drawn += cv2.GaussianBlur(rng.standard_normal(drawn.shape, np.float32), (0, 0), 0.6) * 2 * grain
    edge = max(1, round(0.5 * BESIDE * scale))
    share = np.zeros((size[1], size[0]), np.float32)
    share[edge:-edge, edge:-edge] = 1
    faded = cv2.blur(share, (2 * edge + 1, 2 * edge + 1))
    there = (image.shape[1], image.shape[0])
    back_flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = _half(to_patch)
    laid_on = cv2.warpPerspective(drawn, shown, there, flags=back_flags)
    laid_share = cv2.warpPerspective(faded, shown, there, flags=back_flags)
    return np.clip(image + (laid_on - image) * laid_share[:, :, None], 0, 255).astype(np.uint8)


def _kind(text: str) -> Kind:
    return kinds("cn")[KINDS[len(text)]]


@functools.lru_cache(maxsize=256)
def _text_mask(text: str, scale: float, weight: float) -> np.ndarray:
    """uint8 [h, w]: a text on its plate, at so many pixels a mm. Do not write to it."""
    kind = _kind(text)
    canvas = np.zeros((round(kind.size[1] * scale), round(kind.size[0] * scale)), np.uint8)
    for character, (x, y, w, h) in cells(kind, text):
        bold = weight * thinning(character) if character > "\u2e80" else weight
        glyph = mask(character, "plate", max(3, round(w * scale)), max(5, round(h * scale)), round(bold * 4) / 4)
        paste_mask(canvas, glyph, ((x + w / 2) * scale, (y + h / 2) * scale))
    return canvas


def _scale(to_image: np.ndarray, long: float, high: float) -> float:
    """Pixels a mm, about the picture's own, in steps that let masks be kept."""
    ends = cv2.perspectiveTransform(np.array([[[0, high / 2], [long, high / 2]]], np.float64), to_image)[0]
    return float(np.clip(round(20 * np.linalg.norm(ends[1] - ends[0]) / long) / 20, 0.25, 2.0))


def _at(scale: float, left: float = 0.0, top: float = 0.0) -> np.ndarray:
    """From mm to the pixels of a flat picture that begins at (left, top)."""
    return np.array([[scale, 0, -left * scale], [0, scale, -top * scale], [0, 0, 1]])


def _half(matrix: np.ndarray) -> np.ndarray:
    """A transform of places as one of pixels by their middles, as OpenCV warps them."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.linalg.inv(half) @ matrix @ half


def _warped(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [h, w, 3]: the picture seen through `matrix`, from its pixels to those of the result."""
    flags = cv2.INTER_LINEAR
    return cv2.warpPerspective(image, _half(matrix), size, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(
        np.float32
    )


def _ink(
    image: np.ndarray, others: Sequence[tuple[str, tuple[float, ...]]], laid: Laid, scale: float, back: np.ndarray
) -> np.ndarray:
    """The colour [3] of the characters beside the first, where their strokes cover a pixel wholly."""
    x, y = others[0][1][:2]
    last = others[-1][1]
    size = (max(1, round((last[0] + last[2] - x) * scale)), max(1, round(last[3] * scale)))
    flat = _warped(image, _at(scale, x, y) @ np.linalg.inv(laid.to_image), size).reshape(-1, 3)
    off = np.abs(flat - back).sum(1)
    return flat[off >= np.quantile(off, 0.88)].mean(0)


def _ground(patch: np.ndarray) -> tuple[np.ndarray, float]:
    """Background of a float32 [h, w, 3] patch with one character: its shade from top to bottom, and its grain."""
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 8, 0)
    pixels = patch.reshape(-1, 3)
    first = (pixels.sum(1) > np.median(pixels.sum(1))).astype(np.int32)
    _, labels, centres = cv2.kmeans(pixels, 2, first, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    of_back = int(np.bincount(labels.ravel(), minlength=2).argmax())
    quiet = (labels.ravel() == of_back).reshape(patch.shape[:2])[:, :, None]
    shade = (patch * quiet).sum(1) / np.maximum(quiet.sum(1), 1)
    shade[quiet.sum((1, 2)) < 0.2 * patch.shape[1]] = centres[of_back]
    shade = cv2.blur(shade[:, None, :], (1, max(1, patch.shape[0] // 3))).reshape(-1, 1, 3)
    grain = float(np.clip((patch - shade)[np.broadcast_to(quiet, patch.shape)].std() * 0.5, 0, 8))
    return shade.astype(np.float32), grain

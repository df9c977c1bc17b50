"""`synth.scenes`: whole pictures with rendered plates on real or rendered backgrounds, for training detectors.

What is where is planned when an example is asked for, from numbers alone; pixels are drawn by `Example.image`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lprf.builtin.augment import dirty, jpeg, motion_blur, noise, recolour, relight, shade
from lprf.builtin.datasets import picture_size, read_picture
from lprf.data import Dataset, Example, Truth
from lprf.errors import InputFailure
from lprf.training.shares import Odds
from lprf_synth.crops import draw_frame, view
from lprf_synth.plates import Kind, draw, identity, kinds, plain, sample_style, sample_text
from lprf_synth.scenery import Box, backdrop, captions, car, clutter, glow, overlap

if TYPE_CHECKING:
    from lprf.context import Context
    from lprf_synth.plugin import ScenesParams

VERSION = 2

SHAPES = ((4, 3), (4, 3), (16, 9), (1, 1), (3, 4), (3, 4), (72, 116))  # width to height of rendered backgrounds
REAL_WIDTH = (45.0, 300.0)  # px, of a real plate that a scene aims at
AIMED = 0.6  # share of the scenes with real plates that are scaled by one of them
SWAPPED = 2.2  # a plate that covers a real one has at most so many times its area
LARGEST = 2.0  # a photo is not enlarged more than this
SHORTEST = 240  # px, the longer side of a photo made small
LADDER = 1.2  # flat plates are drawn in steps of this factor, so that the masks of their glyphs are found again


@dataclass(frozen=True)
class Planned:
    """A plate to draw: corners float64 [4, 2], pixels of the scene (half-open), TL TR BR BL."""

    kind: Kind
    text: str
    corners: np.ndarray

    @property
    def box(self) -> Box:
        low, high = self.corners.min(0), self.corners.max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def truth(self) -> Truth:
        attributes = {"kind": self.kind.name, "country": self.kind.country, "rendered": "yes"}
        if self.text[0] in self.kind.provinces:
            attributes["province"] = self.text[0]
        corners = self.corners.astype(np.float32)
        x1, y1, x2, y2 = (float(side) for side in (*corners.min(0), *corners.max(0)))
        return Truth((x1, y1, x2, y2), corners, plain(self.text), attributes)


@dataclass(frozen=True)
class Plan:
    """A scene before it is drawn.

    size: (h, w). photo: its background, None where that is rendered. window: x1 y1 x2 y2, the part of the photo that
    is seen, whole pixels. mirrored: left to right. real: the photo's own plates, in pixels of the scene.
    """

    size: tuple[int, int]
    photo: Example | None
    window: tuple[int, int, int, int]
    mirrored: bool
    real: tuple[Truth, ...]
    plates: tuple[Planned, ...]


class Scenes:
    """`count` scenes: example `index` is the same for one seed, whoever asks and in what order.

    The plates of `backgrounds` stay where they are and remain labels, or are covered by rendered ones; others are put
    beside them. Each dataset connected is drawn as often as any other: one connected twice, twice as often.
    """

    def __init__(self, params: ScenesParams, context: Context | None = None):
        self.params = params
        self.seed = (params.seed if params.seed is not None or context is None else context.own_seed) or 0
        self.problems: list[str] = []
        self.backgrounds: list[Dataset] = []
        self.kinds: list[Kind] = []
        weights: list[float] = []
        for country, share in params.countries.items():
            known = list(kinds(country).values())
            total = sum(kind.weight for kind in known)
            self.kinds += known
            weights += [share * kind.weight / total for kind in known]
        self.odds = Odds(weights, "countries")
        self._chances: dict[bool, Odds] = {}  # of the backgrounds, by whether they must be without plates
        self._sizes: dict[str, tuple[int, int] | None] = {}

    def run(self, backgrounds: Sequence[Dataset] | None = None) -> dict[str, Scenes]:
        self.backgrounds = list(backgrounds or [])
        self.problems = [problem for dataset in self.backgrounds for problem in dataset.problems]
        everything = [list(range(len(dataset))) for dataset in self.backgrounds]
        bare = [
            [i for i in rows if not dataset[i].plates]
            for dataset, rows in zip(self.backgrounds, everything, strict=True)
        ]
        self._rows = {False: everything, True: bare}
        self._chances = {
            key: Odds([1.0 if some else 0.0 for some in rows], "backgrounds")
            for key, rows in self._rows.items()
            if any(rows)
        }
        return {"dataset": self}

    def __len__(self) -> int:
        return self.params.count

    def plan(self, index: int) -> Plan:
        """What scene `index` shows, and where."""
        rng = np.random.default_rng([self.seed, index])
        params = self.params
        bare = bool(rng.random() < params.empty)
        longer = rng.uniform(*params.size)
        real: tuple[Truth, ...] = ()
        window, mirrored = (0, 0, 0, 0), False
        found = self._photo(rng, bare)
        photo = None if found is None else found[0]
        if found is not None:
            window, scale = _look(found[0].plates, found[1], longer, rng)
            size = (max(1, round((window[3] - window[1]) * scale)), max(1, round((window[2] - window[0]) * scale)))
            real = tuple(_moved(plate, window, size) for plate in found[0].plates if _share(plate.box, window) == 1)
            mirrored = bool(not real and rng.random() < 0.5)
        else:
            wide, high = SHAPES[int(rng.integers(len(SHAPES)))]
            size = (round(longer * high / max(wide, high)), round(longer * wide / max(wide, high)))
        count = 0 if bare else int(rng.integers(1, params.plates + 1)) if params.plates else 0
        plates = []
        if params.swapped:
            kept = []
            for truth in real:
                swapped = self._swapped(rng, truth, size) if rng.random() < params.swapped else None
                if swapped is None:
                    kept.append(truth)
                else:
                    plates.append(swapped)
            real = tuple(kept)
        taken = [_grown(plate.box, 0.15) for plate in real] + [_grown(plate.box, 0.1) for plate in plates]
        for _ in range(count):
            plate = self._place(rng, size, taken)
            if plate is not None:
                taken.append(_grown(plate.box, 0.1))
                plates.append(plate)
        return Plan(size, photo, window, mirrored, real, tuple(plates))

    def _swapped(self, rng: np.random.Generator, real: Truth, size: tuple[int, int]) -> Planned | None:
        """A plate that covers one of the photo's own, as it stands; None where the two differ too much in shape."""
        kind = self._kind(rng)
        text = sample_text(kind, rng)
        x1, y1, x2, y2 = real.box
        corners = real.corners
        if corners is None:
            corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
        wide = float(np.linalg.norm(corners[1] - corners[0]) + np.linalg.norm(corners[2] - corners[3])) / 2
        high = float(np.linalg.norm(corners[3] - corners[0]) + np.linalg.norm(corners[2] - corners[1])) / 2
        ratio = kind.size[0] / kind.size[1] * rng.uniform(0.85, 1.2)
        height = rng.uniform(1.04, 1.15) * max(high, wide / ratio)
        grown = height * ratio / wide, height / high
        if grown[0] * grown[1] > SWAPPED:
            return None
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
        matrix = cv2.getPerspectiveTransform(square, corners.astype(np.float32))
        larger = ((square - 0.5) * grown + 0.5).astype(np.float32)
        covering = cv2.perspectiveTransform(larger[None], matrix)[0].astype(np.float64)
        return Planned(kind, text, np.clip(covering, 0, size[::-1]))

    def _kind(self, rng: np.random.Generator) -> Kind:
        return self.kinds[self.odds.pick(rng)]

    def _photo(self, rng: np.random.Generator, bare: bool) -> tuple[Example, tuple[int, int]] | None:
        """A background and its (width, height); None where one is to be rendered."""
        if bare not in self._chances or rng.random() < self.params.rendered_ground:
            return None
        number = self._chances[bare].pick(rng)
        rows = self._rows[bare][number]
        example = self.backgrounds[number][rows[int(rng.integers(len(rows)))]]
        key = f"{number}/{example.source}"
        if key not in self._sizes:
            try:
                self._sizes[key] = _size(example)
            except InputFailure as failure:
                self._sizes[key] = None
                self.problems.append(str(failure))
        size = self._sizes[key]
        return None if size is None else (example, size)

    def _place(self, rng: np.random.Generator, size: tuple[int, int], taken: Sequence[Box]) -> Planned | None:
        """A plate that covers none of the boxes `taken`, within a scene of `size`; None where there is no room."""
        kind = self._kind(rng)
        text = sample_text(kind, rng)
        low, high = np.log(self.params.widths)
        width = float(np.exp(rng.uniform(low, high)))
        seen = view(kind.size, rng, self.params.difficulty)
        seen[:, 0] *= rng.uniform(0.85, 1.25)
        seen = (seen - seen.min(0)) / np.ptp(seen[:, 0])
        height = float(seen[:, 1].max())
        width = min(width, 0.85 * size[1], 0.85 * size[0] / height)
        for attempt in range(12):
            if attempt in (5, 9):
                width *= 0.6
            room = np.array([size[1] - width, size[0] - width * height])
            # most plates of a photo are below its middle
            corner = room * (rng.random(), rng.random() ** 0.7)
            corners = np.clip(corner + seen * width, 0, (size[1], size[0]))
            plate = Planned(kind, text, corners)
            if not any(overlap(_grown(plate.box, 0.1), box) for box in taken):
                return plate
        return None

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        plan = self.plan(index)
        truths = (*plan.real, *(plate.truth() for plate in plan.plates))
        return Example(self.source(index), partial(self.draw, plan, index), truths, group="scenes")

    def source(self, index: int) -> str:
        """The name of scene `index`, which needs no plan."""
        return f"scene-{self.seed}-{index}"

    def draw(self, plan: Plan, index: int) -> np.ndarray:
        """The picture of a plan: uint8 [h, w, 3] BGR. Raises InputFailure where its background cannot be decoded."""
        rng = np.random.default_rng([self.seed, index, 1])
        d = self.params.difficulty
        boxes = [plate.box for plate in plan.real] + [plate.box for plate in plan.plates]
        image = _seen(plan) if plan.photo is not None else backdrop(plan.size, rng)
        if plan.photo is None:
            for plate in sorted(plan.plates, key=lambda plate: plate.box[3]):
                if rng.random() < 0.75:
                    car(image, plate.box, rng)
        image = relight(image, rng, 0.3 * d)
        night = rng.random() < 0.25 * d
        if night:
            # never so dark that the real plates cannot be seen
            image = cv2.LUT(image, _dark(max(rng.uniform(0.2, 0.6), 30 / max(30.0, float(image.mean())))))
        if rng.random() < self.params.decoys:
            clutter(image, boxes, rng)
        for plate in plan.plates:
            paste(image, plate, rng, d, 0.15 if night else 1.0)
        if night and rng.random() < 0.7:
            glow(image, boxes, rng)
        if rng.random() < 0.5 * self.params.decoys:
            captions(image, boxes, rng)
        return _through_camera(image, rng, d)

    def fingerprint(self) -> str:
        told = f"synth.scenes {VERSION} {self.seed} {self.params.model_dump_json(exclude={'seed'})}"
        parts = [told, *map(identity, self.params.countries), *(dataset.fingerprint() for dataset in self.backgrounds)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _size(example: Example) -> tuple[int, int]:
    """(width, height) of an example's picture, by its header where it is a file."""
    image = example.image
    if isinstance(image, partial) and image.func is read_picture:
        return picture_size(*image.args)
    height, width = image().shape[:2]
    return width, height


def _share(box: Sequence[float], window: Sequence[float]) -> float:
    """How much of a box lies in a window, 0 to 1."""
    width = min(box[2], window[2]) - max(box[0], window[0])
    height = min(box[3], window[3]) - max(box[1], window[1])
    whole = (box[2] - box[0]) * (box[3] - box[1])
    inside = max(0.0, width) * max(0.0, height)
    return 1.0 if inside >= 0.999 * whole else inside / whole


def _look(
    plates: Sequence[Truth], size: tuple[int, int], longer: float, rng: np.random.Generator
) -> tuple[tuple[int, int, int, int], float]:
    """The part of a photo of `size` (w, h) that is seen and how it is scaled; no labelled plate is cut by its edge."""
    width, height = size
    for _ in range(8):
        aim = None
        if plates and rng.random() < AIMED:
            aim = plates[int(rng.integers(len(plates)))].box
            wanted = np.exp(rng.uniform(*np.log(REAL_WIDTH))) / max(1.0, aim[2] - aim[0])
            scale = float(np.clip(wanted, SHORTEST / max(size), LARGEST))
            w, h = min(width, longer / scale), min(height, longer / scale)
        else:
            zoom = 1.0 if rng.random() < 0.4 else rng.uniform(1, 2.2)
            w, h = width / zoom, height / zoom
            scale = min(longer / max(w, h), LARGEST)
        begin = []
        for i, (side, length) in enumerate(((w, width), (h, height))):
            low, high = 0.0, length - side
            if aim is not None:
                low, high = max(low, min(high, aim[i + 2] - side)), min(high, max(low, aim[i]))
            begin.append(int(rng.uniform(min(low, high), high)))
        window = (begin[0], begin[1], min(width, begin[0] + max(1, int(w))), min(height, begin[1] + max(1, int(h))))
        if all(_share(plate.box, window) in (0, 1) for plate in plates):
            return window, scale
    return (0, 0, width, height), min(longer / max(size), LARGEST)


def _moved(plate: Truth, window: Sequence[int], size: tuple[int, int]) -> Truth:
    """A photo's label in pixels of the scene of `size` (h, w) that shows the window."""
    scale = np.array([size[1] / (window[2] - window[0]), size[0] / (window[3] - window[1])])
    low = (np.array(plate.box[:2]) - window[:2]) * scale
    high = (np.array(plate.box[2:]) - window[:2]) * scale
    low, high = np.clip(low, 0, size[::-1]), np.clip(high, 0, size[::-1])
    corners = None if plate.corners is None else ((plate.corners - window[:2]) * scale).astype(np.float32)
    return replace(plate, box=(float(low[0]), float(low[1]), float(high[0]), float(high[1])), corners=corners)


def _seen(plan: Plan) -> np.ndarray:
    """The background's part that the plan shows, in the scene's size."""
    assert plan.photo is not None
    x1, y1, x2, y2 = plan.window
    part = plan.photo.image()[y1:y2, x1:x2]
    if part.shape[:2] != (y2 - y1, x2 - x1):
        raise InputFailure(plan.photo.source, "its picture is not as large as its header says")
    smaller = plan.size[1] < part.shape[1]
    image = cv2.resize(part, plan.size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return cv2.flip(image, 1) if plan.mirrored else image


def _grown(box: Box, by: float) -> Box:
    """A box with room around it, in parts of its width."""
    room = by * (box[2] - box[0])
    return box[0] - room, box[1] - room, box[2] + room, box[3] + room


def paste(image: np.ndarray, plate: Planned, rng: np.random.Generator, difficulty: float, pull: float) -> None:
    """Draw a plate into a scene, in its light. pull: how far its brightness follows what is around it, 0 to 1."""
    d = difficulty * rng.uniform(0.3, 1)
    corners, kind = plate.corners, plate.kind
    across = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[2] - corners[3])
    width = max(float(across[0]), float(across[1]), 8.0)
    fine = 2 if width < 100 else 1  # small plates are drawn larger and averaged
    scale = LADDER ** round(np.log(1.15 * fine * width / kind.size[0]) / np.log(LADDER))
    flat = draw(kind, plate.text, sample_style(kind, rng, d), scale)
    h, w = flat.shape[:2]
    x, y = round(9 * scale) + 1, round(22 * scale) + 1
    wide = np.zeros((h + 2 * y, w + 2 * x, 4), np.uint8)
    if rng.random() < 0.6:
        board = np.zeros((h + 2 * y, w + 2 * x, 3), np.uint8)
        x1, y1, x2, y2 = draw_frame(board, (x, y, w, h), rng, scale)
        wide[y1:y2, x1:x2, :3] = board[y1:y2, x1:x2]
        wide[y1:y2, x1:x2, 3] = 255
    wide[y : y + h, x : x + w, :3] = flat
    wide[y : y + h, x : x + w, 3] = 255
    # where the frame ends up, as far as it lies in the scene
    source = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32)
    rim = np.array([[[0, 0], [wide.shape[1], 0], [wide.shape[1], wide.shape[0]], [0, wide.shape[0]]]], np.float32)
    there = cv2.perspectiveTransform(rim, cv2.getPerspectiveTransform(source, corners.astype(np.float32)))[0]
    left, top = np.maximum(np.floor(there.min(0)).astype(int) - 3, 0)
    right, bottom = np.minimum(np.ceil(there.max(0)).astype(int) + 3, (image.shape[1], image.shape[0]))
    size = (int(right - left) * fine, int(bottom - top) * fine)
    target = (corners - (left, top)) * fine
    # half-open corners to pixel centres, both ways
    matrix = cv2.getPerspectiveTransform(source - 0.5, (target - 0.5).astype(np.float32))
    # zeros around the frame are no colour but transparency: edges repeat, the alpha alone ends
    warped = cv2.warpPerspective(_bled(wide), matrix, size, borderMode=cv2.BORDER_CONSTANT)
    if fine > 1:
        warped = cv2.resize(warped, (size[0] // fine, size[1] // fine), interpolation=cv2.INTER_AREA)
    under = image[top:bottom, left:right]
    lit = _lit(np.ascontiguousarray(warped[:, :, :3]), under, rng, d, pull)
    alpha = warped[:, :, 3]
    both = cv2.merge([lit, alpha])
    sigma = abs(rng.normal(0, 0.25 + 0.5 * d)) * (0.5 + width / 160)
    if sigma > 0.25:
        both = cv2.GaussianBlur(both, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    if rng.random() < 0.2 * d:
        both = motion_blur(both, rng, d * 0.7)
    share = both[:, :, 3:].astype(np.float32) / 255
    image[top:bottom, left:right] = (under + (both[:, :, :3] - under.astype(np.float32)) * share + 0.5).astype(np.uint8)


def _bled(wide: np.ndarray) -> np.ndarray:
    """The picture with its colours run out over what is transparent, so that no black rim comes of resampling."""
    solid = wide[:, :, 3] > 0
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inner = np.ascontiguousarray(wide[top:bottom, left:right, :3])
    height, width = wide.shape[:2]
    colours = cv2.copyMakeBorder(inner, top, height - bottom, left, width - right, cv2.BORDER_REPLICATE)
    return cv2.merge([colours, np.ascontiguousarray(wide[:, :, 3])])


def _lit(plate: np.ndarray, under: np.ndarray, rng: np.random.Generator, d: float, pull: float) -> np.ndarray:
    """The plate in the light of the place it comes to, uneven, with its own wear."""
    around = np.array(cv2.mean(under)[:3])
    level = around.mean() + 25
    gain = np.exp(pull * rng.uniform(0.25, 0.85) * np.log(level / 135) + rng.normal(0, 0.12))
    tint = ((around + 40) / (around.mean() + 40)) ** rng.uniform(0, 0.5)
    lift = rng.uniform(0, 30) * rng.random()  # haze and reflections
    ramp = np.linspace(0, 255, 256)[:, None] * np.clip(gain, 0.25, 1.5) * tint + lift
    plate = cv2.LUT(plate, np.clip(ramp, 0, 255).astype(np.uint8)[:, None, :])
    if rng.random() < 0.2 * d:
        plate = recolour(plate, rng, 0.5 * d)
    plate = relight(plate, rng, 0.4 * d)
    if rng.random() < 0.3 + 0.3 * d:
        plate = shade(plate, rng, d)
    if rng.random() < 0.12 * d:
        plate = dirty(plate, rng, d)
    if rng.random() < 0.3 * d:
        plate = noise(plate, rng, 0.5 * d)
    return plate


def _dark(gain: float) -> np.ndarray:
    return np.clip(np.linspace(0, 1, 256) ** 1.25 * 255 * gain, 0, 255).astype(np.uint8)


@functools.cache
def _grain() -> np.ndarray:
    """Noise to cut pieces from: drawing millions of normal numbers a scene would take longer than all the rest."""
    rng = np.random.default_rng(0)
    fine = (
        rng.standard_normal((1024, 1024, 1), np.float32) * 0.8 + rng.standard_normal((1024, 1024, 3), np.float32) * 0.6
    )
    return np.clip(fine * 32, -127, 127).astype(np.int8)


def _through_camera(image: np.ndarray, rng: np.random.Generator, d: float) -> np.ndarray:
    """What lens, sensor and file do to the whole scene."""
    height, width = image.shape[:2]
    if rng.random() < 0.25 * d:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.6 + 0.9 * d))
    if rng.random() < 0.3 + 0.4 * d:
        sigma = abs(rng.normal(0, 2 + 6 * d))
        grain = _grain()
        if height > 1024 or width > 1024:
            below, right = max(0, height - 1024), max(0, width - 1024)
            grain = np.pad(grain, ((0, below), (0, right), (0, 0)), "wrap")
        y, x = (int(rng.integers(have - want + 1)) for have, want in zip(grain.shape, (height, width), strict=False))
        grain = grain[y : y + height, x : x + width]
        image = cv2.addWeighted(image, 1, grain, sigma / 32, 0, dtype=cv2.CV_8U)
    if rng.random() < 0.3 + 0.55 * d:
        image = jpeg(image, rng, min(0.85, 0.2 + d))
    return image

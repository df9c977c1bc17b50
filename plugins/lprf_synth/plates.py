"""Kinds of plates as data, and drawing them flat: `countries/*.yaml` -> Kind -> text -> picture."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pydantic

from lprf.check import form_problems
from lprf.component import Params
from lprf.errors import LprfError, Problem, RecipeError
from lprf.source import Located, read_file
from lprf_synth.atlas import CELL, MARGIN, PATH, Face, field, mask, missing
from lprf_synth.trim import Box, Colour, Mark, draw_mark, draw_stars, landscape, pick, relief

FOLDER = Path(__file__).parent / "countries"


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("must be two numbers in ascending order")
    return pair


Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Size = tuple[pydantic.PositiveFloat, pydantic.PositiveFloat]
Factors = Annotated[Size, pydantic.AfterValidator(_ascending)]
Reach = Annotated[tuple[pydantic.NonNegativeFloat, pydantic.NonNegativeFloat], pydantic.AfterValidator(_ascending)]
Some = Annotated[str, pydantic.Field(min_length=1)]
Colours = Annotated[list[Colour], pydantic.Field(min_length=1)]


class Row(Params):
    """A row of characters. With `count`: that many cells from `left`; without: as many as come, centred in `width`."""

    left: float
    top: float
    cell: Size
    gap: pydantic.NonNegativeFloat
    count: pydantic.PositiveInt | None = None
    gaps: dict[int, pydantic.NonNegativeFloat] = pydantic.Field(default_factory=dict)
    widths: dict[int, pydantic.PositiveFloat] = pydantic.Field(default_factory=dict)
    width: pydantic.NonNegativeFloat = 0
    space: pydantic.NonNegativeFloat = 0
    take: Share = 1.0

    @pydantic.model_validator(mode="after")
    def _bounded(self) -> Row:
        if self.count is None and not self.width:
            raise ValueError("must have a `count` of cells, or a `width` above 0 for as many as come")
        return self

    @property
    def right(self) -> float:
        """Where its last cell ends, or the width that its characters are centred in."""
        if self.count is None:
            return self.left + self.width
        widths = sum(self.widths.get(i, self.cell[0]) for i in range(self.count))
        return self.left + widths + sum(self.gaps.get(i, self.gap) for i in range(self.count - 1))


class Band(Params):
    """A field of another colour, with the European Union's stars or without: box is x y width height, mm."""

    box: Box
    colours: Colours
    chance: Share = 1.0
    stars: bool = False


class Label(Params):
    """Small words that are no part of the text: box is x y width height, mm."""

    words: list[str] = pydantic.Field(min_length=1)
    box: Box
    inks: list[Colour] = pydantic.Field(default_factory=list)
    chance: Share = 1.0


class Vary(Params):
    """How makers differ: from plate to plate the characters' widths, heights and gaps are this many times as large."""

    width: Factors = (1.0, 1.0)
    height: Factors = (1.0, 1.0)
    gap: Reach = (1.0, 1.0)


class Holder(Params):
    """A holder with a dealer's words around a plate: how far it reaches beyond the plate and over its edges, mm."""

    chance: Share = 0.7
    outside: Reach = (2, 22)
    above: Reach = (0, 4)
    below: Reach = (0, 4)
    sides: Reach = (0, 4)
    words: Some = "AABCDEEEFGHIIKLMNNOOPRRSSTTUVW   0123456789.-"


class Kind(Params):
    """A kind of plate, see the comment in `countries/cn.yaml`. Lengths in mm, colours R G B."""

    name: str = ""
    country: str = ""
    weight: pydantic.NonNegativeFloat = 1.0
    size: Size
    text: list[str] = pydantic.Field(min_length=1)
    tokens: dict[str, Some] = pydantic.Field(default_factory=dict)
    provinces: str = ""  # these two are the country's where not given
    letters: Some = ""
    colours: Colours
    gradient: list[Colour] = pydantic.Field(default_factory=list)
    ink: Colour
    inks: list[Colour] = pydantic.Field(default_factory=list)
    red: str = ""
    red_first: int = 0
    face: Face = "plate"
    other_face: Share = 0.12
    faces: list[Face] = pydantic.Field(default_factory=list)
    stroke: Factors = (8.0, 12.0)
    rows: list[Row] = pydantic.Field(min_length=1)
    dots: list[tuple[float, float]] = pydantic.Field(default_factory=list)
    bands: list[Band] = pydantic.Field(default_factory=list)
    labels: list[Label] = pydantic.Field(default_factory=list)
    line: Share = 0.9
    vary: Vary | None = None
    marks: list[Mark] = pydantic.Field(default_factory=list)
    landscape: Share = 0.0
    relief: pydantic.NonNegativeFloat = 0.0
    holder: Holder | None = None
    bolts: tuple[tuple[float, float], ...] = ((110, 13), (330, 13), (110, 127), (330, 127))


class _Country(Params):
    country: str
    provinces: str = ""
    letters: Some
    kinds: dict[str, Kind] = pydantic.Field(min_length=1)


@functools.cache
def kinds(country: str) -> dict[str, Kind]:
    """The kinds of plates of a country, or of a YAML file whose path is given.

    Raises LprfError where there is none, RecipeError with line and column for every mistake in the file.
    """
    path = Path(country) if country.endswith((".yaml", ".yml")) else FOLDER / f"{country}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise LprfError(f"no plates of the country '{country}' are described; there are {there}")
    located = read_file(path)
    described, problems = form_problems(_Country, located)
    if described is None:
        raise RecipeError(problems)
    found = {}
    shared = described.model_dump(exclude={"kinds"})
    for name, kind in described.kinds.items():
        own = kind.model_dump(include=set(shared), exclude_unset=True)
        found[name] = kind.model_copy(update={**shared, **own, "name": name})
        problems += _undrawable(found[name], located)
    if not any(kind.weight for kind in found.values()):
        problems.append(located.problem(("kinds",), "a kind must have a `weight` above 0"))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))  # kinds share the country's letters
    return found


def _undrawable(kind: Kind, located: Located) -> list[Problem]:
    """Where a kind's plates could not be drawn, or would not show all of their text."""
    problems: list[Problem] = []

    def wrong(message: str, *path: str | int) -> None:
        whole = ("kinds", kind.name, *path)
        # letters and provinces may be the country's
        problems.append(located.problem(whole if located.get(*whole) is not None else path, message))

    def drawable(text: str, faces: Sequence[Face], *path: str | int) -> None:
        if strange := missing(text, faces):
            shown = ", ".join(dict.fromkeys(faces))
            wrong(f"has {strange}, which cannot be drawn in {shown}; A to Z, 0 to 9 and China's provinces can", *path)

    faces = kind.faces or [kind.face, *([_other(kind.face)] if kind.other_face else [])]
    drawable(kind.letters, faces, "letters")
    drawable(kind.provinces, faces, "provinces")
    for token, choices in kind.tokens.items():
        drawable(choices, faces, "tokens", token)
    for i, pattern in enumerate(kind.text):
        itself = "".join(token for token in pattern if token not in kind.tokens)
        drawable(itself, faces, "text", i)
        if "P" in itself and not kind.provinces:
            wrong("has a P, a province, but no `provinces` are given", "text", i)
        parts = _parts(kind.rows, pattern)
        room = [row.count or len(part) for row, part in zip(kind.rows, parts, strict=True)]
        if sum(room) != len(pattern) or not all(part.strip() for part in parts):
            message = f"has {len(pattern)} characters, the `rows` take {' + '.join(map(str, room))}; "
            wrong(message + "`count`s must add up to them, or leave some for a last row without one", "text", i)
    for i, row in enumerate(kind.rows):
        if row.left < 0 or row.top < 0 or row.top + row.cell[1] > kind.size[1] or row.right > kind.size[0]:
            wrong(f"lies partly off the plate of {kind.size[0]:g} x {kind.size[1]:g} mm", "rows", i)
    for i, label in enumerate(kind.labels):
        for j, word in enumerate(label.words):
            drawable(word, ["sans"], "labels", i, "words", j)
    if kind.holder is not None:
        drawable(kind.holder.words, ["sans"], "holder", "words")
    return problems


def _other(face: Face) -> Face:
    return "sans" if face == "plate" else "plate"


def sample_text(kind: Kind, rng: np.random.Generator, provinces: Mapping[str, float] | None = None) -> str:
    """A text of this kind. `provinces` weighs provinces that are not all to be as likely (1 where not named).

    Gaps of plates whose characters flow stay in it as spaces; `plain` drops them.
    """
    pattern = kind.text[int(rng.integers(len(kind.text)))]
    serial = [i for i, token in enumerate(pattern) if token == "S"]
    letters = set(rng.permutation(serial)[: int(rng.choice(3, p=(0.4, 0.35, 0.25)))].tolist()) if serial else set()
    text = ""
    for i, token in enumerate(pattern):
        if token in kind.tokens:
            choices = kind.tokens[token]
        elif token == "P":
            choices = kind.provinces
            if provinces:
                weights = np.array([provinces.get(p, 1.0) for p in choices], float)
                text += choices[int(rng.choice(len(choices), p=weights / weights.sum()))]
                continue
        elif token == "L" or i in letters:
            choices = kind.letters
        elif token in "DS":
            choices = "0123456789"
        else:
            choices = token
        text += choices[int(rng.integers(len(choices)))]
    return text


def plain(text: str) -> str:
    """The text as a reader gives it, without gaps."""
    return text.replace(" ", "")


@dataclass(frozen=True)
class Style:
    """What varies from plate to plate of one kind. Lengths in mm, colours B G R.

    stroke: of letters and digits; chinese: of Chinese characters, before complex ones are thinned.
    """

    face: str
    stroke: float
    chinese: float
    colour: Colour
    second: Colour | None
    bands: tuple[Colour | None, ...]
    ink: Colour
    red: Colour
    line: float
    dot: float
    bolts: int
    province: float
    shift: tuple[float, float]
    words: tuple[str | None, ...]
    word_inks: tuple[Colour | None, ...]
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mark: Mark = "none"
    seed: int = 0
    landscape: bool = False
    relief: float = 0.0


def sample_style(kind: Kind, rng: np.random.Generator, difficulty: float = 0.5) -> Style:
    """Draw a style: the harder, the wider the strokes' weights and the colours vary."""
    low, high = kind.stroke
    middle, reach = (low + high) / 2, (high - low) / 2 * (0.4 + 0.6 * difficulty)
    stroke = rng.uniform(middle - reach, middle + reach)
    face = kind.face
    if kind.faces:
        face = kind.faces[int(rng.integers(len(kind.faces)))]
    elif rng.random() < kind.other_face:
        face = _other(face)
    return Style(
        face=face,
        stroke=round(stroke * 2) / 2,  # few values, so that masks are cached
        chinese=round(2 * (stroke * rng.uniform(0.62, 1.0))) / 2,
        colour=pick(kind.colours, rng),
        second=pick(kind.gradient, rng) if kind.gradient else None,
        bands=tuple(pick(band.colours, rng) if rng.random() < band.chance else None for band in kind.bands),
        ink=pick(kind.inks or [kind.ink], rng),
        red=pick([(200, 25, 30), (180, 20, 20)], rng),
        line=rng.uniform(1.5, 3.5) if rng.random() < kind.line else 0.0,
        dot=rng.uniform(4, 6) if rng.random() < 0.93 else 0.0,
        bolts=int(rng.integers(0, 3)) if rng.random() < 0.85 else 0,
        province=rng.uniform(0.84, 1.0),
        shift=(float(rng.normal(0, 1.2)), float(rng.normal(0, 1.5))),
        **_trim(kind, rng),
    )


def _trim(kind: Kind, rng: np.random.Generator) -> dict[str, Any]:
    """The part of a style that kinds without trim draw no random numbers for."""
    shown = [label.chance == 1 or rng.random() < label.chance for label in kind.labels]
    style: dict[str, Any] = {
        "words": tuple(
            label.words[int(rng.integers(len(label.words)))] if show else None
            for label, show in zip(kind.labels, shown, strict=True)
        ),
        "word_inks": tuple(pick(label.inks, rng) if label.inks else None for label in kind.labels),
    }
    if vary := kind.vary:
        style["stretch"] = tuple(round(float(rng.uniform(*of)), 2) for of in (vary.width, vary.height, vary.gap))
    if kind.marks:
        style["mark"] = kind.marks[int(rng.integers(len(kind.marks)))]
    if kind.marks or kind.landscape:
        style["seed"] = int(rng.integers(2**31))
    if kind.landscape:
        style["landscape"] = rng.random() < kind.landscape
    if kind.relief:
        style["relief"] = float(max(0.0, rng.normal(0, kind.relief)))
    return style


@functools.cache
def identity(country: str) -> str:
    """A hash of all that says what a country's plates look like: its description and the glyphs. Raises LprfError."""
    told = hashlib.sha256(PATH.read_bytes())
    for kind in kinds(country).values():
        told.update(kind.model_dump_json().encode())
    return told.hexdigest()


@functools.cache
def thinning(character: str) -> float:
    """How much thinner a complex Chinese character's strokes are, so that where they are densest none run together."""
    covered = (field(character)[MARGIN:-MARGIN, MARGIN:-MARGIN] < 35).astype(np.float32)
    densest = float(cv2.blur(covered, (19, 27))[13:-13, 9:-9].max())
    return min(1.15, max(0.5, min(0.45 / float(covered.mean()), 0.62 / densest)))


def cells(kind: Kind, text: str, stretch: tuple[float, float, float] = (1, 1, 1)) -> list[tuple[str, Box]]:
    """Each character of the text and its cell: x y width height, mm from the plate's top left.

    stretch: factors of the widths, heights and gaps of rows whose characters flow.
    """
    return [(character, box) for character, box in _laid(kind, text, stretch) if character != " "]


def _parts(rows: Sequence[Row], text: str) -> list[str]:
    """What each row takes of the text."""
    parts = []
    for number, row in enumerate(rows):
        last = number == len(rows) - 1
        take = row.count or (len(text) if last else max(1, int(len(text) * row.take)))
        parts.append(text[:take])
        text = text[take:]
    return parts


def _laid(kind: Kind, text: str, stretch: tuple[float, float, float]) -> list[tuple[str, Box]]:
    """As `cells`, the spaces too."""
    found: list[tuple[str, Box]] = []
    for row, part in zip(kind.rows, _parts(kind.rows, text), strict=True):
        width, height = row.cell
        if row.count is not None:
            x = row.left
            for i, character in enumerate(part):
                own = row.widths.get(i, width)
                found.append((character, (x, row.top, own, height)))
                x += own + row.gaps.get(i, row.gap)
            continue
        width, gap, space = width * stretch[0], row.gap * stretch[2], row.space * stretch[2]
        top, height = row.top + height * (1 - stretch[1]) / 2, height * stretch[1]
        length = sum(space if c == " " else width for c in part) + gap * (len(part) - 1)
        squeeze = min(1.0, row.width / length)
        x = row.left + (row.width - length * squeeze) / 2
        for character in part:
            own = (space if character == " " else width) * squeeze
            found.append((character, (x, top, own, height)))
            x += own + gap * squeeze
    return found


def paste_mask(canvas: np.ndarray, glyph: np.ndarray, middle: tuple[float, float]) -> tuple[slice, slice] | None:
    """Lighten `canvas` by a mask centred on `middle` (pixels); the part that was touched."""
    h, w = glyph.shape
    x, y = round(middle[0] - w / 2), round(middle[1] - h / 2)
    left, top = max(0, x), max(0, y)
    right, bottom = min(canvas.shape[1], x + w), min(canvas.shape[0], y + h)
    if left >= right or top >= bottom:
        return None
    part = canvas[top:bottom, left:right]
    np.maximum(part, glyph[top - y : bottom - y, left - x : right - x], out=part)
    return slice(top, bottom), slice(left, right)


def draw(kind: Kind, text: str, style: Style, scale: float) -> np.ndarray:
    """The flat plate: uint8 [h, w, 3] BGR, `scale` pixels a mm."""
    width, height = round(kind.size[0] * scale), round(kind.size[1] * scale)
    ink = np.zeros((height, width), np.uint8)
    red = np.zeros((height, width), np.uint8) if kind.red or kind.red_first else None
    for number, (character, (x, y, w, h)) in enumerate(cells(kind, text, style.stretch)):
        chinese = character > "\u2e80"
        weight = style.stroke
        if chinese:
            weight = style.chinese * thinning(character)
            if number == 0:
                w, h, x, y = (
                    w * style.province,
                    h * style.province,
                    x + w * (1 - style.province) / 2,
                    y + h * (1 - style.province) / 2,
                )
        # strokes are as wide on a character of another size: weight is told for a cell of 45 x 90
        weight = weight * (CELL[0] / w + CELL[1] / h) / 2 if (w, h) != CELL else weight
        # centre lines end 5 mm inside the cell, half of a stroke of 10
        glyph = mask(character, style.face, round(w * scale), round(h * scale), round(weight * 4) / 4)
        middle = ((x + w / 2 + style.shift[0]) * scale, (y + h / 2 + style.shift[1]) * scale)
        is_red = red is not None and (character in kind.red or number < kind.red_first)
        paste_mask(red if is_red and red is not None else ink, glyph, middle)
    if style.dot:
        for x, y in kind.dots:
            _circle(ink, x + style.shift[0], y + style.shift[1], style.dot, scale)
    for label, word, colour in zip(kind.labels, style.words, style.word_inks, strict=True):
        if word is not None and colour is None:
            word_mask(ink, word, tuple(value * scale for value in label.box), "sans", 10)
    if style.line:
        inset, r = round((3 + style.line) * scale * 16), max(1, round(style.line * scale))
        corners = [
            (inset, inset),
            (width * 16 - inset, inset),
            (width * 16 - inset, height * 16 - inset),
            (inset, height * 16 - inset),
        ]
        tone = 255 if style.line * scale >= 1 else int(255 * style.line * scale)
        cv2.polylines(ink, [np.array(corners, np.int32)], True, tone, r, cv2.LINE_AA, 4)
    image = _ground(kind, style, width, height, scale, ink)
    if red is not None:
        image = blend(image, red, style.red)
    for label, word, colour in zip(kind.labels, style.words, style.word_inks, strict=True):
        if word is not None and colour is not None:
            image = _written(image, word, tuple(value * scale for value in label.box), colour)
    if style.mark != "none":
        spaces = (box for character, box in _laid(kind, text, style.stretch) if character == " ")
        for space in spaces:
            draw_mark(image, style.mark, space, style.ink, style.seed, scale)
    if style.relief:
        image = relief(image, ink, style.relief, scale)
    return _bolted(image, kind, style, scale)


def word_mask(canvas: np.ndarray, word: str, box: Sequence[float], face: str, weight: float) -> None:
    """Write a word into a box (x y width height, pixels) of a mask, its characters evenly spaced."""
    x, y, width, height = box
    pitch = width / max(1, len(word))
    for i, character in enumerate(word):
        if character == " ":
            continue
        glyph = mask(character, face, max(2, round(pitch * 0.82)), max(3, round(height)), weight)
        paste_mask(canvas, glyph, (x + (i + 0.5) * pitch, y + height / 2))


def _written(image: np.ndarray, word: str, box: tuple[float, ...], colour: Colour) -> np.ndarray:
    """`image` with a word in a colour of its own in a box (x y width height, pixels)."""
    x, y, width, height = (round(value) for value in box)
    part = image[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2]
    letters = np.zeros(part.shape[:2], np.uint8)
    word_mask(letters, word, (min(2, x), min(2, y), width, height), "sans", 10)
    part[:] = blend(part, letters, colour)
    return image


def blend(image: np.ndarray, alpha: np.ndarray, colour: Colour) -> np.ndarray:
    """`colour` laid over `image` where `alpha` (uint8 [h, w]) says so."""
    share = alpha[:, :, None].astype(np.float32) / 255
    return (image + (np.array(colour, np.float32) - image) * share).astype(np.uint8)


def _circle(canvas: np.ndarray, x: float, y: float, r: float, scale: float) -> None:
    cv2.circle(canvas, (round(x * scale * 16), round(y * scale * 16)), round(r * scale * 16), 255, -1, cv2.LINE_AA, 4)


def _ground(kind: Kind, style: Style, width: int, height: int, scale: float, ink: np.ndarray) -> np.ndarray:
    """The background with the ink on it."""
    if style.second is None and not kind.bands and not style.landscape:
        # one colour: a table from the mask's 256 greys to colours is the fastest blend
        share = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
        table = np.array(style.colour, np.float32) * (1 - share) + np.array(style.ink, np.float32) * share
        return cv2.LUT(cv2.merge([ink, ink, ink]), table.astype(np.uint8)[:, None, :])
    image = np.empty((height, width, 3), np.uint8)
    if style.second is not None:
        # light above, full below, as new-energy plates have it
        down = np.clip(np.linspace(-0.15, 1.1, height, dtype=np.float32), 0, 1)[:, None]
        column = np.array(style.second, np.float32) * (1 - down) + np.array(style.colour, np.float32) * down
        image[:] = column.astype(np.uint8)[:, None, :]
    else:
        image[:] = style.colour
    if style.landscape:
        image = landscape(image, style.seed)
    for band, colour in zip(kind.bands, style.bands, strict=True):
        if colour is not None:
            x, y, w, h = (round(value * scale) for value in band.box)
            image[y : y + h, x : x + w] = colour
            if band.stars:
                draw_stars(image, band.box, scale)
    return blend(image, ink, style.ink)


def _bolted(image: np.ndarray, kind: Kind, style: Style, scale: float) -> np.ndarray:
    """Bolts through the holes: the first `2 * bolts` of the kind's."""
    for x, y in kind.bolts[: 2 * style.bolts]:
        tone = sum(style.colour) // 3
        middle = (round(x * scale * 16), round((y + style.shift[1]) * scale * 16))
        metal = 60 + (tone * 7 + style.bolts * 50) % 150
        cv2.circle(image, middle, round(7 * scale * 16), (metal // 2,) * 3, -1, cv2.LINE_AA, 4)
        cv2.circle(
            image, (middle[0], middle[1] - round(16 * scale)), round(5.5 * scale * 16), (metal,) * 3, -1, cv2.LINE_AA, 4
        )
    return image

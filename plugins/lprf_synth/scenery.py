"""What stands around plates: rendered streets and cars, and things with text on them that are no plate.

The rule that keeps decoys from being plates nobody labelled: what stands on a board of its own is never a text that
could be a plate's, see `platelike`. Dates and names that a camera writes into its picture have no board.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lprf_synth.plates import blend, word_mask

Box = tuple[float, float, float, float]

PLACES = "东西南京上海浙津沈北广川云大人行路前方入口出门"
SHOP = "店行中国人大小车汽修美食饭酒楼超市药房银宾馆服装电话洗烟茶水果五金建材家快餐烧烤火锅理发足浴"
MAKERS = (
    "AUDI",
    "BMW",
    "TOYOTA",
    "HONDA",
    "BUICK",
    "FORD",
    "VOLVO",
    "MAZDA",
    "NISSAN",
    "JEEP",
    "KIA",
    "SKODA",
    "CHERY",
)
MODELS = ("320", "A6L", "2.0T", "V6", "GT3", "CRV", "X5", "1.8T", "AWD", "4WD", "EV", "TDI", "HEV")
WORDS = ("TAXI", "OPEN", "SALE", "HOTEL", "COFFEE", "STOP", "EXIT", "BANK", "PARKING", "BUS STOP", "MARKET", "ONE WAY")
HERSHEY = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
BOARDS = ((190, 80, 15), (30, 180, 240), (60, 150, 60), (235, 235, 235), (25, 25, 25), (40, 40, 200), (160, 120, 40))


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes x1 y1 x2 y2 share any area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def platelike(text: str) -> bool:
    """Whether a text could stand on a plate: 4 to 9 characters, two digits or more among them."""
    bare = [character for character in text if character.isalnum()]
    return 4 <= len(bare) <= 9 and sum(character.isdigit() for character in bare) >= 2


def sign_text(rng: np.random.Generator) -> str:
    """What is written on a board: a shop's or a place's name, a phone number, a maker, a model, a short number."""
    kind = rng.random()
    if kind < 0.35:
        return "".join(SHOP[int(i)] for i in rng.integers(0, len(SHOP), int(rng.integers(2, 8))))
    if kind < 0.5:
        return str(rng.choice(("138", "159", "400", "186", "021"))) + str(rng.integers(10**7, 10**8))
    if kind < 0.62:
        return str(rng.choice(MAKERS))
    if kind < 0.7:
        return str(rng.choice(MODELS))
    if kind < 0.85:
        return str(rng.choice(WORDS))
    return str(rng.integers(1, 1000))


def _random_colour(rng: np.random.Generator) -> np.ndarray:
    """Mostly greys, some colours: float64 [3]."""
    return np.clip(rng.uniform(10, 250) + rng.normal(0, 8 if rng.random() < 0.6 else 32, 3), 0, 255)


def backdrop(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A rendered street of `size` (h, w): sky, walls with windows and shop fronts, a road. uint8 [h, w, 3] BGR."""
    height, width = size
    horizon = int(height * rng.uniform(0.3, 0.6))
    ramp = np.empty((2, 2, 3), np.float32)
    ramp[:] = np.array([225, 205, 190]) * rng.uniform(0.5, 1.1)
    ramp *= rng.uniform(0.75, 1.1, (2, 2, 1))
    image = np.clip(cv2.resize(ramp, (width, height), interpolation=cv2.INTER_LINEAR), 0, 255).astype(np.uint8)
    x = 0
    while x < width:
        wide = int(rng.uniform(0.12, 0.4) * width) + 8
        top = int(horizon * rng.uniform(0.0, 0.7))
        tone = _random_colour(rng)
        image[top:horizon, x : x + wide] = tone
        step = int(rng.uniform(0.035, 0.08) * width) + 6
        for wy in range(top + step // 2, horizon - step, step):
            for wx in range(x + step // 2, min(x + wide, width) - step // 2, step):
                image[wy : wy + step * 2 // 3, wx : wx + step // 2] = np.clip(tone * rng.uniform(0.25, 1.3), 0, 255)
        if rng.random() < 0.6:  # a shop front
            front = max(top, horizon - 2 * step)
            image[front:horizon, x + 2 : x + wide - 2] = _random_colour(rng)
        x += wide
    road = np.full(3, rng.uniform(70, 150)) + rng.normal(0, 6, 3)
    near = np.linspace(0.85, 1.1, height - horizon)[:, None, None] * road
    image[horizon:] = np.clip(near, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):  # lane marks, kerbs
        a = (int(rng.uniform(0, width)), height)
        b = (int(rng.uniform(0.3, 0.7) * width), horizon)
        cv2.line(image, a, b, (float(rng.uniform(150, 240)),) * 3, max(1, int(rng.uniform(2, 9))), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 5))):  # trees
        middle = (int(rng.uniform(0, width)), int(horizon * rng.uniform(0.4, 1.0)))
        r = int(rng.uniform(0.04, 0.14) * width)
        for _ in range(10):
            at = (middle[0] + int(rng.normal(0, r / 2)), middle[1] + int(rng.normal(0, r / 2)))
            green = np.array([50, 90, 60]) * rng.uniform(0.5, 1.3)
            cv2.circle(image, at, max(2, r // 3), green.tolist(), -1, cv2.LINE_AA)
    coarse = rng.normal(0, 9, (max(2, height // 6), max(2, width // 6), 1)).astype(np.float32)
    grain = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(image + grain[:, :, None], 0, 255).astype(np.uint8)


def car(image: np.ndarray, plate: Box, rng: np.random.Generator) -> None:
    """The front or the back of a car behind a plate's box: body, screen, lamps, grille, tyres, a shadow."""
    width = plate[2] - plate[0]
    x, y = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
    half = width * rng.uniform(1.7, 2.2)
    roof, bonnet, floor = half * rng.uniform(1.2, 1.5), half * rng.uniform(0.55, 0.75), half * rng.uniform(0.28, 0.4)
    body = _random_colour(rng)

    def fill(points: Sequence[tuple[float, float]], colour: np.ndarray) -> None:
        at = np.array([(x + px * half, y + py) for px, py in points])
        tone = np.clip(colour, 0, 255).tolist()
        cv2.fillPoly(image, [np.round(at * 16).astype(np.int32)], tone, cv2.LINE_AA, 4)

    dark = np.array([35.0, 32, 30])
    fill([(-1.0, floor), (1.0, floor), (1.1, floor * 1.5), (-1.1, floor * 1.5)], dark)  # the shadow
    for side in (-1, 1):
        fill([(side * 0.95, 0), (side * 0.7, 0), (side * 0.7, floor * 1.5), (side * 0.95, floor * 1.5)], dark * 0.7)
    fill([(-0.78, -bonnet), (-0.6, -roof), (0.6, -roof), (0.78, -bonnet)], body * 0.9)
    fill([(-0.7, -bonnet), (-0.55, -roof * 0.95), (0.55, -roof * 0.95), (0.7, -bonnet)], body * 0.1 + 45)
    fill(
        [(-0.97, -bonnet * 0.8), (-0.8, -bonnet), (0.8, -bonnet), (0.97, -bonnet * 0.8), (1, floor), (-1, floor)], body
    )
    fill([(-0.99, floor * 0.45), (0.99, floor * 0.45), (0.96, floor), (-0.96, floor)], body * rng.uniform(0.2, 1))
    lamp = np.array([30.0, 25, 170]) if rng.random() < 0.5 else np.array([215.0, 220, 220])
    for side in (-1, 1):
        top, low = -bonnet * 0.75, -bonnet * 0.3
        fill([(side * 0.95, top), (side * 0.6, top * 0.9), (side * 0.62, low), (side * 0.96, low)], lamp)
    if rng.random() < 0.6:  # a grille
        rows = int(rng.integers(3, 7))
        for i in range(rows):
            top = -bonnet * 0.75 + bonnet * 0.4 * i / rows
            tone = dark if i % 2 else np.full(3, rng.uniform(90, 200))
            fill(
                [(-0.45, top), (0.45, top), (0.45, top + bonnet * 0.4 / rows), (-0.45, top + bonnet * 0.4 / rows)], tone
            )


def _free(
    size: tuple[int, int], boxes: Sequence[Box], wide: float, high: float, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Where (x, y) a thing of that size covers none of the boxes; None where no place was found."""
    if wide >= size[1] or high >= size[0]:
        return None
    for _ in range(6):
        x, y = int(rng.uniform(0, size[1] - wide)), int(rng.uniform(0, size[0] - high))
        room = 0.06 * wide
        if not any(overlap((x - room, y - room, x + wide + room, y + high + room), box) for box in boxes):
            return x, y
    return None


def clutter(image: np.ndarray, boxes: Sequence[Box], rng: np.random.Generator) -> None:
    """One to five things that are no plate, drawn beside the boxes: signs, letters on bodies, grilles, blank boards."""
    size = image.shape[:2]
    for _ in range(int(rng.integers(1, 6))):
        wide = float(np.exp(rng.uniform(np.log(28), np.log(min(360, 0.5 * size[1] + 30)))))
        high = wide / rng.choice((1.0, 1.6, 2.5, 3.2, 4.2, 6.5))
        place = _free(size, boxes, wide, high, rng)
        if place is None or high < 6:
            continue
        x, y = place
        w, h = int(wide), int(high)
        thing = _thing(np.ascontiguousarray(image[y : y + h, x : x + w]), rng)
        if rng.random() < 0.5:
            corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
            moved = corners + (rng.uniform(0, 0.16, (4, 2)) * h * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]))
            matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
            cv2.warpPerspective(
                thing, matrix, (w, h), dst=image[y : y + h, x : x + w], borderMode=cv2.BORDER_TRANSPARENT
            )
        else:
            image[y : y + h, x : x + w] = thing


def _thing(under: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A thing as large as the piece of picture it will cover."""
    h, w = under.shape[:2]
    kind = rng.random()
    light = np.clip(0.35 + under.mean() / 150, 0.3, 1.1)
    board = np.array(BOARDS[int(rng.integers(len(BOARDS)))], float) + rng.normal(0, 14, 3)
    letters = np.zeros((h, w), np.uint8)
    if kind < 0.22:  # a grille or vents
        rows = int(rng.integers(3, 10))
        across = rng.random() < 0.7
        for i in range(rows):
            if across:
                letters[int(h * (i + 0.2) / rows) : int(h * (i + 0.7) / rows)] = 255
            else:
                letters[:, int(w * (i + 0.2) / rows) : int(w * (i + 0.7) / rows)] = 255
        board = np.full(3, rng.uniform(15, 90))
    elif kind < 0.32:  # a board with nothing on it
        pass
    else:
        rows = 2 if w / h < 2.2 and rng.random() < 0.6 else 1
        for row in range(rows):
            _written(letters, sign_text(rng), (w * 0.06, h * (0.14 + 0.44 * row), w * 0.88, h * (0.72 / rows)), rng)
    ground = under
    if kind < 0.32 or rng.random() < 0.7:
        ground = np.empty_like(under)
        ground[:] = np.clip(board * light, 0, 255)
        if rng.random() < 0.4:
            cv2.rectangle(ground, (0, 0), (w - 1, h - 1), (float(rng.uniform(0, 255)),) * 3, max(1, h // 16))
    level = ground.mean()
    ink = np.clip(np.array([235.0] * 3 if level < 120 else [25.0] * 3) * light + rng.normal(0, 20, 3), 0, 255)
    if rng.random() < 0.25:
        ink = _random_colour(rng)
    thing = blend(ground, letters, (int(ink[0]), int(ink[1]), int(ink[2])))
    return cv2.GaussianBlur(thing, (0, 0), rng.uniform(0.3, 0.6 + w / 250))


def _written(mask: np.ndarray, text: str, box: Box, rng: np.random.Generator) -> None:
    """Write a text into a box (x y w h) of a mask: with the atlas' glyphs, or OpenCV's line fonts for Latin ones."""
    x, y, w, h = box
    if text.isascii() and rng.random() < 0.5:
        font = HERSHEY[int(rng.integers(len(HERSHEY)))]
        (tw, th), _ = cv2.getTextSize(text, font, 1.0, 1)
        size = min(w / tw, h / th)
        thick = max(1, round(size * rng.uniform(1, 4)))
        cv2.putText(mask, text, (int(x), int(y + h)), font, size, 255, thick, cv2.LINE_AA)
        return
    # no character wider than high, which is how words of two characters would come out
    wide = min(w, h * 1.1 * len(text))
    word_mask(mask, text, (x + (w - wide) / 2, y, wide, h), "sans", int(rng.integers(7, 14)))


def captions(image: np.ndarray, boxes: Sequence[Box], rng: np.random.Generator) -> None:
    """The date and the place that cameras write along the top or the bottom, white or yellow, mostly outlined."""
    height, width = image.shape[:2]
    date = f"{rng.integers(2005, 2026)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"
    time = f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}:{rng.integers(0, 60):02d}"
    place = "".join(PLACES[int(i)] for i in rng.integers(0, len(PLACES), int(rng.integers(3, 9))))
    colour = [(255, 255, 255), (255, 255, 255), (0, 255, 255), (60, 220, 60)][int(rng.integers(4))]
    for text in (f"{date} {time}", place, date)[: int(rng.integers(1, 4))]:
        high = height * rng.uniform(0.02, 0.05)
        wide = high * 0.55 * len(text) * (1.7 if not text.isascii() else 1)
        x = rng.uniform(0, max(1, width - wide)) if rng.random() < 0.5 else width * 0.02
        y = height * 0.015 if rng.random() < 0.5 else height - 1.6 * high
        whole = (x, y - high * 0.2, x + wide, y + high * 1.4)
        if wide > width or any(overlap(whole, box) for box in boxes):
            continue
        x1, y1, x2, y2 = (max(0, round(value)) for value in whole)
        letters = np.zeros((min(height, y2) - y1, min(width, x2) - x1), np.uint8)
        word_mask(letters, text, (0, high * 0.2, wide, high), "sans", int(rng.integers(9, 15)))
        part = image[y1 : y1 + letters.shape[0], x1 : x1 + letters.shape[1]]
        if rng.random() < 0.6:
            part[:] = blend(part, cv2.dilate(letters, np.ones((3, 3), np.uint8)), (0, 0, 0))
        part[:] = blend(part, letters, colour)


def glow(image: np.ndarray, boxes: Sequence[Box], rng: np.random.Generator) -> None:
    """Head lamps at night, beside the plates and not on them."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        r = rng.uniform(0.03, 0.12) * width
        place = _free((height, width), boxes, 1.4 * r, 1.4 * r, rng)
        if place is None:
            continue
        x, y = place[0] + 0.7 * r, place[1] + 0.7 * r
        x1, y1, x2, y2 = max(0, int(x - 2 * r)), max(0, int(y - 2 * r)), int(x + 2 * r), int(y + 2 * r)
        part = image[y1:y2, x1:x2]
        ys, xs = np.arange(y1, y1 + part.shape[0]) - y, np.arange(x1, x1 + part.shape[1]) - x
        bright = 330 * np.exp(-((ys[:, None] ** 2 + xs[None] ** 2) / (0.5 * r * r)))
        part[:] = cv2.add(part, cv2.merge([np.clip(bright, 0, 255).astype(np.uint8)] * 3))

"""Real plates with another province: drawn where it belongs, as the plate is drawn, and nowhere else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lprf.context import Context
from lprf.data import Example, Truth
from lprf.errors import LprfError
from lprf.testing import TransformSuite
from lprf_synth.plates import draw, kinds, sample_style
from lprf_synth.plugin import ReletterParams
from lprf_synth.reletter import Reletter, reletter
from tiny_photos import Listed

CORNERS = np.array([[30, 40], [330, 60], [325, 160], [28, 130]], np.float32)


def photo(text: str) -> np.ndarray:
    """A blue plate in perspective, the same style whatever the text."""
    kind = kinds("cn")["blue"]
    flat = draw(kind, text, sample_style(kind, np.random.default_rng(4), 0.2), 1.0)
    source = np.array([[0, 0], [440, 0], [440, 140], [0, 140]], np.float32)
    matrix = cv2.getPerspectiveTransform(source - 0.5, CORNERS - 0.5)
    return cv2.warpPerspective(flat, matrix, (360, 200), flags=cv2.INTER_AREA, borderValue=(90, 90, 90))


def truth(text: str) -> Truth:
    x1, y1, x2, y2 = *CORNERS.min(0), *CORNERS.max(0)
    return Truth((float(x1), float(y1), float(x2), float(y2)), CORNERS, text)


def letter(image: np.ndarray) -> np.ndarray:
    """The first character made upright, grey."""
    upright = np.array([[0, 0], [440, 0], [440, 140], [0, 140]], np.float32)
    matrix = cv2.getPerspectiveTransform(CORNERS - 0.5, upright - 0.5)
    return cv2.warpPerspective(image, matrix, (440, 140))[20:120, 10:66].mean(2)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(cv2.GaussianBlur(a, (0, 0), 2).ravel(), cv2.GaussianBlur(b, (0, 0), 2).ravel())[0, 1])


@pytest.mark.parametrize("province", "沪粤蒙川")
def test_the_new_character_stands_where_the_old_one_stood(province: str) -> None:
    before = photo("京A12345")
    after = reletter(before, truth("京A12345"), province, np.random.default_rng(3))
    wanted = {p: likeness(letter(after), letter(photo(p + "A12345"))) for p in "京沪粤蒙川"}
    assert max(wanted, key=lambda p: wanted[p]) == province and wanted[province] > 0.75, wanted
    place = cv2.getPerspectiveTransform(np.array([[0, 0], [440, 0], [440, 140], [0, 140]], np.float32), CORNERS)
    touched = np.zeros(before.shape[:2], np.uint8)
    area = np.array([[[4, 10], [74, 10], [74, 130], [4, 130]]], np.float32)
    cv2.fillConvexPoly(touched, cv2.perspectiveTransform(area, place)[0].astype(np.int32), 1)
    np.testing.assert_array_equal(after[touched == 0], before[touched == 0])


def test_every_province_comes_and_the_rest_of_the_text_stays(tmp_path: Path) -> None:
    context = Context(torch.device("cpu"), torch.float32, lambda _: None, seed=3)  # type: ignore[arg-type, return-value]
    plain = Example("a", lambda: photo("皖A12345"), (truth("皖A12345"),))
    army = Example("b", lambda: photo("皖A12345"), (truth("VA12345"),))
    made = Reletter(ReletterParams(copies=620), context)
    found = made.run(Listed(plain, army))["dataset"]
    assert len(found) == 620
    texts = [found[i].plates[0].text or "" for i in range(len(found))]
    assert {text[1:] for text in texts} == {"A12345"}
    counts = Counter(text[0] for text in texts)
    assert len(counts) == 31 and max(counts.values()) < 45
    assert len({found[i].source for i in range(50)}) == 50
    np.testing.assert_array_equal(found[7].image(), found[7].image())
    with pytest.raises(LprfError, match="begins with a province"):
        Reletter(ReletterParams(), context).run(Listed(army))


def test_a_plate_too_small_to_write_on_stays_as_it_is() -> None:
    image = np.full((10, 20, 3), 80, np.uint8)
    tiny = Truth((2.0, 2.0, 8.0, 4.0), None, "皖A12345")
    np.testing.assert_array_equal(reletter(image, tiny, "京", np.random.default_rng(0)).shape, image.shape)


class TestReletter(TransformSuite):
    component = "synth.reletter"

"""Real plates with another province: drawn where it belongs, as the plate is drawn, and nowhere else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

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
from lprf_synth.reletter import LIKE, Laid, Reletter, lay, reletter
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


def laid_on(image: np.ndarray) -> Laid:
    laid = lay(image, truth("京A12345"))
    assert laid is not None and laid.like > LIKE
    return laid


@pytest.mark.parametrize("known", ["corners", "a loose box", "a tight box"])
def test_a_text_is_laid_where_it_stands(known: str) -> None:
    """However roughly the plate's place is known; its ends are found to a few pixels."""
    image, plate = photo("京A12345"), truth("京A12345")
    loose, tight = (20.0, 30.0, 340.0, 170.0), (34.0, 56.0, 322.0, 146.0)
    box = {"corners": plate.box, "a loose box": loose, "a tight box": tight}[known]
    laid = lay(image, Truth(box, CORNERS if known == "corners" else None, plate.text))
    assert laid is not None and laid.like > LIKE
    ends = np.array([[[15.5, 25], [424.5, 25], [424.5, 115], [15.5, 115]]], np.float32)  # mm, of the characters
    upright = np.array([[0, 0], [440, 0], [440, 140], [0, 140]], np.float32)
    wanted = cv2.perspectiveTransform(ends, cv2.getPerspectiveTransform(upright, CORNERS))[0]
    found = cv2.perspectiveTransform(ends.astype(np.float64), laid.to_image)[0]
    assert np.abs(found - wanted).max() < 8, (
        found - wanted
    )  # of 300: it is an affine transform, on a plate in perspective


def test_what_looks_otherwise_is_left_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (200, 360, 3), dtype=np.uint8)
    listed = Listed(
        Example("noise", lambda: noise, (truth("皖A12345"),)),
        Example("a", lambda: photo("皖A12345"), (truth("皖A12345"),)),
    )
    context = Context(torch.device("cpu"), torch.float32, lambda _: None, seed=3)  # type: ignore[arg-type, return-value]
    made = Reletter(ReletterParams(copies=2), context).run(listed)["dataset"]
    assert [made[i].source[0] for i in range(len(made))] == ["a", "a"]


@pytest.mark.parametrize("province", "沪粤蒙川")
def test_the_new_character_stands_where_the_old_one_stood(province: str) -> None:
    before = photo("京A12345")
    after = reletter(before, "京A12345", laid_on(before), province, np.random.default_rng(3))
    wanted = {p: likeness(letter(after), letter(photo(p + "A12345"))) for p in "京沪粤蒙川"}
    assert max(wanted, key=lambda p: wanted[p]) == province and wanted[province] > 0.5, wanted  # reshaped a little
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


def test_provinces_without_real_plates_come_more_often() -> None:
    dataset = Listed(*[Example(str(i), lambda: photo("京A12345"), (truth("京A12345"),)) for i in range(30)])
    context = Context(torch.device("cpu"), torch.float32, lambda name: None, seed=1)  # type: ignore[arg-type, return-value]
    made = Reletter(ReletterParams(copies=100), context).run(dataset)["dataset"]
    drawn = Counter((made[i].plates[0].text or "")[0] for i in range(len(made)))
    # of 30 real plates: half as often as one of which there is none
    assert drawn["京"] < 0.75 * np.mean([drawn[p] for p in made.provinces if p != "京"])
    assert min(drawn.values()) > 0


def test_a_plate_of_eight_characters_gets_another_province_too() -> None:
    kind = kinds("cn")["green"]
    flat = draw(kind, "京AD12345", sample_style(kind, np.random.default_rng(4), 0.2), 0.6)
    plate = Truth((0.0, 0.0, float(flat.shape[1]), float(flat.shape[0])), None, "京AD12345")
    laid = lay(flat, plate)
    assert laid is not None and laid.like > LIKE
    written = reletter(flat, "京AD12345", laid, "川", np.random.default_rng(3))
    touched = np.abs(written.astype(int) - flat).max((0, 2)).nonzero()[0]
    assert len(touched) and touched.max() < 78 * 0.6  # mm, where the second character begins


def test_a_plate_too_small_to_write_on_is_left_out() -> None:
    image = np.full((10, 20, 3), 80, np.uint8)
    laid = lay(image, Truth((2.0, 2.0, 8.0, 4.0), None, "皖A12345"))
    assert laid is None or laid.like < LIKE


class TestReletter(TransformSuite):
    component = "synth.reletter"

    def inputs(self, folder: Path) -> dict[str, Any]:
        return {"dataset": Listed(Example("a", lambda: photo("皖A12345"), (truth("皖A12345"),)))}

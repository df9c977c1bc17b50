"""core.split, core.concat, core.subset, core.crop-plates: what stays together, what goes where, what is cut."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lprf.api import Context, Example, InputFailure, LprfError, Params, Truth
from lprf.builtin.params import CropPlatesParams, SplitParams, SubsetParams
from lprf.builtin.transforms import Concat, CropPlates, CutOut, Split, Subset, View, upright_size


@dataclass
class Texts:
    """A picture for each list of plate texts; None is a plate without one."""

    texts: Sequence[Sequence[str | None]]
    problems: Sequence[str] = ()
    name: str = "texts"

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Example:
        own = self.texts[index]
        plates = tuple(Truth((10 * i, 0, 10 * i + 8, 4), None, text, {"n": str(i)}) for i, text in enumerate(own))
        return Example(f"{self.name}{index}", partial(blank, index), plates, f"group{index % 3}")

    def fingerprint(self) -> str:
        return str(self.texts)


def blank(index: int) -> np.ndarray:
    return np.full((20, 40, 3), index % 256, np.uint8)


def context(seed: int = 7) -> Context:
    return Context(torch.device("cpu"), torch.float32, None, seed=seed)  # type: ignore[arg-type]


def split(dataset: Texts, seed: int = 7, **shares: object) -> dict[str, View]:
    return Split(SplitParams(**shares), context(seed)).run(dataset)  # type: ignore[arg-type]


def sources(dataset: View) -> list[str]:
    return [dataset[i].source for i in range(len(dataset))]


def texts_of(dataset: View) -> set[str]:
    return {p.text for i in range(len(dataset)) for p in dataset[i].plates if p.text}


PROVINCES = "京津冀皖"
a_text = st.builds(lambda p, n: f"{p}{n}", st.sampled_from(PROVINCES), st.integers(0, 60))
some_texts = st.lists(st.lists(st.one_of(st.none(), a_text), max_size=3), min_size=20, max_size=50)


@settings(max_examples=60, deadline=None)
@given(some_texts, st.integers(0, 3))
def test_parts_share_no_plate_and_lose_no_picture(texts: list[list[str | None]], seed: int) -> None:
    try:
        parts = split(Texts(texts), seed, train=0.6, val=0.2, test=0.2)
    except LprfError:  # everything hangs together: allowed to fail, never to share
        return
    for a, b in combinations(parts.values(), 2):
        assert not texts_of(a) & texts_of(b)
    everything = [source for part in parts.values() for source in sources(part)]
    assert len(everything) == len(set(everything)) == len(texts)


def test_each_province_is_shared_out_as_the_whole_is() -> None:
    counts = {"皖": 900, "苏": 60, "京": 21, "新": 5}
    texts = [[f"{province}{i // 2:05d}"] for province, count in counts.items() for i in range(count)]  # two photos each
    parts = split(Texts(texts), train=0.7, val=0.2, test=0.1)
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        part = parts[name]
        assert len(part) == pytest.approx(share * len(texts), abs=4)
        found = Counter(part[i].plates[0].text[0] for i in range(len(part)))  # type: ignore[index]
        for province, count in counts.items():
            assert found[province] == pytest.approx(share * count, abs=3), (name, province)


def test_a_split_is_the_seeds_and_what_is_left_goes_nowhere() -> None:
    texts = Texts([[f"皖{i}"] for i in range(100)], problems=["row 3"])
    one, same, other = (split(texts, seed, train=0.5, val=0.2) for seed in (1, 1, 2))
    assert sources(one["train"]) == sources(same["train"]) != sources(other["train"])
    assert one["train"].fingerprint() == same["train"].fingerprint() != other["train"].fingerprint()
    assert (len(one["train"]), len(one["val"])) == (50, 20) and set(one) == {"train", "val"}
    assert sources(one["train"]) == sorted(sources(one["train"]), key=lambda s: int(s[5:]))
    assert one["train"].problems == ["row 3"] and not one["val"].problems
    assert sources(pickle.loads(pickle.dumps(one["val"]))) == sources(one["val"])


def test_pictures_that_share_a_plate_through_others_stay_together() -> None:
    chain = [[f"皖{i}", f"皖{i + 1}"] for i in range(10)]
    parts = split(Texts([*chain, *([f"苏{i}"] for i in range(10))]), train=0.5, val=0.5)
    chained = [{f"texts{i}" for i in range(10)} <= set(sources(part)) for part in parts.values()]
    assert sorted(chained) == [False, True]


def test_by_image_each_picture_goes_on_its_own() -> None:
    parts = split(Texts([["皖1"]] * 10), train=0.5, val=0.5, by="image")
    assert [len(part) for part in parts.values()] == [5, 5]


def test_a_part_that_stays_empty_is_an_error() -> None:
    with pytest.raises(LprfError, match="the split leaves val empty: there are only 10 pictures"):
        split(Texts([["皖1"]] * 10), train=0.5, val=0.5)
    with pytest.raises(LprfError, match="leaves val and test empty: there are only 1 pictures"):
        split(Texts([["皖1"]]), train=0.8, val=0.1, test=0.1)
    with pytest.raises(ValueError, match=r"must be above 0 and at most 1, are 1\.2"):
        SplitParams(train=1, val=0.2)


def test_concat_keeps_names_apart() -> None:
    a, b, c = Texts([["皖1"]] * 2, ["x"]), Texts([["皖2"]]), Texts([["皖3"]], name="other")
    joined = Concat(Params(), context()).run([a, c])["dataset"]
    assert [joined[i].source for i in range(3)] == ["texts0", "texts1", "other0"] and joined.problems == ["x"]
    joined = Concat(Params(), context()).run([a, b])["dataset"]
    assert [joined[i].source for i in range(3)] == ["0:texts0", "0:texts1", "1:texts0"]
    assert [joined[i].plates[0].text for i in range(3)] == ["皖1", "皖1", "皖2"]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            joined[index]
    assert joined.fingerprint() != Concat(Params(), context()).run([b, a])["dataset"].fingerprint()


def test_concat_makes_no_example_to_learn_its_name() -> None:
    class Named(Texts):
        def source(self, index: int) -> str:
            return f"{self.name}{index}"

        def __getitem__(self, index: int) -> Example:
            raise AssertionError(f"example {index} was made")

    part = View(Named([["皖1"]] * 3), [2, 0])
    plain = View(Texts([["皖1"]] * 3), [2, 0])
    assert [part.source(i) for i in range(2)] == [plain.source(i) for i in range(2)] == sources(plain)
    assert Concat(Params(), context()).run([part, Named([["皖2"]], name="other")])["dataset"].clash is False
    assert Concat(Params(), context()).run([part, Named([["皖2"]])])["dataset"].clash is True


def subset(dataset: Texts, seed: int = 7, **params: object) -> View:
    return Subset(SubsetParams(**params), context(seed)).run(dataset)["dataset"]  # type: ignore[arg-type]


def test_subset_by_group_attribute_and_number() -> None:
    dataset = Texts([["皖1", "皖2"], [], ["皖3"], [None, None], ["皖5"], []])
    assert sources(subset(dataset)) == [f"texts{i}" for i in range(6)]
    assert sources(subset(dataset, groups=["group0"])) == ["texts0", "texts3"]
    assert sources(subset(dataset, where={"n": "1"})) == ["texts0", "texts3"]
    assert sources(subset(dataset, where={"n": ["0", "9"]}, groups=["group2"])) == ["texts2"]
    assert sources(subset(dataset, plates=False)) == ["texts1", "texts5"]
    drawn = sources(subset(dataset, n=3))
    assert len(drawn) == 3 and drawn == sorted(drawn) and drawn == sources(subset(dataset, n=3))
    assert len({tuple(sources(subset(dataset, seed, n=3))) for seed in range(20)}) > 3
    assert len(subset(dataset, fraction=0.5)) == 3 and len(subset(dataset, fraction=0.01)) == 1
    with pytest.raises(LprfError, match="none of 6 pictures is of the subset"):
        subset(dataset, groups=["nowhere"])


# Cutting plates


@dataclass
class Photo:
    """One photo with the given plates."""

    plates: tuple[Truth, ...]
    problems: Sequence[str] = ()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        return Example("photo.jpg", ramps, self.plates, "g")

    def fingerprint(self) -> str:
        return "photo"


def ramps() -> np.ndarray:
    """Blue tells the column, green twice the row."""
    image = np.full((100, 200, 3), 7, np.uint8)
    image[:, :, 0] = np.arange(200)
    image[:, :, 1] = 2 * np.arange(100)[:, None]
    return image


def cut(*plates: Truth, seed: int = 7, **params: object) -> CutOut:
    return CropPlates(CropPlatesParams(**params), context(seed)).run(Photo(plates))["dataset"]  # type: ignore[arg-type]


def test_boxes_are_cut_where_they_are() -> None:
    found = cut(Truth((20.4, 30, 80.2, 50), None, "皖A"), Truth((0, 0, 9, 9), None, None))
    assert len(found) == 1  # a plate without text is of no use to a reader
    example = found[0]
    assert (example.source, example.group) == ("photo.jpg#0", "g")
    assert np.array_equal(example.image(), ramps()[30:50, 20:81])
    assert example.plates[0].box == pytest.approx((0.4, 0, 60.2, 20)) and example.plates[0].text == "皖A"
    assert len(cut(Truth((20, 30, 80, 50)), texts_only=False)) == 1


def test_margins_are_drawn_by_seed_and_stay_in_the_photo() -> None:
    plate = Truth((2, 3, 80, 23), None, "皖A")
    shapes = set()
    for seed in range(30):
        example = cut(plate, seed=seed, margin=(-0.2, 0.5))[0]
        height, width = example.image().shape[:2]
        assert 20 * 0.6 <= height <= 23 + 10 + 1 and 78 - 8 - 1 <= width <= 80 + 10 + 1
        x1, y1, x2, y2 = example.plates[0].box
        assert (x2 - x1, y2 - y1) == pytest.approx((78, 20))
        again = cut(plate, seed=seed, margin=(-0.2, 0.5))[0]
        assert again.image().shape == (height, width, 3)
        shapes.add((height, width))
    assert len(shapes) > 10
    for margin in ((0.5, 0.2), (-0.5, 0), (0, 6)):
        with pytest.raises(ValueError, match="two numbers in ascending order"):
            CropPlatesParams(margin=margin)


def test_corners_are_warped_as_opencv_warps_them() -> None:
    corners = np.array([[30, 20], [120, 35], [118, 70], [25, 60]], np.float32)
    found = cut(Truth((25, 20, 120, 70), corners, "皖A"), Truth((0, 0, 9, 9), None, "皖B"), cut="corners")
    assert len(found) == 1  # the other has no corners
    width, height = upright_size(corners)
    assert (width, height) == (94, 40)  # the lower edge is the longer one, and the left
    crop = found[0].image()
    assert crop.shape == (height, width, 3)
    assert found[0].plates[0].box == (0, 0, width, height)
    # a crop's pixel shows what lies where the transform of its centre falls: told by a photo of smooth ramps
    into = cv2.getPerspectiveTransform(
        np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32), corners
    )
    for x, y in ((10, 5), (50, 20), (80, 30)):
        at = into @ [x + 0.5, y + 0.5, 1]
        column, row = at[:2] / at[2] - 0.5
        assert crop[y, x] == pytest.approx([column, 2 * row, 7], abs=1.01)


def test_nothing_to_cut_is_an_error_and_a_box_outside_fails_alone() -> None:
    with pytest.raises(LprfError, match="none of 1 pictures has a plate that can be cut by its corners"):
        cut(Truth((20, 30, 80, 50), None, "皖A"), cut="corners")
    outside = cut(Truth((220, 30, 280, 50), None, "皖A"))[0]
    with pytest.raises(InputFailure, match=r"photo\.jpg: the plate's box lies outside the photo"):
        outside.image()

"""CCPD: names, folders, lists, releases."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lprf.api import Context, InputFailure, LprfError
from lprf_ccpd.dataset import CcpdDataset
from lprf_ccpd.names import parse
from lprf_ccpd.plugin import CcpdParams

CONTEXT = Context(torch.device("cpu"), torch.float32, None)  # type: ignore[arg-type]
# The example of CCPD's own documentation, and one of CCPD2020's.
BLUE = "025-95_113-154&383_386&473-386&473_177&454_154&383_363&402-0_0_22_27_27_33_16-37-15"
GREEN = "00360785590278-91_265-311&485_406&524-406_524".replace("406_524", "406&524") + (
    "_313&520_311&485_402&487-0_0_3_25_29_31_31_31-117-16"
)


def dataset(root: Path | list[Path], **params: object) -> CcpdDataset:
    roots = [str(path) for path in root] if isinstance(root, list) else str(root)
    return CcpdDataset(CcpdParams(root=roots, **params), CONTEXT)  # type: ignore[arg-type]


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_documented_name() -> None:
    label = parse(BLUE)
    assert label.text == "皖AY339S"
    assert label.box == (154, 383, 386, 473)
    assert label.corners == ((154, 383), (363, 402), (386, 473), (177, 454))  # TL TR BR BL
    assert (label.tilt, label.brightness, label.blurriness) == ((95, 113), 37, 15)


def test_a_green_name_has_eight_characters() -> None:
    assert parse(GREEN).text == "皖AD15777"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("IMG_0001", "form"),
        (BLUE.replace("-37-15", "-37"), "form"),
        (BLUE.replace("0_0_22_27_27_33_16", "0_0_22_27_27_33"), "form"),
        (BLUE.replace("0_0_22", "34_0_22"), "beyond its table"),
        (BLUE.replace("0_0_22", "33_0_22"), "province"),
        (BLUE.replace("0_0_22", "0_25_22"), "beyond its table"),
        (BLUE.replace("154&383_386&473", "386&383_154&473"), "empty"),
        (BLUE.replace("154&383_386&473", "754&383_886&473"), "outside"),
        (BLUE.replace("386&473_177&454_154&383_363&402", "363&402_154&383_177&454_386&473"), "clockwise"),
        (BLUE.replace("473_177&454", "90000_177&454"), "a corner lies far outside"),
        (BLUE + "\n", "form"),
    ],
)
def test_a_malformed_name_says_why(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(name)


def test_folders_subsets_and_releases(tmp_path: Path) -> None:
    root = tmp_path / "CCPD2019"
    touch(root / "ccpd_base" / f"{BLUE}.jpg")
    touch(root / "ccpd_tilt" / f"{BLUE}.jpg")
    touch(root / "ccpd_np" / "1234.jpg")
    touch(root / "ccpd_base" / "holiday.jpg")
    touch(root / "ccpd_base" / "._hidden.jpg")
    touch(root / "splits" / "train.txt", f"ccpd_tilt/{BLUE}.jpg\nccpd_blur/{BLUE}.jpg\n".encode())
    whole = dataset(root)
    assert [(e.source, e.group, len(e.plates)) for e in whole] == [
        (f"ccpd_base/{BLUE}.jpg", "base", 1),
        ("ccpd_np/1234.jpg", "np", 0),
        (f"ccpd_tilt/{BLUE}.jpg", "tilt", 1),
    ]
    assert whole.problems == ["ccpd_base/holiday.jpg: the name is not of CCPD's form"]
    plate = whole[0].plates[0]
    assert plate.text == "皖AY339S"
    assert plate.attributes["release"] == "2019"
    assert plate.corners is not None and plate.corners.dtype == np.float32

    assert [e.group for e in dataset(root, subsets=["tilt", "np"])] == ["np", "tilt"]
    assert [e.group for e in dataset(root / "ccpd_tilt")] == ["tilt"]
    listed = dataset(root, split=str(root / "splits" / "train.txt"))
    assert [e.group for e in listed] == ["tilt"]
    assert listed.problems == [f"ccpd_blur/{BLUE}.jpg: listed in train.txt, but not there"]
    touch(root / "splits" / "long.txt", f"ccpd_tilt/{BLUE}.jpg\n{'x' * 300}\n".encode())
    assert dataset(root, split=str(root / "splits" / "long.txt")).problems == [
        f"{'x' * 300}: listed in long.txt, but not there"
    ]
    touch(root / "splits" / "val.txt", f"ccpd_base/{BLUE}.jpg\r\n\r\nccpd_tilt/{BLUE}.jpg".encode())
    both = dataset(root, split=[str(root / "splits" / name) for name in ("train.txt", "val.txt")])
    assert [e.group for e in both] == ["base", "tilt"] and both.problems == listed.problems
    subset = dataset(root / "ccpd_tilt", split=str(root / "splits" / "val.txt"))  # lists are relative to the release
    assert [e.source for e in subset] == [f"{BLUE}.jpg"]
    with pytest.raises(LprfError, match=r"the split list cannot be read: .*no\.txt: No such file"):
        dataset(root, split=str(root / "no.txt"))
    with pytest.raises(LprfError, match="holds no pictures"):
        dataset(root / "ccpd_np", split=str(root / "splits" / "train.txt"))

    green = tmp_path / "elsewhere" / "ccpd_green" / "train"
    touch(green / f"{GREEN}.jpg")
    both = dataset([root, green])
    assert [e.source.split("/")[0] for e in both] == ["0", "0", "0", "1"]
    assert both[3].plates[0].attributes["colour"] == "green"
    assert both[3].plates[0].attributes["release"] == "2020"


def test_nothing_to_read_is_an_error_that_says_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(LprfError, match="not there"):
        dataset(tmp_path / "absent")
    with pytest.raises(LprfError, match="holds no pictures"):
        dataset(tmp_path)
    touch(tmp_path / "holiday.jpg")
    with pytest.raises(LprfError, match=r"holiday\.jpg: the name is not"):
        dataset(tmp_path)
    with pytest.raises(LprfError, match="of blur"):
        dataset(tmp_path, subsets=["blur"])


def test_the_fingerprint_is_of_what_is_there_not_of_where(tmp_path: Path) -> None:
    for place in ("a", "b"):
        touch(tmp_path / place / f"{BLUE}.jpg", b"12345")
    one, two = dataset(tmp_path / "a"), dataset(tmp_path / "b")
    assert one.fingerprint() == two.fingerprint()
    touch(tmp_path / "b" / f"{BLUE}.jpg", b"1234567")
    assert dataset(tmp_path / "b").fingerprint() != one.fingerprint()
    touch(tmp_path / "a" / f"{GREEN}.jpg", b"12345")
    assert dataset(tmp_path / "a").fingerprint() != one.fingerprint()


def test_a_picture_that_cannot_be_read_fails_on_its_own(tmp_path: Path) -> None:
    touch(tmp_path / f"{BLUE}.jpg")
    example = dataset(tmp_path)[0]
    with pytest.raises(InputFailure, match="025-95"):
        example.image()


def test_real_corners_are_where_the_plate_is(shared_data: Path) -> None:
    found = dataset(shared_data / "ccpd" / "dev")
    assert len(found) == 119 and not found.problems
    assert pickle.loads(pickle.dumps(found[3])).plates[0].text == found[3].plates[0].text  # workers may be spawned
    blueness = []
    for index in range(0, 119, 10):
        example = found[index]
        (plate,) = example.plates
        assert plate.corners is not None
        upright = np.array([[0, 0], [94, 0], [94, 24], [0, 24]], np.float32)
        matrix = cv2.getPerspectiveTransform(plate.corners, upright)
        crop = cv2.warpPerspective(example.image(), matrix, (94, 24)).astype(np.float32)
        blueness.append(float((crop[..., 0] - crop[..., 2]).mean()))
    assert np.median(blueness) > 60

"""core.labelled-crops, core.table-dataset and core.photos: labels in, examples out; what makes no sense is named."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lprf.api import Context, InputFailure, LprfError, readable
from lprf.builtin.datasets import Pictures, labelled_crops, photos, picture_size, rotated_corners, table_dataset
from lprf.builtin.params import CropsDatasetParams, PhotosDatasetParams, TableDatasetParams
from lprf.testing import Labelled

CONTEXT = Context(torch.device("cpu"), torch.float32, None)  # type: ignore[arg-type]


def table(path: Path | str, **params: Any) -> Pictures:
    return table_dataset(TableDatasetParams(path=str(path), **params), CONTEXT)


def save(path: Path, width: int = 200, height: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    done, data = cv2.imencode(path.suffix, image)
    assert done
    path.write_bytes(data.tobytes())
    return path


def labels(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder


def plates(dataset: Pictures) -> list[tuple[str, tuple[float, ...], str | None]]:
    return [(e.source, p.box, p.text) for e in (dataset[i] for i in range(len(dataset))) for p in e.plates]


# Rotated boxes


@pytest.mark.parametrize("angle", [-1, 12, -30, 44, -44, 0])
def test_a_rotated_box_is_where_opencv_puts_it(angle: float) -> None:
    rectangle = ((100.0, 60.0), (120.0, 40.0), float(angle))
    found = rotated_corners(100, 60, 120, 40, angle)
    expected = cv2.boxPoints(rectangle)
    for corner in found:
        assert np.abs(expected - corner).max(axis=1).min() < 1e-3
    top_left, top_right, bottom_right, bottom_left = found
    assert top_left[0] < top_right[0] and bottom_left[0] < bottom_right[0]
    assert top_left[1] < bottom_left[1] and top_right[1] < bottom_right[1]
    assert math.dist(top_left, top_right) == pytest.approx(120)


@pytest.mark.parametrize("angle", [-90, -89, -80, 88, 90, 180, 271])
def test_sides_that_are_exchanged_give_the_same_box(angle: float) -> None:
    """A table that calls the plate's height its width turns it by 90 degrees."""
    upright = rotated_corners(100, 60, 120, 40, (angle + 90 + 45) % 90 - 45)
    odd = round(angle / 90) % 2
    turned = rotated_corners(100, 60, *((40, 120) if odd else (120, 40)), angle)
    assert turned == pytest.approx(upright)


def test_the_street_photos(shared_data: Path) -> None:
    found = table(shared_data / "street" / "dev", group_by="colour")
    assert (len(found), len(plates(found))) == (104, 127)
    assert found.problems == ["皖A2F560.jpg: labels.csv:128: a plate that was labelled before"]
    assert {found[i].group for i in range(len(found))} == {"blue", "yellow"}
    with (shared_data / "street" / "dev" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_name = {found[i].source: found[i] for i in range(len(found))}
    for row in rows:
        values = [float(row[key]) for key in ("centre_x", "centre_y", "width", "height", "rotation_degrees")]
        points = cv2.boxPoints((tuple(values[:2]), tuple(values[2:4]), values[4]))  # type: ignore[arg-type]
        example = by_name[row["file"]]
        height, width = example.image().shape[:2]
        upright = np.clip(np.concatenate([points.min(0), points.max(0)]), 0, [width, height, width, height])
        own = [p for p in example.plates if p.text == row["text"] and np.abs(np.array(p.box) - upright).max() < 0.01]
        assert own, row
        assert own[0].attributes["colour"] == row["colour"]
        assert own[0].box[2] - own[0].box[0] > own[0].box[3] - own[0].box[1], "plates lie, they do not stand"


def test_the_other_folders_of_photos(shared_data: Path) -> None:
    phone = table(shared_data / "phone" / "dev")
    assert (len(phone), len(plates(phone)), phone.problems) == (25, 28, [])
    assert {len(text or "") for _, _, text in plates(phone)} == {7, 8}
    vehicles = table(shared_data / "vehicles" / "dev", group_by="country")
    assert (len(vehicles), len(plates(vehicles))) == (129, 155) and not vehicles.problems
    assert {text for _, _, text in plates(vehicles)} == {None}
    header = ["file", "x", "y", "width", "height", "text"]
    for folder, count in (("us", 90), ("eu", 44)):
        foreign = table(f"{shared_data}/foreign/{folder}/*.txt", header=header)
        assert len(foreign) == count and not foreign.problems
        assert all(text and text.isascii() for _, _, text in plates(foreign))
    crops = labelled_crops(CropsDatasetParams(path=str(shared_data / "crops" / "dev-94x24")), CONTEXT)
    assert len(crops) == 512 and crops[0].plates[0].box == (0, 0, 94, 24)


# Tables


def test_every_form_of_a_box_in_csv(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    forms = {
        "file,x1,y1,x2,y2,text": "a.jpg,20,30,80,50,皖A12345",
        "file;x;y;width;height;text": "a.jpg;20;30;60;20;皖A12345",
        "file\tcentre_x\tcentre_y\twidth\theight\ttext": "a.jpg\t50\t40\t60\t20\t皖A12345",
        "text,tl_x,tl_y,tr_x,tr_y,br_x,br_y,bl_x,bl_y,file": "皖A12345,20,30,80,30,80,50,20,50,a.jpg",
        "file,centre_x,centre_y,width,height,rotation_degrees,text": "a.jpg,50,40,20,60,90,皖A12345",
    }
    for header, row in forms.items():
        labels(tmp_path, f"\ufeff{header}\n{row}\n\n")  # as spreadsheets write it
        found = table(tmp_path)
        assert plates(found) == [("a.jpg", pytest.approx((20, 30, 80, 50)), "皖A12345")], header
        assert found[0].plates[0].attributes["province"] == "皖"
        corners = found[0].plates[0].corners
        if "tl_x" in header or "rotation" in header:
            assert corners is not None and corners.tolist() == pytest.approx(
                np.array([[20, 30], [80, 30], [80, 50], [20, 50]])
            )
    labels(tmp_path, "Plate,Image,left,top,right,bottom,colour\nAB 123,a.jpg,20,30,80,50,green\n")
    columns = {"text": "Plate", "file": "Image", "x1": "left", "y1": "top", "x2": "right", "y2": "bottom"}
    found = table(tmp_path, columns=columns, group_by="colour")
    assert plates(found) == [("a.jpg", (20, 30, 80, 50), "AB 123")] and found[0].group == "green"


def test_label_errors_are_named_and_skipped(tmp_path: Path) -> None:
    save(tmp_path / "good.jpg")
    save(tmp_path / "outside.jpg")
    save(tmp_path / "none.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    rows = [
        "file,x1,y1,x2,y2,text",
        "good.jpg,10,10,60,30,one",
        "good.jpg,150,80,250,130,cut by the border",
        "good.jpg,60,10,10,30,empty",
        "good.jpg,a,10,60,30,letters",
        "good.jpg,nan,10,60,30,nan",
        "good.jpg,10,10,60,,half",
        "good.jpg,10,10,60",
        "outside.jpg,300,10,360,30,outside",
        "missing.jpg,10,10,60,30,gone",
        "broken.jpg,10,10,60,30,broken",
        "none.jpg,,,,,",
        ",1,2,3,4,nobody",
        "good.jpg,10,10,60,30,one",
    ]
    found = table(labels(tmp_path, "\n".join(rows)))
    assert [(found[i].source, len(found[i].plates)) for i in range(len(found))] == [("good.jpg", 2), ("none.jpg", 0)]
    assert plates(found)[1][1] == (150, 80, 200, 100)
    said = "\n".join(found.problems)
    for expected in (
        "good.jpg: labels.csv:4: the box 60 10 10 30 is empty",
        "good.jpg: labels.csv:5: not a number among a 10 60 30",
        "good.jpg: labels.csv:6: the box is not of finite numbers",
        "good.jpg: labels.csv:7: neither a whole box nor four corners",
        "labels.csv:8: 4 values for 6 columns",
        "outside.jpg: labels.csv:9: the box 300 10 360 30 lies outside the photo of 200 × 100",
        "missing.jpg: there is no such file",
        "broken.jpg: ",
        "labels.csv:13: no file named",
        "good.jpg: labels.csv:14: a plate that was labelled before",
    ):
        assert expected in said, said
    assert len(found.problems) == 10


def test_a_corner_may_lie_outside_the_photo_but_not_far(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    header = "file,tl_x,tl_y,tr_x,tr_y,br_x,br_y,bl_x,bl_y"
    found = table(labels(tmp_path, f"{header}\na.jpg,-9,9,210,9,210,60,-9,60\na.jpg,9,9,90000,9,90000,90000,9,90000\n"))
    assert plates(found) == [("a.jpg", (0, 9, 200, 60), None)]
    assert found.problems == ["a.jpg: labels.csv:3: a corner lies far outside the photo of 200 × 100"]


def test_a_stray_quote_costs_its_own_row(tmp_path: Path) -> None:
    for name in "abcd":
        save(tmp_path / f"{name}.jpg")
    rows = ["a.jpg,A1,1,2,9,6", 'b.jpg,"A2,1,2,9,6', "c.jpg,A3,1,2,9,6", "d.jpg,A4,,,,"]
    found = table(labels(tmp_path, "\n" + "\n".join(["file,text,x1,y1,x2,y2", *rows])))
    assert [text for _, _, text in plates(found)] == ["A1", "A3"]
    assert [problem.split(": ")[-1] for problem in found.problems if "labels.csv:" in problem] == [
        "2 values for 6 columns",
        "neither a whole box nor four corners",
    ]
    assert any("labels.csv:4" in problem for problem in found.problems)


def test_what_cannot_be_a_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(LprfError, match=r"there are no labels at .*absent"):
        table(tmp_path / "absent")
    with pytest.raises(LprfError, match="there are no labels at"):
        table(tmp_path / "*.txt")
    with pytest.raises(LprfError, match=r"has no column 'file'; `columns` says which"):
        table(labels(tmp_path / "a", "name,x1,y1,x2,y2\na.jpg,1,2,3,4\n"))
    with pytest.raises(LprfError, match=r"has no column Plate; it has file, x1"):
        table(labels(tmp_path / "b", "file,x1,y1,x2,y2\na.jpg,1,2,3,4\n"), columns={"text": "Plate"})
    with pytest.raises(LprfError, match=r"holds no pictures that can be used; for example a\.jpg: there is no such"):
        table(labels(tmp_path / "c", "file,x1,y1,x2,y2\na.jpg,1,2,3,4\n"))
    with pytest.raises(LprfError, match=r"holds no pictures that can be used; for example labels\.csv: empty"):
        table(labels(tmp_path / "d", "\n"))
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "labels.csv").write_bytes(b"file,text\n\xff\xfe\xff")
    with pytest.raises(LprfError, match="the labels cannot be read"):
        table(tmp_path / "e")
    with pytest.raises(LprfError, match=r"labels\.csv is not CSV: field larger"):
        table(labels(tmp_path / "f", "file,colour\na.jpg," + "x" * 200_000))
    with pytest.raises(LprfError, match=r"has texts and no boxes: .*; it has the columns file, text, xmin, ymin"):
        table(labels(tmp_path / "g", "file,text,xmin,ymin,xmax,ymax\na.jpg,A1,1,2,3,4\n"))
    for text in (
        '{"images": 3}',
        '{"images": [], "annotations": null}',
        '{"images": [], "annotations": {}}',
        "[" * 100_000,
    ):
        (tmp_path / "coco.json").write_text(text, encoding="utf-8")
        with pytest.raises(LprfError, match="is not COCO's JSON"):
            table(tmp_path / "coco.json")


def test_yolo(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.jpg")
    save(tmp_path / "images" / "b.jpg")
    save(tmp_path / "images" / "c.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.25 0.4 0.3 0.2\n1 0.5 0.5 1 1\nx y\n0 0.1 0.2\n", encoding="utf-8")
    (tmp_path / "labels" / "b.txt").write_text("0 0.1 0.3 0.4 0.3 0.4 0.5 0.1 0.5\n", encoding="utf-8")
    found = table(tmp_path / "labels", images=str(tmp_path / "images"), classes=[0])
    assert plates(found) == [
        ("a.jpg", pytest.approx((20, 30, 80, 50)), None),
        ("b.jpg", pytest.approx((20, 30, 80, 50)), None),
    ]
    corners = found[1].plates[0].corners
    assert corners is not None and corners[0] == pytest.approx((20, 30))
    assert found.problems == [
        "a.jpg: a.txt:3: not numbers",
        "a.jpg: a.txt:4: 2 numbers after the class, expected 4 or 8",
        "c.jpg: no label file",
    ]


def test_classes_that_match_nothing_are_no_negatives(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("3 0.25 0.4 0.3 0.2\n5 0.5 0.5 1 1\n", encoding="utf-8")
    with pytest.raises(LprfError, match=r"nothing is of the classes 0, 1; there are 3, 5"):
        table(tmp_path, classes=[0, 1])
    assert len(table(tmp_path, classes=[0, 3])[0].plates) == 1
    data: dict[str, Any] = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 7, "name": "plate"}]}
    data["annotations"] = [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [20, 30, 60, 20]}]
    (tmp_path / "coco.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(LprfError, match=r"nothing is of the classes licence_plate; there are plate"):
        table(tmp_path / "coco.json", classes=["licence_plate"])
    (tmp_path / "coco.json").write_text(json.dumps({**data, "annotations": []}), encoding="utf-8")
    assert table(tmp_path / "coco.json", classes=["plate"])[0].plates == ()


def test_coco(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    save(tmp_path / "b.jpg")
    data = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3, "file_name": "c.jpg"}],
        "categories": [{"id": 7, "name": "plate"}, {"id": 8, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [20, 30, 60, 20], "attributes": {"text": "X1", "c": 5}},
            {"id": 2, "image_id": 1, "category_id": 8, "bbox": [0, 0, 200, 100]},
            {"id": 3, "image_id": 1, "category_id": 7, "bbox": [20, 30, 60]},
            {"id": 4, "image_id": 9, "category_id": 7, "bbox": [20, 30, 60, 20]},
            {"id": 5, "image_id": 1, "category_id": 7, "bbox": [20, 30, 60, 20], "iscrowd": 1},
            1,
            {"id": 7, "image_id": [1], "category_id": 7, "bbox": [20, 30, 60, 20]},
            {"id": 8, "image_id": 1, "category_id": 7, "bbox": [20, 30, 60, 20], "attributes": [1]},
            {"id": 9, "image_id": 1, "category_id": 7, "bbox": [10**400, 30, 60, 20]},
            {"id": 10, "image_id": 1, "category_id": 7, "bbox": [20, 30, 60, 20], "text": "A\ud800"},
            {"id": 11, "image_id": 1, "category_id": 7, "bbox": [20, 30, 60, 20], "attributes": {"c": "\udc41"}},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(data), encoding="utf-8")
    found = table(tmp_path / "coco.json", classes=["plate"])
    assert plates(found) == [("a.jpg", (20, 30, 80, 50), "X1")] and len(found) == 2
    assert found[0].plates[0].attributes == {"c": "5"}
    assert found.problems == [
        "a.jpg: annotation 3: no bbox of four numbers",
        "coco.json: annotation 4: of a picture that is not listed",
        "coco.json: annotation 5: not an object",
        "coco.json: annotation 7: image_id, category_id or attributes: unhashable type: 'list'",
        "coco.json: annotation 8: image_id, category_id or attributes: 'list' object is not a mapping",
        "a.jpg: annotation 9: no bbox of four numbers",
        "coco.json: annotation 10: a text with half of a surrogate pair in it",
        "coco.json: annotation 11: a text with half of a surrogate pair in it",
        "c.jpg: there is no such file",
    ]


# Crops and photos


def test_texts_in_the_names_of_crops(tmp_path: Path) -> None:
    for name in ("皖A12345.jpg", "皖A12345_7.png", "deep/沪B99999_x.jpg", "_noname.jpg"):
        save(tmp_path / name, 94, 24)
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "苏E00000.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "苏E00001.jpg")
    found = labelled_crops(CropsDatasetParams(path=str(tmp_path), group="real"), CONTEXT)
    assert plates(found) == [
        ("皖A12345.jpg", (0, 0, 94, 24), "皖A12345"),
        ("皖A12345_7.png", (0, 0, 94, 24), "皖A12345"),
        ("deep/沪B99999_x.jpg", (0, 0, 94, 24), "沪B99999"),
    ]
    assert found[0].group == "real" and found[2].plates[0].attributes == {"province": "沪"}
    assert found.problems[0] == "_noname.jpg: no text in the name"
    assert found.problems[1].startswith("苏E00000.jpg: ")
    assert found.problems[2:] == ["苏E00001.jpg: is not a regular file"]
    other = labelled_crops(CropsDatasetParams(path=str(tmp_path / "deep"), text="_(.*)"), CONTEXT)
    assert plates(other) == [("沪B99999_x.jpg", (0, 0, 94, 24), "x")]
    with pytest.raises(ValueError, match="not a regular expression"):
        CropsDatasetParams(path=".", text="(")


def test_a_province_is_a_chinese_character(tmp_path: Path) -> None:
    for name in ("皖A12345.jpg", "RZ112AB.jpg"):
        save(tmp_path / name, 94, 24)
    found = labelled_crops(CropsDatasetParams(path=str(tmp_path)), CONTEXT)
    assert sorted(str(found[i].plates[0].attributes) for i in range(2)) == ["{'province': '皖'}", "{}"]


def test_photos_without_plates(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    found = photos(PhotosDatasetParams(path=str(tmp_path)), CONTEXT)
    assert [found[i].plates for i in range(len(found))] == [()]
    with pytest.raises(LprfError, match="the folder of pictures is not there"):
        photos(PhotosDatasetParams(path=str(tmp_path / "absent")), CONTEXT)


def test_a_truncated_picture_is_no_example(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png"):
        path = save(tmp_path / f"皖A12345{suffix}", 200, 100)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = labelled_crops(CropsDatasetParams(path=str(tmp_path)), CONTEXT)
    for index in range(len(found)):
        with pytest.raises(InputFailure, match=r"皖A12345.*: truncated$"):
            found[index].image()
    path.unlink()
    with pytest.raises(InputFailure, match=r"皖A12345\.png: there is no such file"):
        found[1].image()


def test_a_picture_that_is_turned_has_its_size_as_it_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", 200, 100)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    assert picture_size(path, "a.jpg") == (100, 200)
    found = table(labels(tmp_path, "file,x1,y1,x2,y2\na.jpg,10,150,60,170\n"))
    assert found[0].image().shape == (200, 100, 3) and plates(found)[0][1] == (10, 150, 60, 170)


def test_the_fingerprint_is_of_labels_and_pictures(tmp_path: Path) -> None:
    text = "file,x1,y1,x2,y2,text\na.jpg,10,10,60,30,one\n"
    for folder in ("a", "b"):
        save(tmp_path / folder / "a.jpg")
        labels(tmp_path / folder, text)
    one = table(tmp_path / "a").fingerprint()
    assert one == table(tmp_path / "b").fingerprint()
    labels(tmp_path / "b", text.replace("one", "two"))
    assert one != table(tmp_path / "b").fingerprint()
    labels(tmp_path / "b", text.replace("10,60", "10,61"))
    assert one != table(tmp_path / "b").fingerprint()
    labels(tmp_path / "b", text)
    save(tmp_path / "b" / "a.jpg", 210, 100)
    assert one != table(tmp_path / "b").fingerprint()


def test_what_cannot_be_read_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    found = [(example.source, image.shape) for example, image in readable(Labelled(3, broken=[1]))]
    assert found == [("labelled-0", (120, 200, 3)), ("labelled-2", (120, 200, 3))]
    assert [record.message for record in caplog.records] == ["left out: labelled-1: broken on purpose"]
    for dataset in (Labelled(0), Labelled(2, broken=[0, 1])):
        with pytest.raises(LprfError, match=f"none of the {len(dataset)} pictures can be read"):
            list(readable(dataset))

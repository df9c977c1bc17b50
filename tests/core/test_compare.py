"""`lprf compare` on labels that are known: every combination in one table, those that do not fit with their reason."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lprf.builtin import report, report_html
from lprf.compare import choices, compare, dataset_of
from lprf.errors import LprfError
from lprf.files import shipped
from lprf.plugins import Plugins, installed
from running import lprf

PLUGIN = '''
"""A detector that finds the red rectangle of a picture, or nothing; a reader that says the same of every plate."""

import cv2
import torch

from lprf.api import Component, Detections, Params, Readings, hookimpl


class RedParams(Params):
    off: float = 0.0


class Red:
    def __init__(self, params, context):
        self.off = params.off

    def __call__(self, frames):
        boxes = []
        for image in frames.images.cpu().numpy():
            x, y, w, h = cv2.boundingRect((image[..., 2] > 200).astype("uint8"))
            boxes.append((x + self.off, y, x + w + self.off, y + h))
        rows = torch.arange(len(boxes))
        return Detections(frames, rows, torch.tensor(boxes, dtype=torch.float32), torch.ones(len(boxes)))


class SayParams(Params):
    text: str = "A1"


class Say:
    size = (24, 94)

    def __init__(self, params, context):
        self.text = params.text

    def __call__(self, plates):
        n = len(plates.images)
        texts = [self.text] * n
        return Readings(plates, torch.arange(n), texts, torch.ones(n), [[1.0] * len(t) for t in texts], [[]] * n)


@hookimpl
def lprf_components():
    return [
        Component("detector", "detector", "red:Red", params=RedParams),
        Component("reader", "recognizer", "red:Say", params=SayParams),
    ]
'''


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures with a red plate each, of which three say A1, and the plugin that finds and reads such plates."""
    (tmp_path / "red.py").write_text(PLUGIN)
    folder = tmp_path / "photos"
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "text", "x1", "y1", "x2", "y2"])
        for number, text in enumerate(["A1", "A1", "A1", "B2"]):
            image = np.zeros((60, 120, 3), np.uint8)
            cv2.rectangle(image, (20, 10 + number), (79, 29 + number), (0, 0, 255), -1)
            cv2.imwrite(str(folder / f"{number}.png"), image)
            table.writerow([f"{number}.png", text, 20, 10 + number, 80, 30 + number])
    return tmp_path


COMBINED = [
    *("--detect", "red.detector,red.detector off=10", "--detect", "red.detector off=50"),
    *("--rectify", "core.crop,core.perspective", "--read", "red.reader,red.reader text=B2"),
]
QUICK = ["--plugin", "red.py", "--timed", "2", "--passes", "1"]


def test_every_combination_is_measured(photos: Path) -> None:
    files = ["--html", "compare.html", "--json", "compare.json"]
    done = lprf("compare", "photos", *COMBINED, *QUICK, *files, cwd=photos)
    assert done.returncode == 0, done.stderr
    content = json.loads((photos / "compare.json").read_text(encoding="utf-8"))
    assert len(content["rows"]) == 12 and (content["pictures"], content["plates"]) == (4, 4)
    rows = {tuple(row["parts"].values()): row for row in content["rows"]}
    # a plate of 60 × 20 moved by 10 overlaps by 50 / 70, moved by 50 by 10 / 110
    for off, found in (("", 4), (" off=10", 4), (" off=50", 0)):
        for text, right in (("", 3), (" text=B2", 1)):
            row = rows[f"red.detector{off}", "core.crop", f"red.reader{text}"]
            assert (row["found"]["hits"], row["found"]["total"]) == (found, 4)
            assert (row["found_and_read"]["hits"], row["found_and_read"]["total"]) == (right if found else 0, 4)
            assert (row["read_if_found"]["hits"], row["read_if_found"]["total"]) == ((right, 4) if found else (0, 0))
            assert row["latency_ms"] > 0 and row["pictures_a_second"] > 0 and not row["reason"]
            other = rows[f"red.detector{off}", "core.perspective", f"red.reader{text}"]
            assert "needs Detections with corners" in other["reason"] and "found" not in other
    low, high = rows["red.detector", "core.crop", "red.reader"]["found_and_read"]["interval"]
    assert (round(low, 3), round(high, 3)) == (0.301, 0.954)  # Wilson's, of 3 of 4
    printed = " ".join(done.stdout.split())
    assert "read-plates on 4 pictures with 4 plates" in printed
    assert "75.0 % (30.1–95.4), 3 of 4" in printed and "needs Detections with corners" in printed


def test_the_page_says_what_the_table_says(photos: Path) -> None:
    words = ("--rectify", "core.crop,core.perspective", "--html", "compare.html", "--json", "c.json")
    chosen = ("--detect", "red.detector", "--read", "red.reader text=<b>")
    done = lprf("compare", "photos", *chosen, *words, *QUICK, cwd=photos)
    assert done.returncode == 0, done.stderr

    class Cells(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []
            self.tags: set[str] = set()
            self.inside = False

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.tags.add(tag)
            if tag in ("td", "th"):
                self.inside = True
                self.found.append("")

        def handle_endtag(self, tag: str) -> None:
            self.inside = self.inside and tag not in ("td", "th")

        def handle_data(self, data: str) -> None:
            if self.inside:
                self.found[-1] += data

    page = (photos / "compare.html").read_text(encoding="utf-8")
    content = json.loads((photos / "c.json").read_text(encoding="utf-8"))
    table = report.comparison(content)
    assert report_html.comparison(content) == page
    cells = Cells()
    cells.feed(page)
    expected = [cell for row in [table.header, *table.rows] for cell in row]
    assert cells.found[: len(expected)] == expected
    assert "red.reader text=<b>" in expected and "script" not in cells.tags and "b" not in cells.tags


def test_a_choice_of_another_kind_is_told(tmp_path: Path) -> None:
    done = lprf("compare", shipped("recipes") / "samples" / "crops", "--rectify", "core.crops", cwd=tmp_path)
    assert done.returncode == 2 and "core.crops is a source; 'rectify' wants a rectifier" in done.stderr


def test_what_is_not_chosen_stays_as_the_recipe_has_it(photos: Path) -> None:
    (photos / "own.yaml").write_text(
        "{lprf: 1, kind: infer, name: own, extends: read-plates, graph: {detect: {uses: red.detector, with: {off: 50}},"
        " rectify: {uses: core.crop}, read: {uses: red.reader}}}"
    )
    words = ["--recipe", "own.yaml", "--read", "red.reader,red.reader text=B2", "--json", "c.json"]
    done = lprf("compare", "photos", *words, *QUICK, "--iou", "0.05", "--pictures", "3", cwd=photos)
    assert done.returncode == 0, done.stderr
    content = json.loads((photos / "c.json").read_text(encoding="utf-8"))
    assert [row["parts"]["detect"] for row in content["rows"]] == ["red.detector"] * 2
    assert all((row["found"]["hits"], row["found"]["total"]) == (3, 3) for row in content["rows"])


def test_plates_that_are_cut_out_already(tmp_path: Path) -> None:
    (tmp_path / "red.py").write_text(PLUGIN)
    text = next((shipped("recipes") / "samples" / "crops").glob("*.jpg")).stem
    words = ["--rectify", "core.crop", "--read", f"red.reader text={text}", "--json", "c.json"]
    done = lprf("compare", shipped("recipes") / "samples" / "crops", *words, *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    (row,) = content["rows"]
    assert content["recipe"] == "read-crops" and row["found"] is None
    assert (row["read_if_found"]["hits"], row["read_if_found"]["total"]) == (1, content["plates"])
    assert "found" not in done.stdout


def test_a_picture_that_cannot_be_read_shows(photos: Path) -> None:
    (photos / "photos" / "3.png").write_bytes((photos / "photos" / "3.png").read_bytes()[:60])
    chosen = ("--detect", "red.detector", "--rectify", "core.crop", "--read", "red.reader")
    done = lprf("compare", "photos", *chosen, *QUICK, cwd=photos)
    assert done.returncode == 1, done.stderr
    assert "1 pictures could not be read" in done.stdout and "3 of 3" in done.stdout


CHOSEN = {"detect": ["red.detector"], "rectify": ["core.crop"], "read": ["red.reader"]}


@pytest.mark.parametrize(
    ("dataset", "changed", "recipe", "said"),
    [
        ("photos", {"detect": ["red.detektor"]}, None, "did you mean 'detector'"),
        ("photos", {"read": ["red.reader text"]}, None, "key=value"),
        ("photos", {}, "no-such", "no such recipe"),
        ("nowhere", {}, None, "neither a folder nor"),
        ("nowhere.dataset", {}, None, "no plugin 'nowhere'"),
        ("core.table-dataset path=photos colour=blue", {}, None, "unknown key 'colour'"),
        ("empty", {}, None, "no dataset understands empty"),
    ],
)
def test_mistakes_are_told(
    dataset: str,
    changed: dict[str, list[str]],
    recipe: str | None,
    said: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (photos / "empty").mkdir()
    monkeypatch.chdir(photos)
    plugins = Plugins()
    plugins.load_file(Path("red.py"))
    with pytest.raises(LprfError, match=said):
        compare(dataset, {**CHOSEN, **changed}, recipe, plugins=plugins)


def test_choices() -> None:
    assert choices([]) == []
    assert choices(["a.x, b.y min=[24,8],c.z", "d.w names={a:1,b:2}"]) == [
        *("a.x", "b.y min=[24,8]", "c.z", "d.w names={a:1,b:2}"),
    ]


def test_which_dataset_a_folder_is(tmp_path: Path, photos: Path) -> None:
    picture = cv2.imencode(".jpg", np.zeros((400, 700, 3), np.uint8))[1].tobytes()
    (tmp_path / "ccpd").mkdir()
    name = "025-95_113-154&383_386&473-386&473_177&454_154&383_363&402-0_0_22_27_27_33_16-37-15.jpg"
    (tmp_path / "ccpd" / name).write_bytes(picture)
    assert dataset_of(str(tmp_path / "ccpd"), None, installed())[1:] == ("ccpd.dataset", "read-plates")
    assert dataset_of(str(photos / "photos"), None, installed())[1] == "core.table-dataset"
    some, uses, recipe = dataset_of(f"core.table-dataset path={photos / 'photos'}", 2, installed())
    assert (len(some), uses, recipe) == (2, "core.table-dataset", "read-plates")
    (photos / "photos" / "labels.csv").write_text("nothing\n")
    with pytest.raises(LprfError, match="no column 'file'"):
        dataset_of(str(photos / "photos"), None, installed())


@pytest.mark.slow
def test_the_seeds_networks_on_real_photos(shared_seed: Path, shared_data: Path, tmp_path: Path) -> None:
    """Crop, spatial transformer and perspective in one table; the seed's detector gives no corners."""
    home = tmp_path / "home"
    assert lprf("weights", "import", shared_seed / "weights", cwd=tmp_path, LPRF_HOME=str(home)).returncode == 0
    done = lprf(
        *("compare", shared_data / "ccpd" / "dev", "--pictures", "6", "--timed", "2", "--passes", "1"),
        *(
            "--detect",
            "mtcnn.detector pnet=seed-pnet onet=seed-onet",
            "--read",
            "lprnet.recognizer weights=seed-lprnet",
        ),
        *("--rectify", "core.crop,stn.rectifier weights=seed-stn,core.perspective", "--json", "c.json"),
        cwd=tmp_path,
        LPRF_HOME=str(home),
    )
    assert done.returncode == 0, done.stderr
    crop, stn, perspective = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["rows"]
    for row in (crop, stn):
        assert (row["found"]["hits"], row["found"]["total"]) == (6, 6)  # golden: all of ccpd/dev
        assert row["found_and_read"]["hits"] >= 5
    assert set(stn["weights"]) == {"detect.pnet", "detect.onet", "rectify.weights", "read.weights"}
    assert "corners" in perspective["reason"]

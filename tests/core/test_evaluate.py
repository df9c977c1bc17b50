"""core.evaluate against numbers worked by hand, on components that find and read what a script says."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import re
import sys
import textwrap
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lprf import stages, weights
from lprf.api import (
    Component,
    Context,
    Detections,
    Example,
    Frames,
    InputFailure,
    LprfError,
    Params,
    Plates,
    Port,
    Readings,
    Truth,
    hookimpl,
    weights_name,
)
from lprf.plugins import Plugins
from lprf.recipe import Ref, load_recipe

# Per picture: labelled plates (box, text, province) and what is found (box, score, text, confidence).
P1, P2, P3 = (10, 10, 60, 30), (100, 10, 160, 30), (10, 60, 70, 80)
P4 = (20, 20, 80, 40)
SHIFTED = (112, 10, 172, 30)  # over P2: 48 × 20 of 1,440, an IoU of 2/3
SCRIPT: dict[str, tuple[str, list[Any], list[Any]]] = {
    "a <b>&.jpg": (
        "one",
        [(P1, "皖A12345", "皖"), (P2, None, ""), (P3, "苏B1234D", "苏")],
        [(P1, 0.9, "皖A12345", 0.9), (SHIFTED, 0.7, "鲁Q99999", 0.2), ((150, 60, 190, 75), 0.4, "", 0.1)],
    ),
    "b.jpg": ("two", [(P4, "浙C55555", "浙")], [(P4, 0.8, "皖C55555", 0.95), ((22, 20, 80, 40), 0.3, "浙C55555", 0.5)]),
    "c.jpg": ("two", [], []),
    "unreadable.jpg": ("two", [(P4, "沪A00000", "沪")], []),
    "crash.jpg": ("one", [(P1, "京N12345", "京")], []),
}


ALPHABET = "皖浙京ABCDN012345"


class Labels:
    problems: Sequence[str] = ["row 7: <no box>"]

    def __init__(self, params: Params, context: Context):
        pass

    def run(self) -> dict[str, Any]:
        return {"dataset": self}

    def __len__(self) -> int:
        return len(SCRIPT)

    def __getitem__(self, index: int) -> Example:
        source, (group, plates, _) = list(SCRIPT.items())[index]
        truths = tuple(Truth(tuple(map(float, box)), None, text, {"province": p}) for box, text, p in plates)
        return Example(source, partial(picture, source), truths, group)

    def fingerprint(self) -> str:
        return "labels"


def picture(source: str) -> np.ndarray:
    if source == "unreadable.jpg":
        raise InputFailure(source, "truncated")
    return np.random.default_rng(1).integers(0, 256, (100, 200, 3), dtype=np.uint8)


class FindParams(Params):
    weights: weights_name("our.shift") | None = None  # type: ignore[valid-type]


class Find:
    """Gives the script's boxes, moved to the right by what the weights say."""

    def __init__(self, params: FindParams, context: Context):
        self.shift = 0.0
        if params.weights is not None:
            self.shift = float(context.weights(params.weights).tensors["shift"])

    def __call__(self, frames: Frames) -> Detections:
        if any(origin.name == "crash.jpg" for origin in frames.sources):
            raise RuntimeError("cannot do <this> one")
        rows = [(i, r) for i, origin in enumerate(frames.sources) for r in range(len(SCRIPT[origin.name][2]))]
        found = [SCRIPT[frames.sources[i].name][2][r] for i, r in rows]
        boxes = torch.tensor([entry[0] for entry in found], dtype=torch.float32).reshape(-1, 4)
        boxes = boxes + self.shift * torch.tensor([1.0, 0, 1, 0])
        scores = torch.tensor([entry[1] for entry in found], dtype=torch.float32)
        frame = torch.tensor([i for i, _ in rows], dtype=torch.int64)
        number = torch.tensor([r for _, r in rows], dtype=torch.int64)
        return Detections(frames, frame, boxes, scores, None, {"number": number})


class ReadParams(Params):
    weights: weights_name("our.reader") | None = None  # type: ignore[valid-type]


class Read:
    size = (24, 94)

    def __init__(self, params: ReadParams, context: Context):
        pass

    def __call__(self, plates: Plates) -> Readings:
        d = plates.detections
        texts, confidences = [], []
        for row in plates.detection.tolist():
            source = d.frames.sources[int(d.frame[row])].name
            number = int(d.extra["number"][row]) if "number" in d.extra else 0
            _, _, text, confidence = SCRIPT[source][2][number] if source in SCRIPT else (0, 0, Path(source).stem, 0.5)
            texts.append(text)
            confidences.append(confidence)
        rows = torch.arange(len(texts))
        letters = [[0.5] * len(text) for text in texts]
        return Readings(plates, rows, texts, torch.tensor(confidences), letters, [[] for _ in texts])


class Train:
    def __init__(self, params: Params, context: Context):
        self.folder = context.folder

    def run(self, dataset: Any) -> dict[str, Any]:
        assert self.folder is not None
        weights.save(self.folder / "w.safetensors", {"shift": torch.tensor(30.0)}, {"architecture": "our.shift"})
        return {"weights": self.folder / "w.safetensors"}


class TrainReader(Train):
    def run(self, dataset: Any) -> dict[str, Any]:
        assert self.folder is not None
        file = self.folder / "w.safetensors"
        weights.save(file, {"x": torch.zeros(1)}, {"architecture": "our.reader", "alphabet": ALPHABET})
        return {"weights": file}


@hookimpl
def lprf_components() -> list[Component]:
    here = f"{__name__}:"
    return [
        Component("labels", "dataset", f"{here}Labels"),
        Component("many", "dataset", f"{here}Many"),
        Component("find", "detector", f"{here}Find", FindParams),
        Component("read", "recognizer", f"{here}Read", ReadParams),
        *(
            Component(
                name,
                "trainer",
                f"{here}{impl}",
                inputs={"dataset": Port("Dataset")},
                outputs={"weights": Port("Weights")},
            )
            for name, impl in (("train", "Train"), ("train-reader", "TrainReader"))
        ),
    ]


READ = """\
    lprf: 1
    kind: infer
    name: inner
    runtime: {batch: 3}
    graph:
      images: {uses: core.images, with: {path: nowhere-at-all}}
      detect: {uses: our.find, inputs: {frames: images.frames}}
      rectify: {uses: core.crop, inputs: {detections: detect.detections}}
      read: {uses: our.read, inputs: {plates: rectify.plates}}
      jsonl: {uses: core.jsonl, inputs: {readings: read.readings}, with: {path: must-not-be-written.jsonl}}
    """
CROPS = """\
    lprf: 1
    kind: infer
    name: inner
    graph:
      crops: {uses: core.crops, with: {path: nowhere-at-all}}
      rectify: {uses: core.crop, inputs: {detections: crops.detections}}
      read: {uses: our.read, inputs: {plates: rectify.plates}}
    """
DETECT = """\
    lprf: 1
    kind: infer
    name: inner
    graph:
      images: {uses: core.images, with: {path: nowhere-at-all}}
      detect: {uses: our.find, inputs: {frames: images.frames}}
    """
OUTER = """\
    lprf: 1
    kind: train
    name: outer
    runtime: {device: cpu, workers: 2}
    graph:
      data: {uses: our.labels}
      evaluate: {uses: core.evaluate, inputs: {dataset: data.dataset}, with: {recipe: inner.yaml}}
    """


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    points = [("our", __name__), ("core", "lprf.builtin.plugin")]
    plugins = Plugins([importlib.metadata.EntryPoint(name, module, "lprf") for name, module in points])

    def run(inner: str = READ, outer: str = OUTER, **overrides: Any) -> dict[str, Any]:
        (tmp_path / "inner.yaml").write_text(textwrap.dedent(inner), encoding="utf-8")
        (tmp_path / "outer.yaml").write_text(textwrap.dedent(outer), encoding="utf-8")
        changes = {f"evaluate.{key}": value for key, value in overrides.items()}
        recipe = load_recipe(tmp_path / "outer.yaml", changes, plugins)
        result = stages.run(recipe, root=tmp_path / "runs")
        report = result.values[Ref("evaluate", "report")]
        assert isinstance(report, dict)
        stage = next(stage for stage in result.stages if stage.name == "evaluate")
        return {**report, "metrics": stage.metrics, "folder": stage.folder}

    return run


def ratio(rate: dict[str, Any]) -> tuple[int, int]:
    return rate["hits"], rate["total"]


def test_numbers_worked_by_hand(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    report = run(path=str(tmp_path / "out"))
    assert report["counts"] == {
        "pictures": 4,
        "unread_pictures": 1,
        "plates_of_unread_pictures": 1,
        "failed_pictures": 1,
        "plates": 5,
        "plates_with_text": 4,
        "boxes": 5,
        "smaller_plates": 0,
    }
    half, tight = report["detection"]["0.5"], report["detection"]["0.7"]
    assert ratio(half["recall"]) == (3, 5) and ratio(tight["recall"]) == (2, 5)
    assert ratio(half["precision"]) == (3, 5) and ratio(tight["precision"]) == (2, 5)
    assert half["f1"] == pytest.approx(0.6)
    assert half["average_precision"] == pytest.approx(3 / 5) and tight["average_precision"] == pytest.approx(2 / 5)
    assert half["false_boxes"] == 2 and half["false_boxes_a_picture"] == 0.5

    reading = report["reading"]
    assert [ratio(reading["end_to_end"][k]) for k in ("plates", "characters", "without_first")] == [
        (1, 4),
        (13, 28),
        (2, 4),
    ]
    assert [ratio(reading["given_found"][k]) for k in ("plates", "characters", "without_first")] == [
        (1, 2),
        (13, 14),
        (2, 2),
    ]
    assert ratio(reading["ccpd"]) == (1, 4)
    # Wilson for 1 of 4 by a table of binomial intervals
    assert reading["end_to_end"]["plates"]["interval"] == pytest.approx([0.0456, 0.6994], abs=1e-4)

    assert list(report["groups"]) == ["one", "two"]
    one, two = report["groups"]["one"], report["groups"]["two"]
    assert (one["pictures"], one["plates"], ratio(one["detection"]["0.5"]["recall"])) == (2, 4, (2, 4))
    assert (two["pictures"], two["plates"], two["detection"]["0.5"]["false_boxes_a_picture"]) == (2, 1, 0.5)
    assert ratio(two["reading"]["end_to_end"]["without_first"]) == (1, 1)
    assert {name: ratio(p["reading"]["end_to_end"]["plates"]) for name, p in report["provinces"].items()} == {
        "京": (0, 1),
        "浙": (0, 1),
        "皖": (1, 1),
        "苏": (0, 1),
    }

    assert report["confusion"]["pairs"] == [["浙", "皖", 1]]
    assert [ratio(rate) for rate in report["confusion"]["positions"]] == [(1, 2)] + [(2, 2)] * 6
    assert report["confidence"]["expected_calibration_error"] == pytest.approx((0.1 + 0.95) / 2)
    assert report["confidence"]["risk_coverage"] == {"coverage": [0.5, 1.0], "risk": [1.0, 0.5]}

    assert report["metrics"]["recall"] == 0.6 and report["metrics"]["plates_right"] == 0.25
    assert report["failures"]["totals"] == {"unread": 1, "failed": 1, "misread": 1, "missed": 2, "false": 2}
    assert report["failures"]["unread"] == [{"source": "unreadable.jpg", "reason": "truncated"}]
    assert "cannot do <this> one" in report["failures"]["failed"][0]["reason"]
    assert [f["score"] for f in report["failures"]["false"]] == [0.4, 0.3]
    assert report["failures"]["misread"][0]["text"] == "皖C55555"
    assert report["skipped"] == ["row 7: <no box>"]

    kept = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert kept["detection"] == report["detection"]
    assert not (tmp_path / "must-not-be-written.jsonl").exists()


def test_loose_labels_are_judged_at_an_overlap_of_their_own(run: Callable[..., dict[str, Any]]) -> None:
    report = run(iou=0.7, ious=[0.65])
    assert list(report["detection"]) == ["0.65", "0.7"]
    assert report["metrics"]["recall"] == 0.4 and report["metrics"]["recall@0.65"] == 0.6


def test_plates_smaller_than_asked_for_count_neither_way(run: Callable[..., dict[str, Any]]) -> None:
    report = run(smallest=[55, 20])  # both P1 are of 50 x 20
    assert (report["counts"]["plates"], report["counts"]["smaller_plates"], report["counts"]["boxes"]) == (3, 2, 4)
    half = report["detection"]["0.5"]
    assert ratio(half["recall"]) == (2, 3) and ratio(half["precision"]) == (2, 4)
    assert ratio(report["reading"]["end_to_end"]["plates"]) == (0, 2)


def test_what_finds_a_smaller_plate_counts_neither_way_at_any_overlap(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, beside = (20, 20, 60, 30), (24, 20, 64, 30)  # an IoU of 0.82
    monkeypatch.setitem(SCRIPT, "b.jpg", ("two", [(small, "浙C55555", "浙")], [(beside, 0.8, "浙C55555", 0.9)]))
    report = run(smallest=[45, 20], iou=0.9, ious=[0.5])
    half, main = report["detection"]["0.5"], report["detection"]["0.9"]
    assert ratio(half["recall"]) == (2, 4) and ratio(half["precision"]) == (2, 3)
    assert ratio(main["recall"]) == (1, 4) and ratio(main["precision"]) == (1, 4)
    assert half["average_precision"] == 0.5 and main["average_precision"] == 0.25


def test_what_was_measured_before_is_put_where_it_is_asked_for(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    first = run(path=str(tmp_path / "here"))
    other = run(path=str(tmp_path / "here"), iou=0.7)
    kept = tmp_path / "here" / "report.json"
    assert json.loads(kept.read_text(encoding="utf-8"))["iou"] == other["iou"] == 0.7
    again = run(path=str(tmp_path / "here"))
    assert json.loads(kept.read_text(encoding="utf-8"))["iou"] == first["iou"] == again["iou"] == 0.5
    run(path=str(tmp_path / "there"))
    assert (tmp_path / "there" / "report.html").is_file()


def test_a_graph_that_only_detects(run: Callable[..., dict[str, Any]]) -> None:
    report = run(DETECT)
    assert ratio(report["detection"]["0.5"]["recall"]) == (3, 5)
    assert "reading" not in report and "confusion" not in report
    assert "plates_right" not in report["metrics"]


class _Page(HTMLParser):
    """Checks that elements close in order, and gathers what a browser would fetch."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_all_it_shows_and_trusts_no_label(run: Callable[..., dict[str, Any]]) -> None:
    report = run()
    page = _Page()
    page.feed((report["folder"] / "report.html").read_text(encoding="utf-8"))
    assert not page.open
    assert "b" in page.tags and "script" not in page.tags and "this" not in page.tags
    assert "a <b>&.jpg (one)" in page.text and "row 7: <no box>" in page.text and "cannot do <this> one" in page.text
    # misread: in its picture, and as it was read; missed: two; false: two, in the picture and as read
    assert len(page.fetched) == 2 + 2 + 4
    for source in page.fetched:
        kind, _, data = source.partition(";base64,")
        assert kind == "data:image/jpeg"
        raw = np.frombuffer(base64.b64decode(data), np.uint8)
        assert cv2.imdecode(raw, cv2.IMREAD_COLOR) is not None
    assert page.tags.count("svg") == 3
    assert not re.search(r"url\(|@import|http-equiv=.refresh", page.rawdata)


def test_fewer_pictures_on_the_sheet_the_worst_are_kept(run: Callable[..., dict[str, Any]]) -> None:
    report = run(failures=1)
    assert [f["score"] for f in report["failures"]["false"]] == [0.4]
    assert report["failures"]["totals"]["false"] == 2
    assert run(failures=0)["failures"]["false"] == []


def test_trained_weights_take_the_place_of_the_recipes_own(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    outer = OUTER.replace(
        "evaluate: {uses: core.evaluate, inputs: {dataset: data.dataset}",
        "train: {uses: our.train, inputs: {dataset: data.dataset}}\n"
        "      evaluate: {uses: core.evaluate, inputs: {dataset: data.dataset, detect.weights: train.weights}",
    )
    report = run(outer=outer)
    assert ratio(report["detection"]["0.5"]["recall"]) == (0, 5)  # all boxes are 30 pixels off
    file = next((tmp_path / "runs").glob("outer/train/*/w.safetensors"))
    entry = report["provenance"]["weights"]["detect.weights"]
    assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert entry["trained_here"] and entry["architecture"] == "our.shift"


def test_overrides_of_the_recipe_that_is_measured(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "moved.safetensors"
    weights.save(file, {"shift": torch.tensor(30.0)}, {"architecture": "our.shift"})
    for overrides in ({"detect.weights": str(file)}, {"detect": {"weights": str(file)}}):
        assert ratio(run(overrides=overrides)["detection"]["0.5"]["recall"]) == (0, 5)


def test_labels_that_the_recognizer_cannot_spell_are_counted(
    run: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reader.safetensors"
    weights.save(file, {"x": torch.zeros(1)}, {"architecture": "our.reader", "alphabet": ALPHABET})
    report = run(overrides={"read.weights": str(file)})
    assert report["counts"]["plates_beyond_the_alphabet"] == 1
    assert report["counts"]["characters_beyond_the_alphabet"] == "苏"
    assert "1 plates have characters that the recognizer does not know" in capsys.readouterr().out


def test_what_trained_weights_cannot_spell_is_counted_by_their_own_alphabet(
    run: Callable[..., dict[str, Any]],
) -> None:
    outer = OUTER.replace(
        "evaluate: {uses: core.evaluate, inputs: {dataset: data.dataset}",
        "train: {uses: our.train-reader, inputs: {dataset: data.dataset}}\n"
        "      evaluate: {uses: core.evaluate, inputs: {dataset: data.dataset, read.weights: train.weights}",
    )
    report = run(outer=outer)
    assert report["counts"]["plates_beyond_the_alphabet"] == 1
    assert report["counts"]["characters_beyond_the_alphabet"] == "苏"


alive = most_alive = 0


class Many(Labels):
    """Crops whose texts are their names, counted while they live."""

    problems: Sequence[str] = ()

    def __len__(self) -> int:
        return 600

    def __getitem__(self, index: int) -> Example:
        truth = Truth((0.0, 0.0, 94.0, 24.0), None, f"A{index:04d}" if index % 3 else "wrong")
        return Example(f"A{index:04d}.png", self.decode, (truth,))

    @staticmethod
    def decode() -> np.ndarray:
        global alive, most_alive
        image = np.zeros((24, 94, 3), np.uint8)
        weakref.finalize(image, _gone)
        alive += 1
        most_alive = max(most_alive, alive)
        return image


def _gone() -> None:
    global alive
    alive -= 1


def test_crops_and_bounded_memory(run: Callable[..., dict[str, Any]]) -> None:
    report = run(CROPS, OUTER.replace("our.labels", "our.many"))
    assert "detection" not in report
    assert ratio(report["reading"]["given_found"]["plates"]) == (400, 600)
    assert list(report["reading"]) == ["given_found"]
    assert report["failures"]["totals"]["misread"] == 200 and len(report["failures"]["misread"]) == 24
    assert most_alive <= 60  # a few batches of 8, whatever the length


def test_pictures_none_of_which_can_be_read(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", {"unreadable.jpg": SCRIPT["unreadable.jpg"]})
    with pytest.raises(LprfError, match=r"none of the 1 pictures could be read, such as unreadable\.jpg: truncated"):
        run()


def test_crops_need_one_plate_a_picture(run: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(LprfError, match=r"one plate each, but a <b>&\.jpg has 3; core\.crop-plates"):
        run(CROPS)

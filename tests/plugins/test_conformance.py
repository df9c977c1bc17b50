"""Every shipped component keeps the contract of its kind: the suites that plugins of others inherit too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from lprf import weights
from lprf.data import Detections, Frames, Plates
from lprf.errors import RecipeError
from lprf.plugins import installed
from lprf.testing import (
    DatasetSuite,
    DetectorSuite,
    EvaluatorSuite,
    Labelled,
    RectifierSuite,
    SamplerSuite,
    SinkSuite,
    SourceSuite,
    TrainerSuite,
    TransformSuite,
)
from lprf.testing.infer import check_readings, detections, plates, readings
from lprf_mtcnn.nets import PNet, pnet_metadata
from tiny_photos import photo, write_ccpd


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for seed, name in enumerate(names):
        cv2.imencode(".png", photo(seed)[0])[1].tofile(folder / name)


def test_every_shipped_component_has_a_suite() -> None:
    tested = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        tested |= set(re.findall(r'component(?:: [\w\[\]]+)? = "([\w.-]+)"', path.read_text(encoding="utf-8")))
    shipped = {f"{p.name}.{c}" for p in installed().load_all() if p.distribution == "lprf" for c in p.components}
    assert shipped - tested == set()


class TestImages(SourceSuite):
    component = "core.images"
    params: ClassVar[Mapping[str, Any]] = {"path": "pictures"}

    @pytest.fixture(autouse=True)
    def pictures(self, here: Path) -> None:
        write_pictures(here / "pictures", ["a.png", "b.png", "é 京.png"])


class TestCrops(SourceSuite):
    component = "core.crops"
    params: ClassVar[Mapping[str, Any]] = {"path": "pictures"}
    pictures = TestImages.pictures


class TestVideo(SourceSuite):
    component = "core.video"
    params: ClassVar[Mapping[str, Any]] = {"path": "drive.avi"}

    @pytest.fixture(autouse=True)
    def drive(self, here: Path) -> None:
        writer = cv2.VideoWriter(str(here / "drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (320, 200))
        for seed in range(5):
            writer.write(photo(seed)[0])
        writer.release()


class TestCrop(RectifierSuite):
    component = "core.crop"


# what the suites are for: they must fail where a component is wrong


def _spoilt(found: Any, **changes: Any) -> Any:
    return replace(found, **{name: change(getattr(found, name)) for name, change in changes.items()})


def _painted(value: Any) -> Any:
    frames = value if isinstance(value, Frames) else value.frames
    frames.images[:, 0] = 0
    return value


RECTIFIERS: dict[str, tuple[str, Any]] = {
    "cuts from the first frame": (
        "test_a_batch_is_its_plates_one_by_one",
        lambda cut, given: cut(replace(given, frame=torch.zeros_like(given.frame))),
    ),
    "gives nothing": ("test_rows_shapes_types_and_device", lambda cut, given: cut(given.rows(torch.zeros(0).long()))),
    "stands on its head": ("test_upright", lambda cut, given: _spoilt(cut(given), images=lambda x: x.flip(2))),
    "draws on the frames": ("test_rows_shapes_types_and_device", lambda cut, given: cut(_painted(given))),
}


@pytest.mark.parametrize("wrong", RECTIFIERS)
def test_a_wrong_rectifier_is_caught(wrong: str) -> None:
    check, spoil = RECTIFIERS[wrong]

    class Wrong(RectifierSuite):
        component = "core.crop"

        def rectify(self, rectifier: Any, given: Detections) -> Plates:
            cut: Plates = spoil(rectifier, given)
            return replace(cut, detections=given)

    arguments = ["cpu"] if "device" in check else []
    getattr(TestCrop(), check)(*arguments)
    with pytest.raises(AssertionError):
        getattr(Wrong(), check)(*arguments)


READINGS: dict[str, Any] = {
    "probabilities beyond 1": {"characters": lambda rows: [[7.5] * len(row) for row in rows]},
    "the least probable first": {"alternatives": lambda rows: [row[::-1] for row in rows]},
    "a text that is none of them": {"alternatives": lambda rows: [[("?", 0.1)] for _ in rows]},
}


@pytest.mark.parametrize("wrong", READINGS)
def test_a_wrong_recognizer_is_caught(wrong: str) -> None:
    right = readings(plates(3))
    right = replace(right, alternatives=[[("A1", 0.7), ("B2", 0.2)] for _ in range(3)])
    check_readings(right)
    with pytest.raises(AssertionError):
        check_readings(_spoilt(right, **READINGS[wrong]))


def test_a_detector_that_draws_on_the_frames_is_caught() -> None:
    class Wrong(DetectorSuite):
        component = "mtcnn.detector"

        def build(self, device: str = "cpu", **changes: Any) -> Any:
            return lambda given: detections(_painted(given))

    with pytest.raises(AssertionError, match="draw on a copy"):
        Wrong().test_rows_shapes_types_and_device("cpu", installed().component("mtcnn.detector"))


class TestPerspective(RectifierSuite):
    component = "core.perspective"

    def test_a_recipe_with_it_is_valid(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"needs Detections with corners, which crops\.detections does not give"):
            self.loaded(tmp_path)


class TestStn(RectifierSuite):
    component = "stn.rectifier"
    params: ClassVar[Mapping[str, Any]] = {"weights": "cn-stn"}

    @pytest.fixture(autouse=True)
    def as_trained(self) -> None:
        self.plate_size = tuple(weights.find("cn-stn").metadata["size"])


class TestTable(SinkSuite):
    component = "core.table"


class TestJsonl(SinkSuite):
    component = "core.jsonl"
    path = "out.jsonl"
    params: ClassVar[Mapping[str, Any]] = {"path": path}


class TestCsv(SinkSuite):
    component = "core.csv"
    path = "out.csv"
    params: ClassVar[Mapping[str, Any]] = {"path": path}


class TestAnnotate(SinkSuite):
    component = "core.annotate"
    params: ClassVar[Mapping[str, Any]] = {"path": "drawn"}


class TestCcpd(DatasetSuite):
    component = "ccpd.dataset"
    params: ClassVar[Mapping[str, Any]] = {"root": "ccpd"}

    @pytest.fixture(autouse=True)
    def photos(self, here: Path) -> None:
        write_ccpd(here / "ccpd", 4)
        (here / "ccpd" / "broken.jpg").write_bytes(b"")


class TestLabelledCrops(DatasetSuite):
    component = "core.labelled-crops"
    params: ClassVar[Mapping[str, Any]] = {"path": "crops"}

    @pytest.fixture(autouse=True)
    def pictures(self, here: Path) -> None:
        write_pictures(here / "crops", ["京A12345.png", "京A12345_2.png", "沪B6789C.png"])


class TestTableDataset(DatasetSuite):
    component = "core.table-dataset"
    params: ClassVar[Mapping[str, Any]] = {"path": "photos"}

    @pytest.fixture(autouse=True)
    def pictures(self, here: Path) -> None:
        write_pictures(here / "photos", ["a.png", "b.png"])
        rows = ["file,text,x1,y1,x2,y2", "a.png,京A12345,10,10,90,40", "b.png,沪B6789C,20,20,100,60", "c.png,X,1,1,2,2"]
        (here / "photos" / "labels.csv").write_text("\n".join(rows), encoding="utf-8")


class TestPhotos(DatasetSuite):
    component = "core.photos"
    params: ClassVar[Mapping[str, Any]] = {"path": "photos"}

    @pytest.fixture(autouse=True)
    def pictures(self, here: Path) -> None:
        write_pictures(here / "photos", ["a.png", "b.png"])


class TestSynthPlates(DatasetSuite):
    component = "synth.plates"
    params: ClassVar[Mapping[str, Any]] = {"count": 50}


class TestSynthScenes(DatasetSuite):
    component = "synth.scenes"
    params: ClassVar[Mapping[str, Any]] = {"count": 8, "size": [200, 320], "widths": [38, 100]}


class TestSynthScenesOnPhotos(TestSynthScenes):
    def inputs(self, folder: Path) -> Mapping[str, Any]:
        return {"backgrounds": [Labelled()]}


class TestSplit(TransformSuite):
    component = "core.split"
    params: ClassVar[Mapping[str, Any]] = {"train": 0.5, "val": 0.5}


class TestConcat(TransformSuite):
    component = "core.concat"

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        return {"datasets": [Labelled(3), Labelled(2, name="more")]}


class TestSubset(TransformSuite):
    component = "core.subset"
    params: ClassVar[Mapping[str, Any]] = {"n": 3}


class TestCropPlates(TransformSuite):
    component = "core.crop-plates"


class TestAugment(TransformSuite):
    component = "core.augment"


class TestAudit(TransformSuite):
    component = "core.audit"

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        return {"train": Labelled(3)}


class TestPnetSamples(SamplerSuite):
    component = "mtcnn.samples"
    params: ClassVar[Mapping[str, Any]] = {"net": "pnet", "count": 12}


class TestOnetSamples(SamplerSuite):
    component = "mtcnn.samples"
    params: ClassVar[Mapping[str, Any]] = {"net": "onet", "count": 40, "threshold": 0.5}

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        torch.manual_seed(1)
        net = PNet()
        path = weights.save(folder / "pnet.safetensors", net.state_dict(), pnet_metadata(net))
        return {"dataset": Labelled(), "pnet": path}


class TestPnetTrainer(TrainerSuite):
    component = "mtcnn.pnet-trainer"
    params: ClassVar[Mapping[str, Any]] = {"batch": 4}

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        return {"samples": TestPnetSamples().run(folder)[1]["samples"], "val": Labelled(2)}


class TestOnetTrainer(TrainerSuite):
    component = "mtcnn.onet-trainer"
    params: ClassVar[Mapping[str, Any]] = {"batch": 12}
    sampler = "mtcnn.samples, with: {net: onet}"

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        return {"samples": TestOnetSamples().run(folder)[1]["samples"], "val": Labelled(2)}


class TestLprnetTrainer(TrainerSuite):
    component = "lprnet.trainer"
    params: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 4, "size": [24, 96], "width": 0.25}

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        return {"datasets": [Labelled()], "val": Labelled(2)}


class TestLprnetTrainerAsPublished(TestLprnetTrainer):
    params: ClassVar[Mapping[str, Any]] = {
        "steps": 2,
        "batch": 4,
        "size": [24, 94],
        "width": 0.25,
        "decoder": "ctc",
        "context": "running",
    }


class TestEvaluate(EvaluatorSuite):
    component = "core.evaluate"
    params: ClassVar[Mapping[str, Any]] = {"recipe": "read-plates"}


def test_labelled_has_its_plates_where_it_says() -> None:
    example = Labelled()[1]
    x1, y1, x2, y2 = map(int, example.plates[0].box)
    image = example.image()
    assert np.array_equal(image[y1, x1], (180, 80, 20))
    assert np.array_equal(image[y2 - 1, x2 - 1], (180, 80, 20))
    assert not np.array_equal(image[y1, x2], (180, 80, 20))

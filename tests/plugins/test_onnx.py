"""`onnx.*` on tiny models whose answers are known, each mistake in a recipe, and `lprf export`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

import lprf
from lprf import weights
from lprf.cli import main
from lprf.context import Context
from lprf.data import Detections, Frames, Origin, Plates
from lprf.errors import LprfError, RecipeError
from lprf.network import Network
from lprf.plugins import installed
from lprf.recipe import load_recipe
from lprf.testing import DetectorSuite, RecognizerSuite

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")

import tiny_onnx  # noqa: E402

FACE = {"model": "face.onnx", "layout": "yolo-face", "corners": (1, 0, 3, 2)}
READER = {"model": "reader.onnx", "alphabet": "ABC", "decoder": "ctc", "axes": "NTC"}
READER |= {"colours": "BGR", "mean": 0.0, "scale": 255.0}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own with the two models in it."""
    monkeypatch.chdir(tmp_path)
    tiny_onnx.detector(tmp_path / "face.onnx")
    tiny_onnx.reader(tmp_path / "reader.onnx")
    return tmp_path


class TestDetector(DetectorSuite):
    component = "onnx.detector"
    params: ClassVar[Mapping[str, Any]] = FACE


class TestRecognizer(RecognizerSuite):
    component = "onnx.recognizer"
    params: ClassVar[Mapping[str, Any]] = READER

    def context(self, device: str = "cpu", **changes: Any) -> Context:
        return super().context(device, **{"plate_size": (8, 40), **changes})


def built(uses: str, **params: Any) -> Any:
    declared = installed().component(uses)
    context = Context(torch.device("cpu"), torch.float32, weights.find_and_load, node="tested")
    return declared.load()(declared.params.model_validate(params), context)


def blue(x: int = 60, y: int = 40, size: tuple[int, int] = (128, 224), factor: int = 1) -> Frames:
    """A frame, grey but for a blue plate of 94 x 28, all of it `factor` times as large."""
    image = np.full((*size, 3), 100, np.uint8)
    image[y : y + 28, x : x + 94] = (255, 0, 0)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    return Frames(torch.from_numpy(image)[None], [Origin("blue")])


def plates(*rows: list[int]) -> Plates:
    """Plates of 8 x 40 whose five parts have these means, in tenths."""
    images = torch.tensor(rows, dtype=torch.float32).repeat_interleave(8, 1)[:, None, None].expand(-1, 3, 8, -1) * 25.5
    n = len(rows)
    frames = Frames(torch.zeros(1, 30, 100, 3, dtype=torch.uint8), [Origin("a")])
    of = Detections(frames, torch.zeros(n, dtype=torch.int64), torch.ones(n, 4), torch.ones(n))
    return Plates(of, torch.arange(n), images.contiguous())


@pytest.mark.parametrize("layout", ["yolo", "yolo-face", "yolov8", "yolov8-pose", "end-to-end"])
def test_every_layout_finds_the_plate_where_it_is(layout: str, here: Path) -> None:
    tiny_onnx.detector(here / "x.onnx", layout)
    found = built("onnx.detector", model="x.onnx", layout=layout, corners=(1, 0, 3, 2), threshold=0.9)(blue())
    best = found.boxes[int(found.scores.argmax())]
    assert best.tolist() == pytest.approx([60, 40, 154, 68], abs=0.01)
    assert float(found.scores.max()) == pytest.approx(1, abs=1e-3)
    assert (found.corners is not None) == (layout in ("yolo-face", "yolov8-pose"))
    if found.corners is not None:
        at = found.corners[int(found.scores.argmax())]
        assert at.flatten().tolist() == pytest.approx([69.4, 40, 163.4, 40, 154, 68, 60, 68], abs=0.01)
    if layout != "end-to-end":
        assert len(found) == 1, "suppressed"


@pytest.mark.parametrize("resize", ["centre", "corner", "stretch"])
@pytest.mark.parametrize("size", [(128, 224), (256, 224), (128, 448), (384, 672)])
def test_boxes_and_corners_come_back_to_the_frame(resize: str, size: tuple[int, int]) -> None:
    """The plate is drawn so that it is 94 x 28 in the input, whatever the frame's size."""
    factors = np.array([size[1] / 224, size[0] / 128])
    if resize != "stretch":
        factors[:] = factors.max()
    w, h = np.round(np.array([94, 28]) * factors).astype(int)
    x, y = 20, 30
    image = np.full((*size, 3), 100, np.uint8)
    image[y : y + h, x : x + w] = (255, 0, 0)
    found = built("onnx.detector", **FACE, resize=resize, threshold=0.8)(
        Frames(torch.from_numpy(image)[None], [Origin("blue")])
    )
    [box], [corners] = found.boxes.tolist(), found.corners.tolist()
    assert box == pytest.approx([x, y, x + w, y + h], abs=2.5 * factors.max())  # cells are two pixels apart
    assert corners[3][0] == pytest.approx(box[0], abs=0.01) and corners[0][0] == pytest.approx(box[0] + w / 10, abs=0.5)


def test_classes_that_are_no_plates_do_not_count(here: Path) -> None:
    tiny_onnx.detector(here / "x.onnx", "yolov8-pose")  # its 8 values of corners as 8 more classes
    found = built("onnx.detector", model="x.onnx", layout="yolo", transposed=True, classes=8, plates=[7], threshold=1)
    assert len(found(Frames(torch.full((1, 128, 224, 3), 100, dtype=torch.uint8), [Origin("grey")]))) == 0


def test_a_model_in_float16(here: Path) -> None:
    tiny_onnx.reader(here / "half.onnx", half=True)
    given = plates([0, 1, 2, 1, 0])
    assert built("onnx.recognizer", **{**READER, "model": "half.onnx"})(given).texts == (
        built("onnx.recognizer", **READER)(given).texts
    )


def test_a_fixed_batch_is_filled_up(here: Path) -> None:
    tiny_onnx.detector(here / "x.onnx", batch=4)
    frames = [blue(x) for x in (10, 20, 30, 40, 50, 60)]
    given = Frames(torch.cat([f.images for f in frames]), [f.sources[0] for f in frames])
    fixed = built("onnx.detector", **{**FACE, "model": "x.onnx", "batch": 4, "threshold": 0.9})(given)
    free = built("onnx.detector", **FACE, threshold=0.9)(given)
    assert fixed.frame.tolist() == [0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(fixed.boxes, free.boxes)


DETECTOR_MISTAKES = {
    "another layout": (
        {"layout": "yolo"},
        r"`layout: yolo` with 1 class is \[batch, boxes, 6\].*is \[1, \d+, 14\].*yolo-face",
    ),
    "the axes": (
        {"transposed": True},
        r"is \[batch, 14, boxes\].*\[1, \d+, 14\].*`layout: yolo-face` with `classes: 1`",
    ),
    "classes": ({"classes": 3}, r"`layout: yolo-face` with 3 classes is \[batch, boxes, 16\]"),
    "a batch": ({"batch": 4}, r"`batch: 4`, but the model takes any number: leave `batch` out"),
    "the size": ({"size": [320, 320]}, r"`size: \[320, 320\]`.*is 128 x 224: say `size: \[128, 224\]`"),
    "the channels": ({"colours": "grey"}, r"`colours: grey` is 1 channels, the model's input has 3"),
    "the output": ({"output": "boxes"}, r"no output 'boxes'; `output` may be output"),
    "no model": ({"model": "none.onnx"}, r"there is no model none\.onnx"),
    "no ONNX": ({"model": "no.onnx"}, r"no\.onnx cannot be loaded"),
    "a fixed batch": (
        {"model": "fixed.onnx"},
        r"takes batches of 2 and no other: say `batch: 2`, or export it with a dy",
    ),
    "another batch": ({"model": "fixed.onnx", "batch": 3}, r"but the model takes batches of 2: say `batch: 2`"),
    "a size left open": ({"model": "open.onnx"}, r"leaves the size of its input open: say `size: \[height, width\]`"),
}


@pytest.mark.parametrize(("changes", "message"), DETECTOR_MISTAKES.values(), ids=DETECTOR_MISTAKES.keys())
def test_a_detector_that_is_not_as_declared_is_told(changes: dict[str, Any], message: str, here: Path) -> None:
    (here / "no.onnx").write_bytes(b"not a model")
    tiny_onnx.detector(here / "fixed.onnx", batch=2)
    tiny_onnx.detector(here / "open.onnx", size=("height", "width"))
    with pytest.raises(LprfError, match=message) as told:
        built("onnx.detector", **{**FACE, **changes})
    assert str(told.value).startswith("tested")


def test_readers_by_time_steps_and_by_slots_whatever_their_axes(here: Path) -> None:
    for axes in ("NTC", "NCT", "TNC"):
        tiny_onnx.reader(here / "x.onnx", axes=axes)
        given = {**READER, "model": "x.onnx", "axes": axes}
        pictures = plates([0, 0, 3, 0, 1], [3, 3, 3, 3, 3], [2, 1, 3, 3, 3], [1, 1, 1, 3, 3])
        assert built("onnx.recognizer", **given)(pictures).texts == ["AAB", "", "CB", "B"]
        assert built("onnx.recognizer", **{**given, "decoder": "slots"})(pictures).texts == ["AA", "", "CB", "BBB"]


def test_the_blank_may_be_the_first_class() -> None:
    read = built("onnx.recognizer", **READER, blank="first")
    assert read(plates([0, 1, 0, 1, 3])).texts == ["AAC"]


def test_a_reader_whose_batch_is_fixed_and_not_its_first_axis(here: Path) -> None:
    tiny_onnx.reader(here / "x.onnx", axes="TNC", batch=2)
    read = built("onnx.recognizer", **{**READER, "model": "x.onnx", "axes": "TNC", "batch": 2})
    assert read(plates([0, 3, 3, 3, 3], [1, 3, 3, 3, 3], [2, 3, 3, 3, 3])).texts == ["A", "B", "C"]


def test_colours_mean_and_scale_are_those_declared(here: Path) -> None:
    tiny_onnx.reader(here / "grey.onnx", channels=1)
    given = plates([0, 1, 2, 3, 3])
    grey = built("onnx.recognizer", **{**READER, "model": "grey.onnx", "colours": "grey"})
    assert grey(given).texts == ["ABC"]
    moved = built("onnx.recognizer", **{**READER, "mean": [-25.5, -25.5, -25.5], "scale": 255.0})
    assert moved(given).texts == ["BC"]  # each a tenth more: 1, 2, 3, 4, 4


READER_MISTAKES = {
    "an alphabet too long": (
        {"alphabet": "ABCDE"},
        r"has 5 characters and needs 6 classes.*gives 4: 2 characters too many",
    ),
    "too short": ({"alphabet": "AB"}, r"has 2 characters and needs 3 classes.*gives 4: 1 character too few"),
    "the axes": ({"axes": "NCT", "alphabet": "ABC"}, r"gives 5: 1 character too few; or `axes` is another"),
    "no alphabet": ({"alphabet": None}, r"the model's metadata does not say `alphabet`: say it in the recipe"),
    "no decoder": ({"decoder": None}, r"does not say `decoder`"),
    "a format": ({"format": "de"}, r"no plate of the format 'de' can be written in the alphabet of reader\.onnx, ABC"),
}


@pytest.mark.parametrize(("changes", "message"), READER_MISTAKES.values(), ids=READER_MISTAKES.keys())
def test_a_reader_that_is_not_as_declared_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LprfError, match=message):
        built("onnx.recognizer", **{**READER, **changes})


def test_metadata_stands_in_for_what_the_recipe_leaves_out(here: Path) -> None:
    model = onnx.load(here / "reader.onnx")
    told = {"alphabet": "ABC", "decoder": "ctc", "axes": "NTC", "channels": "BGR", "mean": 0.0, "scale": 255.0}
    onnx.helper.set_model_props(model, {"lprf": json.dumps(told)})
    onnx.save(model, here / "told.onnx")
    assert built("onnx.recognizer", model="told.onnx")(plates([0, 1, 2, 3, 3])).texts == ["ABC"]
    with pytest.raises(LprfError, match=r"`alphabet` is 'XYZ' in the recipe and 'ABC' in the model's metadata"):
        built("onnx.recognizer", model="told.onnx", alphabet="XYZ")
    for key, value, message in [
        ("alphabet", "AAB", "names a character twice"),
        *(("temperature", value, "must be a number from 0.05 to 20") for value in ("abc", None, [1], 0, -1, math.nan)),
    ]:
        onnx.helper.set_model_props(model, {"lprf": json.dumps({**told, key: value})})
        onnx.save(model, here / "odd.onnx")
        with pytest.raises(LprfError, match=f"the model's metadata: .*{message}"):
            built("onnx.recognizer", model="odd.onnx")


SWAP = {"detect.uses": "onnx.detector", "detect.model": "face.onnx", "detect.layout": "yolo-face"}


def test_corners_of_a_yolo_face_model_go_through_read_plates_with_perspective(here: Path) -> None:
    overrides = {**SWAP, "detect.corners": [1, 0, 3, 2], "detect.threshold": 0.8, "rectify.uses": "core.perspective"}
    with lprf.load("read-plates", overrides=overrides) as reader:
        [reading] = reader.run(blue(60, 40).images[0].numpy())
    assert reading.box == pytest.approx((60, 40, 154, 68), abs=0.01)
    assert reading.corners is not None
    assert np.ravel(reading.corners) == pytest.approx([69.4, 40, 163.4, 40, 154, 68, 60, 68], abs=0.01)


def test_without_corners_perspective_is_refused_when_the_recipe_is_checked() -> None:
    with pytest.raises(RecipeError, match=r"needs Detections with corners, which detect\.detections does not give"):
        load_recipe("read-plates", {**SWAP, "detect.layout": "yolo", "rectify.uses": "core.perspective"})


def test_without_the_extra_the_error_names_it_and_the_rest_works(here: Path) -> None:
    code = "import sys; sys.modules['onnxruntime'] = None\nfrom lprf.cli import main\nsys.exit(main(sys.argv[1:]))"
    sets = [part for key, value in SWAP.items() for part in ("-s", f"{key}={value}")]
    for words, expected in [(["components", "onnx.detector"], 0), (["validate", "read-plates", *sets], 0)]:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
    cv2.imwrite(str(here / "a.png"), blue().images[0].numpy())
    words = ["run", "read-plates", "-s", "images.path=a.png", *sets]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "detect needs the extra `onnx`" in done.stderr and "pip install 'lprf[onnx]'" in done.stderr


# Export


@pytest.mark.slow
def test_export_writes_what_reads_alike(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos").mkdir()
    rng = np.random.default_rng(1)
    for i in range(3):
        cv2.imwrite(str(here / f"photos/{i}.png"), rng.integers(0, 255, (60 + 20 * i, 200, 3), np.uint8))
    # thresholds of 0: proposals of the untrained networks go through all four
    free = {"detect.thresholds": [0, 0], "detect.refined": 0, "detect.max_proposals": 10}
    words = [word for name, value in free.items() for word in ("-s", f"{name}={value}")]
    words += ["-s", "images.path=photos"]
    assert main(["export", "read-plates", *words, "--out", "models"]) == 0
    said = capsys.readouterr().out
    assert "no text differs" in said and "not run" not in said
    files = sorted(path.name for path in (here / "models").iterdir())
    assert files == ["any-centernet.onnx", "cn-lprnet.onnx", "cn-onet.onnx", "cn-stn.onnx"]
    for name in files:
        model = onnx.load(here / "models" / name)
        onnx.checker.check_model(model)
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert json.loads({p.key: p.value for p in model.metadata_props}["lprf"])["architecture"]
    # and the reader is one that `onnx.recognizer` takes as it is
    free["runtime.precision"] = "float32"
    ours = lprf.load("read-plates", overrides=free)
    swapped = {"read.uses": "onnx.recognizer", "read.model": "models/cn-lprnet.onnx"}
    theirs = lprf.load("read-plates", overrides={**free, **swapped})
    [one, other] = ([(r.box, r.text) for r in reader.run("photos")] for reader in (ours, theirs))
    assert one and one == other


@pytest.mark.slow
def test_export_of_a_reader_by_slots(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lprf_lprnet.slots import SlotNet

    torch.manual_seed(1)
    net = SlotNet(5, (24, 96), 0.25, 5)
    told = {**net.metadata(), "alphabet": "AB12", "blank": 4, "temperature": 1.5}
    weights.save(here / "slots.safetensors", net.state_dict(), told)
    (here / "crops").mkdir()
    for i in range(5):
        noise = np.random.default_rng(i).integers(0, 255, (30, 100, 3), np.uint8)
        cv2.imwrite(str(here / f"crops/{i}.png"), noise)
    words = ["-s", "crops.path=crops", "-s", "rectify.uses=core.crop", "-s", "read.weights=./slots.safetensors"]
    assert main(["export", "read-crops", *words]) == 0
    assert "5 pictures, 5 plates: no text differs" in capsys.readouterr().out
    same = {"rectify.uses": "core.crop", "read.uses": "onnx.recognizer", "read.model": "export/slots.onnx"}
    own = {"rectify.uses": "core.crop", "read.weights": "./slots.safetensors", "runtime.precision": "float32"}
    mine = lprf.load("read-crops", overrides=own)
    [one, other] = (list(r.run("crops")) for r in (mine, lprf.load("read-crops", overrides=same)))
    assert [r.text for r in one] == [r.text for r in other]
    assert [r.confidence for r in one] == pytest.approx([r.confidence for r in other], abs=1e-4)


def test_texts_that_differ_are_named_and_the_exit_code_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that gives other numbers than its network: the proof must not pass."""
    from lprf import export

    def other(network: Network, path: Path, who: str) -> Path:
        classes, steps = network.module(network.example).shape[1:]
        logits = np.zeros((1, classes, steps), np.float32)
        logits[0, 3] = 9
        nodes = [
            onnx.helper.make_node("ReduceMean", ["images"], ["m"], axes=[1, 2], keepdims=0),
            onnx.helper.make_node("ReduceMean", ["m"], ["n"], axes=[1], keepdims=1),
            onnx.helper.make_node("Reshape", ["n", "rows"], ["r"]),
            onnx.helper.make_node("Mul", ["r", "zero"], ["z"]),
            onnx.helper.make_node("Add", ["z", "wrong"], ["output"]),
        ]
        constants = {"rows": np.array([-1, 1, 1], np.int64), "zero": np.array(0, np.float32), "wrong": logits}
        return tiny_onnx.save(path, nodes, constants, ["batch", *network.example.shape[1:]], [None] * 3)

    monkeypatch.setattr(export, "write", other)
    cv2.imwrite(str(here / "a.png"), np.full((24, 94, 3), 90, np.uint8))
    words = ["-s", "crops.path=a.png", "-s", "rectify.uses=core.crop", "--out", "."]
    assert main(["export", "read-crops", *words]) == 1
    said = capsys.readouterr().out
    assert "1 of 1 pictures differ" in said and "a.png" in said


def test_a_recipe_without_networks_has_nothing_to_export(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(here / "a.png"), blue().images[0].numpy())
    sets = [part for key, value in SWAP.items() for part in ("-s", f"{key}={value}")]
    assert main(["export", "detect-plates", "-s", "images.path=a.png", *sets]) == 2
    assert "no component of recipe 'detect-plates' has a network that can be exported" in capsys.readouterr().err


@pytest.mark.slow
def test_the_proof_on_real_crops(
    here: Path,
    shared_data: Path,
    shared_seed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LPRF_HOME", str(here / "home"))
    assert main(["weights", "import", str(shared_seed / "weights")]) == 0
    crops = shared_data / "crops/dev-94x24"
    words = ["-s", f"crops.path={crops}", "-s", "rectify.weights=seed-stn", "-s", "read.weights=seed-lprnet"]
    assert main(["export", "read-crops", *words]) == 0
    count = len(list(crops.iterdir()))
    assert f"{count} pictures, {count} plates: no text differs" in capsys.readouterr().out

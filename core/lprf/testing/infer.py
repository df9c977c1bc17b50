"""The suites of sources, detectors, rectifiers, recognizers and sinks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from lprf.component import Component, Port
from lprf.data import Detections, Filled, Frames, Item, Origin, Plates, Reading, Readings, readings_by_frame, trimmed
from lprf.errors import InputFailure
from lprf.plugins import installed
from lprf.testing.suite import DEVICES, ComponentSuite

TOLERANCE = 1e-3  # of confidences and of pixels: sums in another order, no more


def frames(count: int = 3, size: tuple[int, int] = (120, 200), device: str = "cpu") -> Frames:
    """Frames of soft noise with a plate-like blue rectangle in each, the same at every call."""
    rng = np.random.default_rng(1)
    height, width = size
    images = rng.integers(60, 120, (count, height, width, 3), np.uint8)
    for row in range(count):
        x, y = 20 + 15 * row, 30 + 10 * row
        images[row, y : y + 28, x : x + 94] = (180, 80, 20)
        images[row, y + 6 : y + 22, x + 8 : x + 86 : 6] = 240
    return Frames(torch.from_numpy(images).to(device), [Origin(f"frame {row}") for row in range(count)])


def detections(of: Frames, counts: tuple[int, ...] = (2, 0, 1)) -> Detections:
    """Boxes on `of`, some of a pixel or at the border, `counts` to a frame."""
    device = of.images.device
    boxes = torch.tensor([[20.0, 30, 114, 58], [150.5, 0, 200, 20], [0, 0, 1, 1]], device=device)
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    frame = torch.tensor(rows, dtype=torch.int64, device=device)
    n = len(frame)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    return Detections(of, frame, boxes[:n], torch.ones(n, device=device), corners[:n])


def plates(count: int = 3, size: tuple[int, int] = (24, 94), device: str = "cpu") -> Plates:
    """Plates of soft noise, one a frame."""
    rng = np.random.default_rng(2)
    of = detections(frames(count, device=device), (1,) * count)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, *size)).astype(np.float32)).to(device)
    return Plates(of, torch.arange(count, device=device), images)


def padded(of: Detections, nothing: int = 5) -> Detections:
    """The same with so many rows after them that hold nothing, as a GPU has them."""
    device = of.boxes.device
    return Detections(
        of.frames,
        torch.cat([of.frame, torch.zeros(nothing, dtype=torch.int64, device=device)]),
        torch.cat([of.boxes, torch.zeros(nothing, 4, device=device)]),
        torch.cat([of.scores, torch.rand(nothing, device=device)]),
        None if of.corners is None else torch.cat([of.corners, torch.rand(nothing, 4, 2, device=device)]),
        filled=Filled(torch.tensor([len(of)], device=device), lambda: None),
    )


def readings(of: Plates) -> Readings:
    """A text for each plate."""
    n, device = len(of), of.images.device
    characters, alternatives = [[0.9, 0.8] for _ in range(n)], [[("A1", 0.7)] for _ in range(n)]
    confidences = torch.full((n,), 0.7, device=device)
    return Readings(of, torch.arange(n, device=device), ["A1"] * n, confidences, characters, alternatives)


class SourceSuite(ComponentSuite):
    """Checks of a source. `params` must name something it can read in which every item is good."""

    kind: ClassVar[str] = "source"

    def graph(self) -> str:
        return "  tested: {uses: {component}}\n"

    @pytest.fixture
    def source(self) -> Any:
        return self.build()

    def read(self, source: Any, limit: int = 20) -> list[tuple[Item, np.ndarray]]:
        found = []
        for item in source.items():
            try:
                image = item.load()
            except InputFailure:
                continue
            found.append((item, image[0] if isinstance(image, tuple) else image))
            if len(found) == limit:
                break
        return found

    def test_says_whether_it_is_live_and_how_many_there_are(self, source: Any) -> None:
        assert isinstance(source.live, bool)
        assert source.total is None or source.total >= 0

    def test_items_are_bgr_pictures(self, source: Any) -> None:
        read = self.read(source)
        assert read, "there was nothing to read"
        for item, image in read:
            assert isinstance(item.origin, Origin)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3

    def test_a_batch_is_frames_of_one_size(self, source: Any, declared: Component) -> None:
        read = self.read(source)
        shape = source.shape(read[0][1])
        alike = [(item.origin, image) for item, image in read if source.shape(image) == shape]
        batch = source.batch([origin for origin, _ in alike], [image for _, image in alike])
        assert set(batch) == set(declared.all_outputs())
        check_frames(batch["frames"], len(alike))
        if "detections" in batch:
            check_detections(batch["detections"])

    def test_the_order_is_the_same_every_time(self, source: Any) -> None:
        if source.live:
            pytest.skip("a live source has no second time")
        again = self.build()
        assert [item.origin for item, _ in self.read(source)] == [item.origin for item, _ in self.read(again)]


class DetectorSuite(ComponentSuite):
    """Checks of a detector. `size` is the height and width of the frames it is tried on."""

    kind: ClassVar[str] = "detector"
    size: ClassVar[tuple[int, int]] = (120, 200)

    def graph(self) -> str:
        return "  images: {uses: core.images, with: {path: .}}\n" + (
            "  tested: {uses: {component}, inputs: {frames: images.frames}}\n"
        )

    def detect(self, detector: Any, given: Frames) -> Detections:
        found: Detections = trimmed({"detections": _output(detector(given), "detections")})["detections"]
        return found

    @pytest.mark.parametrize("device", DEVICES)
    def test_rows_shapes_types_and_device(self, device: str, declared: Component) -> None:
        given = frames(3, self.size, device)
        before = given.images.clone()
        found = self.detect(self.build(device), given)
        assert found.frames is given, "detections hold the batch they were found in"
        assert torch.equal(given.images, before), "frames belong to everyone: draw on a copy"
        check_detections(found)
        assert found.boxes.device.type == device
        promised = "corners" in declared.all_outputs()["detections"].features
        assert found.corners is not None or not promised, "it declares corners, and gives none"

    @pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (33, 47)])
    def test_small_and_odd_frames(self, size: tuple[int, int]) -> None:
        check_detections(self.detect(self.build(), frames_of_one_grey(size)))

    def test_a_grey_frame_has_no_plate(self) -> None:
        assert len(self.detect(self.build(), frames_of_one_grey((120, 200)))) == 0

    def test_a_batch_is_its_frames_one_by_one(self) -> None:
        detector, given = self.build(), frames(3, self.size)
        together = self.detect(detector, given)
        for row in range(3):
            alone = self.detect(detector, given.row(row))
            mine = together.frame == row
            assert int(mine.sum()) == len(alone), "a frame's plates depend on its batch"
            assert torch.allclose(together.boxes[mine], alone.boxes, atol=TOLERANCE)
            assert torch.allclose(together.scores[mine], alone.scores, atol=TOLERANCE)

    def test_the_same_twice(self) -> None:
        given = frames(2, self.size)
        first, second = self.detect(self.build(), given), self.detect(self.build(), given)
        assert torch.equal(first.boxes, second.boxes)
        assert torch.equal(first.scores, second.scores)

    @pytest.mark.skipif("cuda" not in DEVICES, reason="there is no CUDA device")
    def test_cuda_agrees_with_the_cpu(self) -> None:
        here = self.detect(self.build("cpu"), frames(3, self.size))
        there = self.detect(self.build("cuda"), frames(3, self.size, "cuda"))
        assert torch.allclose(here.boxes, there.boxes.cpu(), atol=0.1)


class RectifierSuite(ComponentSuite):
    """Checks of a rectifier."""

    kind: ClassVar[str] = "rectifier"

    def graph(self) -> str:
        return "  crops: {uses: core.crops, with: {path: .}}\n" + (
            "  tested: {uses: {component}, inputs: {detections: crops.detections}}\n"
        )

    def rectify(self, rectifier: Any, given: Detections) -> Plates:
        return _output(rectifier(given), "plates")

    @pytest.mark.parametrize("device", DEVICES)
    def test_rows_shapes_types_and_device(self, device: str) -> None:
        given = detections(frames(device=device))
        before = given.frames.images.clone()
        cut = self.rectify(self.build(device), given)
        assert cut.detections is given, "plates hold the detections they were cut from"
        assert torch.equal(given.frames.images, before), "frames belong to everyone: work on a copy"
        assert len(cut), "not one plate, of boxes with something in them"
        check_plates(cut)
        assert cut.images.device.type == device

    def test_no_detections(self) -> None:
        check_plates(self.rectify(self.build(), detections(frames(), (0, 0, 0))))

    def test_a_batch_is_its_plates_one_by_one(self) -> None:
        rectifier, given = self.build(), detections(frames())
        together = self.rectify(rectifier, given)
        for row, detection in enumerate(together.detection.tolist()):
            own = given.frames.row(int(given.frame[detection]))
            one = given.rows(torch.tensor([detection]), own, torch.zeros(1, dtype=torch.int64))
            alone = self.rectify(rectifier, one)
            assert torch.allclose(alone.images[0], together.images[row], atol=0.1), "a plate depends on its batch"

    @pytest.mark.parametrize("device", DEVICES)
    def test_rows_that_hold_nothing(self, device: str, declared: Component) -> None:
        if not declared.padded:
            pytest.skip("it is not declared `padded`")
        rectifier, given = self.build(device), detections(frames(device=device))
        plain, cut = self.rectify(rectifier, given), self.rectify(rectifier, padded(given))
        assert cut.detection.tolist() == list(range(len(given) + 5)), "a plate for every row"
        assert torch.allclose(cut.images[: len(given)], plain.images, atol=0.1)
        assert cut.images.isfinite().all()

    def test_upright(self) -> None:
        of = detections(frames(1), (1,))
        of.frames.images[0, :44] = 250  # above the middle of the plate
        of.frames.images[0, 44:] = 10
        cut = self.rectify(self.build(), of)
        middle = cut.images.shape[2] // 2
        assert cut.images[0, :, :middle].mean() > cut.images[0, :, middle:].mean(), "the plate stands on its head"

    def test_the_same_twice(self) -> None:
        given = detections(frames())
        first, second = self.rectify(self.build(), given), self.rectify(self.build(), given)
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.detection, second.detection)

    @pytest.mark.skipif("cuda" not in DEVICES, reason="there is no CUDA device")
    def test_cuda_agrees_with_the_cpu(self) -> None:
        here = self.rectify(self.build("cpu"), detections(frames()))
        there = self.rectify(self.build("cuda"), detections(frames(device="cuda")))
        assert torch.allclose(here.images, there.images.cpu(), atol=0.5)

    def test_has_the_size_that_the_reader_wants(self) -> None:
        cut = self.rectify(self.build(), detections(frames()))
        assert tuple(cut.images.shape[2:]) == self.plate_size


class RecognizerSuite(ComponentSuite):
    """Checks of a recognizer."""

    kind: ClassVar[str] = "recognizer"

    def graph(self) -> str:
        return (
            "  crops: {uses: core.crops, with: {path: .}}\n"
            "  cut: {uses: core.crop, inputs: {detections: crops.detections}}\n"
            "  tested: {uses: {component}, inputs: {plates: cut.plates}}\n"
        )

    def read(self, recognizer: Any, given: Plates) -> Readings:
        return _output(recognizer(given), "readings")

    @pytest.mark.parametrize("device", DEVICES)
    def test_rows_shapes_types_and_device(self, device: str) -> None:
        recognizer = self.build(device)
        given = plates(3, recognizer.size, device)
        found = self.read(recognizer, given)
        assert found.plates is given, "readings hold the plates that were read"
        check_readings(found)
        assert found.confidences.device.type == device

    def test_no_plates(self) -> None:
        recognizer = self.build()
        of = detections(frames(), (0, 0, 0))
        none = Plates(of, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, *recognizer.size))
        check_readings(self.read(recognizer, none))

    @pytest.mark.parametrize("device", DEVICES)
    def test_rows_that_hold_nothing(self, device: str, declared: Component) -> None:
        if not declared.padded:
            pytest.skip("it is not declared `padded`")
        recognizer = self.build(device)
        given = plates(3, recognizer.size, device)
        of = padded(given.detections)
        more = torch.cat([given.images, torch.zeros(5, *given.images.shape[1:], device=device)])
        plain, read = self.read(recognizer, given), self.read(recognizer, Plates(of, torch.arange(8), more))
        assert read.texts == plain.texts, "a text for every row that holds a plate"
        assert torch.allclose(read.confidences, plain.confidences, atol=TOLERANCE)

    def test_a_reading_does_not_depend_on_its_batch(self) -> None:
        recognizer = self.build()
        given = plates(5, recognizer.size)
        together = self.read(recognizer, given)
        for row in range(5):
            one = Plates(given.detections, given.detection[row : row + 1], given.images[row : row + 1])
            alone = self.read(recognizer, one)
            assert alone.texts[0] == together.texts[row]
            assert float(alone.confidences[0]) == pytest.approx(float(together.confidences[row]), abs=1e-4)

    def test_the_same_twice(self) -> None:
        first, second = self.build(), self.build()
        given = plates(3, first.size)
        assert self.read(first, given).texts == self.read(second, given).texts

    @pytest.mark.skipif("cuda" not in DEVICES, reason="there is no CUDA device")
    def test_cuda_agrees_with_the_cpu(self) -> None:
        recognizer = self.build("cpu")
        here = self.read(recognizer, plates(3, recognizer.size))
        there = self.read(self.build("cuda"), plates(3, recognizer.size, "cuda"))
        assert here.texts == there.texts
        assert torch.allclose(here.confidences, there.confidences.cpu(), atol=TOLERANCE)


class SinkSuite(ComponentSuite):
    """Checks of a sink. `path` is what it writes, below the folder of the test, or "" where it writes no file."""

    kind: ClassVar[str] = "sink"
    path: ClassVar[str] = ""

    def graph(self) -> str:
        inputs = ", ".join(f"{name}: {self._from(port)}" for name, port in self._ports(installed()).items())
        return (
            "  crops: {uses: core.crops, with: {path: .}}\n"
            f"  tested: {{uses: {{component}}, inputs: {{{inputs}}}}}\n"
        )

    def _ports(self, plugins: Any) -> Mapping[str, Port]:
        ports: Mapping[str, Port] = plugins.component(self.component).all_inputs()
        return {name: port for name, port in ports.items() if port.type != "Readings"} or ports

    def _from(self, port: Port) -> str:
        return {"Frames": "crops.frames", "Detections": "crops.detections"}[port.type]

    @pytest.fixture
    def sink(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.chdir(tmp_path)
        return self.build()

    def test_takes_frames_with_plates_and_without(self, sink: Any, tmp_path: Path) -> None:
        for count in (2, 0):  # one frame at a time, as a run hands them over
            found = detections(frames(1), (count,))
            cut = Plates(found, torch.arange(count), torch.zeros(count, 3, *self.plate_size))
            given = {"Frames": found.frames, "Detections": found, "Readings": readings(cut)}
            ports = installed().component(self.component).all_inputs()
            sink.write(**{name: given[port.type] for name, port in ports.items()})
        sink.close()
        assert not self.path or (tmp_path / self.path).exists()

    def test_takes_failures_and_closes_whole(self, sink: Any, tmp_path: Path) -> None:
        sink.fail("photo \udcff.jpg", "not a picture")
        sink.close()
        if self.path:
            assert (tmp_path / self.path).exists()
        assert not [path for path in tmp_path.rglob(".*") if path.is_file()], "a half-written file was left"


def frames_of_one_grey(size: tuple[int, int]) -> Frames:
    return Frames(torch.full((1, *size, 3), 128, dtype=torch.uint8), [Origin("grey")])


def _output(given: Any, port: str) -> Any:
    return given[port] if isinstance(given, dict) else given


def check_frames(batch: Frames, count: int) -> None:
    assert batch.images.dtype == torch.uint8
    assert batch.images.ndim == 4
    assert batch.images.shape[0] == len(batch.sources) == count
    assert batch.images.shape[3] == 3


def check_detections(found: Detections) -> None:
    n = len(found)
    assert found.frame.dtype == torch.int64
    assert found.boxes.dtype == torch.float32
    assert found.boxes.shape == (n, 4)
    assert found.scores.shape == (n,)
    assert found.corners is None or found.corners.shape == (n, 4, 2)
    assert all(len(values) == n for values in found.extra.values())
    if n:
        height, width = found.frames.images.shape[1:3]
        x1, y1, x2, y2 = found.boxes.unbind(1)
        assert bool((x1 >= 0).all() and (y1 >= 0).all() and (x2 <= width).all() and (y2 <= height).all()), "clip boxes"
        assert bool((x1 < x2).all() and (y1 < y2).all()), "an empty box"
        assert bool((found.frame[1:] >= found.frame[:-1]).all()), "rows must ascend by frame"
        assert 0 <= int(found.frame.min()) <= int(found.frame.max()) < len(found.frames)
        assert bool((found.scores >= 0).all() and (found.scores <= 1).all())


def check_plates(cut: Plates) -> None:
    assert cut.images.dtype == torch.float32
    assert cut.images.ndim == 4
    assert cut.images.shape[:2] == (len(cut), 3)
    assert cut.detection.dtype == torch.int64
    assert bool((cut.detection[1:] > cut.detection[:-1]).all()), "rows must ascend by detection"
    if len(cut):
        assert int(cut.detection.max()) < len(cut.detections)
        assert 0 <= float(cut.images.min()) <= float(cut.images.max()) <= 255


def check_readings(readings: Readings) -> None:
    n = len(readings)
    assert readings.plate.dtype == torch.int64
    assert readings.plate.shape == (n,)
    assert bool((readings.plate[1:] > readings.plate[:-1]).all()), "rows must ascend by plate"
    assert not n or 0 <= int(readings.plate.min()) <= int(readings.plate.max()) < len(readings.plates)
    assert readings.fits is None or len(readings.fits) == n
    assert readings.confidences.shape == (n,)
    assert len(readings.characters) == len(readings.alternatives) == n
    for text, characters, others in zip(readings.texts, readings.characters, readings.alternatives, strict=True):
        assert len(text) == len(characters)
        assert all(0 <= probability <= 1 + 1e-5 for probability in characters), "characters are given by probability"
        confidences = [confidence for _, confidence in others]
        assert confidences == sorted(confidences, reverse=True), "the most probable alternative comes first"
        assert not others or text in [other for other, _ in others], "a text is among its alternatives"
    found: list[list[Reading]] = readings_by_frame(readings)
    assert all(0 <= reading.confidence <= 1 + 1e-5 for row in found for reading in row)

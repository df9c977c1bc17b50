"""The executor, with components that tell what they saw: order, batches, bounds, failures, threads, live sources."""

from __future__ import annotations

import itertools
import random
import re
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lprf.data import Detections, Filled, Frames, Item, Origin
from lprf.errors import InputFailure, LprfError
from lprf.feed import END, HELD, PATIENCE, Decoded, Decoder, batches
from lprf.plugins import Plugins
from lprf.recipe import load_recipe
from lprf.stream import BatchInfo, Graph, Summary, build
from lprf.testing.infer import padded as padded_rows

sys.path.insert(0, str(Path(__file__).parent))
import echo
from echo import item, picture

RECIPE = """
lprf: 1
kind: infer
name: echoes
graph:
  source: {uses: echo.source}
  detect: {uses: echo.detector, inputs: {frames: source.frames}}
  rectify: {uses: echo.rectifier, inputs: {detections: detect.detections}}
  read: {uses: echo.recognizer, inputs: {plates: rectify.plates}}
  sink: {uses: echo.sink, inputs: {readings: read.readings}}
"""


@pytest.fixture
def seen() -> Iterator[Any]:
    before = set(threading.enumerate())
    yield echo.reset()
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("lprf")]
    assert not left


@pytest.fixture(params=[False, True], ids=["in-turn", "a-batch-ahead"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each batch put together when its turn comes, and, as for a GPU, before."""
    init = Graph.__init__

    def changed(self: Graph, *args: Any) -> None:
        init(self, *args)
        self.early = request.param

    monkeypatch.setattr(Graph, "__init__", changed)


def graph(folder: Path, **changes: Any) -> Graph:
    """RECIPE, built; `sink__seconds=1` overrides sink.seconds."""
    (folder / "echoes.yaml").write_text(RECIPE)
    plugins = Plugins()
    plugins.load_file(echo.PATH)
    sys.modules["echo"] = echo  # the one that this test looks into
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    return build(load_recipe(folder / "echoes.yaml", overrides, plugins), plugins)


def sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    """Three sizes of picture, one of them rare, in no order."""
    draw = random.Random(seed)
    return [draw.choices([(8, 8), (8, 16), (16, 8)], [10, 5, 1])[0] for _ in range(count)]


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("workers", [0, 1, 5])
def test_the_order_of_the_input_is_kept(seen: Any, tmp_path: Path, workers: int) -> None:
    def slow(number: int, size: tuple[int, int]) -> Item:
        inner = item(number, *size)

        def load() -> Any:
            time.sleep(random.random() * 0.004)
            return inner.load()

        return Item(inner.origin, load)

    seen.items = lambda: (slow(i, size) for i, size in enumerate(sizes(120)))
    summary = graph(tmp_path, runtime__batch=4, runtime__workers=workers).run()
    assert seen.written == [str(i) for i in range(120)]
    assert summary.frames == 120 and summary.failed == 0
    assert len(seen.batches) < 60  # they were batched all the same
    kinds = sizes(120)
    for batch in seen.batches:
        assert len(batch) <= 4
        assert len({kinds[int(name)] for name in batch}) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_frames_on_a_gpu_are_those_of_their_batch(seen: Any, tmp_path: Path) -> None:
    """Each picture holds its number, which is read on the GPU while the next batch is copied there."""
    seen.items = lambda: (item(i, 400, 600) for i in range(200))
    graph(tmp_path, runtime__batch=4, runtime__device="cuda", detect__seconds=0.001).run()
    assert seen.written == [str(i) for i in range(200)]
    assert {reading.text for reading in seen.readings} == {"", *(str(i) for i in range(200) if i % 3 and i % 5)}


def test_one_detection_a_line_and_everything_is_counted(seen: Any, tmp_path: Path) -> None:
    seen.items = lambda: (item(i, *size) for i, size in enumerate(sizes(60)))
    summary = graph(tmp_path, runtime__batch=7).run()
    expected = [
        (i, str(i) if i % 3 else "") for i in range(60) for _ in range(0 if i % 5 == 0 else 2 if i % 7 == 0 else 1)
    ]
    assert [(r.frame, r.text) for r in seen.readings] == expected
    assert summary.plates == len(expected)
    assert summary.read == sum(bool(text) for _, text in expected)
    for reading in seen.readings:
        assert reading.source == str(reading.frame)
        assert reading.confidence == (0.25 if reading.text else 0.0)
        assert reading.alternatives == ([(reading.text, 0.25)] if reading.text else [])


@pytest.mark.parametrize("padded", [(), ("rectify",)], ids=["a rectifier that knows none", "one that does"])
def test_rows_that_hold_nothing_go_no_further(
    seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padded: tuple[str, ...]
) -> None:
    """As a detector on a GPU gives them; than to components that are declared `padded`."""
    told: list[int] = []
    detect = echo.Everything.__call__

    def with_room(self: echo.Everything, frames: Frames) -> Detections:
        found = detect(self, frames)
        filled = Filled(torch.tensor([len(found), 9]), told.append)
        return replace(padded_rows(found), filled=filled)

    monkeypatch.setattr(echo.Everything, "__call__", with_room)
    seen.items = lambda: (item(i) for i in range(20))
    echoes = graph(tmp_path, runtime__batch=7)
    echoes.steps = [
        (replace(node, component=replace(node.component, padded=node.name in padded)), step)
        for node, step in echoes.steps
    ]
    rows: list[int] = []
    cut = echo.Corner.__call__
    monkeypatch.setattr(echo.Corner, "__call__", lambda self, found: rows.append(len(found)) or cut(self, found))
    summary = echoes.run()
    expected = [
        (i, str(i) if i % 3 else "") for i in range(20) for _ in range(0 if i % 5 == 0 else 2 if i % 7 == 0 else 1)
    ]
    assert [(r.frame, r.text) for r in seen.readings] == expected
    assert (summary.plates, summary.failed) == (len(expected), 0)
    assert told == [9, 9, 9], "once a batch"
    assert sum(rows) == len(expected) + (3 * 5 if padded else 0)


def test_what_is_counted_is_what_came_out(seen: Any, tmp_path: Path) -> None:
    """A batch that waits for the order is not counted yet, so an interrupted run tells what it has written."""
    seen.items = lambda: (item(i, *(8, 16) if i == 0 else (8, 8)) for i in range(40))
    told: list[tuple[int, int, int]] = []

    def progress(summary: Summary) -> None:
        told.append((summary.frames, summary.plates, summary.read))
        assert len(seen.written) == summary.frames
        assert len(seen.readings) == summary.plates
        assert sum(bool(reading.text) for reading in seen.readings) == summary.read

    graph(tmp_path, runtime__batch=4).run(progress=progress)
    assert told[0] == (0, 0, 0) and told[-1][0] == 40


def test_results_do_not_depend_on_the_batch(seen: Any, tmp_path: Path) -> None:
    runs = []
    for size in (1, 7, 64):
        echo.reset()
        seen.items = lambda: (item(i, *size) for i, size in enumerate(sizes(150, 1)))
        graph(tmp_path, runtime__batch=size).run()
        runs.append((list(seen.written), list(seen.readings)))
    assert runs[0][0] == [str(i) for i in range(150)]
    assert runs[0] == runs[1] == runs[2]


def decoded(shapes: list[tuple[int, int] | None]) -> Iterator[Decoded]:
    for index, shape in enumerate(shapes):
        image = None if shape is None else np.zeros((*shape, 3), np.uint8)
        yield Decoded(index, Origin(str(index)), image, "" if shape else "broken")


def grouped(shapes: list[tuple[int, int] | None], size: int) -> list[tuple[int, list[int]]]:
    """By batch: how many items had been taken when it came, and its items."""
    entries = decoded(shapes)
    taken = 0

    def take(wait: bool = True) -> Any:
        nonlocal taken
        entry = next(entries, END)
        taken += entry is not END
        return entry

    return [
        (taken, [entry.index for entry in batch]) for batch in batches(take, lambda image: image.shape[:2], size, False)
    ]


def test_no_picture_waits_longer_than_the_look_ahead() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        size = draw.choice([1, 2, 5, 8])
        shapes = [draw.choices([(1, 1), (2, 1), (1, 2), None], [20, 3, 1, 1])[0] for _ in range(300)]
        found = grouped(shapes, size)
        assert sorted(index for _, batch in found for index in batch) == list(range(300))
        for taken, batch in found:
            assert len(batch) <= size
            assert taken - 1 - batch[0] <= PATIENCE * size


def test_a_lonely_size_goes_after_the_look_ahead_and_not_at_the_end() -> None:
    found = grouped([(2, 2), *[(1, 1)] * 1000], 4)
    (taken,) = [taken for taken, batch in found if batch == [0]]
    assert taken == PATIENCE * 4 + 1


def test_large_pictures_wait_for_fewer_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lprf.feed.HELD", 10 * 10 * 3 * 6)
    found = grouped([(1, 1), *[(10, 10)] * 40], 8)
    assert max(len(batch) for _, batch in found) == 6
    assert min(taken for taken, batch in found if 0 in batch) == 7
    assert HELD > 8 * 12_000_000 * 3  # eight photos of a phone go together


@pytest.mark.parametrize("of", [10_000, 1])
def test_decoders_keep_within_their_bound(monkeypatch: pytest.MonkeyPatch, of: int) -> None:
    """By number, and by bytes: with a bound of one byte, what is decoded is what each thread had begun."""
    monkeypatch.setattr("lprf.feed.HELD", of)
    count = 0

    def load() -> np.ndarray:
        nonlocal count
        count += 1
        return np.zeros((2, 2, 3), np.uint8)

    decoder = Decoder((Item(Origin(str(i)), load) for i in range(1000)), workers=2, ahead=6)
    try:
        time.sleep(0.2)
        assert count <= (6 if of > 1 else 2)
        for i in range(50):
            entry = decoder.take()
            assert isinstance(entry, Decoded) and entry.index == i
            assert count <= i + 1 + (6 if of > 1 else 3)
    finally:
        decoder.stop()
    assert not any(thread.is_alive() for thread in decoder.threads)


def test_a_slow_sink_slows_the_decoders(seen: Any, tmp_path: Path) -> None:
    ahead: list[int] = []
    seen.items = lambda: (item(i) for i in range(60))
    made = graph(tmp_path, runtime__batch=4, runtime__workers=3, sink__seconds=0.005)
    made.run(progress=lambda summary: ahead.append(seen.decoded - len(seen.written)))
    assert len(seen.written) == 60
    # what is in hand: decoded ahead, and one batch in work; never the sixty
    assert max(ahead) <= 4 + 4 + 3


@pytest.mark.usefixtures("ahead")
def test_a_broken_item_is_named_and_nothing_else_is_lost(seen: Any, tmp_path: Path) -> None:
    def broken(number: int, error: Exception) -> Item:
        def load() -> np.ndarray:
            raise error

        return Item(Origin(str(number), number), load)

    def items() -> Iterator[Item]:
        for i in range(30):
            if i == 11:
                yield broken(i, InputFailure("11", "burnt"))
            elif i == 12:
                yield broken(i, ZeroDivisionError("by nought"))
            elif i == 13:
                yield Item(Origin("13", 13), lambda: (picture(13), "half of it is missing"))
            elif i == 14:
                yield Item(Origin("14", 14), lambda: np.zeros((3, 3), np.float32))
            else:
                yield item(i)

    seen.items = items
    summary = graph(tmp_path, runtime__batch=4).run()
    assert seen.written == [str(i) for i in range(30) if i not in (11, 12, 14)]
    assert seen.failed == [
        ("11", "burnt"),
        ("12", "ZeroDivisionError: by nought"),
        ("13", "half of it is missing"),
        ("14", "not a colour picture of bytes: float32 [3, 3]"),
    ]
    assert [(f.name, f.reason) for f in summary.failures] == seen.failed
    assert (summary.frames, summary.failed) == (27, 4)


@pytest.mark.usefixtures("ahead")
def test_a_component_that_raises_fails_its_frame_alone(seen: Any, tmp_path: Path) -> None:
    seen.items = lambda: (item(i) for i in range(20))
    summary = graph(tmp_path, runtime__batch=8, detect__raise_at=11).run()
    assert seen.failed == [("11", "detect (echo.detector): ValueError: the roof fell in")]
    assert seen.written == [str(i) for i in range(20) if i != 11]
    assert summary.failed == 1


def test_what_a_failed_batch_held_is_let_go_before_its_frames_are_tried(
    seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    detect = echo.Everything.__call__

    def hungry(self: Any, frames: Any) -> Any:
        alive.append(any(was() is not None for was in held))
        large = torch.zeros(1000)  # what a network has in hand as memory ends
        held.append(weakref.ref(large))
        if len(frames) > 1:
            raise RuntimeError("out of memory")
        return detect(self, frames)

    monkeypatch.setattr(echo.Everything, "__call__", hungry)
    seen.items = lambda: (item(i) for i in range(4))
    assert graph(tmp_path, runtime__batch=4).run().failed == 0
    assert alive == [False] * 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes": torch.zeros(1, 5)}, r"boxes of float32 \[1, 5\] for float32 \[1, 4\]"),
        ({"boxes": torch.tensor([[0, 0, float("nan"), 1]])}, "a box that is not finite"),
        ({"boxes": torch.tensor([[5.0, 5, 2, 9]])}, "a box whose x2 or y2 comes before x1 or y1"),
        ({"scores": torch.zeros(2)}, r"scores of float32 \[2\] for float32 \[1\]"),
        ({"extra": {"colour": torch.zeros(3)}}, "3 colour for 1"),
    ],
)
def test_what_a_detector_gives_is_looked_at(
    seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    detect = echo.Everything.__call__
    monkeypatch.setattr(echo.Everything, "__call__", lambda self, frames: replace(detect(self, frames), **changed))
    seen.items = lambda: (item(i) for i in range(1, 2))
    graph(tmp_path).run()
    ((_, reason),) = seen.failed
    assert re.search(rf"detect \(echo\.detector\): ValueError: gave Detections at 'detections' with {message}", reason)


def test_what_a_recognizer_gives_is_looked_at(seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = echo.Reader.__call__
    for changed, message in (
        ({"texts": [b"1"]}, "texts that are bytes"),
        ({"characters": []}, "0 characters for 1"),
        ({"texts": []}, r"plate of int64 \[1\] for int64 \[0\]"),
    ):
        monkeypatch.setattr(
            echo.Reader, "__call__", lambda self, plates, changed=changed: replace(read(self, plates), **changed)
        )
        echo.reset()
        seen.items = lambda: (item(i) for i in range(1, 2))
        graph(tmp_path).run()
        ((_, reason),) = seen.failed
        assert re.search(rf"read \(echo\.recognizer\): ValueError: gave Readings at 'readings' with {message}", reason)


def test_a_graph_runs_once(seen: Any, tmp_path: Path) -> None:
    seen.items = lambda: (item(i) for i in range(3))
    built = graph(tmp_path)
    built.run()
    with pytest.raises(LprfError, match="ran already"):
        built.run()
    assert len(list(built.results())) == 3


def test_the_threads_it_computes_with_are_its_own(seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    within: list[int] = []
    detect = echo.Everything.__call__

    def counted(self: Any, frames: Any) -> Any:
        within.append(torch.get_num_threads())
        return detect(self, frames)

    monkeypatch.setattr(echo.Everything, "__call__", counted)
    seen.items = lambda: (item(i) for i in range(3))
    built = graph(tmp_path, runtime__threads=before + 1)
    assert torch.get_num_threads() == before
    built.run()
    assert set(within) == {before + 1} and torch.get_num_threads() == before


def test_what_a_sink_raises_comes_once_with_its_node(seen: Any, tmp_path: Path) -> None:
    seen.items = lambda: (item(i) for i in range(1000))
    with pytest.raises(LprfError, match=r"^sink \(echo\.sink\): ValueError: no ink$"):
        graph(tmp_path, runtime__batch=2, sink__raise_at=9).run()
    assert seen.written == [str(i) for i in range(9)]
    assert seen.closed == 1


@pytest.mark.usefixtures("ahead")
def test_what_a_source_raises_comes_once_with_its_node_after_what_came_before(seen: Any, tmp_path: Path) -> None:
    def items() -> Iterator[Item]:
        yield from (item(i) for i in range(9))
        raise OSError("the cable is out")

    seen.items = items
    with pytest.raises(LprfError, match=r"^source \(echo\.source\): OSError: the cable is out$"):
        graph(tmp_path, runtime__batch=2).run()
    assert seen.written == [str(i) for i in range(8)]  # the ninth was waiting for its batch
    assert seen.closed == 1


@pytest.mark.usefixtures("ahead")
def test_results_closed_early_end_the_threads(seen: Any, tmp_path: Path) -> None:
    seen.items = lambda: (item(i) for i in itertools.count())
    results = graph(tmp_path, runtime__workers=4).results()
    assert next(results).origin.name == "0"
    assert any(thread.name == "lprf-decode" for thread in threading.enumerate())
    results.close()
    assert not any(thread.name == "lprf-decode" for thread in threading.enumerate())
    assert seen.stopped.is_set()


@pytest.mark.usefixtures("ahead")
def test_no_batch_that_is_done_is_held(seen: Any, tmp_path: Path) -> None:
    alive: list[int] = []
    seen.items = lambda: (item(i, *size) for i, size in enumerate(sizes(300, 3)))
    made = graph(tmp_path, runtime__batch=4)
    made.run(progress=lambda summary: alive.append(sum(frames() is not None for frames in seen.frames)))
    assert len(seen.frames) > 75
    assert max(alive) <= PATIENCE * 4 + 2  # those that wait for the order, the one in work and the one before


@pytest.mark.usefixtures("ahead")
def test_a_batch_is_let_go_before_the_next_is_computed(seen: Any, tmp_path: Path) -> None:
    alive: list[int] = []
    seen.items = lambda: (item(i) for i in range(40))
    made = graph(tmp_path, runtime__batch=4)
    made.run(on_batch=lambda info: alive.append(sum(frames() is not None for frames in seen.frames)))
    assert alive == [1] * 10


def test_batches_tell_how_long_each_node_took(seen: Any, tmp_path: Path) -> None:
    told: list[BatchInfo] = []
    seen.items = lambda: (item(i) for i in range(5))
    graph(tmp_path, runtime__batch=5, detect__seconds=0.05).run(on_batch=told.append)
    (info,) = told
    assert list(info.nodes) == ["source", "detect", "rectify", "read"]
    assert info.nodes["detect"] >= 0.05
    assert info.seconds >= info.nodes["detect"]
    assert (len(info.sources), info.plates, info.read) == (5, 4, 3)


def test_a_live_source_keeps_the_newest_and_waits_for_no_batch(seen: Any, tmp_path: Path) -> None:
    written: list[int] = []
    more = threading.Semaphore(0)
    given = threading.Semaphore(0)

    def items() -> Iterator[Item]:
        for i in range(31):
            more.acquire()
            yield item(i)
            given.release()
        more.acquire()

    def give(count: int) -> None:
        for _ in range(count):
            more.release()
            given.acquire()

    def progress(summary: Summary) -> None:
        written.append(len(seen.written))
        if len(seen.written) == 1:  # the first came alone, though a batch has 8; while it was in work, thirty more do
            give(30)
            more.release()

    seen.items, seen.live = items, True
    made = graph(tmp_path, runtime__batch=8)
    starter = threading.Thread(target=give, args=(1,))
    starter.start()
    summary = made.run(progress=progress)
    starter.join()
    assert seen.written == ["0", "30"]
    assert summary.dropped == 29
    assert summary.frames == 2


def test_an_interrupted_live_source_is_told_to_stop_waiting(seen: Any, tmp_path: Path) -> None:
    def items() -> Iterator[Item]:
        yield item(0)
        seen.stopped.wait(60)

    seen.items, seen.live = items, True
    began = time.monotonic()
    results = graph(tmp_path).results()
    next(results)
    results.close()
    assert time.monotonic() - began < 30


def test_a_live_source_that_fails_says_so(seen: Any, tmp_path: Path) -> None:
    def items() -> Iterator[Item]:
        yield item(1)
        raise OSError("unplugged")

    seen.items, seen.live = items, True
    with pytest.raises(LprfError, match=r"source \(echo\.source\): OSError: unplugged"):
        graph(tmp_path).run()
    assert seen.closed == 1

"""`runtime.backend`: other engines give what torch gives, keep what they make, and say what they lack."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lprf
from lprf import backend
from lprf.errors import LprfError
from lprf.network import Network, StandIn, each, write
from lprf.onnx_model import OpenVinoModel
from lprf.recipe import Runtime

CPU = torch.device("cpu")
SAMPLES = Path(__file__).resolve().parents[2] / "recipes" / "samples"

needs = {name: pytest.mark.skipif(not backend.installed(name), reason=f"no {name}") for name in backend.MODULES}
OTHERS = [pytest.param(name, marks=needs[name]) for name in ("onnxruntime", "openvino")]


class Two(nn.Module):
    """Two outputs and a head that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x = self.conv(images)
        return x, x.mean((2, 3)), None


class Holder:
    def __init__(self, module: nn.Module):
        self.net = module


def tiny(free: bool = False) -> Network:
    axes = {0: "batch", 2: "height", 3: "width"} if free else {0: "batch"}
    torch.manual_seed(3)
    return Network("tiny", Holder(Two().eval()), "net", torch.zeros(2, 3, 8, 9), ("x", "mean"), {}, axes)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backend, "folder", lambda: tmp_path / "models")
    return tmp_path / "models"


def readings(name: str, **more: Any) -> list[tuple[str, tuple[float, ...]]]:
    overrides = {"runtime.backend": name, **more}
    return [(plate.text, plate.box) for plate in lprf.load("read-plates", overrides=overrides).run(SAMPLES)]


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_plates_as_in_torch(name: str) -> None:
    truth = readings("torch")
    assert len(truth) >= 5
    for precision in ("float32", "auto"):
        found = readings(name, **{"runtime.precision": precision})
        assert [text for text, _ in found] == [text for text, _ in truth]
        np.testing.assert_allclose([box for _, box in found], [box for _, box in truth], atol=0.05)


@needs["openvino"]
@pytest.mark.parametrize("free", [False, True])
def test_openvino_gives_the_networks_numbers_in_any_batch(free: bool, tmp_path: Path) -> None:
    """11 rows run in parts of several sizes; one, none, and however they lie in memory."""
    network = tiny(free)
    stand_in = StandIn(network, OpenVinoModel(write(network, tmp_path / "tiny.onnx", "this")))
    shapes = [(11, 3, 8, 9), (1, 3, 8, 9), (0, 3, 8, 9), *([(2, 3, 20, 31), (3, 3, 8, 40)] if free else [])]
    for shape in shapes:
        for layout in (torch.contiguous_format, torch.channels_last):
            images = torch.randn(shape).contiguous(memory_format=layout)
            x, mean, none = stand_in(images)
            wanted = network.module(images)
            torch.testing.assert_close(x, wanted[0].detach(), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(mean, wanted[1].detach(), atol=1e-4, rtol=1e-4, equal_nan=True)
            assert none is None


@needs["openvino"]
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("free", [False, True])
def test_each_of_many_batches_gets_its_own_answer(free: bool, threads: int, tmp_path: Path) -> None:
    """More batches than are computed at a time, of all sizes; one that cannot run leaves the model as it was."""
    network = tiny(free)
    path = write(network, tmp_path / "tiny.onnx", "this")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        stand_in = StandIn(network, OpenVinoModel(path))
    finally:
        torch.set_num_threads(before)
    batches = [torch.randn(1 + 5 * number % 13, 3, 8 + free * (number % 4), 9) for number in range(17)]
    with pytest.raises(LprfError, match=r"does not run on \[1, 4, 8, 9\]"):
        each(stand_in, [*batches, torch.zeros(1, 4, 8, 9)], torch.float32)
    found = each(stand_in, iter(batches), torch.float32)
    assert len(found) == len(batches)
    for images, (x, mean, none) in zip(batches, found, strict=True):
        wanted = network.module(images)
        torch.testing.assert_close(x, wanted[0].detach(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mean, wanted[1].detach(), atol=1e-4, rtol=1e-4)
        assert none is None


@needs["openvino"]
def test_a_shape_that_comes_often_gets_a_model_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which answers as the network does; what comes when there are enough of them goes on as before."""
    network = tiny(free=True)
    model = OpenVinoModel(write(network, tmp_path / "tiny.onnx", "this"))
    monkeypatch.setattr(model, "dtype", torch.bfloat16)  # as it would be where the processor has it
    monkeypatch.setattr(model, "OWN", 4)
    pictures = [torch.randn(1, 3, 8 + number, 9) for number in range(4)]
    for number in [0] * 10 + [0, 1, 2, 3] * 9:
        (x, _), wanted = model(pictures[number]), network.module(pictures[number])[0].detach()
        torch.testing.assert_close(x, wanted, atol=1e-4, rtol=1e-4)
    own = [shape for shape, _ in model.requests if shape is not None]
    assert 2 <= len(own) < len(model.requests) == 4


def test_a_model_is_kept_until_what_it_is_made_of_changes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    runtime = Runtime(backend="onnxruntime")
    network = tiny()
    backend._model(network, "onnxruntime", runtime, CPU, "this")
    (first,) = cache.iterdir()
    monkeypatch.setattr(backend, "write", lambda *_: pytest.fail("written again"))
    backend._model(network, "onnxruntime", runtime, CPU, "this")
    monkeypatch.undo()
    monkeypatch.setattr(backend, "folder", lambda: cache)
    with torch.no_grad():
        network.module.conv.weight[0, 0, 0, 0] += 1e-3
    backend._model(network, "onnxruntime", runtime, CPU, "this")
    (second,) = set(cache.iterdir()) - {first}
    backend._model(network, "onnxruntime", runtime, CPU, "this")
    long_ago = time.time() - backend.KEPT - 60
    for path in (first, second):
        os.utime(path, (long_ago, long_ago))
    backend._model(network, "onnxruntime", runtime, CPU, "this")  # used again
    with torch.no_grad():
        network.module.conv.weight[0, 0, 0, 0] += 1e-3
    backend._model(network, "onnxruntime", runtime, CPU, "this")
    left = set(cache.iterdir())
    assert second in left and first not in left and len(left) == 2, "what no run has used for long goes"


@needs["openvino"]
def test_openvino_reads_bytes(tmp_path: Path) -> None:
    """The floats that they stand for, in whatever order they lie."""
    network = tiny(free=True)
    model = OpenVinoModel(write(network, tmp_path / "tiny.onnx", "this"), reads=torch.uint8)
    images = torch.randint(0, 256, (3, 20, 31, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    wanted = network.module(images.float())
    x, mean = model(images)
    torch.testing.assert_close(x, wanted[0].detach(), atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(mean, wanted[1].detach(), atol=1e-2, rtol=1e-4)


@needs["openvino"]
def test_what_nobody_asked_for_ends_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a network cannot be written, `auto` stays in torch and says so; who asked for openvino is told."""

    def fails(*_: object) -> Path:
        raise LprfError("no room for it")

    monkeypatch.setattr(backend, "write", fails)
    with pytest.raises(LprfError, match="no room for it"):
        readings("openvino")
    caplog.clear()
    assert len(readings("auto")) >= 5
    assert "any-centernet stays in torch: no room for it" in caplog.text


@pytest.mark.parametrize("name", OTHERS)
def test_a_broken_file_is_an_error_in_words(name: str, cache: Path) -> None:
    network = tiny()
    path = cache / f"tiny-{backend._key(network)[:16]}.onnx"
    path.parent.mkdir()
    path.write_bytes(b"half of it")
    with pytest.raises(LprfError, match=f"this: .*{path.name} cannot be loaded"):
        backend._model(network, name, Runtime(backend=name), CPU, "this")  # type: ignore[arg-type]


FREED_ELSEWHERE = """
import os, signal, sys, threading
from lprf.onnx_model import OpenVinoModel
handled = []
signal.signal(signal.SIGTERM, lambda *_: handled.append(1))
models = [OpenVinoModel(sys.argv[1])]
thread = threading.Thread(target=models.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(len(handled) != 1)
"""


@needs["openvino"]
def test_a_signal_after_a_model_is_gone(tmp_path: Path) -> None:
    path = write(tiny(), tmp_path / "tiny.onnx", "this")
    assert subprocess.run([sys.executable, "-c", FREED_ELSEWHERE, str(path)], check=False).returncode == 0


def test_which_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "installed", lambda name: True)
    assert backend.pick(Runtime(), CPU) == "openvino"
    assert backend.pick(Runtime(precision="float16"), CPU) == "torch"
    assert backend.pick(Runtime(), torch.device("cuda")) == "torch"
    assert backend.pick(Runtime(backend="onnxruntime"), torch.device("cuda")) == "onnxruntime"
    for name, precision in {"openvino": "float16", "onnxruntime": "bfloat16"}.items():
        with pytest.raises(LprfError, match=f"runtime.backend: {name} computes in float32.*not in {precision}"):
            backend.pick(Runtime(backend=name, precision=precision), CPU)  # type: ignore[arg-type]
    with pytest.raises(LprfError, match="openvino computes on the CPU"):
        backend.pick(Runtime(backend="openvino"), torch.device("cuda"))
    monkeypatch.setattr(backend, "installed", lambda name: False)
    assert backend.pick(Runtime(), CPU) == "torch"
    for name, extra in {"openvino": "openvino", "onnxruntime": "onnx"}.items():
        with pytest.raises(LprfError, match=rf"{name} needs the extra `{extra}`: pip install 'lprf\[{extra}\]'"):
            backend.pick(Runtime(backend=name), CPU)  # type: ignore[arg-type]

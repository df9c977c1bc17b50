"""`runtime.backend`: the networks of a built graph in ONNX Runtime or OpenVINO, behind the same components.

What runs is what `lprf export` writes: each network that a component exports becomes an ONNX file, once; the file is
kept under a name that tells everything it was made from, and its model stands in for the network. Networks that no
component exports stay in torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs
import torch

from lprf.errors import LprfError
from lprf.network import OPSET, Network, StandIn, networks_of, write
from lprf.onnx_model import OnnxModel, OpenVinoModel

if TYPE_CHECKING:
    from lprf.recipe import Node, Runtime

logger = logging.getLogger("lprf.backend")

Backend = Literal["torch", "onnxruntime", "openvino"]
Model = OnnxModel | OpenVinoModel

KEPT = 90 * 24 * 3600  # seconds that a model which no run uses is kept

MODULES: dict[Backend, tuple[str, ...]] = {  # what each needs beside torch
    "torch": (),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


def pick(runtime: Runtime, device: torch.device) -> Backend:
    """The backend of `runtime.backend`; auto is OpenVINO on a CPU where it is installed, else torch.

    Raises LprfError where what was asked for is not installed, or does not compute as asked.
    """
    name = runtime.backend
    if name == "auto":
        return (
            "openvino" if installed("openvino") and device.type == "cpu" and runtime.precision != "float16" else "torch"
        )
    if not installed(name):
        extra = "openvino" if name == "openvino" else "onnx"
        raise LprfError(f"runtime.backend: {name} needs the extra `{extra}`: pip install 'lprf[{extra}]'")
    if name == "openvino" and device.type != "cpu":
        raise LprfError(f"runtime.backend: openvino computes on the CPU here, and runtime.device is {device}")
    fitting = {"onnxruntime": ("auto", "float32"), "openvino": ("auto", "float32", "bfloat16")}.get(name)
    if fitting and runtime.precision not in fitting:
        raise LprfError(f"runtime.backend: {name} computes in {' or '.join(fitting[1:])}, not in {runtime.precision}")
    return name


def installed(backend: Backend) -> bool:
    """Whether all is there that a backend needs; nothing is imported."""
    return all(importlib.util.find_spec(module) for module in MODULES[backend])


def named(backend: Backend) -> str:
    """A backend with its version, for reports."""
    version: str = importlib.import_module(backend).__version__
    return f"{backend} {version.split('-')[0]}"


def install(nodes: Iterable[tuple[Node, Any]], backend: Backend, runtime: Runtime, device: torch.device) -> set[str]:
    """Put a model in the place of every network that the components of these nodes export; gives those nodes' names.

    Raises LprfError where one cannot be made, unless nobody asked for this backend: then the network stays in torch.
    """
    moved: set[str] = set()
    if backend == "torch":
        return moved
    for node, implementation in nodes:
        for network in networks_of(node.component, implementation):
            try:
                model = _model(network, backend, runtime, device, f"{node.name} (runtime.backend: {backend})")
            except LprfError as error:
                if runtime.backend != "auto":
                    raise
                logger.warning("%s stays in torch: %s", network.name, error)
            else:
                setattr(network.holder, network.attribute, StandIn(network, model))
                moved.add(node.name)
    return moved


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within, torch computes in so many threads; None: in as many as before."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def _model(network: Network, backend: Backend, runtime: Runtime, device: torch.device, who: str) -> Model:
    path = _written(network, backend, who)
    if backend == "onnxruntime":
        return OnnxModel(path, device, who)
    dtype = network.auto if runtime.precision == "auto" else getattr(torch, runtime.precision)
    return OpenVinoModel(path, torch.float32 if network.exact else dtype, who, network.reads)


def _written(network: Network, backend: Backend, who: str) -> Path:
    """The file of a network, made where it is not there."""
    path = folder() / f"{network.name}-{_key(network)[:16]}.onnx"
    if path.is_file():
        with contextlib.suppress(OSError):
            path.touch()
        return path
    logger.warning("making %s ready for %s, once: %s", network.name, backend, path)
    write(network, path, who)
    for other in path.parent.glob("*.onnx"):  # every training leaves some
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > KEPT:
                other.unlink()
    return path


def folder() -> Path:
    """Where models made from networks are kept: in the platform's place for what can be made again."""
    return Path(platformdirs.user_cache_dir("lprf", appauthor=False)) / "models"


def _key(network: Network) -> str:
    """Tells apart all that a file is made from: weights, shapes, the code of the layers, and who writes."""
    versions = [importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")]
    shapes = (network.example.shape, network.outputs, dict(network.axes), OPSET)
    told = hashlib.sha256(repr((versions, *shapes)).encode())
    told.update(repr(network.module).encode())
    for name, tensor in network.module.state_dict().items():
        told.update(name.encode())
        told.update(tensor.contiguous().numpy(force=True).tobytes())
    layers = {type(layer) for layer in network.module.modules()}
    # for torch's own layers its version stands
    files = {inspect.getfile(layer) for layer in layers if not layer.__module__.startswith("torch.")}
    for path in sorted(files):
        told.update(Path(path).read_bytes())
    return told.hexdigest()

"""ONNX files: what they say about themselves, and running them. Needs the extra `lprf[onnx]` or `lprf[openvino]`."""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lprf.errors import LprfError

KEY = "lprf"  # of the metadata that `lprf export` writes: one JSON object, as in weights files
AHEAD = 2  # parts of a batch that are given to OpenVINO for each that it computes, so that none has to be waited for


@dataclass(frozen=True)
class Value:
    """An input or output: its name, its element type as onnxruntime says it, its axes (None where a size is free)."""

    name: str
    type: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"[{', '.join('any' if n is None else str(n) for n in self.shape)}]"


def need(module: str, who: str, extra: str = "onnx") -> Any:
    """Import a module of an extra. Raises LprfError that names the extra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LprfError(f"{who} needs the extra `{extra}` ({error}): pip install 'lprf[{extra}]'") from None


class OnnxModel:
    """An ONNX file, loaded to run on a device; tensors come back on that device.

    metadata: what `lprf export` wrote into it, or nothing. Raises LprfError: no such file, or none that can be run.
    """

    def __init__(self, path: str | Path, device: torch.device, who: str = "this"):
        runtime = need("onnxruntime", who)
        self.path, self.device = Path(path), device
        if not self.path.is_file():
            raise LprfError(f"{who}: there is no model {self.path}")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        cuda = device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers()
        first = [("CUDAExecutionProvider", {"device_id": device.index or 0})] if cuda else []
        try:
            self.session = runtime.InferenceSession(self.path, options, providers=[*first, "CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common base of their own
            raise LprfError(f"{who}: {self.path} cannot be loaded: {_line(error)}") from None
        self.inputs = [_value(x) for x in self.session.get_inputs()]
        self.outputs = [_value(x) for x in self.session.get_outputs()]
        self.reads = torch.float16 if self.inputs[0].type == "float16" else torch.float32
        text = self.session.get_modelmeta().custom_metadata_map.get(KEY, "{}")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise LprfError(f"{who}: {self.path}: its metadata under '{KEY}' is not a JSON object")
        self.metadata: Mapping[str, Any] = found

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Every output for one batch, floats or bytes. Raises LprfError where the model cannot run on it."""
        array = images.to(self.reads).contiguous().cpu().numpy()
        try:
            results = self.session.run(None, {self.inputs[0].name: array})
        except Exception as error:
            raise LprfError(f"{self.path} does not run on {list(images.shape)}: {_line(error)}") from None
        return [torch.from_numpy(result).to(self.device) for result in results]

    def many(self, batches: Iterable[Tensor], in_turn: bool = False) -> list[list[Tensor]]:
        """What a call gives for each of these batches, one after another."""
        return [self(images) for images in batches]


class OpenVinoModel:
    """An ONNX file of one input, images [N, C, h, w], loaded to run on the CPU by OpenVINO.

    A batch runs in parts, side by side on one thread each: all threads on one part of a small network wait for each
    other more than they compute. Where h and w are fixed, parts are of `PARTS` rows, each by a model of just that
    shape: one of any shape takes half as long again, and its memory anew at every call. Else a batch is one part; in
    bfloat16, where a model of any shape takes twice as long, the first shapes that come more than `OFTEN` times have
    models of their own, up to `OWN` models in all.

    dtype: float32 or bfloat16; the latter only where the processor has it, else float32, and the attribute says which.
    reads: float32 or uint8, what it is given. Raises LprfError: no such file, or none that can be run.
    """

    PARTS = (4, 1)
    OFTEN, OWN = 6, 64

    def __init__(
        self,
        path: str | Path,
        dtype: torch.dtype = torch.float32,
        who: str = "this",
        reads: torch.dtype = torch.float32,
    ):
        self.openvino = need("openvino", who, "openvino")
        self.path, self.dtype, self.reads = Path(path), torch.float32, reads
        self.threads = torch.get_num_threads()
        self.settings = {"INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": "f32"}
        # no CACHE_DIR: on a processor with AMX, what was compiled to be kept answered wrongly at its first use
        self.requests: dict[tuple[tuple[int, ...] | None, int], itertools.cycle[Any]] = {}
        self.came: collections.Counter[tuple[int, ...]] = collections.Counter()
        try:
            self.core = _core()
            if dtype is torch.bfloat16 and "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                self.settings["INFERENCE_PRECISION_HINT"], self.dtype = "bf16", dtype
            steps = self.openvino.preprocess.PrePostProcessor(self.core.read_model(self.path))
            steps.input().tensor().set_layout(self.openvino.Layout("NHWC"))  # as pictures lie in memory
            steps.input().model().set_layout(self.openvino.Layout("NCHW"))
            if reads is torch.uint8:  # makes them floats as it reads them
                steps.input().tensor().set_element_type(self.openvino.Type.u8)
            self.model = steps.build()
            sides = list(self.model.input().partial_shape)[1:]
            self.fixed = not any(side.is_dynamic for side in sides)
            one = (1, *(side.get_length() for side in sides)) if self.fixed else None
            self._request_of(one, 1 if self.fixed else self.threads)
        except Exception as error:  # its errors have no common base of their own
            raise LprfError(f"{who}: {self.path} cannot be loaded: {_line(error)}") from None

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Every output for one batch. Raises LprfError where the model cannot run on it."""
        parts = self._split(images)
        return _joined(self._run(parts, self.threads if len(parts) > 1 else 1))

    def many(self, batches: Iterable[Tensor], in_turn: bool = False) -> list[list[Tensor]]:
        """What a call gives for each of these batches; the next is drawn while those before it run.

        in_turn: all threads on one part of a batch after another; else side by side.
        """
        counts: list[int] = []

        def parts() -> Iterator[Tensor]:
            for images in batches:
                split = self._split(images)
                counts.append(len(split))
                yield from split

        done = iter(self._run(parts(), 1 if in_turn else self.threads))
        return [_joined(list(itertools.islice(done, count))) for count in counts]

    def _split(self, images: Tensor) -> list[Tensor]:
        if not self.fixed:
            return [images]
        sizes: list[int] = []
        left, most = len(images), math.ceil(len(images) / self.threads)
        for rows in self.PARTS:
            while rows <= min(left, most):
                sizes.append(rows)
                left -= rows
        return list(images.split(sizes))

    def _run(self, parts: Iterable[Tensor], streams: int) -> list[list[Tensor]]:
        """Every output for each part. streams: how many parts are computed at a time."""
        results: list[list[Tensor]] = []
        running: collections.deque[tuple[Any, Tensor]] = collections.deque()

        def finish() -> None:
            request, part = running.popleft()
            with self._told(part):
                request.wait()
            # copies: the next part writes over what the request holds
            results.append([torch.from_numpy(tensor.data.copy()) for tensor in request.output_tensors])

        try:
            for part in parts:
                if len(running) == AHEAD * streams:
                    finish()
                lying = part.permute(0, 2, 3, 1).to(self.reads).contiguous()
                with self._told(part):
                    request = self._request(tuple(lying.shape), streams)
                    request.set_input_tensor(self.openvino.Tensor(lying.numpy(), shared_memory=True))
                    request.start_async()
                running.append((request, lying))
            while running:
                finish()
        finally:
            for request, _ in running:  # of a run that failed: none may be busy when the next begins
                with contextlib.suppress(Exception):
                    request.wait()
        return results

    def _request(self, shape: tuple[int, ...], streams: int) -> Any:
        """What runs a part of this shape, [n, h, w, C]; the same again after `AHEAD * streams` others."""
        self.came[shape] += 1
        often = self.dtype is torch.bfloat16 and self.came[shape] > self.OFTEN
        own = self.fixed or (often and ((shape, streams) in self.requests or len(self.requests) < self.OWN))
        return self._request_of(shape if own else None, streams)

    def _request_of(self, shape: tuple[int, ...] | None, streams: int) -> Any:
        """The same of the model of this shape, or of that of any."""
        if (shape, streams) not in self.requests:
            model, settings = self.model.clone(), {**self.settings, "NUM_STREAMS": streams}
            if shape is not None:
                model.reshape(list(shape))
            compiled = self.core.compile_model(model, "CPU", settings)
            requests = [compiled.create_infer_request() for _ in range(AHEAD * streams)]
            self.requests[shape, streams] = itertools.cycle(requests)
        return next(self.requests[shape, streams])

    @contextlib.contextmanager
    def _told(self, part: Tensor) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise LprfError(f"{self.path} does not run on {list(part.shape)}: {_line(error)}") from None


def _joined(parts: list[list[Tensor]]) -> list[Tensor]:
    """Each output of a batch, of those of its parts."""
    return parts[0] if len(parts) == 1 else [torch.cat(values) for values in zip(*parts, strict=True)]


@functools.cache
def _core() -> Any:
    """OpenVINO's, one for the life of the process. Its CPU plugin has the signals of the thread that made it handled on
    a stack of the plugin's; were that freed by another thread, the next signal would end the process."""
    return need("openvino", "this", "openvino").Core()


def _value(given: Any) -> Value:
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in given.shape)
    return Value(given.name, given.type.removeprefix("tensor(").removesuffix(")"), shape)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

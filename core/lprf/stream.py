"""Runs an inference graph: photos are decoded ahead in threads, batched by size, and written out in their order.

The path of an item: a `Decoder` draws it from the source and decodes it; it waits in the batch of its shape; the
batch goes to the device once and through the components; its results come back once and wait until all before
them are out; then the sinks get them, one frame at a time. Each of these places is bounded, so a sink that is slow
slows the decoders, and a long input takes no more memory than a short one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lprf import backend, weights
from lprf.context import Context
from lprf.data import (
    Detections,
    Frames,
    Item,
    Origin,
    Plates,
    Reading,
    Readings,
    Source,
    amiss,
    begin_copy,
    readings_by_frame,
    split_by_frame,
    to_host,
    trimmed,
)
from lprf.errors import InputFailure, LprfError, PluginError, Terminated
from lprf.feed import KEPT_FAILURES, Decoded, Decoder, Feed, Newest, batches
from lprf.plugins import Plugins
from lprf.recipe import Node, Recipe, Ref

_TYPES: dict[str, type] = {"Frames": Frames, "Detections": Detections, "Plates": Plates, "Readings": Readings}


# ---------------------------------------------------------------------------------------------------- what is told


@dataclass(frozen=True)
class Failure:
    """An input that could not be read, or only in part, and why."""

    name: str
    reason: str


@dataclass
class Summary:
    """What a run has done so far, and in the end.

    frames: photos or frames that went through. plates: detections in them. read: those with a text.
    failed: inputs that could not be read or only in part; the first thousand stand in `failures`.
    dropped, reconnects: of a live source. seconds: since the run began. total: items in all, where it is known.
    outputs: where the results are.
    """

    total: int | None = None
    frames: int = 0
    plates: int = 0
    read: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    dropped: int = 0
    reconnects: int = 0
    seconds: float = 0.0
    outputs: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def add(self, results: Iterable[Result]) -> None:
        """Count what is done."""
        for result in results:
            if result.batch is not None:
                self.frames += 1
                self.plates += result.batch.plates[result.row]
                self.read += result.batch.read[result.row]
            if result.reason:
                self.failure(result.origin.name, result.reason)

    def failure(self, name: str, reason: str) -> None:
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(Failure(name, reason))


@dataclass(frozen=True)
class BatchInfo:
    """One batch that is done.

    nodes: seconds by node (of the launch alone on a GPU, unless the graph's `measure` is set).
    waited: seconds that the components stood idle before it, waiting for pictures. seconds: upload to results.
    copied, kernels: of `seconds`, those of the copies to a GPU and back, and those in which the host waited for its
    kernels; without `measure` all that is waited for at the batch's end is among `kernels`. Next to nothing on a CPU.
    """

    recipe: str
    sources: list[Origin]
    plates: int
    read: int
    waited: float
    seconds: float
    nodes: Mapping[str, float]
    copied: float = 0.0
    kernels: float = 0.0


class Batch:
    """The results of one batch of frames, on the host: values by port, sliced by frame when first asked for.

    plates, read: by frame, how many were detected and how many of them have a text.
    """

    def __init__(self, values: Mapping[Ref, Any], frames: int):
        self.values = values
        self.plates, self.read = [0] * frames, [0] * frames
        for value in values.values():
            plates, read = _found(value, frames)
            self.plates = list(map(max, self.plates, plates))
            self.read = list(map(max, self.read, read))
        self._rows: dict[Ref, list[Any]] = {}
        self._readings: dict[Ref, list[list[Reading]]] = {}

    def row(self, ref: Ref, row: int) -> Any:
        """The value of `ref` for one frame, as a batch of that frame alone."""
        if ref not in self._rows:
            self._rows[ref] = split_by_frame(self.values[ref])
        return self._rows[ref][row]

    def readings(self, ref: Ref, row: int) -> list[Reading]:
        """The readings (or bare detections) of `ref` in one frame."""
        if ref not in self._readings:
            self._readings[ref] = readings_by_frame(self.values[ref])
        return self._readings[ref][row]


def _found(value: Any, frames: int) -> tuple[list[int], list[int]]:
    """Detections in each frame, and those of them that have a text."""
    plates, read = [0] * frames, [0] * frames
    detections = value.plates.detections if isinstance(value, Readings) else value
    if isinstance(detections, Detections):
        rows = detections.frame.tolist()
        for row in rows:
            plates[row] += 1
        if isinstance(value, Readings):
            for detection, text in zip(value.plates.detection[value.plate].tolist(), value.texts, strict=True):
                read[rows[detection]] += bool(text)
    return plates, read


@dataclass(frozen=True)
class Result:
    """One item that is done. `batch` is None where it failed; `reason` says why, or what is wrong with it."""

    origin: Origin
    batch: Batch | None
    row: int = 0
    reason: str = ""

    def value(self, ref: Ref) -> Any:
        """What the port `ref` gave for this frame: Frames, Detections, Plates or Readings of one frame."""
        assert self.batch is not None
        return self.batch.row(ref, self.row)

    def readings(self, ref: Ref) -> list[Reading]:
        """What was read in this frame, one a detection; nothing where the item failed."""
        return self.batch.readings(ref, self.row) if self.batch is not None else []


@dataclass(frozen=True)
class _Upload:
    """A batch that is put together. On a GPU, its frames are there once `copied` has come to pass.

    host: the source's values by port. seconds: that this took the host. pinned: the frames, where copies are quick.
    """

    host: Mapping[str, Any]
    seconds: float
    pinned: Frames | None = None
    frames: Frames | None = None
    copied: torch.cuda.Event | None = None


# ------------------------------------------------------------------------------------------------------- the graph


class Graph:
    """A recipe's components, built: `run` sends everything to the recipe's sinks, `results` gives it to a program.

    `results` as often as wanted; `run` once, for its sinks end with it. Threads may share it: their batches take turns
    in the components.

    backend: what its networks run in, with the version. elsewhere: the nodes whose networks left torch. measure: wait
    for the device after every node, so that the seconds by node are true on a GPU.
    """

    def __init__(
        self,
        recipe: Recipe,
        plugins: Plugins,
        device: torch.device,
        source_node: Node,
        source: Source,
        steps: list[tuple[Node, Any]],
        sinks: list[tuple[Node, Any]],
        engine: str,
        elsewhere: Collection[str] = (),
    ):
        self.recipe = recipe
        self.plugins = plugins
        self.device = device
        self.source_node = source_node
        self.source = source
        self.steps = steps
        self.sinks = sinks
        self.backend = engine
        self.elsewhere = elsewhere
        self.measure = False
        self.early = device.type == "cuda"  # a batch is copied to a GPU while the one before it is computed
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.summary = Summary()
        self.ended = False
        self.process = os.getpid()
        self.turn = threading.Lock()

    def context(self, node: Node) -> Context:
        """What a source of this graph is told when another of its kind is built."""
        return _context(self.recipe, node, self.device, pick_dtype(self.recipe.runtime.precision))

    def run(
        self,
        progress: Callable[[Summary], None] | None = None,
        on_batch: Callable[[BatchInfo], None] | None = None,
    ) -> Summary:
        """Run the recipe's source to its end, into its sinks.

        progress: called with the summary so far when frames are done. on_batch: called after each batch.
        On Ctrl-C the outputs are made whole, where there is anything to them, and KeyboardInterrupt goes on; `summary`
        tells how far it came. A pipe that nobody reads any more ends the run quietly. After that, and after an error,
        a sink that can is told to `abandon` what it has, so that what an earlier run left stays. Raises LprfError: the
        source is not there, an output cannot be written, it ran before.
        """
        if self.ended:
            raise LprfError(f"recipe '{self.recipe.name}' ran already, and its sinks are closed: build it again")
        self.ended = True
        keep = {ref for node, _ in self.sinks for refs in node.inputs.values() for ref in refs}
        count = [Ref(node.name, port) for node, _ in self.steps for port in node.component.all_outputs()]
        keep |= set(_last_of(self.recipe, count))
        summary = self.summary = Summary(total=self.source.total)
        shield = _Shield()
        begun = whole = False
        with shield:
            try:
                if progress is not None:
                    progress(summary)
                with contextlib.closing(self._groups(self.source, keep, summary, on_batch, eager=False)) as groups:
                    for group in groups:
                        with shield.held():
                            begun = True
                            self._write_all(group)
                        if progress is not None:
                            progress(summary)
                whole = True
            except BrokenPipeError:
                _mute_stdout()
            except KeyboardInterrupt:
                whole = begun  # as far as it came
                raise
            finally:
                with shield.held():
                    if begun or whole:
                        self._close(whole)
                        summary.outputs = [sink.output for _, sink in self.sinks if getattr(sink, "output", None)]
        return summary

    def results(
        self,
        source: Source | None = None,
        keep: Iterable[Ref] | None = None,
        summary: Summary | None = None,
        eager: bool = False,
        workers: int | None = None,
        on_batch: Callable[[BatchInfo], None] | None = None,
    ) -> Iterator[Result]:
        """Run `source` (the recipe's own by default) and give each item's result, in their order.

        keep: the ports whose values are wanted; the graph's readings or detections by default. eager: do not wait
        for full batches. workers: decoding threads, of the recipe's runtime by default. Closing the iterator stops
        the threads.
        """
        source = self.source if source is None else source
        summary = Summary(total=source.total) if summary is None else summary
        wanted = {self.result} if keep is None else set(keep)
        for group in self._groups(source, wanted, summary, on_batch, eager, workers):
            yield from group

    @property
    def threads(self) -> int:
        """How many threads of the CPU its networks have."""
        return self.recipe.runtime.threads or torch.get_num_threads()

    @functools.cached_property
    def result(self) -> Ref:
        """The port that gives the graph's readings; where nothing reads, its detections."""
        return result_port(self.recipe)

    def _groups(
        self,
        source: Source,
        keep: set[Ref],
        summary: Summary,
        on_batch: Callable[[BatchInfo], None] | None,
        eager: bool,
        workers: int | None = None,
    ) -> Generator[list[Result], None, None]:
        """Results in order, as many at a time as have become ready."""
        if os.getpid() != self.process and self.backend.startswith("openvino"):  # whose threads stayed behind
            raise LprfError("loaded before the process forked, and OpenVINO cannot go on in a child: load it there")
        runtime = self.recipe.runtime
        began = time.perf_counter()
        size = 1 if source.live else runtime.batch
        feed: Decoder | Newest
        # what a program's own pictures raise is the program's; the recipe's source is a node of the graph
        items = source.items() if isinstance(source, Feed) else self._items(source)
        if source.live:
            feed = Newest(items)
        else:
            workers = runtime.workers if workers is None else workers
            feed = Decoder(items, workers, ahead=max(size, workers))
        done: dict[int, Result] = {}
        order = _Order(source.live)
        free = time.perf_counter()
        try:
            groups = batches(feed.take, source.shape, size, eager)
            early = self.early and not (source.live or eager or self.measure)
            for entries, upload in self._uploaded(source, groups) if early else ((entries, None) for entries in groups):
                ready = time.perf_counter()
                if entries[0].image is None:
                    results = [Result(entries[0].origin, None, reason=entries[0].reason)]
                else:
                    results = self._attempt(source, entries, keep, ready - free, on_batch, upload)
                done.update(zip([entry.index for entry in entries], results, strict=True))
                # nothing of a batch may stay here while the next is decoded and computed: it is all a run's memory
                entries.clear()
                del results, upload
                group = order.ready(done)
                summary.add(group)
                summary.dropped = feed.dropped
                summary.reconnects = getattr(source, "reconnects", 0)
                summary.seconds = time.perf_counter() - began
                free = time.perf_counter()
                if group:
                    yield group
                del group
        finally:
            stop = getattr(source, "stop", None)
            if stop is not None:
                stop()
            feed.stop()
            summary.dropped = feed.dropped
            summary.reconnects = getattr(source, "reconnects", 0)
            summary.seconds = time.perf_counter() - began

    def _items(self, source: Source) -> Iterator[Item]:
        """The items of a source of the graph; what goes wrong in naming them tells which node it was."""

        @contextlib.contextmanager
        def named() -> Iterator[None]:
            try:
                yield
            except LprfError:
                raise
            except Exception as error:
                raise PluginError(_named(self.source_node, error)) from error

        def each(items: Iterator[Item]) -> Iterator[Item]:
            with named():
                yield from items

        with named():
            return each(source.items())

    def _attempt(
        self,
        source: Source,
        entries: list[Decoded],
        keep: set[Ref],
        waited: float,
        on_batch: Callable[[BatchInfo], None] | None,
        upload: _Upload | None = None,
    ) -> list[Result]:
        """Run a batch; where a component raises, run it frame by frame, so that a bad frame fails alone."""
        try:
            batch, info = self._call(source, entries, keep, waited, upload)
        except _NodeError as error:
            reason = str(error)  # the error itself holds on to all that was computed so far
        else:
            reason = ""
        if reason:
            if len(entries) == 1:
                return [Result(entries[0].origin, None, reason=reason)]
            del upload
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return [self._attempt(source, [entry], keep, 0.0, on_batch)[0] for entry in entries]
        if on_batch is not None:
            on_batch(info)
        self.plugins.notify("lprf_batch_done", run=info)
        return [Result(entry.origin, batch, row, entry.reason) for row, entry in enumerate(entries)]

    @torch.inference_mode()
    def _call(
        self, source: Source, entries: list[Decoded], keep: set[Ref], waited: float, upload: _Upload | None
    ) -> tuple[Batch, BatchInfo]:
        began = time.perf_counter() - (0.0 if upload is None else upload.seconds)
        origins = [entry.origin for entry in entries]
        if upload is None:
            try:
                upload = self._upload(source, entries)
            except Exception as error:
                raise _NodeError(_named(self.source_node, error)) from error
        memo: dict[int, Any] = {}
        values: dict[Ref, Any] = {}
        start = time.perf_counter()
        for port, value in self._arrived(upload, memo).items():
            values[Ref(self.source_node.name, port)] = value
        if self.measure:
            self._synchronize()
        copied, kernels = time.perf_counter() - start, 0.0
        seconds = {self.source_node.name: time.perf_counter() - began}
        for node, implementation in self.steps:
            start = time.perf_counter()
            try:
                if not node.component.padded:
                    values = trimmed(values)
                # where another engine computes, torch's threads go on spinning after each step, on the cores it needs
                count = 1 if node.name in self.elsewhere else self.recipe.runtime.threads
                with self.turn, backend.threads(count):
                    outputs = _call_node(node, implementation, values)
                    if self.measure:
                        kernels += self._synchronize()
            except LprfError as error:
                if not isinstance(error, InputFailure):
                    raise
                raise _NodeError(error.reason) from error
            except Exception as error:
                raise _NodeError(_named(node, error)) from error
            values.update(outputs)
            seconds[node.name] = time.perf_counter() - start
        start = time.perf_counter()
        values = trimmed(values)
        kept = {ref: to_host(values[ref], memo) for ref in keep if ref in values}
        copied += time.perf_counter() - start
        rest = self._synchronize()
        copied, kernels = (copied + rest, kernels) if self.measure else (copied, kernels + rest)
        batch = Batch(kept, len(origins))
        plates, read, took = sum(batch.plates), sum(batch.read), time.perf_counter() - began
        info = BatchInfo(self.recipe.name, origins, plates, read, waited, took, seconds, copied, kernels)
        return batch, info

    def _synchronize(self) -> float:
        """Wait for a GPU to do what it was told; gives the seconds."""
        start = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return time.perf_counter() - start

    def _uploaded(
        self, source: Source, groups: Iterator[list[Decoded]]
    ) -> Iterator[tuple[list[Decoded], _Upload | None]]:
        """Groups, each given out when the one after it is on its way to the device."""
        ahead: list[tuple[list[Decoded], _Upload | None]] = []
        try:
            for entries in groups:
                upload = None
                if entries[0].image is not None:
                    with contextlib.suppress(Exception):  # what goes wrong does so again when its turn comes
                        upload = self._upload(source, entries)
                ahead.append((entries, upload))
                del entries, upload
                if len(ahead) > 1:
                    yield ahead.pop(0)
        except Exception:
            yield from ahead
            raise
        yield from ahead

    def _upload(self, source: Source, entries: list[Decoded]) -> _Upload:
        """Put a batch together; on a GPU, begin to copy its frames there, on a stream of their own."""
        began = time.perf_counter()
        host = source.batch(
            [entry.origin for entry in entries], [entry.image for entry in entries if entry.image is not None]
        )
        if self.copies is None:
            return _Upload(host, time.perf_counter() - began)
        frames = host["frames"]
        with torch.cuda.stream(self.copies):
            pinned = replace(frames, images=frames.images.pin_memory())
            there, copied = pinned.to(self.device), self.copies.record_event()
        return _Upload(host, time.perf_counter() - began, pinned, there, copied)

    def _arrived(self, upload: _Upload, memo: dict[int, Any]) -> dict[str, Any]:
        """The source's values on the device; `memo` learns which host value each stands for."""
        frames = upload.frames
        if frames is None or upload.copied is None:
            return dict(upload.host)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(upload.copied)
        frames.images.record_stream(stream)  # its memory is not another batch's before this stream is done with it
        memo[id(frames)] = upload.pinned
        own = upload.host["frames"]
        return {
            port: frames if value is own else begin_copy(value, self.device, lambda _: frames)
            for port, value in upload.host.items()
        }

    def _write_all(self, group: list[Result]) -> None:
        """Write results, and let go of them."""
        for result in group:
            self._write(result)
        group.clear()

    def _write(self, result: Result) -> None:
        for node, sink in self.sinks:
            try:
                if result.batch is not None:
                    sink.write(
                        **{
                            port: [result.value(ref) for ref in refs]
                            if node.component.all_inputs()[port].many
                            else result.value(refs[0])
                            for port, refs in node.inputs.items()
                        }
                    )
                if result.reason:
                    sink.fail(result.origin.name, result.reason)
            except BrokenPipeError:
                raise
            except Exception as error:
                raise _sink_error(node, sink, error) from error

    def _close(self, whole: bool) -> None:
        """Close every sink, whatever becomes of the others; then raise the first thing that went wrong."""
        first: BaseException | None = None
        for node, sink in self.sinks:
            try:
                end = sink.close if whole else getattr(sink, "abandon", sink.close)
                end()
            except BrokenPipeError:
                continue
            except Exception as error:
                first = first or _sink_error(node, sink, error)
        if first is not None:
            raise first


def _mute_stdout() -> None:
    """Where nobody reads standard output any more, let Python's last flush of it succeed in silence."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _NodeError(Exception):
    """What a component raised, with the name of its node."""


def _named(node: Node, error: Exception) -> str:
    return f"{node.name} ({node.uses}): {type(error).__name__}: {error}"


def _sink_error(node: Node, sink: Any, error: Exception) -> LprfError:
    """What a sink raised, for the person at the keyboard: which node it was and, of a full disk, which file."""
    if isinstance(error, LprfError):
        return error
    if isinstance(error, OSError):
        where = error.filename or getattr(sink, "output", None) or "standard output"
        return LprfError(f"{node.name} ({node.uses}): {where}: {error.strerror or error}")
    return PluginError(_named(node, error))


def _call_node(node: Node, implementation: Any, values: Mapping[Ref, Any]) -> dict[Ref, Any]:
    """Call a component: the inputs of its kind by position, optional ones by name; its outputs by port."""
    declared = node.component.all_inputs()
    required: list[Any] = []
    optional: dict[str, Any] = {}
    for port, refs in node.inputs.items():
        value: Any = [values[ref] for ref in refs] if declared[port].many else values[refs[0]]
        if declared[port].optional:
            optional[port] = value
        else:
            required.append(value)
    given = implementation(*required, **optional)
    ports = node.component.all_outputs()
    if not isinstance(given, Mapping):
        given = {next(iter(ports)): given}
    for port, declaration in ports.items():
        expected = _TYPES[declaration.type]
        if not (isinstance(given.get(port), expected) or (declaration.optional and port not in given)):
            raise PluginError(
                f"{node.name} ({node.uses}) should give {declaration.type} at '{port}', "
                f"gave {type(given.get(port)).__name__}"
            )
        if wrong := amiss(given.get(port)):
            raise ValueError(f"gave {declaration.type} at '{port}' with {wrong}")  # it may be of this frame alone
    return {Ref(node.name, port): value for port, value in given.items()}


class _Order:
    """Gives results out in the order of the input. A live source leaves gaps, and its results come in order."""

    def __init__(self, live: bool):
        self.live = live
        self.next = 0

    def ready(self, done: dict[int, Result]) -> list[Result]:
        if self.live:
            group = [done[index] for index in sorted(done)]
            done.clear()
            return group
        group = []
        while self.next in done:
            group.append(done.pop(self.next))
            self.next += 1
        return group


class _Shield:
    """Holds Ctrl-C, and the signals by which a system ends a program, back while a sink writes, so that no line is cut;
    a second one comes through at once. Each ends the run as Ctrl-C does."""

    HANDLED = {signal.SIGINT: signal.default_int_handler} | {
        getattr(signal, name): signal.SIG_DFL for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
    }

    def __init__(self) -> None:
        self.holding = False
        self.pending: KeyboardInterrupt | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, default in self.HANDLED.items():
                if signal.getsignal(number) is default:  # a program that handles them itself goes on to do so
                    self.previous[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self._release()

    def _handle(self, number: int, _: object) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
        if not self.holding or self.pending:
            raise error
        self.pending = error

    def _release(self) -> None:
        pending, self.pending = self.pending, None
        if pending is not None:
            raise pending

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        self._release()


# ------------------------------------------------------------------------------------------------------- building


def pick_device(name: str) -> torch.device:
    """The device of `runtime.device`. Raises LprfError where there is none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LprfError(f"runtime.device: no such device '{name}'; auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise LprfError(f"runtime.device: '{name}' is not supported; auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        there = "there is no CUDA device here" if count == 0 else f"there are {count} CUDA devices, from cuda:0 on"
        raise LprfError(f"runtime.device: '{name}', but {there}")
    return device


def pick_dtype(precision: str) -> torch.dtype:
    """The floating type of `runtime.precision`; auto is float32."""
    return torch.float32 if precision == "auto" else getattr(torch, precision)


def result_port(recipe: Recipe) -> Ref:
    """The one port of a graph that gives Readings, or where there is none Detections. Raises LprfError."""
    for wanted in ("Readings", "Detections"):
        ports = [
            Ref(node.name, port)
            for node in recipe.nodes.values()
            for port, declaration in node.component.all_outputs().items()
            if declaration.type == wanted
        ]
        last = _last_of(recipe, ports)
        if len(last) == 1:
            return last[0]
        if last:
            names = ", ".join(map(str, last))
            raise LprfError(f"recipe '{recipe.name}' gives {wanted} at {names}; say which is wanted")
    raise LprfError(f"recipe '{recipe.name}' neither reads nor detects anything")


def _last_of(recipe: Recipe, ports: Sequence[Ref]) -> list[Ref]:
    """Of `ports`, those that stand for the whole: readings, else detections that no other detections are made of."""
    typed = {ref: recipe.nodes[ref.node].component.all_outputs()[ref.port].type for ref in ports}
    for wanted in ("Readings", "Detections"):
        chosen = [ref for ref in ports if typed[ref] == wanted]
        if chosen:
            used = {
                ref
                for node in recipe.nodes.values()
                if any(port.type == wanted for port in node.component.all_outputs().values())
                for refs in node.inputs.values()
                for ref in refs
            }
            return [ref for ref in chosen if ref not in used]
    return []


def build(
    recipe: Recipe,
    plugins: Plugins,
    source: Source | None = None,
    wanted: Iterable[Ref] | None = None,
) -> Graph:
    """Build the components of an inference recipe, consumers first.

    source: stands in for the recipe's own. wanted: build only what these ports need, and no sinks; else all nodes.
    Raises LprfError: weights that are missing or do not fit, plates of one size for a reader of another, a device
    that is not there.
    """
    if recipe.kind != "infer":
        raise LprfError(f"recipe '{recipe.name}' is a training graph; this needs an inference graph")
    sources = [node for node in recipe.nodes.values() if node.component.kind == "source"]
    if len(sources) != 1:
        names = ", ".join(node.name for node in sources) or "none"
        raise LprfError(f"recipe '{recipe.name}': an inference graph has one source, this has {names}")
    device = pick_device(recipe.runtime.device)
    engine = backend.pick(recipe.runtime, device)
    dtype = pick_dtype(recipe.runtime.precision)
    needed = set(recipe.nodes) if wanted is None else _ancestors(recipe, wanted)
    built: dict[str, Any] = {}
    with backend.threads(recipe.runtime.threads):  # which engines take theirs from
        for node in reversed(list(recipe.nodes.values())):
            if node.name not in needed and node is not sources[0]:
                continue
            if node is sources[0] and source is not None:
                continue
            if node.component.kind == "sink" and not node.inputs:
                raise LprfError(f"{node.name} ({node.uses}): connect one of {', '.join(node.component.inputs)}")
            # another backend is given networks in float32, and told what to compute in
            context_dtype = dtype if engine == "torch" else torch.float32
            context = _context(recipe, node, device, context_dtype, _plate_size(recipe, node, built))
            built[node.name] = node.component.load()(node.params, context)
        nodes = [node for node in recipe.nodes.values() if node.name in built and node is not sources[0]]
        moved = backend.install([(node, built[node.name]) for node in nodes], engine, recipe.runtime, device)
    return Graph(
        recipe,
        plugins,
        device,
        sources[0],
        source if source is not None else built[sources[0].name],
        [(node, built[node.name]) for node in nodes if node.component.kind != "sink"],
        [(node, built[node.name]) for node in nodes if node.component.kind == "sink"],
        backend.named(engine),
        moved if device.type == "cpu" else (),
    )


def _context(
    recipe: Recipe, node: Node, device: torch.device, dtype: torch.dtype, plate_size: tuple[int, int] | None = None
) -> Context:
    return Context(
        device=device,
        dtype=dtype,
        weights=functools.partial(weights.find_and_load, folder=recipe.folder),
        plate_size=plate_size,
        node=node.name,
        seed=recipe.runtime.seed,
        workers=recipe.runtime.workers,
    )


def _ancestors(recipe: Recipe, wanted: Iterable[Ref]) -> set[str]:
    needed: set[str] = set()
    todo = [ref.node for ref in wanted]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo.extend(ref.node for refs in recipe.nodes[name].inputs.values() for ref in refs)
    return needed


def _plate_size(recipe: Recipe, node: Node, built: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (h, w) that the readers of this node's plates declare. Raises LprfError where two sizes meet."""
    plates = {port for port, declared in node.component.all_outputs().items() if declared.type == "Plates"}
    size: tuple[int, int] | None = None
    asks = ""
    for reader in recipe.nodes.values():
        if reader.name not in built:
            continue
        if any(ref.node == node.name and ref.port in plates for refs in reader.inputs.values() for ref in refs):
            own = getattr(built[reader.name], "size", None)
            if own is None:
                continue
            if size is not None and tuple(own) != size:
                raise LprfError(f"{asks} reads plates of {_hw(size)}, {reader.name} of {_hw(own)}; both of {node.name}")
            size, asks = (int(own[0]), int(own[1])), reader.name
    given = getattr(node.params, "size", None)
    if plates and size is not None and given is not None and tuple(given) != size:
        raise LprfError(f"{node.name} gives plates of {_hw(given)} (its size), but {asks} reads plates of {_hw(size)}")
    return size


def _hw(size: Sequence[int]) -> str:
    return f"{size[0]} × {size[1]}"

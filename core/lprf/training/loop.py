"""`train`: the one loop, and `Task`: what a trainer gives it. See `lprf.training` for how to write one."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import io
import itertools
import json
import logging
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lprf.context import Context
from lprf.errors import LprfError
from lprf.files import replacing
from lprf.memory import keep_freed
from lprf.runs import CHECKPOINT, METRICS, TABLE
from lprf.text import duration
from lprf.training import distributed
from lprf.training.distributed import Share
from lprf.training.log import Board, Table, progress
from lprf.training.params import LoopParams

logger = logging.getLogger("lprf.training")

State = dict[str, Tensor]

_PARENT_DEATH_SIGNAL = 1  # Linux's PR_SET_PDEATHSIG


class Task:
    """What a trainer gives to `train`. Its rules for exact resumption stand in `lprf.training`.

    networks: what is trained, by name, on the device; `train` puts them in train and eval mode.
    steps_per_epoch: batches in one pass over the samples; None where there is no end to them (then `steps` is needed).
    lr_factors: learning rates of single networks, as factors: {"stn": 0.1}.
    """

    networks: dict[str, nn.Module]
    steps_per_epoch: int | None = None
    lr_factors: Mapping[str, float] = {}

    def batch(self, step: int, rng: np.random.Generator, share: Share) -> Any:
        """This process's rows of global batch number `step` (from 0): tensors on the CPU, in lists, tuples or dicts."""
        raise NotImplementedError

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss, a scalar, and metrics of interest; called in train mode, under autocast.

        A metric may be NaN where a batch has nothing to measure it on.
        """
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Metrics on validation data; the highest "score" picks the best weights, of equals the last. Nothing: the
        last are the best."""
        return {}

    def interval(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Called every `log_every` steps with the mean metrics since the last call, "loss" among them.

        A curriculum moves on here; returns True where that changes the batches from global batch `step` on.
        """
        return False

    def state(self) -> dict[str, Any]:
        """What the task must remember across an interruption: plain values and tensors."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""


class TrainingDiverged(LprfError):
    """The loss became infinite, not a number, or far larger than at the start."""


@dataclass(frozen=True)
class Trained:
    """What training gave: the best weights by network (float32 state dicts on the CPU), and how it went.

    metrics: of the validation that chose the weights; of the last interval where there was none.
    """

    weights: dict[str, State]
    metrics: dict[str, float]
    steps: int
    seconds: float
    stopped_early: bool = False


def train(task: Task, params: LoopParams, context: Context) -> Trained:
    """Train `task`'s networks and give the best weights; continues from the checkpoint in `context.folder`.

    Without a folder nothing is written. Raises TrainingDiverged; the batch is left in the folder for inspection.
    """
    keep_freed()
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[context.device] if context.device.type == "cuda" else []):
            return _Loop(task, params, context).run()
    finally:
        torch.set_num_threads(threads)


def record(result: Trained, params: LoopParams, context: Context) -> dict[str, Any]:
    """What a file of weights says of how they were trained, as far as that is every trainer's."""
    return {
        "with": params.model_dump(mode="json", exclude_defaults=True),
        "seed": context.seed,
        "steps": result.steps,
        "batch": params.batch * params.accumulate,
        "seconds": round(result.seconds),
        "hardware": f"{platform.machine()}, {context.device.type}, {torch.get_num_threads()} threads",
        "validation": {key: round(value, 4) for key, value in result.metrics.items()},
    }


def learning_rate(params: LoopParams, step: int, steps: int) -> float:
    """The learning rate of one step: a linear warm-up, then a cosine from `lr` to `lr * lr_end`."""
    if step < params.warmup:
        return params.lr * (step + 1) / (params.warmup + 1)
    if params.schedule == "constant":
        return params.lr
    done = (step - params.warmup) / max(1, steps - params.warmup)
    return params.lr * (params.lr_end + (1 - params.lr_end) * (1 + math.cos(math.pi * min(1.0, done))) / 2)


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of autocast; `auto` goes below float32 only where the device computes in it natively."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies in bfloat16 (AMX or AVX512_BF16); emulated, it is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags or " bf16" in flags


@dataclass
class _Progress:
    """Where training stands: what a checkpoint holds beside networks and optimiser, in plain values."""

    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    without_better: int = 0
    first_loss: float | None = None
    last_means: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    finished: bool = False
    stopped_early: bool = False


class _Loop:
    def __init__(self, task: Task, params: LoopParams, context: Context):
        self.task, self.params, self.context = task, params, context
        self.device = context.device
        if params.batch < distributed.share().size:
            raise LprfError(f"a batch of {params.batch} cannot be shared by {distributed.share().size} processes")
        self.steps = _total_steps(task, params)
        epoch = (task.steps_per_epoch or 0) // params.accumulate or -(-self.steps // 10)
        self.validate_every = params.validate_every or epoch
        for name, network in task.networks.items():
            task.networks[name] = distributed.prepare(network, self.device)
        self.networks = nn.ModuleDict(task.networks)
        self.parameters = [p for p in self.networks.parameters() if p.requires_grad]
        self.optimizer = self._optimizer()
        self.dtype = precision_of(params.precision, self.device)
        scaled = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.ema = copy.deepcopy(self._state()) if params.ema is not None else None
        self.best: State | None = None
        self.at = _Progress()
        self.writes = context.folder is not None and distributed.is_main()

    def run(self) -> Trained:
        self._resume()
        name = self.context.node or "training"
        logger.info(
            "%s: %d steps of %d, %s on %s%s, from step %d",
            *(name, self.steps, self.params.batch * self.params.accumulate, str(self.dtype)[6:], self.device),
            *(f", {distributed.share().size} processes" if distributed.active() else "", self.at.step),
        )
        if not self.at.finished:
            with contextlib.ExitStack() as stack:
                self._steps(stack)
        if self.best is None:
            self.best = _host(self.ema if self.ema is not None else self._state())
        weights = {
            name: {key.partition(".")[2]: value for key, value in self.best.items() if key.split(".")[0] == name}
            for name in self.task.networks
        }
        metrics = self.at.best_metrics or self.at.last_means
        if self.writes:
            assert self.context.folder is not None
            with replacing(self.context.folder / METRICS) as beside:
                beside.write_text(json.dumps(metrics), encoding="utf-8")
        return Trained(weights, metrics, self.at.step, self.at.seconds, self.at.stopped_early)

    def _steps(self, stack: contextlib.ExitStack) -> None:
        at, params = self.at, self.params
        folder = self.context.folder if self.writes else None
        table = Table(folder / TABLE, at.step) if folder else None
        validation = Table(folder / "validation.csv", at.step) if folder else None
        board = stack.enter_context(contextlib.closing(Board(folder, at.step)))
        shown = stack.enter_context(progress(self.context.node or "training", self.steps, at.step))
        began, before, start = time.monotonic(), at.seconds, at.step
        saved_at, saved_step = began, at.step
        feed = self._feed()
        while not at.finished:
            loss, metrics, batch = self._step(feed)
            at.step += 1
            for key, value in metrics.items():
                if not math.isnan(value):
                    at.sums[key] = at.sums.get(key, 0.0) + value
                    at.counts[key] = at.counts.get(key, 0) + 1
            at.seconds = before + time.monotonic() - began
            speed = (at.step - start) / max(1e-9, at.seconds - before)
            rate = f"{speed * params.batch * params.accumulate:.0f}/s"
            shown.update(at.step, f"loss {loss:.4f}, {rate}", (self.steps - at.step) / speed)
            if at.step % params.log_every == 0 or at.step == self.steps:
                means = self._means()
                self._check_divergence(means["loss"], batch)
                lr = learning_rate(params, at.step - 1, self.steps)
                row = {"seconds": round(at.seconds, 1), "lr": lr, **means}
                if table is not None:
                    table.add(at.step, row)
                board.add(at.step, {"train/lr": lr, **{f"train/{key}": value for key, value in means.items()}})
                line = ", ".join(f"{key} {value:.4g}" for key, value in means.items())
                left = duration((self.steps - at.step) / speed)
                shown.line(f"step {at.step}/{self.steps}: {line}, {rate}, {left} left")
                if self.task.interval(at.step * params.accumulate, means):
                    feed = self._feed()
            if at.step % self.validate_every == 0 or at.step == self.steps:
                metrics = self._validate()
                if metrics and validation is not None:
                    validation.add(at.step, metrics)
                    board.add(at.step, {f"validation/{key}": value for key, value in metrics.items()})
                    line = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
                    shown.line(f"validation at step {at.step}: {line}", always=True)
                if params.patience is not None and at.without_better >= params.patience:
                    at.finished = at.stopped_early = True
                    shown.line(f"no better score in {params.patience} validations: stopped", always=True)
            at.finished = at.finished or at.step >= self.steps
            now = time.monotonic()
            due = params.checkpoint_steps is not None and at.step - saved_step >= params.checkpoint_steps
            if self.writes and (at.finished or due or now - saved_at >= params.checkpoint_seconds):
                self._save()
                saved_at, saved_step = time.monotonic(), at.step

    def _step(self, feed: Iterator[Any]) -> tuple[float, dict[str, float], Any]:
        """One optimiser step: its loss and mean metrics, in this process, and the last batch."""
        at, params = self.at, self.params
        self.networks.train()
        _seed(self.context.seed, at.step)
        lr = learning_rate(params, at.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        found: dict[str, list[Tensor | float]] = {}
        batch: Any = None
        bad = torch.zeros((), dtype=torch.bool, device=self.device)
        for _ in range(params.accumulate):
            batch = _to(next(feed), self.device)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                loss, metrics = self.task.loss(batch)
            self.scaler.scale(loss / params.accumulate).backward()
            bad |= ~torch.isfinite(loss.detach())
            for key, value in {"loss": loss, **metrics}.items():
                found.setdefault(key, []).append(value.detach() if isinstance(value, Tensor) else value)
        distributed.average(self.parameters, self.networks.buffers())
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        if not self.scaler.is_enabled():  # where it is, it skips steps whose gradients overflow
            bad |= ~torch.isfinite(norm)
        if distributed.active():
            bad = distributed.total(bad.float()) > 0
        if bad.item():
            self._diverged(batch, f"the loss or its gradient is not finite at step {at.step + 1}")
        if params.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, params.clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average_weights()
        means = {key: sum(float(value) for value in values) / len(values) for key, values in found.items()}
        return means["loss"], means, batch

    @torch.no_grad()
    def _average_weights(self) -> None:
        if self.ema is None:
            return
        assert self.params.ema is not None
        decay = min(self.params.ema, (1 + self.at.step) / (10 + self.at.step))  # early on, forget the start sooner
        state = self._state()
        floating = [key for key, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.ema[key] for key in floating], [state[key] for key in floating], 1 - decay)
        for key, value in state.items():
            if not value.is_floating_point():
                self.ema[key].copy_(value)

    def _feed(self) -> Iterator[Any]:
        """Batches from the present step on, made ahead by `context.workers` processes where there are any."""
        first = self.at.step * self.params.accumulate
        batches = _Batches(self.task, self.context.seed, distributed.share())
        if self.context.workers == 0:
            return (batches[step] for step in itertools.count(first))
        loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            sampler=range(first, self.steps * self.params.accumulate),
            num_workers=self.context.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=functools.partial(_worker_started, os.getpid()),
            generator=torch.Generator(),
        )
        return iter(loader)

    def _means(self) -> dict[str, float]:
        """The mean metrics of the interval that ends here, over all processes."""
        at = self.at
        keys = sorted(at.sums, key=lambda key: (key != "loss", key))
        values = torch.tensor([[at.sums[key] for key in keys], [at.counts[key] for key in keys]], dtype=torch.float64)
        if distributed.active():
            everyones = distributed.broadcast(keys)
            local = dict(zip(keys, values.T, strict=True))
            values = torch.stack([local.get(key, torch.zeros(2, dtype=torch.float64)) for key in everyones], 1)
            values = distributed.total(values.to(self.device)).cpu()
            keys = everyones
        means = {key: s / n for key, s, n in zip(keys, *values.tolist(), strict=True) if n}
        at.sums, at.counts, at.last_means = {}, {}, means
        return means

    def _validate(self) -> dict[str, float]:
        """Validate with the averaged weights, on the first process; remember the best."""
        at = self.at
        metrics: dict[str, float] = {}
        if distributed.is_main():
            own = copy.deepcopy(self._state()) if self.ema is not None else None
            if self.ema is not None:
                self.networks.load_state_dict(self.ema)
            self.networks.eval()
            try:
                with torch.no_grad():
                    given = {key: float(value) for key, value in self.task.validate().items()}
                    # no number: nothing to measure it on
                    metrics = {key: value for key, value in given.items() if math.isfinite(value)}
            finally:
                if own is not None:
                    self.networks.load_state_dict(own)
        metrics = distributed.broadcast(metrics)
        if "score" in metrics:
            better = at.best_score is None or metrics["score"] > at.best_score
            at.without_better = 0 if better else at.without_better + 1
            if better or metrics["score"] == at.best_score:  # of equals the last: it has learnt more
                at.best_score, at.best_metrics = metrics["score"], metrics
                self.best = _host(self.ema if self.ema is not None else self._state())
        elif metrics:
            at.best_metrics = metrics
        return metrics

    def _check_divergence(self, loss: float, batch: Any) -> None:
        if self.at.first_loss is None:
            self.at.first_loss = loss
        elif loss > self.params.diverged * abs(self.at.first_loss) and loss > 0:
            first = f"{self.at.first_loss:.4g}"
            self._diverged(batch, f"the loss rose from {first} to {loss:.4g} by step {self.at.step}")

    def _diverged(self, batch: Any, reason: str) -> None:
        where = ""
        if self.context.folder is not None:
            rank = distributed.share().rank
            path = self.context.folder / ("bad-batch.pt" if rank == 0 else f"bad-batch-{rank}.pt")
            _write(path, _to(batch, torch.device("cpu")))
            where = f"; the batch is in {path}"
        advice = "lower the learning rate, raise the warm-up, or look for broken labels"
        raise TrainingDiverged(f"{self.context.node or 'training'}: {reason}{where}: {advice}")

    def _save(self) -> None:
        """Write everything that the next step depends on, beside and renamed."""
        assert self.context.folder is not None
        content = {
            "progress": vars(self.at),
            "networks": self._state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema,
            "best": self.best,
            "task": self.task.state(),
            "threads": torch.get_num_threads(),
            "processes": distributed.share().size,
        }
        _write(self.context.folder / CHECKPOINT, content)

    def _resume(self) -> None:
        """Take up the checkpoint in the folder, if there is one; every process reads the first one's."""
        path = None if self.context.folder is None else self.context.folder / CHECKPOINT
        if not distributed.broadcast(path is not None and path.is_file()):
            return
        assert path is not None
        anew = f"delete it to start {self.context.node or 'training'} anew"
        try:
            content = torch.load(path, map_location=self.device, weights_only=True)
        except OSError:
            raise
        except Exception as error:
            raise LprfError(f"{path} is broken; {anew}") from error
        try:
            self.at = _Progress(**content["progress"])
            self.networks.load_state_dict(content["networks"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.ema, self.best = content["ema"], _host(content["best"]) if content["best"] is not None else None
            self.task.load_state(content["task"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise LprfError(f"{path} does not fit the trainer as it is now; {anew}") from error
        alike = self.device.type == "cpu" and content["processes"] == distributed.share().size
        if alike and content["threads"] != torch.get_num_threads():
            # sums are split among threads, so that another number of them rounds otherwise
            logger.info("%s: with %d threads, as it was begun", self.context.node, content["threads"])
            torch.set_num_threads(content["threads"])

    def _state(self) -> State:
        """The networks' tensors, not copied, named "network.parameter"."""
        return {key: value.detach() for key, value in self.networks.state_dict().items()}

    def _optimizer(self) -> torch.optim.Optimizer:
        params = self.params
        groups = []
        for name, network in self.task.networks.items():
            for decays in (True, False):
                chosen = [p for p in network.parameters() if p.requires_grad and (p.dim() > 1) == decays]
                decay = params.weight_decay if decays else 0.0
                factor = self.task.lr_factors.get(name, 1.0)
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "factor": factor})
        if params.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=params.lr, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, lr=params.lr)


class _Batches(torch.utils.data.Dataset[Any]):
    """`task.batch` by number, with its own generator of random numbers: the same in any process, in any order."""

    def __init__(self, task: Task, seed: int, share: Share):
        self.make: Callable[..., Any] = task.batch
        self.seed, self.share = seed, share

    def __getitem__(self, step: int) -> Any:
        return self.make(step, np.random.default_rng((self.seed, step)), self.share)


def _total_steps(task: Task, params: LoopParams) -> int:
    if params.steps is not None:
        return params.steps
    if params.epochs is None or task.steps_per_epoch is None:
        raise LprfError("a trainer needs `steps`, or `epochs` over samples that end")
    return max(1, round(params.epochs * task.steps_per_epoch / params.accumulate))


def _seed(seed: int, step: int) -> None:
    """Seed torch's generator for one step, so that no state of it needs to be kept."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1))


def _worker_started(parent: int, _: int) -> None:
    """A worker process leaves the other cores to its siblings, and does not outlive its parent."""
    # torch watches the parent too, but from a moment later on, and whoever that is then
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(0)


def _to(value: Any, device: torch.device) -> Any:
    """Tensors in lists, tuples and dicts, on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _to(child, device) for key, child in value.items()}
    if isinstance(value, list | tuple):
        moved = [_to(child, device) for child in value]
        return moved if isinstance(value, list) else tuple(moved)
    return value


def _write(path: Path, content: Any) -> None:
    """torch.save, whole or not at all; by way of memory, because torch's own writer hides what the disk says."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as beside:
        beside.write_bytes(buffer.getbuffer())


def _host(state: State) -> State:
    """A copy on the CPU, in float32 where floating."""
    return {
        key: value.detach()
        .to("cpu", torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        .contiguous()
        for key, value in state.items()
    }

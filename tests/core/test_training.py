"""The shared training loop: exact resumption, several processes, what it writes, what it refuses."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from tiny_training import TinyParams, TinyTask, fit

from lprf.context import Context
from lprf.data import Example, Truth
from lprf.training import distributed
from lprf.training.log import Table
from lprf.training.loop import TrainingDiverged, learning_rate, train
from lprf.training.photos import photos_with_boxes

SCRIPT = Path(__file__).with_name("tiny_training.py")
# as many threads as here: sums are split among them, so that their number shows in the last bits
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def same(a: dict, b: dict) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[network][key], b[network][key]) for network in a for key in a[network])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Interrupted(Exception):
    pass


def interrupt_at(task: TinyTask, step: int) -> None:
    loss = task.loss

    def stopping(batch):
        stopping.calls += 1
        if stopping.calls > step:
            raise Interrupted
        return loss(batch)

    stopping.calls = 0
    task.loss = stopping


@pytest.mark.parametrize("accumulate", [1, 3])
def test_interrupted_anywhere_the_weights_are_the_same(tmp_path: Path, accumulate: int) -> None:
    params = TinyParams(accumulate=accumulate)
    whole, _ = fit(params, tmp_path / "whole")
    folder = tmp_path / "cut"
    for stop in (1, 10, 24, 13):  # before, at and between checkpoints, validations and intervals
        torch.manual_seed(7)
        context = Context(torch.device("cpu"), torch.float32, None, node="tiny", folder=folder, seed=7)
        task = TinyTask(params)
        interrupt_at(task, stop * accumulate)
        with pytest.raises(Interrupted):
            train(task, params, context)
    cut, _ = fit(params, folder)
    assert same(whole.weights, cut.weights)
    assert whole.metrics == cut.metrics
    for name in ("metrics.csv", "validation.csv"):
        drop = [{k: v for k, v in row.items() if k != "seconds"} for row in rows(tmp_path / "whole" / name)]
        assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder / name)] == drop


@pytest.mark.slow
def test_killed_at_random_moments_the_weights_are_the_same(tmp_path: Path) -> None:
    settings = json.dumps({"steps": 60, "pause": 0.03, "checkpoint_seconds": 0.05})
    whole, _ = fit(TinyParams(**json.loads(settings)), None)
    command = [sys.executable, str(SCRIPT), str(tmp_path), settings]
    for _ in range(2):
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "weights.pt").exists()
    subprocess.run(command, env=ENVIRONMENT, check=True)
    assert same(whole.weights, torch.load(tmp_path / "weights.pt", weights_only=True))


def test_a_run_goes_on_with_the_threads_it_was_begun_with(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    params = TinyParams()
    context = Context(torch.device("cpu"), torch.float32, None, node="tiny", folder=tmp_path, seed=7)
    try:
        torch.set_num_threads(2)
        if torch.get_num_threads() != 2:
            pytest.skip("there is but one core")
        whole, _ = fit(params, None)
        torch.manual_seed(7)
        task = TinyTask(params)
        interrupt_at(task, 20)
        with pytest.raises(Interrupted):
            train(task, params, context)
        torch.set_num_threads(1)
        cut, _ = fit(params, tmp_path)
        assert torch.get_num_threads() == 1
        other, _ = fit(params, None)
    finally:
        torch.set_num_threads(before)
    assert same(whole.weights, cut.weights)
    assert not same(whole.weights, other.weights), "the number of threads makes no difference here: test another task"


@pytest.mark.parametrize(("accumulate", "steps"), [(1, [20, 40]), (4, [5, 10, 15, 20, 25, 30, 35, 40])])
def test_by_default_it_validates_after_every_epoch(accumulate: int, steps: list[int], tmp_path: Path) -> None:
    fit(TinyParams(steps=40, validate_every=None, accumulate=accumulate), tmp_path)  # an epoch is 20 batches
    rows = (tmp_path / "validation.csv").read_text().splitlines()
    assert [int(row.partition(",")[0]) for row in rows[1:]] == steps


def test_workers_change_nothing(tmp_path: Path) -> None:
    params = TinyParams(steps=25)
    none, _ = fit(params, None, workers=0)
    two, _ = fit(params, None, workers=2)
    assert same(none.weights, two.weights)


@pytest.mark.slow
def test_two_processes_follow_one(tmp_path: Path) -> None:
    # without batch norm, whose statistics are per process on CPU; with mining and dropout over the global batch
    settings = json.dumps({"norm": False, "steps": 40})
    one, _ = fit(TinyParams(**json.loads(settings)), tmp_path / "one")
    two = tmp_path / "two"
    two.mkdir()
    command = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(random.randint(20000, 50000))]
    subprocess.run(
        [sys.executable, "-m", *command, str(SCRIPT), str(two), settings], env=ENVIRONMENT, check=True, timeout=120
    )
    for a, b in zip(rows(tmp_path / "one" / "metrics.csv"), rows(two / "metrics.csv"), strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-4)
    weights = torch.load(two / "weights.pt", weights_only=True)
    for key, value in one.weights["tiny"].items():
        torch.testing.assert_close(weights["tiny"][key], value, atol=1e-4, rtol=1e-3)


def test_it_learns_and_chooses_the_best(tmp_path: Path) -> None:
    result, _ = fit(TinyParams(steps=200, ema=0.9, lr=0.01, dropout=0.0), tmp_path)
    scores = [float(row["score"]) for row in rows(tmp_path / "validation.csv")]
    assert len(scores) == 20
    assert result.metrics["score"] == pytest.approx(max(scores), rel=1e-4)
    assert max(scores) > scores[0]


def test_of_equal_weights_the_last_are_the_best(tmp_path: Path) -> None:
    task = TinyTask(TinyParams(steps=40, ema=None))
    networks = []

    def validate() -> dict[str, float]:
        networks.append({key: value.clone() for key, value in task.networks["tiny"].state_dict().items()})
        return {"score": (0.2, 0.5, 0.5, 0.1)[len(networks) - 1]}

    task.validate = validate
    result = train(task, task.params, Context(torch.device("cpu"), torch.float32, None, folder=tmp_path, seed=1))
    assert len(networks) == 4
    assert same(result.weights, {"tiny": networks[2]})
    assert not same(result.weights, {"tiny": networks[1]})


def test_a_score_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    """As where nothing that is validated on holds a plate."""
    task = TinyTask(TinyParams(steps=40, ema=None))
    scores = iter((math.nan, 0.2, math.inf, 0.1))
    task.validate = lambda: {"score": next(scores), "more": math.nan}
    result = train(task, task.params, Context(torch.device("cpu"), torch.float32, None, folder=tmp_path, seed=1))
    assert result.metrics == {"score": 0.2}


def test_early_stopping(tmp_path: Path) -> None:
    params = TinyParams(steps=400, patience=3, lr=1e-9, ema=None)
    torch.manual_seed(7)
    task = TinyTask(params)
    task.validate = lambda: {"score": 0.5}
    result = train(task, params, Context(torch.device("cpu"), torch.float32, None, folder=tmp_path, seed=1))
    assert result.stopped_early
    assert result.steps == 40  # the first is the best, three more bring nothing
    again, _ = fit(params, tmp_path)
    assert again.steps == 40


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path: Path, value: float) -> None:
    params = TinyParams(steps=30)
    torch.manual_seed(7)
    task = TinyTask(params)
    make = task.batch

    def poisoned(step, rng, share):
        batch = make(step, rng, share)
        if step == 17:
            batch["x"][3, 2] = value
        return batch

    task.batch = poisoned
    with pytest.raises(TrainingDiverged, match="step 18"):
        train(task, params, Context(torch.device("cpu"), torch.float32, None, folder=tmp_path, seed=1))
    batch = torch.load(tmp_path / "bad-batch.pt", weights_only=True)
    assert not torch.isfinite(batch["x"][3, 2])
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in checkpoint["networks"].values())


def test_a_loss_that_rises_stops(tmp_path: Path) -> None:
    task = TinyTask(TinyParams())
    loss = task.loss
    task.loss = lambda batch: loss({"x": batch["x"], "y": batch["y"] * (1 if task.hardness < 2 else 100)})
    task.interval = lambda step, metrics: setattr(task, "hardness", 2.0) if step == 20 else False
    with pytest.raises(TrainingDiverged, match=r"rose from .* by step 30"):
        train(task, task.params, Context(torch.device("cpu"), torch.float32, None, folder=tmp_path, seed=1))
    assert (tmp_path / "bad-batch.pt").is_file()


def test_tensorboard_shows_each_step_once_after_an_interruption(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    params = TinyParams(steps=40, checkpoint_steps=10, checkpoint_seconds=1000)
    torch.manual_seed(7)
    task = TinyTask(params)
    interrupt_at(task, 25)
    with pytest.raises(Interrupted):
        train(task, params, Context(torch.device("cpu"), torch.float32, None, folder=tmp_path, seed=7))
    fit(params, tmp_path)
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == [10, 20, 30, 40]
    assert [event.step for event in shown.Scalars("validation/score")] == [10, 20, 30, 40]
    losses = [float(row["loss"]) for row in rows(tmp_path / "metrics.csv")]
    assert [event.value for event in shown.Scalars("train/loss")] == pytest.approx(losses, rel=1e-4)


def test_a_metric_that_comes_late_gets_a_column(tmp_path: Path) -> None:
    table = Table(tmp_path / "metrics.csv")
    table.add(10, {"loss": 1.5})
    table.add(20, {"loss": 1.25, "corners": 0.5})
    with table.path.open("a") as file:
        file.write("30,0.")  # a crash
    again = Table(tmp_path / "metrics.csv", 20)
    again.add(30, {"loss": 1.0, "corners": 0.25})
    assert [row["step"] for row in rows(table.path)] == ["10", "20", "30"]
    assert [row["corners"] for row in rows(table.path)] == ["", "0.5", "0.25"]


def test_learning_rate() -> None:
    params = TinyParams(lr=1.0, warmup=4, lr_end=0.1)
    rates = [learning_rate(params, step, 104) for step in range(105)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[54] == pytest.approx(0.55)
    assert rates[104] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_train(precision: str) -> None:
    result, _ = fit(TinyParams(steps=60, precision=precision, ema=0.9), None)
    full, _ = fit(TinyParams(steps=60, ema=0.9), None)
    assert result.metrics["score"] == pytest.approx(full.metrics["score"], abs=0.05)


def test_global_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(3)
    fit(TinyParams(steps=3), None, seed=3)
    before = torch.random.get_rng_state()
    torch.manual_seed(3)
    TinyTask(TinyParams())
    assert torch.equal(before, torch.random.get_rng_state())


def test_hardest_in_one_process() -> None:
    kept = distributed.hardest(torch.tensor([0.5, 3.0, 0.5, 2.0, 0.1]), 3)
    assert kept.tolist() == [True, True, False, True, False]
    assert distributed.mean(torch.tensor([])).item() == 0


def test_a_photo_whose_every_label_is_wrong_validates_nothing() -> None:
    class Photos:
        problems = ()
        boxes: ClassVar = [((10, 10, 60, 30),), ((300, 10, 360, 30),), ()]  # good, beside the photo, none

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Example:
            plates = tuple(Truth(tuple(map(float, box))) for box in self.boxes[index])
            return Example(f"{index}.jpg", lambda: np.zeros((100, 200, 3), np.uint8), plates)

    found = photos_with_boxes(Photos(), 10, (20, 8))  # type: ignore[arg-type]
    assert [boxes.tolist() for _, boxes in found] == [[[10, 10, 60, 30]], []]

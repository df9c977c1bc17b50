"""The stage executor: what is keyed, what is cached, what is taken up again, and what it says when it cannot go on."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pty
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lprf import lock, stages
from lprf.cli import main
from lprf.decoding_params import DecodingParams
from lprf.errors import LprfError
from lprf.plugins import Plugins, installed
from lprf.recipe import load_recipe

PLUGIN = Path(__file__).with_name("tiny.py")
RECIPE = """
lprf: 1
kind: train
name: tiny
runtime: {device: cpu, workers: 0}
graph:
  data: {uses: tiny.numbers}
  samples: {uses: tiny.samples, inputs: {dataset: data.dataset}}
  first: {uses: tiny.trainer, inputs: {samples: samples.samples}, with: {steps: 12}}
  mined: {uses: tiny.kept, inputs: {dataset: data.dataset, net: first.weights}}
  second: {uses: tiny.trainer, inputs: {samples: mined.samples}, with: {steps: 12}}
  measure:
    uses: tiny.evaluator
    inputs: {dataset: data.dataset, detect.pnet: first.weights, detect.onet: second.weights}
    with: {recipe: inner.yaml}
"""
INNER = """
lprf: 1
kind: infer
name: inner
graph:
  images: {uses: core.images, with: {path: .}}
  detect: {uses: mtcnn.detector, inputs: {frames: images.frames}, with: {min_plate: [60, 20]}}
  table: {uses: core.table, inputs: {detections: detect.detections}}
"""
ONE = """
lprf: 1
kind: train
name: one
runtime: {device: cpu, workers: 0}
graph:
  data: {uses: tiny.numbers}
  samples: {uses: tiny.samples, inputs: {dataset: data.dataset}}
  net:
    uses: tiny.trainer
    inputs: {samples: samples.samples}
    with: {steps: 60, pause: 0.01, checkpoint_seconds: 0.02, log_every: 7, validate_every: 20}
"""
ALL = ["samples", "first", "mined", "second", "measure"]


@pytest.fixture
def plugins() -> Plugins:
    found = Plugins()
    found.load_file(PLUGIN)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "inner.yaml").write_text(INNER)
    (tmp_path / "one.yaml").write_text(ONE)
    return tmp_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LPRF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(plugins: Plugins, overrides=(), recipe="recipe.yaml", **options) -> stages.RunResult:
    return stages.run(load_recipe(recipe, overrides, plugins), **options)


def ran(result: stages.RunResult) -> list[str]:
    return [stage.name for stage in result.stages if stage.status in ("ran", "to run")]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lprf", "run", *arguments, "--plugin", str(PLUGIN)]


def start(*arguments: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(pattern: str, process: subprocess.Popen[str], root: Path = Path("runs")) -> Path:
    """The first path that fits, once it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in root.glob(pattern):
            return path
        time.sleep(0.005)
    out, err = process.communicate(timeout=10)
    raise AssertionError(f"{pattern} did not appear\n{out}\n{err}")


# Keys


def test_a_second_run_computes_nothing_and_gives_the_same(plugins: Plugins, folder: Path) -> None:
    first = run(plugins)
    assert ran(first) == ALL
    second = run(plugins)
    assert [stage.status for stage in second.stages] == ["cached"] * 5
    assert [stage.key for stage in second.stages] == [stage.key for stage in first.stages]
    assert [stage.metrics for stage in second.stages] == [stage.metrics for stage in first.stages]
    assert first.stages[0].metrics == {"samples": 64}
    assert "score" in first.stages[1].metrics
    assert first.stages[4].metrics == {"pictures": 64, "rebound": 2}
    assert sorted(map(str, second.values)) == sorted(map(str, first.values))
    report = next(value for ref, value in second.values.items() if ref.port == "report")
    assert report == {"summary": {"pictures": 64, "rebound": 2}, "names": ["detect.onet", "detect.pnet"]}
    kept = next(value for ref, value in second.values.items() if str(ref) == "mined.samples")
    assert kept.tolist() == [1.0] * 64


def test_it_is_told_where_a_run_replaces_what_it_began_from(
    plugins: Plugins, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = "is what this run began from, and is replaced"
    one = run(plugins, recipe="one.yaml", overrides=["net.steps=3"])
    left = one.weights["net"]
    run(plugins, recipe="one.yaml", overrides=["net.steps=3"])
    assert told not in caplog.text
    run(plugins, recipe="one.yaml", overrides=["net.steps=3", f"net.init={left}"])
    assert f"{left} {told}" in caplog.text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("first.lr=0.002", ["first", "mined", "second", "measure"]),
        ("second.lr=0.002", ["second", "measure"]),
        ("mined.scale=2", ["mined", "second", "measure"]),
        ("data.count=63", ALL),
        ("runtime.seed=8", ALL),
        ("measure.overrides={detect.min_plate: [30, 10]}", ["measure"]),
        ("measure.overrides={runtime.precision: float32}", ["measure"]),
        ("measure.overrides={runtime.backend: torch}", ["measure"]),
        ("runtime.workers=1", []),
        ("runtime.threads=1", []),
        ("runtime.device=auto", []),
        ("runtime.precision=float32", []),
        ("runtime.batch=3", []),
        ("first.weight_decay=0.0001", []),  # spelled out, it is the default
        ("samples.scale=1.0", []),
        ("second.checkpoint_seconds=1", []),
        ("second.checkpoint_steps=5", []),
    ],
)
def test_what_a_change_runs_again(plugins: Plugins, folder: Path, override: str, expected: list[str]) -> None:
    run(plugins)
    threads = torch.get_num_threads()
    assert ran(run(plugins, [override], dry_run=True)) == expected
    assert ran(run(plugins, [override])) == expected
    assert torch.get_num_threads() == threads
    assert ran(run(plugins, [override])) == []
    assert ran(run(plugins)) == [], "what was done before is kept"


def test_what_does_nothing_in_training_is_told(
    plugins: Plugins, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(plugins, ["runtime.precision=float32"], dry_run=True)
    assert "runtime.precision changes nothing here" in caplog.text and "runtime.batch" not in caplog.text


def test_a_later_version_and_another_plugin_file_run_again(plugins: Plugins, folder: Path) -> None:
    run(plugins)
    tiny = plugins.load("tiny")
    tiny.components["numbers"] = dataclasses.replace(tiny.components["numbers"], version=2)
    assert ran(run(plugins)) == ALL, "the version of a dataset counts"
    assert ran(run(plugins)) == []
    own = folder / "own.py"
    own.write_text(f"import tiny\nfrom tiny import lprf_components\n# {PLUGIN}\n")
    (folder / "recipe.yaml").write_text(RECIPE.replace("tiny.trainer", "own.trainer"))
    for text in ("# one\n", "# two\n"):
        own.write_text(own.read_text() + text)
        found = Plugins()
        found.load_file(PLUGIN)
        found.load_file(own)
        assert ran(run(found)) == ["first", "mined", "second", "measure"], "and so does what a file of a plugin holds"
        assert ran(run(found)) == []


def test_a_format_of_ones_own_counts_by_content(home: Path, folder: Path) -> None:
    (home / "formats").mkdir(parents=True)
    text = "name: mine\nalphabet: ABC\npatterns: [{name: one, slots: [ABC, ABC]}]\n"
    keys = []
    for content in (text, text.replace("[ABC, ABC]", "[ABC, AB]"), text):
        (home / "formats" / "mine.yaml").write_text(content)
        keys.append(stages._params(DecodingParams(format="mine"), folder)["format"])
    assert keys[0] == keys[2] != keys[1]
    assert stages._params(DecodingParams(format="cn"), folder)["format"] == '"cn"'


def test_the_content_of_files_counts_and_not_their_names(plugins: Plugins, folder: Path) -> None:
    from lprf import weights

    def save(name: str, value: float) -> None:
        weights.save(folder / f"{name}.safetensors", {"x": torch.full((2,), value)}, {"architecture": "tiny"})

    save("start", 1.0)
    (folder / "note.txt").write_text("a")
    settings = ["second.init=start", "mined.note=note.txt"]
    run(plugins, settings)
    assert ran(run(plugins, settings)) == []
    (folder / "other.txt").write_text("a")
    save("renamed", 1.0)
    assert ran(run(plugins, ["second.init=renamed", "mined.note=other.txt"])) == []
    save("start", 2.0)
    assert ran(run(plugins, settings)) == ["second", "measure"]
    (folder / "note.txt").write_text("b")
    assert ran(run(plugins, settings)) == ["mined", "second", "measure"]


def test_a_moved_recipe_and_moved_data_run_nothing_again(plugins: Plugins, folder: Path) -> None:
    (folder / "numbers.txt").write_text("1 2 3")
    run(plugins, ["data.file=numbers.txt"])
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("recipe.yaml", "inner.yaml", "numbers.txt"):
        (folder / name).rename(elsewhere / name)
    assert ran(run(plugins, ["data.file=elsewhere/numbers.txt"], "elsewhere/recipe.yaml")) == []


def test_the_recipe_that_an_evaluator_runs_counts(plugins: Plugins, folder: Path) -> None:
    run(plugins)
    other = (
        INNER.replace("path: .", "path: ..")
        .replace("detections}}", "detections}, with: {path: x}}")
        .replace("table", "csv")
    )
    assert other.count("..") == other.count("core.csv") == 1
    (folder / "inner.yaml").write_text(other)
    assert ran(run(plugins)) == [], "where pictures come from and where readings go is not measured"
    (folder / "inner.yaml").write_text(INNER.replace("[60, 20]", "[30, 10]"))
    assert ran(run(plugins)) == ["measure"]


def test_outputs_that_are_gone_are_made_again(plugins: Plugins, folder: Path) -> None:
    first = run(plugins)
    (first.stages[1].folder / "tiny.safetensors").unlink()
    planned = run(plugins, dry_run=True)
    assert [(stage.name, stage.reason) for stage in planned.stages if stage.status == "to run"] == [
        ("first", "goes on from its checkpoint; its outputs are gone")
    ]
    assert ran(run(plugins)) == ["first"]


# --dry-run and --force


def test_dry_run_says_why_and_does_nothing(plugins: Plugins, folder: Path) -> None:
    planned = run(plugins, dry_run=True)
    assert [stage.reason for stage in planned.stages] == ["has not run yet"] * 5
    assert not (folder / "runs").exists()
    run(plugins)
    before = sorted((folder / "runs").rglob("*"))
    planned = run(plugins, ["second.lr=0.002", "mined.scale=2"], dry_run=True)
    reasons = {stage.name: stage.reason for stage in planned.stages if stage.status == "to run"}
    assert reasons == {
        "mined": "scale: 1.0 → 2.0",
        "second": "samples (mined.samples) changed; lr: 0.001 → 0.002",
        "measure": "detect.onet (second.weights) changed",
    }
    assert sorted((folder / "runs").rglob("*")) == before
    assert "mined    to run           scale: 1.0 → 2.0" in planned.summary()


def test_force_runs_a_stage_and_what_follows(plugins: Plugins, folder: Path) -> None:
    first = run(plugins)
    planned = run(plugins, dry_run=True, force=["mined"])
    assert {stage.name: stage.reason for stage in planned.stages if stage.reason} == {
        "mined": "forced",
        "second": "follows from a stage that is forced",
        "measure": "follows from a stage that is forced",
    }
    again = run(plugins, force=["mined"])
    assert ran(again) == ["mined", "second", "measure"]
    assert again.weights["second"].read_bytes() == first.weights["second"].read_bytes()
    with pytest.raises(LprfError, match="no stage 'secnd'; did you mean 'second'"):
        run(plugins, force=["secnd"])
    with pytest.raises(LprfError, match="no stage 'data'"):
        run(plugins, force=["data"])


def test_a_forced_run_cut_short_is_not_taken_for_whole(plugins: Plugins, folder: Path) -> None:
    run(plugins)
    with pytest.raises(stages.StageFailed):
        run(plugins, ["second.fail_at=3"], force=["first"])
    assert ran(run(plugins)) == ["second", "measure"]


# Failures


def test_a_failure_names_the_log_and_the_command(plugins: Plugins, folder: Path) -> None:
    with pytest.raises(stages.StageFailed) as failed:
        run(plugins, ["first.fail_at=9", "first.checkpoint_steps=4"])
    text = str(failed.value)
    log = next((folder / "runs/tiny/first").glob("*/log.txt"))
    assert "stage 'first' failed: RuntimeError: the roof fell in" in text
    assert f"its log: {log.relative_to(folder)}" in text
    assert f"to go on: lprf run {shlex.quote('recipe.yaml')}" in text
    said = log.read_text()
    assert "Traceback" in said
    assert "the roof fell in" in said
    assert not list(log.parent.glob("stage.json"))
    assert ran(run(plugins, dry_run=True)) == ["first", "mined", "second", "measure"]
    whole = run(plugins, root="whole")
    assert run(plugins).weights["first"].read_bytes() == whole.weights["first"].read_bytes()
    assert "from step 8" in log.read_text()


@pytest.mark.parametrize(
    ("typed", "environment", "expected"),
    [
        ("/bin/lprf run my.yaml -s a.b='[1, 2]'", {}, "lprf run my.yaml -s 'a.b=[1, 2]'"),
        ("x/lprf/__main__.py run my.yaml --force onet --force=pnet --debug", {}, "lprf run my.yaml --debug"),
        ("x/lprf/__main__.py run my.yaml --fo onet", {}, "lprf run my.yaml"),
        (
            "x/lprf/__main__.py run my.yaml",
            {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "0"},
            "torchrun --nproc-per-node 4 -m lprf run my.yaml",
        ),
        ("/bin/pytest -q", {}, "lprf run recipe.yaml"),
    ],
)
def test_the_command_that_goes_on(
    plugins: Plugins,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    environment: dict[str, str],
    expected: str,
) -> None:
    recipe = load_recipe("recipe.yaml", (), plugins)
    monkeypatch.setattr(sys, "argv", shlex.split(typed))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert stages.resume_command(recipe) == expected


def test_hooks_are_told_and_one_that_fails_ends_nothing(plugins: Plugins, folder: Path) -> None:
    told = plugins.load("tiny").module.told
    run(plugins, recipe="one.yaml", overrides=["net.steps=2"])
    assert told == [("started", "samples"), ("finished", "samples"), ("started", "net"), ("finished", "net")]
    told.clear()
    run(plugins, recipe="one.yaml", overrides=["net.steps=2"])
    assert told == [], "nothing ran"
    with pytest.raises(stages.StageFailed), pytest.warns(RuntimeWarning, match="plugin 'tiny' failed in its hook"):
        run(plugins, recipe="one.yaml", overrides=["net.steps=3", "net.fail_at=2"])
    assert told == [("started", "net"), ("failed", "net")]


def test_a_loss_that_is_not_a_number_fails_the_stage_and_leaves_the_batch(plugins: Plugins, folder: Path) -> None:
    with pytest.raises(stages.StageFailed, match=r"not finite at step 5; the batch is in .*bad-batch\.pt") as failed:
        run(plugins, ["first.nan_at=5"])
    assert "Traceback" not in str(failed.value)
    batch = torch.load(next((folder / "runs/tiny/first").glob("*/bad-batch.pt")), weights_only=True)
    assert batch["x"].shape == (16, 8)


def test_stage_json_is_last(plugins: Plugins, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages, "_write_done", die)
        with pytest.raises(KeyboardInterrupt):
            run(plugins)
    [left] = (folder / "runs/tiny/samples").iterdir()
    assert (left / "samples.npy").is_file()
    assert not (left / "stage.json").exists()
    result = run(plugins)
    assert ran(result) == ALL
    done = json.loads((left / "stage.json").read_text())
    assert done["outputs"] == {"samples": {"path": "samples.npy"}}
    files = [path for path in left.iterdir() if path.name not in ("stage.json", "log.txt")]
    assert all(path.stat().st_mtime_ns <= (left / "stage.json").stat().st_mtime_ns for path in files)


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"outputs": 3}', '{"key": "other", "outputs": {}}'])
def test_a_broken_stage_json_means_not_done(plugins: Plugins, folder: Path, broken: str) -> None:
    first = run(plugins, recipe="one.yaml", overrides=["net.steps=3", "net.pause=0"])
    (first.stages[1].folder / "stage.json").write_text(broken)
    assert ran(run(plugins, recipe="one.yaml", overrides=["net.steps=3", "net.pause=0"])) == ["net"]


def test_a_broken_checkpoint_says_what_to_do(plugins: Plugins, folder: Path) -> None:
    first = run(plugins)
    (first.stages[1].folder / "stage.json").unlink()
    (first.stages[1].folder / "checkpoint.pt").write_bytes(b"PK nonsense")
    with pytest.raises(stages.StageFailed, match=r"checkpoint\.pt is broken; delete it to start first anew"):
        run(plugins)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder in which not even root makes one")
def test_a_folder_that_may_not_be_written(plugins: Plugins, folder: Path) -> None:
    (folder / "runs").symlink_to("/sys/kernel")  # the superuser may write everywhere else
    with pytest.raises(LprfError, match=r"runs.* cannot be written: "):
        run(plugins)


def test_a_file_where_the_folder_should_be(plugins: Plugins, folder: Path) -> None:
    (folder / "runs").write_text("")
    with pytest.raises(LprfError, match=r"runs.* cannot be written"):
        run(plugins)


def test_rows_that_were_skipped_are_named(plugins: Plugins, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(plugins, dry_run=True)
    said = caplog.text
    assert "data: 64 pictures, 7 rows skipped" in said
    assert "row 0: broken" in said
    assert "and 2 more" in said


def test_a_recipe_without_stages_says_so(plugins: Plugins, folder: Path) -> None:
    (folder / "recipe.yaml").write_text("lprf: 1\nkind: train\nname: none\ngraph: {data: {uses: tiny.numbers}}\n")
    assert run(plugins).summary() == "nothing but datasets: no stage to run"


def test_an_output_that_is_not_given_is_named(plugins: Plugins, folder: Path) -> None:
    numbers = "data: {uses: tiny.numbers}"
    split = "many: {uses: synth.plates, with: {count: 30}}\n  data: {uses: core.split, inputs: {dataset: many.dataset}}"
    (folder / "recipe.yaml").write_text(ONE.replace(numbers, split).replace("data.dataset", "data.test"))
    with pytest.raises(LprfError, match=r"data\.test is needed, but .* 'data' does not give it"):
        run(plugins)


# What a run leaves


def test_it_leaves_weights_and_the_command_that_reads_with_them(
    plugins: Plugins, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(plugins)
    assert {name: path.as_posix() for name, path in result.weights.items()} == {
        "first": "runs/tiny/weights/first.safetensors",
        "second": "runs/tiny/weights/second.safetensors",
    }
    settings = ["-s", "detect.pnet=runs/tiny/weights/first.safetensors"]
    settings += ["-s", "detect.onet=runs/tiny/weights/second.safetensors"]
    assert [shlex.split(line) for line in result.commands] == [["lprf", "run", "./inner.yaml", *settings]]
    text = RECIPE.split("  measure")[0].replace("tiny.trainer", "tiny.pnet").replace(", with: {steps: 12}", "")
    (folder / "shipped.yaml").write_text(text)
    result = run(plugins, recipe="shipped.yaml")
    [line] = result.commands
    words = shlex.split(line)
    assert words[:3] == ["lprf", "run", "read-plates"]
    assert line in result.summary()
    capsys.readouterr()
    assert main(["validate", *words[2:]]) == 0, capsys.readouterr()


def test_the_command_sets_what_the_recipe_has(shipped_weights: Path) -> None:
    """`detect.screen` takes a CenterNet too, and read-plates has none."""
    path = shipped_weights / "any-centernet.safetensors"
    assert stages._shipped_for([path], installed()) == [{"recipe": "read-plates", "settings": {"detect.pnet": path}}]


def test_runs_lists_what_is_there(plugins: Plugins, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert "no training runs" in capsys.readouterr().err
    with pytest.raises(stages.StageFailed):
        run(plugins, ["second.fail_at=9", "second.checkpoint_steps=5", "second.log_every=4"])
    (folder / "runs/read-plates").mkdir()  # an inference run's folder
    assert main(["runs"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["RUN", "STAGE", "STATUS"],
        ["tiny", "samples", "done"],
        ["tiny", "first", "done"],
        ["tiny", "mined", "done"],
        ["tiny", "second", "unfinished"],
    ]
    assert rows[2][6] == "score"
    assert rows[4][5:8] == ["step", "8,", "loss"]
    run(plugins)
    run(plugins, ["first.lr=0.002"])
    assert main(["runs", "tiny"]) == 0
    said = capsys.readouterr().out
    assert said.count("first: done") == 2
    assert "pictures 64" in said
    assert "weights: runs/tiny/weights/first.safetensors" in said
    assert main(["runs", "tini"]) == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err


# Real processes, killed, starved, and two at once


@pytest.fixture
def whole(plugins: Plugins, folder: Path) -> bytes:
    """The weights of an undisturbed run."""
    path = run(plugins, ["net.pause=0"], "one.yaml", root="whole").weights["net"]
    return path.read_bytes()


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments(folder: Path, whole: bytes, environment: dict[str, str], workers: int) -> None:
    settings = ["one.yaml", "-s", f"runtime.workers={workers}", "-s", "net.pause=0.05"]
    for turn in range(3):
        process = start(*settings, env=environment)
        wait_for("one/net/*/checkpoint.pt" if turn else "one/samples", process)
        time.sleep(random.random() * 0.4)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not list((folder / "runs").glob("one/net/*/stage.json"))
    done = subprocess.run(command(*settings), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "runs/one/weights/net.safetensors").read_bytes() == whole
    assert not [path for path in (folder / "runs").rglob(".*") if path.name != ".lock"], "something half-written stayed"


@pytest.mark.slow
def test_a_full_disk(folder: Path, whole: bytes, environment: dict[str, str]) -> None:
    def starve() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))  # a checkpoint takes more

    process = start("one.yaml", env=environment, preexec_fn=starve)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "stage 'net' failed: the disk is full" in err
    assert "its log: runs/one/net/" in err
    assert "to go on: lprf run one.yaml --plugin" in err
    assert "Traceback" not in err
    assert "Logging error" not in err
    assert not [path for path in (folder / "runs").rglob(".*") if path.name != ".lock"], "something half-written stayed"
    done = subprocess.run(command("one.yaml"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "runs/one/weights/net.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_the_second_of_two_runs_waits_and_says_so(
    folder: Path, whole: bytes, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = start("one.yaml", "-s", "net.pause=0.1", env=environment)
    wait_for("one/net/*/checkpoint.pt", first)
    assert main(["runs"]) == 0
    assert re.search(r"^one +net +running ", capsys.readouterr().out, re.M)
    second = start("one.yaml", env=environment)
    _, said = second.communicate(timeout=240)
    assert first.wait(timeout=60) == 0
    assert second.returncode == 0
    assert f"net: another run (process {first.pid}) is at this stage; waiting for it" in said
    assert "net: done before" in said
    first.communicate()
    assert (folder / "runs/one/weights/net.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_a_run_that_waits_takes_over_from_one_that_is_killed(
    folder: Path, whole: bytes, environment: dict[str, str]
) -> None:
    first = start("one.yaml", "-s", "net.pause=0.2", "-s", "runtime.workers=2", env=environment)
    wait_for("one/net/*/checkpoint.pt", first)
    second = start("one.yaml", env=environment)
    assert second.stderr is not None
    for line in second.stderr:
        if "waiting for it" in line:
            break
    first.send_signal(signal.SIGKILL)  # it alone: its workers outlive it by some seconds
    _, said = second.communicate(timeout=120)
    first.communicate(timeout=60)
    assert second.returncode == 0, said
    assert "goes on from its checkpoint" in said
    assert (folder / "runs/one/weights/net.safetensors").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c(folder: Path, whole: bytes, environment: dict[str, str], workers: int) -> None:
    process = start("one.yaml", "-s", f"runtime.workers={workers}", env=environment)
    wait_for("one/net/*/checkpoint.pt", process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "net: interrupted; to go on: lprf run one.yaml" in said
    assert "Traceback" not in said
    done = subprocess.run(command("one.yaml"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "runs/one/weights/net.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_a_bar_where_a_person_watches(folder: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command("one.yaml"), stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # Linux says so when the other end is closed
        while part := os.read(ours, 65536):
            said += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", said.decode())
    assert re.search(r"net .*\d+/60 loss \d\.\d+, \d+/s, \d+ s left", shown)
    assert "net: step 7/60: loss" in shown
    assert shown.rstrip().endswith("weights: runs/one/weights/net.safetensors")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_take", none)
    there = lock.Lock(tmp_path / "x")
    assert there.acquire()
    assert not there.held()
    there.release()


def test_a_lock_that_may_not_be_opened_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    there = lock.Lock(tmp_path / "x")
    assert there.acquire()
    there.release()
    monkeypatch.setattr(Path, "open", refused)
    assert not there.held()


@pytest.mark.slow
def test_the_command_line(folder: Path) -> None:
    def lprf(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command("recipe.yaml", *words), capture_output=True, text=True, check=False)

    assert lprf().returncode == 0
    done = lprf("--dry-run", "-s", "second.lr=0.002")
    assert done.returncode == 0
    assert re.findall(r"^(\w+) +to run +(.*)$", done.stdout, re.M) == [
        ("second", "lr: 0.001 → 0.002"),
        ("measure", "detect.onet (second.weights) changed"),
    ]
    done = lprf("--force", "measure")
    assert re.findall(r"^(\w+) +ran ", done.stdout, re.M) == ["measure"]
    done = lprf("--force", "mesure")
    assert done.returncode == 2
    assert "did you mean 'measure'" in done.stderr


@pytest.mark.slow
def test_two_processes_run_the_stages_as_one(plugins: Plugins, folder: Path, environment: dict[str, str]) -> None:
    settings = ["-s", "first.norm=false", "-s", "second.norm=false"]
    one = run(plugins, [setting for setting in settings if setting != "-s"], root="alone")
    port = str(random.randint(20000, 50000))
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, "-m"]
    line = ["lprf", "run", "recipe.yaml", "--plugin", str(PLUGIN), *settings]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, *line],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("lprf run") == 1, "one process speaks"
    from safetensors.torch import load_file

    for name, path in one.weights.items():
        other = load_file(folder / f"runs/tiny/weights/{name}.safetensors")
        for key, value in load_file(path).items():
            torch.testing.assert_close(other[key], value, atol=1e-4, rtol=1e-3)
    assert ran(run(plugins, [setting for setting in settings if setting != "-s"])) == []

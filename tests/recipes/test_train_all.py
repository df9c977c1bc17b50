"""The whole chain, by the shipped recipes, on data small enough to take a minute or two."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_photos import write_ccpd

SMALL = [
    *("runtime.device=cpu", "vars.ccpd=train", "vars.test=test", "rendered.size=[24,96]"),
    *("pnet_samples.count=400", "pnet.steps=200", "pnet.epochs=null"),
    *("onet_samples.count=3000", "onet.steps=150", "onet.batch=96", "onet.epochs=null"),
    *("read.size=[24,96]", "read.width=0.25", "read.steps=30", "read.validate_every=15"),
]


def lprf(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lprf", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("-s", value)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    write_ccpd(folder / "train", 80)
    write_ccpd(folder / "test", 10, 500)
    return folder


@pytest.mark.slow
def test_train_all_then_read_with_what_it_left(folder: Path) -> None:
    done = lprf("run", "train-all", *settings(*SMALL), cwd=folder)
    [report] = folder.glob("runs/train-all/evaluate/*/report.json")
    summary = json.loads(report.read_text(encoding="utf-8"))["summary"]
    assert summary["recall"] >= 0.8, "the detector has learnt these photos"
    assert summary["false_boxes_a_picture"] <= 0.5
    *_, line = done.stdout.strip().splitlines()
    words = shlex.split(line)
    assert words[:3] == ["lprf", "run", "read-plates"]
    assert line.count(".safetensors") == 4
    lprf("validate", *words[2:], cwd=folder)
    lprf(*words[1:], "-s", "images.path=test", cwd=folder)
    lines = (folder / "runs/read-plates/readings.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 8
    listed = lprf("runs", cwd=folder).stdout
    assert listed.count(" done ") == 6
    again = lprf("run", "train-all", *settings(*SMALL, "onet.lr=0.0021"), "--dry-run", cwd=folder).stdout
    planned = [row.split()[0] for row in again.splitlines() if " to run " in row]
    assert planned == ["onet", "evaluate"]


@pytest.mark.slow
def test_train_lprnet_then_read_crops_with_what_it_left(folder: Path) -> None:
    small = ["runtime.device=cpu", "vars.ccpd=train", "vars.test=test"]
    small += ["lprnet.width=0.25", "lprnet.steps=15", "lprnet.batch=16", "lprnet.validate_every=10"]
    done = lprf("run", "train-lprnet", *settings(*small), cwd=folder)
    *_, line = done.stdout.strip().splitlines()
    words = shlex.split(line)
    assert words[:3] == ["lprf", "run", "read-crops"]
    lprf("validate", *words[2:], cwd=folder)
    lprf(*words[1:], "-s", "crops.path=test", cwd=folder)

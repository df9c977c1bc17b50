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


def lprf(*words: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lprf", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
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


BAD = """
lprf: 1
kind: train
name: bad
runtime: {device: cpu}
graph:
  data: {uses: ccpd.dataset, with: {root: bad}}
  pnet_samples: {uses: mtcnn.samples, inputs: {dataset: data.dataset}, with: {net: pnet, count: 24}}
  pnet:
    uses: mtcnn.pnet-trainer
    inputs: {samples: pnet_samples.samples, val: data.dataset}
    with: {batch: 4, steps: 3}
  read:
    uses: lprnet.trainer
    inputs: {datasets: [data.dataset], val: data.dataset}
    with: {size: [24, 96], width: 0.25, batch: 4, steps: 3, alphabet: 京沪皖苏浙粤川鲁0123456789ABCDEFGHJKLMNPQRSTUV}
"""


@pytest.mark.slow
def test_bad_pictures_and_labels_are_named_and_end_nothing(tmp_path: Path) -> None:
    write_ccpd(tmp_path / "bad", 40)
    good = sorted((tmp_path / "bad").iterdir())
    cut, empty, outside = good[:3]
    cut.write_bytes(cut.read_bytes()[:3000])
    empty.write_bytes(b"")
    number, rest = outside.name.split("-90_90-")
    others = rest.partition("-")[2]
    outside.rename(outside.with_name(f"{number}-90_90-500&700_600&740-{others}"))
    (tmp_path / "bad" / "holiday.jpg").write_bytes(good[4].read_bytes())
    (tmp_path / "recipe.yaml").write_text(BAD, encoding="utf-8")
    said = lprf("run", "recipe.yaml", cwd=tmp_path).stderr
    assert "holiday.jpg: the name is not of CCPD's form" in said
    for path in (cut, empty):
        assert path.name in said
    assert f"{number}-90_90-500&700_600&740" in said
    assert "lies outside the photo" in said
    assert "the alphabet" in said


@pytest.mark.slow
def test_a_split_that_stays_empty_is_told(tmp_path: Path) -> None:
    write_ccpd(tmp_path / "few", 1)
    said = lprf("run", "train-mtcnn", *settings("vars.ccpd=few", "vars.test=few"), cwd=tmp_path, code=2).stderr
    assert "val" in said
    assert len(said.splitlines()) <= 3
    said = lprf("run", "train-mtcnn", cwd=tmp_path, code=2).stderr
    assert "CCPD's folder is not there: " in said

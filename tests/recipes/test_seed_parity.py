"""With the seed's checkpoints imported, the recipes give what the seed gives, whatever the batch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lprf.compare import dataset_of
from lprf.plugins import installed
from slow_reference import SlowReader, read_photo


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shared_seed: Path) -> Path:
    """A data folder of its own into which `lprf weights import` has put the seed's checkpoints."""
    folder = tmp_path_factory.mktemp("home")
    done = lprf("weights", "import", str(shared_seed / "weights"), home=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def lprf(*arguments: str, home: Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lprf", *arguments],
        env={**os.environ, "LPRF_HOME": str(home)},
        cwd=folder or home,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


SEED = {
    "detect.pnet": "seed-pnet",
    "detect.onet": "seed-onet",
    "rectify.weights": "seed-stn",
    "read.weights": "seed-lprnet",
}


SCREEN = {"detect.screen": "any-centernet-small"}  # in front of PNet: as its speed is measured


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return overlap / (area - overlap)


@pytest.mark.parametrize("recipe, changes", [("seed-compatible", {}), ("read-plates", {}), ("read-plates", SCREEN)])
def test_the_ten_plates(recipe: str, changes: dict[str, str], home: Path, shared_seed: Path, tmp_path: Path) -> None:
    golden = json.loads((shared_seed / "golden/seed_pipeline.json").read_text(encoding="utf-8"))["photos"]
    weights = [part for key, value in (SEED | changes).items() for part in ("-s", f"{key}={value}")]
    done = lprf(
        *("run", recipe, *weights, "-s", f"images.path={shared_seed / 'photos'}"),
        *("-s", f"jsonl.path={tmp_path / 'out.jsonl'}", "-s", f"draw.path={tmp_path / 'drawn'}"),
        home=home,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines(tmp_path / "out.jsonl"):
        found.setdefault(Path(line["source"]).name, []).append(line)
    assert set(found) == {name for name, plates in golden.items() if plates}
    for name, plates in golden.items():
        assert sorted(p["text"] for p in plates) == sorted(p["text"] for p in found.get(name, [])), name
        for plate in plates if recipe == "seed-compatible" else []:
            same = next(p for p in found[name] if p["text"] == plate["text"])
            x1, y1, x2, y2 = plate["box"]
            assert iou(same["box"], [x1, y1, x2 + 1, y2 + 1]) >= 0.9, (name, plate, same)  # the seed's are inclusive
    assert {path.name for path in (tmp_path / "drawn").rglob("*.jpg")} == set(golden)


@pytest.fixture(scope="module")
def readers(home: Path) -> Iterator[dict[int, Any]]:
    import lprf as package

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPRF_HOME", str(home))
        yield {
            batch: package.load(
                "read-plates", overrides={**SEED, "runtime.batch": batch, "runtime.precision": "float32"}
            )
            for batch in (1, 7, 64)
        }


def test_a_reading_does_not_depend_on_its_batch(readers: dict[int, Any], shared_seed: Path, shared_data: Path) -> None:
    photos = sorted((shared_seed / "photos").glob("*.jpg")) + sorted((shared_data / "ccpd/dev").glob("*.jpg"))[:12]
    results = {batch: list(reader.run([str(photo) for photo in photos])) for batch, reader in readers.items()}
    alone = results[1]
    assert len(alone) >= 20
    for other in results.values():
        assert [(r.source, r.text) for r in other] == [(r.source, r.text) for r in alone]
        assert [r.confidence for r in other] == pytest.approx([r.confidence for r in alone], abs=1e-4)
        assert np.array([r.box for r in other]) == pytest.approx(np.array([r.box for r in alone]), abs=0.01)


def test_crops_do_not_depend_on_their_batch(home: Path, shared_data: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    crops.mkdir()
    for folder in ("crops/dev", "crops/dev-94x24"):
        for path in sorted((shared_data / folder).iterdir())[:40]:
            shutil.copy(path, crops)
    results = []
    for batch in (1, 7, 64):
        done = lprf(
            *("run", "read-crops", "-s", f"crops.path={crops}", "-s", f"jsonl.path={tmp_path / 'out.jsonl'}"),
            *("-s", "rectify.weights=seed-stn", "-s", "read.weights=seed-lprnet", "-s", f"runtime.batch={batch}"),
            *("-s", "runtime.precision=float32"),
            home=home,
        )
        assert done.returncode == 0, done.stderr
        results.append(lines(tmp_path / "out.jsonl"))
    assert len(results[0]) == len(list(crops.iterdir()))
    for other in results[1:]:
        assert [(r["source"], r["text"]) for r in other] == [(r["source"], r["text"]) for r in results[0]]
        assert [r["confidence"] for r in other] == pytest.approx([r["confidence"] for r in results[0]], abs=1e-4)
    assert all(r["detection_score"] is None for r in results[0])


def test_plates_at_the_border(readers: dict[int, Any], shared_seed: Path) -> None:
    """A photo cut right at its plate's edges is read as before: the box reaches the border and is not cut away."""
    photo = cv2.imdecode(np.fromfile(shared_seed / "photos/1.jpg", np.uint8), cv2.IMREAD_COLOR)
    whole = next(r for r in readers[1].run(photo) if r.text == "沪G98990")
    x1, y1, x2, y2 = (round(v) for v in whole.box)
    for cut in (photo[:, x1 - 1 :], photo[y1 - 1 :], photo[:, : x2 + 1], photo[: y2 + 1]):
        read = list(readers[1].run(np.ascontiguousarray(cut)))
        assert any(r.text == "沪G98990" for r in read), [r.text for r in read]
        height, width = cut.shape[:2]
        for r in read:
            assert 0 <= r.box[0] < r.box[2] <= width
            assert 0 <= r.box[1] < r.box[3] <= height


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (12, 44), (11, 300), (300, 11), (200, 300)])
def test_a_photo_without_plates(readers: dict[int, Any], shape: tuple[int, int]) -> None:
    assert list(readers[7].run(np.full((*shape, 3), 128, np.uint8))) == []


@pytest.fixture(scope="module")
def slow(readers: dict[int, Any]) -> SlowReader:
    return SlowReader()


def test_the_slow_reference_reads_the_ten_plates(slow: SlowReader, shared_seed: Path) -> None:
    golden = json.loads((shared_seed / "golden/seed_pipeline.json").read_text(encoding="utf-8"))["photos"]
    for name, plates in golden.items():
        found = slow.photo(read_photo(shared_seed / "photos" / name))
        assert sorted(p.text for p in found) == sorted(p["text"] for p in plates), name


def test_crops_are_read_as_the_slow_reference_does(
    slow: SlowReader, readers: dict[int, Any], shared_data: Path
) -> None:
    paths = sorted((shared_data / "crops/dev-94x24").glob("*.jpg"))[:64]
    import lprf as package

    crops = package.load(
        "read-crops",
        overrides={key: value for key, value in SEED.items() if not key.startswith("detect")}
        | {"runtime.precision": "float32", "read.decode": "greedy"},
    )
    fast = [reading.text for reading in crops.run([str(path) for path in paths])]
    assert fast == [slow.read(read_photo(path)) for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["ccpd/dev", "street/dev"])
def test_no_plate_is_lost_against_the_slow_reference(
    folder: str, slow: SlowReader, readers: dict[int, Any], shared_data: Path
) -> None:
    """Of the labelled plates at least as many are found as the slow reference finds."""
    import lprf as package

    dataset, _, _ = dataset_of(str(shared_data / folder), None, installed())
    screened = package.load("read-plates", overrides=SEED | SCREEN)
    found = {"slow": 0, "fast": 0, "screened": 0}
    for index in range(0, len(dataset), 3):
        example = dataset[index]
        image = example.image()
        boxes = {
            "slow": slow.detect(image).tolist(),
            "fast": [r.box for r in readers[1].run(image)],
            "screened": [r.box for r in screened.run(image)],
        }
        for side, of_side in boxes.items():
            found[side] += sum(any(iou(list(plate.box), box) >= 0.5 for box in of_side) for plate in example.plates)
    assert min(found["fast"], found["screened"]) >= found["slow"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["ccpd/dev", "street/dev", "phone/dev"])
def test_a_screen_changes_no_text(folder: str, readers: dict[int, Any], shared_data: Path) -> None:
    """With the reference's thresholds, that want PNet to be sure."""
    import lprf as package

    overrides = SEED | {"detect.thresholds": [0.6, 0.8], "detect.refine": 0, "read.decode": "greedy"}
    photos = sorted(str(path) for path in (shared_data / folder).glob("*.jpg"))[::2]
    texts = []
    for more in ({}, SCREEN):
        reader = package.load("read-plates", overrides=overrides | more)
        texts.append([(reading.source, reading.text) for reading in reader.run(photos)])
    assert len(texts[0]) >= 10
    changed = set(texts[0]) ^ set(texts[1])
    assert len(changed) <= 0.01 * len(texts[0]), changed

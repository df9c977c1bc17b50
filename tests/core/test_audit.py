"""core.audit: planted leaks are found, and nothing else is; hashes against a slow comparison of every pair."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lprf import stages
from lprf.api import Context, Example, InputFailure, LprfError, Truth
from lprf.builtin.audit import COARSE, FINE, Audit, near, picture_hash
from lprf.builtin.params import AuditParams
from lprf.recipe import Ref, load_recipe


def scene(seed: int) -> np.ndarray:
    """A photo that is like no other: soft spots of light, some noise."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8), (180, 120), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def altered(seed: int) -> np.ndarray:
    """The same photo, smaller, brighter and compressed anew."""
    image = cv2.resize(scene(seed), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.convertScaleAbs(image, alpha=0.9, beta=12), [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    found = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert found is not None
    return found


def broken() -> np.ndarray:
    raise InputFailure("broken.jpg", "truncated")


@dataclass
class Rows:
    """Rows of (name, picture, texts)."""

    rows: Sequence[tuple[str, Callable[[], np.ndarray], Sequence[str | None]]]
    problems: Sequence[str] = ()
    decoded: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        name, image, texts = self.rows[index]
        corners = np.array([[0, 0], [100, 10], [98, 30], [-2, 20]], np.float32)
        plates = tuple(Truth((0, 0, 100, 30), corners, text, {"province": text[0]} if text else {}) for text in texts)
        return Example(name, partial(self.decode, index, image), plates, "g")

    def decode(self, index: int, image: Callable[[], np.ndarray]) -> np.ndarray:
        self.decoded.append(index)
        return image()

    def fingerprint(self) -> str:
        return str([(name, texts) for name, _, texts in self.rows]).encode().hex()[:16]


def rows(first: int, count: int, province: str = "皖") -> Rows:
    return Rows([(f"{i}.jpg", partial(scene, i), [f"{province}A{i:05d}"]) for i in range(first, first + count)])


def audit(folder: Path | None = None, **params: Any) -> Audit:
    context = Context(torch.device("cpu"), torch.float32, None, node="audit", folder=folder, workers=2)  # type: ignore[arg-type]
    return Audit(AuditParams(**params), context)


def test_parts_that_share_nothing_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"train": rows(0, 30), "val": rows(30, 10), "test": rows(40, 10, "苏")}
    given = audit().run(**parts)
    assert all(given[name] is part for name, part in parts.items())
    said = capsys.readouterr().out
    assert (
        "plates that stand in more than one part: none" in said
        and "pictures that stand in more than one part: none" in said
    )
    assert "苏" in said and "10 (100.0 %)" in said


def test_a_shared_plate_fails_the_run_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    train, val = rows(0, 10), rows(10, 10)
    val.rows = [*val.rows, ("again.jpg", partial(scene, 99), [None, "皖A00003"])]
    with pytest.raises(
        LprfError, match=r"^train and val share 1 plate, such as 皖A00003 \(train 1, val 1\)\. core\.split"
    ):
        audit().run(train=train, val=val)
    assert "plates that stand in more than one part: 1" in capsys.readouterr().out
    assert audit(allow_leakage=True).run(train=train, val=val)["val"] is val
    report = audit().report({"train": train, "val": val})
    assert report["leakage"]["plates"]["named"] == [
        {"text": "皖A00003", "pictures": {"train": 1, "val": 1}, "examples": {"train": "3.jpg", "val": "again.jpg"}}
    ]
    assert report["parts"]["val"]["without_text"] == 1


def test_a_shared_picture_is_found_though_it_was_altered(tmp_path: Path) -> None:
    train, val, test = rows(0, 40), rows(50, 10), rows(70, 10)
    train.rows = [*train.rows, ("twice.jpg", partial(altered, 5), ["皖B11111"])]
    test.rows = [*test.rows, ("copy.jpg", partial(altered, 7), ["皖B22222"]), ("broken.jpg", broken, ["皖B33333"])]
    path = tmp_path / "deep" / "audit.json"
    with pytest.raises(
        LprfError, match=r"^train and test share 1 picture, such as train's 7\.jpg and test's copy\.jpg"
    ):
        audit(path=str(path)).run(train=train, val=val, test=test)
    report = json.loads(path.read_text(encoding="utf-8"))
    (pair,) = report["leakage"]["pictures"]["named"]
    assert pair["pictures"] == {"train": "7.jpg", "test": "copy.jpg"} and pair["bits"] <= COARSE + FINE
    assert report["parts"]["train"]["repeated_pictures"] == 1
    assert report["parts"]["test"]["unread"] == [{"source": "broken.jpg", "reason": "truncated"}]
    assert report["leakage"]["plates"] == {"total": 0, "named": []}
    assert audit(content=False).run(train=train, val=val, test=test)["val"] is val


def test_of_many_shots_of_one_scene_those_most_alike_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lprf.builtin.audit.NAMED", 5)
    train, val = rows(0, 5), rows(10, 5)
    train.rows = [(f"a{i}.jpg", partial(altered, 5), []) for i in range(6)]
    val.rows = [(f"b{i}.jpg", partial(scene, 5), []) for i in range(5)] + [("b.jpg", partial(altered, 5), [])]
    found = audit().report({"train": train, "val": val})
    pictures = found["leakage"]["pictures"]
    assert pictures["total"] == 36 and len(pictures["named"]) == 5
    assert [(pair["pictures"]["val"], pair["bits"]) for pair in pictures["named"]] == [("b.jpg", 0)] * 5
    assert (found["parts"]["train"]["repeated_pictures"], found["parts"]["val"]["repeated_pictures"]) == (5, 5)


def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(LprfError, match=r"file.* cannot be written"):
        audit(path=str(tmp_path / "file" / "audit.json")).run(train=rows(0, 2))


def test_pictures_of_one_colour_are_no_duplicates() -> None:
    def plain() -> np.ndarray:
        return np.full((20, 20, 3), 100, np.uint8)

    parts = [Rows([(f"{i}.png", plain, [f"皖A0000{i}"]), (f"x{i}.png", broken, [])]) for i in range(2)]
    assert audit().report({"train": parts[0], "val": parts[1]})["leakage"]["found"] is False


def test_the_distribution() -> None:
    part = Rows([("a.jpg", partial(scene, 0), ["皖A12345", "沪AD12345"]), ("b.jpg", partial(scene, 1), [])], ["x: bad"])
    found = audit().report({"train": part})["parts"]["train"]
    assert (found["pictures"], found["plates"], found["texts"], found["skipped"]) == (2, 2, 2, ["x: bad"])
    assert found["lengths"] == {"7": 1, "8": 1} and found["provinces"] == {"皖": 1, "沪": 1}
    assert found["width"]["0.5"] == 100 and found["height"]["0.5"] == 30
    # the upper edge falls 10 in 100, the lower one 10 in 100: atan(0.1) is 5.71 degrees
    assert found["tilt"]["0.5"] == pytest.approx(5.71)


def test_hashes_are_kept_for_the_next_run(tmp_path: Path) -> None:
    part = rows(0, 5)
    part.rows = [*part.rows, ("broken.jpg", broken, [])]
    first = audit(tmp_path).report({"train": part})
    assert sorted(part.decoded) == list(range(6))
    again = audit(tmp_path).report({"train": part})
    assert len(part.decoded) == 6 and again == first
    assert again["parts"]["train"]["unread"] == [{"source": "broken.jpg", "reason": "truncated"}]
    part.rows = part.rows[1:]
    audit(tmp_path).report({"train": part})
    assert len(part.decoded) == 11


def test_near_finds_what_comparing_every_pair_finds() -> None:
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 256, (300, 52), dtype=np.uint8)
    for row in range(150, 300):  # copies of the first half with some bits turned, wherever they stand
        bits = np.unpackbits(hashes[row - 150])
        bits[rng.choice(128, rng.integers(0, 11), replace=False)] ^= 1
        bits[128 + rng.choice(288, rng.integers(0, 36), replace=False)] ^= 1
        hashes[row] = np.packbits(bits)
    expected = set()
    for a, b in combinations(range(300), 2):
        differing = np.unpackbits(hashes[a] ^ hashes[b])
        if differing[:128].sum() <= 7 and differing[128:].sum() <= 24:
            expected.add((a, b, int(differing.sum())))
    found = list(near(hashes))
    assert len(found) == len(set(found)) and set(found) == expected and 50 < len(expected) < 140
    assert list(near(hashes[:0])) == []


def test_real_photos_are_told_apart_and_their_copies_are_not(shared_data: Path) -> None:
    hashes = []
    files = [*sorted((shared_data / "ccpd" / "dev").iterdir())[:60], *sorted((shared_data / "crops" / "dev").iterdir())]
    for file in files:
        image = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        hashes.append(picture_hash(image))
        data = cv2.imencode(".jpg", cv2.convertScaleAbs(image, alpha=0.95, beta=5), [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
        copy = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert copy is not None
        hashes.append(picture_hash(copy))
    pairs = [(a, b) for a, b, _ in near(np.array(hashes))]
    assert all(a // 2 == b // 2 for a, b in pairs)
    assert len(pairs) >= 0.97 * len(files)


RECIPE = """\
    lprf: 1
    kind: train
    name: gate
    runtime: {device: cpu}
    graph:
      train: {uses: core.labelled-crops, with: {path: train}}
      val: {uses: core.labelled-crops, with: {path: val}}
      audit: {uses: core.audit, inputs: {train: train.dataset, val: val.dataset}}
      some: {uses: core.subset, inputs: {dataset: audit.val}, with: {n: 1}}
    """


def test_in_a_recipe_it_gates_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, seeds in (("train", (1, 2)), ("val", (3,))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            data = cv2.imencode(".png", scene(seed))[1]
            (tmp_path / folder / f"皖A0000{seed}.png").write_bytes(data.tobytes())
    (tmp_path / "gate.yaml").write_text(textwrap.dedent(RECIPE), encoding="utf-8")
    recipe = load_recipe(tmp_path / "gate.yaml")
    result = stages.run(recipe)
    assert len(result.values[Ref("some", "dataset")]) == 1
    assert list((tmp_path / "runs" / "gate" / "audit").glob("hashes-*.npz"))
    (tmp_path / "val" / "皖A00002.png").write_bytes((tmp_path / "train" / "皖A00001.png").read_bytes())
    with pytest.raises(LprfError, match="train and val share 1 plate and 1 picture"):
        stages.run(recipe)
    missing = load_recipe(tmp_path / "gate.yaml", {"audit.allow_leakage": True})
    text = (tmp_path / "gate.yaml").read_text(encoding="utf-8").replace("audit.val", "audit.test")
    (tmp_path / "gate.yaml").write_text(text, encoding="utf-8")
    assert stages.run(missing)
    with pytest.raises(LprfError, match=r"audit\.test is needed, but with its inputs .* 'audit' does not give it"):
        stages.run(load_recipe(tmp_path / "gate.yaml", {"audit.allow_leakage": True}))

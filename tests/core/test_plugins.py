"""Plugins of others: really installed, broken in every way, or taken away; nobody takes the rest down."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from running import EVERYTHING, ROOT, environment, install, run

STUB = ROOT / "tests" / "stubs" / "lprf-stub-detector"
SHIPPED = ["ccpd", "centernet", "core", "lprnet", "mtcnn", "onnx", "stn", "synth"]


def distribution(folder: Path, name: str, module: str, code: str, point: str) -> None:
    """Lay an installed distribution, as pip leaves it, into a folder that PYTHONPATH names."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[lprf]\n{point} = {module}\n")


@pytest.fixture(scope="module")
def stub_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stub")
    shutil.copytree(STUB, folder / "source")
    python = environment(folder / "env", with_lprf=True)
    install(python, folder / "source")
    return python


def blue_plate_photo(path: Path) -> tuple[int, int, int, int]:
    """A grey scene with one blue plate; its box."""
    image = np.full((480, 640, 3), 110, np.uint8)
    x1, y1, x2, y2 = box = (210, 300, 370, 350)
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), (170, 60, 20), -1)
    cv2.imwrite(str(path), image)
    return box


def test_a_separately_installed_detector_is_swapped_in_by_recipe(stub_python: Path, tmp_path: Path) -> None:
    listed = run(stub_python, "-m", "lprf", "plugins", cwd=tmp_path)
    assert re.search(r"stub +lprf-stub-detector +0\.3\.0 +ok: 1 component", listed.stdout), listed.stdout
    box = blue_plate_photo(tmp_path / "photo.png")
    swap = ["-s", "detect.uses=stub.detector", "-s", "images.path=photo.png", "-s", "jsonl.path=out.jsonl"]
    checked = run(stub_python, "-m", "lprf", "validate", "read-plates", *swap, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    done = run(stub_python, "-m", "lprf", "run", "read-plates", *swap, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert line["box"] == pytest.approx(box, abs=1)
    assert line["detection_score"] == 1.0
    # its own parameters are checked, and what the replaced detector was told is not handed to it
    wrong = run(stub_python, "-m", "lprf", "validate", "read-plates", *swap, "-s", "detect.min_aera=9", cwd=tmp_path)
    assert "did you mean 'min_area'?" in wrong.stderr


def test_the_stub_is_unknown_where_it_is_not_installed(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "lprf", "validate", "read-plates", "-s", "detect.uses=stub.detector", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no plugin 'stub'" in done.stderr


HOOK = "from lprf.api import Component, hookimpl\n@hookimpl\ndef lprf_components():\n    "
BROKEN = {
    "import": ("import ultralitics", "ModuleNotFoundError: No module named 'ultralitics'"),
    "hook": (f"{HOOK}raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "syntax": ("def (", "SyntaxError"),
    "exit": ("raise SystemExit(0)", "SystemExit"),
    "kind": (f"{HOOK}return [Component('x', 'detecter', 'a:b')]", "has kind 'detecter'"),
    "retype": (
        f"from lprf.component import Port\n{HOOK}return [Component('x', 'detector', 'a:b', "
        f"outputs={{'detections': Port('Plates')}})]",
        "retypes the output 'detections'",
    ),
    "nonsense": (f"{HOOK}return 7", "TypeError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_and_takes_nothing_else_down(case: str, tmp_path: Path) -> None:
    code, reason = BROKEN[case]
    distribution(tmp_path, "lprf-yolo", "lprf_yolo_plugin", code, "yolo")
    path = {"PYTHONPATH": str(tmp_path)}
    listed = run(sys.executable, "-m", "lprf", "plugins", cwd=tmp_path, **path)
    assert listed.returncode == 1
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("yolo")]
    assert re.search(r"lprf-yolo +1\.2 +BROKEN", line)
    assert reason in line
    for name in SHIPPED:
        assert re.search(rf"^{name} +lprf .* ok: ", listed.stdout, re.MULTILINE), listed.stdout
    assert run(sys.executable, "-m", "lprf", "validate", "read-plates", cwd=tmp_path, **path).returncode == 0
    used = run(
        *(sys.executable, "-m", "lprf", "validate", "read-plates", "-s", "detect.uses=yolo.x"), cwd=tmp_path, **path
    )
    assert used.returncode == 2
    assert "lprf-yolo 1.2" in used.stderr
    assert reason in used.stderr


def test_two_distributions_that_claim_one_name_are_both_named(tmp_path: Path) -> None:
    code = f"{HOOK}return []"
    distribution(tmp_path, "lprf-yolo", "plugin_a", code, "yolo")
    distribution(tmp_path, "yolo-for-lprf", "plugin_b", code, "yolo")
    path = {"PYTHONPATH": str(tmp_path)}
    listed = run(sys.executable, "-m", "lprf", "plugins", cwd=tmp_path, **path)
    assert listed.returncode == 1
    lines = [line for line in listed.stdout.splitlines() if line.startswith("yolo")]
    assert len(lines) == 2
    for line in lines:
        assert "claimed by two distributions" in line
        assert "lprf-yolo 1.2" in line
        assert "yolo-for-lprf 1.2" in line
    assert run(sys.executable, "-m", "lprf", "validate", "read-plates", cwd=tmp_path, **path).returncode == 0


def test_a_hook_that_raises_during_a_run_is_a_warning(tmp_path: Path) -> None:
    code = (
        "from lprf.api import hookimpl\n@hookimpl\ndef lprf_batch_done(run):\n    raise RuntimeError('no more room')\n"
    )
    distribution(tmp_path, "lprf-notes", "lprf_notes_plugin", code, "notes")
    blue_plate_photo(tmp_path / "photo.png")
    (tmp_path / "my.yaml").write_text(
        "lprf: 1\nextends: read-plates\nkind: infer\nname: mine\nplugins: [notes]\ngraph: {}\n"
    )
    done = run(
        *(sys.executable, "-m", "lprf", "run", "my.yaml", "-s", "images.path=photo.png"),
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("plugin 'notes' failed in its hook lprf_batch_done: RuntimeError: no more room") == 1


def test_a_plugin_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "everything.py").write_text(EVERYTHING)
    blue_plate_photo(tmp_path / "photo.png")
    given = ["-s", "detect.uses=everything.detector", "-s", "images.path=photo.png", "-s", "jsonl.path=out.jsonl"]
    command = [sys.executable, "-m", "lprf", "run", "detect-plates", "--plugin", "everything.py", *given]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text())["box"] == [0, 0, 640, 480]
    listed = run(sys.executable, "-m", "lprf", "plugins", "--plugin", "everything.py", cwd=tmp_path)
    assert re.search(r"^everything .* ok: 1 component", listed.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "core"])
def test_without_a_shipped_plugin_the_framework_starts(name: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for part in ("core", "plugins", "recipes", "weights"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("README.md", "LICENSE"):
        shutil.copy(ROOT / part, project / part)
    shutil.rmtree(project / "plugins" / f"lprf_{name}")
    lines = (ROOT / "pyproject.toml").read_text().splitlines(keepends=True)
    left = [line for line in lines if not line.startswith(f'{name} = "lprf_')]
    assert len(left) == len(lines) - 1
    (project / "pyproject.toml").write_text("".join(left))
    python = environment(tmp_path / "env", with_lprf=False)
    install(python, project)

    where = run(python, "-c", "import lprf; print(lprf.__file__)", cwd=tmp_path).stdout
    assert str(tmp_path) in where
    listed = run(python, "-m", "lprf", "plugins", cwd=tmp_path)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert sorted(line.split()[0] for line in listed.stdout.splitlines()[1:]) == sorted(set(SHIPPED) - {name})
    assert run(python, "-m", "lprf", "--help", cwd=tmp_path).returncode == 0
    assert run(python, "-m", "lprf", "schema", cwd=tmp_path).returncode == 0
    assert run(python, "-m", "lprf", "recipes", cwd=tmp_path).returncode == 0
    checked = run(python, "-m", "lprf", "validate", "read-plates", cwd=tmp_path)
    if name in ("mtcnn", "stn", "lprnet"):
        assert checked.returncode == 2
        assert f"there is no plugin '{name}'" in checked.stderr
    else:
        assert checked.returncode == 0, checked.stderr


def test_a_plugin_brings_plate_formats(tmp_path: Path) -> None:
    distribution(tmp_path, "lprf-moon", "lprf_moon_plugin", f"{HOOK}return []", "moon")
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "sea.yaml").write_text("alphabet: AB01\npatterns: {only: [[A, B], ['0 2']]}\n")
    code = "from lprf.plate_format import *; f = load_format('moon/sea'); print(f.grouped('AB00'), f.fits('A1'))"
    done = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.stdout.split() == ["AB", "00", "False"], done.stderr

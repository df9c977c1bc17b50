"""`lprf new-plugin`: what it writes installs, validates, runs and passes its tests, in one environment for all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_plugins import environment, install, run

from lprf.templates import COMPONENTS


@pytest.mark.slow
def test_every_kind_works_at_once(tmp_path: Path) -> None:
    python = environment(tmp_path / "env", with_lprf=True)
    (tmp_path / "empty").mkdir()
    for kind in COMPONENTS:
        name = f"my{kind}"
        made = run(python, "-m", "lprf", "new-plugin", name, "--kind", kind, cwd=tmp_path / "empty")
        assert made.returncode == 0, made.stderr
        project = tmp_path / "empty" / f"lprf-{name}"
        install(python, project)
        for command in (["validate", f"{name}/example"], ["run", f"{name}/example"]):
            done = run(python, "-m", "lprf", *command, cwd=tmp_path / "empty")
            assert done.returncode == 0, done.stdout + done.stderr
        tested = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", project, cwd=project)
        assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("Red", "does not do"), ("class", "does not do"), ("a-b", "does not do"), ("../x", "does not do"),
     ("mtcnn", "is installed"), ("there", "is there already")],
)  # fmt: skip
def test_names_that_do_not_do(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "lprf-there").mkdir()
    done = run(sys.executable, "-m", "lprf", "new-plugin", name, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lprf-there"]

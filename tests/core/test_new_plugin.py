"""`lprf new-plugin`: what it writes installs, validates, runs and passes its tests, in one environment for all."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from lprf.component import KINDS
from lprf.templates import TEMPLATES
from running import environment, install, run


@pytest.mark.slow
def test_every_kind_works_at_once(tmp_path: Path) -> None:
    python = environment(tmp_path / "env", with_lprf=True)
    folder = tmp_path / "empty"
    folder.mkdir()
    for kind in KINDS:
        made = run(python, "-m", "lprf", "new-plugin", f"my{kind}", "--kind", kind, cwd=folder)
        assert made.returncode == 0, made.stderr
        install(python, folder / f"lprf-my{kind}")
    for kind in KINDS:
        for verb in ("validate", "run"):
            done = run(python, "-m", "lprf", verb, f"my{kind}/example", cwd=folder)
            assert done.returncode == 0, done.stdout + done.stderr
    tested = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".", cwd=folder)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_has_at_most_20_lines(kind: str) -> None:
    tree = ast.parse(TEMPLATES[kind].code)
    statements = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
    assert [type(node) for node in statements] == [ast.ClassDef], "one class, and nothing beside it"
    lines = TEMPLATES[kind].code.splitlines()[statements[0].lineno - 1 :]
    assert len([line for line in lines if line.strip()]) <= 20


def test_what_is_written_is_as_the_linter_wants_it(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    for kind in KINDS:
        done = run(sys.executable, "-m", "lprf", "new-plugin", f"my{kind}", "--kind", kind, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for command in (["check", "--select", "E,F,W"], ["format", "--check"]):
        words = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", "."]
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


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

"""What runs nothing imports nothing heavy: a plugin's torch must not slow down `--help`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VERBS = {
    "--help": ["--help"],
    "--version": ["--version"],
    "run --help": ["run", "--help"],
    "compare --help": ["compare", "--help"],
    "validate": ["validate", "read-plates"],
    "validate a mistake": ["validate", "read-plates", "-s", "detect.nothing=1"],
    "show": ["show", "read-plates"],
    "copy": ["copy", "read-plates", "copied.yaml"],
    "recipes": ["recipes"],
    "plugins": ["plugins"],
    "components": ["components"],
    "components NAME": ["components", "mtcnn.detector"],
    "schema": ["schema"],
    "weights list": ["weights", "list"],
    "runs": ["runs"],
    "new-plugin": ["new-plugin", "red", "--kind", "detector"],
    "export --help": ["export", "--help"],
}

CODE = """
import sys
from lprf.cli import main
code = main(sys.argv[1:])
heavy = [name for name in ("torch", "cv2", "numpy") if name in sys.modules]
print("heavy:", heavy, file=sys.stderr)
print("code:", code, file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", VERBS.values(), ids=VERBS.keys())
def test_no_heavy_import(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    *said, heavy, code = done.stderr.splitlines()
    assert heavy == "heavy: []"
    expected = "code: 2" if "detect.nothing=1" in arguments else "code: 0"
    assert code == expected, said


def test_help_and_version_do_not_even_import_pydantic() -> None:
    code = "import sys; from lprf.cli import main; main(['--help']); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0

"""Commands in processes of their own, and environments to run them in."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = Path(sysconfig.get_paths()["purelib"])

# a plugin in one file, everything.py: a detector for which a whole picture is a plate
EVERYTHING = """
from lprf.api import Component, hookimpl

class Everything:
    def __init__(self, params, context):
        pass

    def __call__(self, frames):
        import torch
        from lprf.api import Detections
        count, height, width = frames.images.shape[:3]
        boxes = torch.tensor([[0.0, 0.0, width, height]]).repeat(count, 1)
        return Detections(frames, torch.arange(count), boxes, torch.ones(count))

@hookimpl
def lprf_components():
    return [Component("detector", "detector", "everything:Everything", summary="the whole picture")]
"""


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as from a shell that is no terminal."""
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=300,
        check=False,
    )


def lprf(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `lprf` with these arguments."""
    return run(sys.executable, "-m", "lprf", *arguments, cwd=cwd, **environment)


@contextlib.contextmanager
def at_most(spare: int) -> Iterator[None]:
    """Let this process take `spare` bytes of memory more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def environment(folder: Path, *, with_lprf: bool) -> Path:
    """A virtual environment of its own that also sees what is installed here, LPRF itself where asked; its Python."""
    made = run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    python = folder / "bin" / "python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=ROOT).stdout.strip())
    # addsitedir also follows the .pth file of an editable install; a plain line does not
    (own / "outer.pth").write_text(f"import site; site.addsitedir({str(SITE)!r})\n" if with_lprf else f"{SITE}\n")
    return python


def install(python: Path, project: Path) -> None:
    """Build and install `project` as pip does, offline."""
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    done = run(sys.executable, "-m", "pip", "--python", python, "install", *offline, project, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr

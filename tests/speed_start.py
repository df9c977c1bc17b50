"""What `lprf run` costs before and after the work itself: `python -m tests.speed_start`.

The wall time of `lprf run read-plates` on one photo, less what its one batch took from decode to results, against
`python -c "import torch, cv2"`. The two take turns, so that a machine whose speed drifts does both the same wrong.
Python keeps what it compiles, as it does by itself, whatever this machine tells it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "recipes/samples/photos/scene-1.jpg"
HOOK = """\
from lprf.api import hookimpl

@hookimpl
def lprf_batch_done(run):
    open("work", "w").write(str(run.waited + run.seconds))
"""


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    imports = [sys.executable, "-c", "import torch, cv2"]
    lprf = [str(Path(sys.executable).with_name("lprf")), "run", "read-plates", "-s", f"images.path={PHOTO}"]
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "clock.py").write_text(HOOK, encoding="utf-8")
        for number in range(pairs + 1):
            base = timed(imports, folder)
            run = timed([*lprf, "--plugin", "clock.py"], folder)
            work = float((folder / "work").read_text(encoding="utf-8"))
            if number:  # the first warms the disk's cache
                rows.append((base, run, work))
    print(f"{pairs} pairs, {len(os.sched_getaffinity(0))} cores, medians in seconds")
    for index, clock in enumerate(("wall", "processor")):
        base = [row[0][index] for row in rows]
        run = [row[1][index] for row in rows]
        ratios = sorted((row[1][index] - row[2]) / row[0][index] for row in rows)
        print(
            f"{clock}: imports {statistics.median(base):.3f}, run {statistics.median(run):.3f}, "
            f"work in it {statistics.median(row[2] for row in rows):.3f}; "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()

"""What memory 1,000 photos take over one batch of 8: `python tests/speed_memory.py PHOTOS`, a folder of pictures.

The peak of `lprf run` for each, of the whole process, with all sinks off but the JSON lines, the settings of
`tests/speed.py` and the checkpoints that it needs. Where the folder has fewer pictures they come again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from speed import DETECTOR, MIN_PLATE, NETWORKS, some

ROOT = Path(__file__).resolve().parents[1]
OFF = ("table", "draw")


def peak(recipe: Path, photos: list[Path], folder: Path) -> float:
    """MiB that a run over these photos held at most."""
    folder.mkdir()
    for number, photo in enumerate(photos):
        (folder / f"{number:04}{photo.suffix}").write_bytes(photo.read_bytes())
    settings = {**DETECTOR, **MIN_PLATE, **NETWORKS, "images.path": folder, "jsonl.path": f"{folder}.jsonl"}
    overrides = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
    command = [str(Path(sys.executable).with_name("lprf")), "run", str(recipe), *overrides]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    photos = some(options.photos, 1000)
    with tempfile.TemporaryDirectory() as made:
        shipped = yaml.safe_load((ROOT / "recipes/read-plates.yaml").read_text(encoding="utf-8"))
        shipped["graph"] = {name: node for name, node in shipped["graph"].items() if name not in OFF}
        recipe = Path(made) / "read-plates.yaml"
        recipe.write_text(yaml.safe_dump(shipped), encoding="utf-8")
        for run in range(options.runs):
            few, many = (
                peak(recipe, list(itertools.islice(itertools.cycle(photos), count)), Path(made) / f"{run}-{count}")
                for count in (8, 1000)
            )
            print(f"8 photos {few:.0f} MiB, 1,000 {many:.0f}: {many / few:.2f} times")


if __name__ == "__main__":
    main()

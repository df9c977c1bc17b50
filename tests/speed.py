"""How much faster plates are read than by the seed's algorithm word for word: `python tests/speed.py PHOTOS CROPS`.

PHOTOS and CROPS are folders of pictures; the seed's checkpoints must have been imported (`lprf weights import FOLDER`).
Both sides use them, with the same thresholds, one pass of ONet and greedy decoding, decode the pictures themselves,
and find plates down to 50 x 15 pixels; ours has a screen in front of PNet. With `--shipped` ours is the recipe as it
ships. The two take turns, and a ratio is of neighbours; the processor's seconds are given too, which others on the
machine disturb less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import lprf
from slow_reference import THRESHOLDS, SlowReader, read_photo

NETWORKS = {"rectify.weights": "seed-stn", "read.weights": "seed-lprnet", "read.decode": "greedy"}
DETECTOR = {
    "detect.pnet": "seed-pnet",
    "detect.screen": "any-centernet-small",
    "detect.onet": "seed-onet",
    "detect.thresholds": list(THRESHOLDS),
    "detect.refine": 0,
}
MIN_PLATE = {"detect.min_plate": [50, 15]}


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(name: str, slow: Callable[[], object], fast: Callable[[], object], count: int, passes: int) -> None:
    """Print one row: milliseconds a picture of both sides, and the ratios of wall and processor seconds."""
    slow(), fast()
    pairs = [(seconds(slow), seconds(fast)) for _ in range(passes)]
    of_slow, of_fast = (1e3 * statistics.median(pair[side][0] for pair in pairs) / count for side in (0, 1))
    wall, processor = (statistics.median(a[clock] / b[clock] for a, b in pairs) for clock in (0, 1))
    print(
        f"{name:32} {of_slow:8.1f} ms {of_fast:8.1f} ms {wall:8.2f} times, {processor:6.2f} by the processor's seconds"
    )


def some(folder: Path, count: int) -> list[Path]:
    """Pictures of a folder, spread evenly over its names."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    return found[:: max(1, len(found) // count)][:count]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("crops", type=Path)
    parser.add_argument("--count", type=int, default=16, help="photos a pass; crops are sixteen times as many")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--shipped", action="store_true", help="ours with the weights that ship, not the seed's")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NODE.KEY=VALUE")
    options = parser.parse_args(arguments)
    overrides = dict(override.split("=", 1) for override in options.overrides)
    photos, crops = some(options.photos, options.count), some(options.crops, 16 * options.count)
    reference = SlowReader()
    detector, networks = ({}, {}) if options.shipped else (DETECTOR, NETWORKS)
    reader = lprf.load("read-plates", overrides={**detector, **MIN_PLATE, **networks, **overrides})
    of_reading = {key: value for key, value in overrides.items() if not key.startswith("detect.")}
    of_crops = lprf.load("read-crops", overrides={**networks, **of_reading})
    names, names_of_crops = [str(path) for path in photos], [str(path) for path in crops]

    def slow() -> None:
        for path in photos:
            reference.photo(read_photo(path))

    def one_by_one() -> None:
        for path in photos:
            list(reader.run(read_photo(path)))

    def slow_crops() -> None:
        for path in crops:
            reference.read(read_photo(path))

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {len(photos)} photos, {len(crops)} crops")
    print(f"{'':32} {'reference':>11} {'ours':>11}")
    compare("photos, one at a time", slow, one_by_one, len(photos), options.passes)
    compare("photos, a folder", slow, lambda: list(reader.run(names)), len(photos), options.passes)
    compare("crops", slow_crops, lambda: list(of_crops.run(names_of_crops)), len(crops), options.passes)


if __name__ == "__main__":
    main()

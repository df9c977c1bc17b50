"""How the process treats its memory."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import pytest

from lprf.memory import lasting


class Ring:
    """An object that only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


def test_the_collector_leaves_alone_what_lasts_and_works_on_after_it() -> None:
    with lasting():
        assert not gc.isenabled()
        kept = weakref.ref(Ring())
    freed = weakref.ref(Ring())
    gc.collect()
    assert gc.isenabled() and kept() is not None and freed() is None
    gc.unfreeze()
    gc.collect()
    assert kept() is None


def test_the_collector_is_put_back_as_it_was() -> None:
    with pytest.raises(ValueError, match="no recipe"), lasting():
        raise ValueError("no recipe")
    assert gc.isenabled()
    gc.disable()
    try:
        with lasting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "lprf", *sys.argv[1:]], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(folder: Path, photos: int) -> int:
    """The most memory that a run over so many photos held, in a unit of the system's."""
    names = itertools.islice(itertools.cycle(sorted(path.name for path in folder.glob("*.jpg"))), photos)
    (folder / "list.txt").write_text("\n".join(names))
    command = [sys.executable, "-c", PEAK, "run", "read-plates", "-s", "images.path=list.txt"]
    return int(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=900).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_many_photos_take_little_more_memory_than_one_batch(tmp_path: Path) -> None:
    for path in (Path(__file__).parents[2] / "recipes/samples/photos").glob("*.jpg"):
        photo = cv2.imread(str(path))
        assert photo is not None
        cv2.imwrite(str(tmp_path / path.name), cv2.resize(photo, (720, 960)))
    one_batch = peak(tmp_path, 8)
    assert peak(tmp_path, 240) < 1.35 * one_batch  # 1.44 where a batch that is done is held

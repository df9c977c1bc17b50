"""How the process takes memory from the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names for them in mallopt


def keep_freed(largest: int = 1 << 30) -> None:
    """Keep freed blocks of up to `largest` bytes for the next ones of their size, where the C library is glibc.

    By default it maps each large block anew, and the system fills every page with zeros again: with networks whose
    features are tens of megabytes a layer that is a third of a training step. Reading plates gains nothing by it.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    if not libc.mallopt(_MMAP_THRESHOLD, largest):
        libc.mallopt(_MMAP_THRESHOLD, 1 << 25)  # the most that glibc allowed before 2.35
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """What is imported and built within is there to stay: the collector leaves it alone, then and later.

    Importing torch sets off hundreds of collections that find nothing, and the one at the process's end goes through
    all of it once more: together a third of the time that a command takes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()

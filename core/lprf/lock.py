"""A lock on a folder that several runs may want: held by a process, gone with it however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Any

TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class Lock:
    """An exclusive lock on a file, which names the process that holds it.

    The system drops it with the process, `kill -9` included, so there are no stale locks. It is not inherited by
    forked workers, which may outlive the process for some seconds.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: Any = None

    def acquire(self) -> bool:
        """Take the lock, if nobody has it; says whether it is ours."""
        file = self.path.open("a+", encoding="utf-8")
        if not take(file):
            file.close()
            return False
        self.file = file
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return True

    def holder(self) -> str:
        """The number of the process that has it, as far as it can be read."""
        with contextlib.suppress(OSError):
            return self.path.read_text(encoding="utf-8") or "unknown"
        return "unknown"

    def held(self) -> bool:
        """Whether another process has it now; taken for a moment to find out. False where there is no such file, and
        where it may not be written to."""
        try:
            file = self.path.open("r+", encoding="utf-8")
        except OSError:  # not there, or another's, whose runs cannot be asked
            return False
        with file:
            return not take(file)

    def release(self) -> None:
        """Give it up. The file stays: removing it would let two runs lock two files of one name."""
        if self.file is not None:
            self.file.close()
            self.file = None


def take(file: Any) -> bool:
    """Lock an open file until it is closed; whether it is ours. So it is, too, on a file system without locks: runs at
    the same time are not told apart there."""
    try:
        _take(file)
    except OSError as error:
        return error.errno not in TAKEN
    return True


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _take(file: Any) -> None:
        file.seek(0x7FFFFFF0)  # beyond what is written, so that others can read who holds it
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0, os.SEEK_END)
else:
    import fcntl

    def _take(file: Any) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

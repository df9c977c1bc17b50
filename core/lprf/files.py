"""Where shipped files lie, and writing files so that nothing half-written stands in place of something whole."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lprf.errors import LprfError


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Failures of the disk in the words of the person whose disk it is: raises LprfError in the place of OSError."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise LprfError(f"the disk is full, or the quota is used up: {where} could not be written") from error
        raise LprfError(f"{where} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is flushed to disk and renamed over `path`.

    On any exception, Ctrl-C included, the half-written file is removed and `path` is left as it was.
    The temporary name keeps the suffix, so that writers which choose a format by suffix work. Raises LprfError where
    the disk does not take it.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        beside = Path(name)
        try:
            yield beside
            with beside.open("rb+") as written:
                os.fsync(written.fileno())
            umask = os.umask(0)
            os.umask(umask)
            beside.chmod(0o666 & ~umask)  # mkstemp makes files private
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def shipped(part: str) -> Path:
    """The folder of shipped "recipes" or "weights": inside the installed package, else at the repository's root."""
    package = Path(__file__).resolve().parent
    return package / part if (package / part).is_dir() else package.parent.parent / part

"""`core.images`: photos from a file, a folder, a pattern or a list; and how one picture file is decoded."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lprf.builtin.headers import Header, orientation, read_header
from lprf.builtin.io_params import SUFFIXES, ImagesParams
from lprf.context import Context
from lprf.data import Frames, Item, Origin
from lprf.errors import InputFailure, LprfError

_stderr = threading.Lock()


class Images:
    """Photos, each a frame of its own; frames of one size share a batch."""

    live = False

    def __init__(self, params: ImagesParams, context: Context):
        self.params = params

    @functools.cached_property
    def names(self) -> list[str]:
        """All paths, in their order. Raises LprfError where the given path is not there or holds no picture."""
        suffixes, recursive = self.params.suffixes, self.params.recursive
        if isinstance(self.params.path, str):
            names = find_pictures(self.params.path, suffixes, recursive)
        else:
            names = []
            for path in self.params.path:
                try:
                    names += find_pictures(path, suffixes, recursive)
                except LprfError:
                    names.append(path)  # one of many: decoding will name it and tell why
        if not names:
            raise LprfError(f"{show(str(self.params.path))}: there is no picture in it ({', '.join(suffixes)})")
        return names

    @property
    def total(self) -> int:
        return len(self.names)

    def items(self) -> Iterator[Item]:
        for name in self.names:
            yield Item(Origin(name), functools.partial(read_picture, name, self.params.max_megapixels))

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        return image.shape[:2]

    def batch(self, origins: Sequence[Origin], images: Sequence[np.ndarray]) -> Mapping[str, Any]:
        return {"frames": Frames(torch.from_numpy(np.stack(images)), list(origins))}


def find_pictures(path: str, suffixes: Sequence[str] = SUFFIXES, recursive: bool = True) -> list[str]:
    """The pictures that `path` names: itself, those of a folder, of a pattern, or of a list file (.txt).

    Names are in natural order (2 before 10), the same on every machine. In folders and patterns the suffix
    decides, a folder named like a picture is given too (so that it is reported), and hidden names are left out.
    Raises LprfError where there is nothing at `path`.
    """
    kind = _kind(path)
    if kind == "folder":
        return sorted(_walk(path, tuple(suffixes), recursive, set()), key=natural)
    if kind == "" and glob.has_magic(path):
        names = glob.glob(path, recursive=True)  # noqa: PTH207
        real = functools.cache(os.path.realpath)
        found = [name for name in names if name.lower().endswith(tuple(suffixes)) and not _in_ring(name, real)]
        if not found:
            raise LprfError(f"{show(path)}: no picture fits this pattern")
        return sorted(found, key=natural)
    if kind == "":
        raise LprfError(f"{show(path)}: there is no such file or folder")
    if kind == "file" and path.lower().endswith(".txt"):
        if not os.path.isfile(path):  # noqa: PTH113
            raise LprfError(f"{show(path)}: is no regular file; a list of pictures has to be one")
        return read_list(path)
    return [path]


def read_list(path: str) -> list[str]:
    """The paths in a list file: one a line, UTF-8 (other bytes are kept as they are), relative to the file."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise LprfError(f"{show(path)}: {error.strerror}") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return [os.path.join(os.path.dirname(path), line) for line in lines if line.strip()]  # noqa: PTH118, PTH120


def natural(name: str) -> list[tuple[Any, ...]]:
    """A sort key by parts of the path, with numbers by their value; names that differ have keys that differ."""
    return [
        ([(int(piece) if piece.isdecimal() else 0, piece) for piece in re.split(r"(\d+)", part)], part)
        for part in name.split(os.sep)  # noqa: PTH206
    ]


def show(name: str) -> str:
    """A path as text that any terminal and file can take: bytes that are no UTF-8 as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _kind(path: str) -> str:
    """ "folder", "file", or "" where there is nothing; a dangling link is a file, of which decoding will tell."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return "file" if os.path.islink(path) else ""  # noqa: PTH114
    return "folder" if stat.S_ISDIR(mode) else "file"


def _in_ring(name: str, real: Callable[[str], str]) -> bool:
    """Whether a path goes through one folder twice, by a link to a folder above."""
    above = [real(str(folder)) for folder in Path(name).parents]
    return len(set(above)) < len(above)


def _walk(folder: str, suffixes: tuple[str, ...], recursive: bool, above: set[tuple[int, int]]) -> Iterator[str]:
    try:
        here = os.stat(folder)  # noqa: PTH116
        entries = list(os.scandir(folder))
    except OSError as error:
        if not above:
            raise LprfError(f"{show(folder)}: {error.strerror}") from None
        yield folder  # decoding will name it and tell why
        return
    above = above | {(here.st_dev, here.st_ino)}
    for entry in entries:
        if entry.name.startswith("."):
            continue
        named = entry.name.lower().endswith(suffixes)
        try:
            is_folder = entry.is_dir()
            inside = entry.stat() if is_folder and recursive else None
        except OSError:
            is_folder, inside = False, None
        if named:
            yield entry.path
        if is_folder and inside is not None and (inside.st_dev, inside.st_ino) not in above:
            yield from _walk(entry.path, suffixes, recursive, above)


def read_picture(name: str, max_megapixels: float = 100) -> np.ndarray | tuple[np.ndarray, str]:
    """Decode a picture file: uint8 [H, W, 3] BGR, turned upright as its EXIF says.

    Grey becomes three equal channels, 16 bits become the upper 8, transparency lies on white, CMYK is converted.
    A JPEG that was cut short is read as far as it goes, and given with a warning.
    Raises InputFailure: not there, not a picture, too large (told by its header alone), damaged.
    """
    try:
        found = os.stat(name)  # noqa: PTH116
        if stat.S_ISDIR(found.st_mode):
            try:
                os.scandir(name).close()
            except OSError as error:
                raise InputFailure(name, f"a folder that cannot be read: {error.strerror}") from None
            raise InputFailure(name, "is a folder, not a picture")
        if not stat.S_ISREG(found.st_mode):
            raise InputFailure(name, "is not a regular file")
        if found.st_size == 0:
            raise InputFailure(name, "the file is empty")
        with open(name, "rb") as file:  # noqa: PTH123
            try:
                header = read_header(file)
            except ValueError as error:
                raise InputFailure(name, f"damaged: {error}") from None
            if header is None:
                raise InputFailure(name, "not a picture: neither JPEG, PNG, BMP, WebP, TIFF nor GIF")
            _refuse_large(name, header, found.st_size, max_megapixels)
            file.seek(0)
            data = file.read()
    except FileNotFoundError:
        dangling = os.path.islink(name)  # noqa: PTH114
        raise InputFailure(name, "a link to nothing" if dangling else "there is no such file") from None
    except OSError as error:
        raise InputFailure(name, (error.strerror or str(error)).lower()) from None
    except ValueError as error:  # a name that no file can have
        raise InputFailure(name, str(error)) from None
    return _decode(name, header, data)


def _refuse_large(name: str, header: Header, size: int, max_megapixels: float) -> None:
    pixels = header.width * header.height
    if pixels == 0:
        raise InputFailure(name, "damaged: its header says that it has no pixels")
    if pixels > max_megapixels * 1e6:
        raise InputFailure(
            name,
            f"too large: {header.width} × {header.height} is {pixels / 1e6:.1f} megapixels; "
            f"max_megapixels is {max_megapixels:g}",
        )
    if size > pixels * 8 + 64e6:
        raise InputFailure(name, f"too large: {size / 1e6:.0f} MB for a picture of {pixels / 1e6:.1f} megapixels")


def _decode(name: str, header: Header, data: bytes) -> np.ndarray | tuple[np.ndarray, str]:
    warning = ""
    flags = cv2.IMREAD_COLOR
    quiet: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if header.kind == "JPEG" and data.rfind(b"\xff\xd9", header.data) < 0:
        # An end of image put where the file breaks off makes the decoder give what it has; the rest is grey.
        warning = "truncated: read as far as it goes"
        data += b"\xff\xd9"
        quiet = no_stderr()
    if header.kind == "PNG" and data.rfind(b"IEND") < 0:
        raise InputFailure(name, "truncated")
    if header.alpha:
        flags = cv2.IMREAD_UNCHANGED
    try:
        with quiet:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputFailure(name, f"cannot be decoded: {error.err}") from None
    if image is None:
        reason = "truncated before its picture begins" if warning else "damaged"
        raise InputFailure(name, f"{reason}: this {header.kind} cannot be decoded")
    image = _three_channels(image)
    if header.alpha:  # with transparency OpenCV leaves a picture as it is stored
        image = _turned(image, orientation(header.kind, data))
    return (image, warning) if warning else image


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """A picture [h, w, 3] upright that is stored as an Exif orientation says: rows and columns exchanged, then each
    perhaps in reverse."""
    image = image.transpose(1, 0, 2) if orientation >= 5 else image
    image = image[::-1] if orientation in (3, 4, 7, 8) else image
    image = image[:, ::-1] if orientation in (2, 3, 6, 7) else image
    return np.ascontiguousarray(image)


def _three_channels(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.uint16)
        blended = (image[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return blended.astype(np.uint8)
    return image


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
    """Silence the decoder's own words about a picture that we report ourselves; one thread at a time."""
    with _stderr, open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        saved = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)

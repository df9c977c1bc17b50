"""The size of a picture, read from its first bytes: what refuses a picture too large without decoding it.

Knows JPEG, PNG, BMP, WebP, TIFF and GIF, as far as their sizes go.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

WIDTH, LENGTH, ORIENTATION = 256, 257, 274  # tags of TIFF, and so of Exif
STEPS = 1 << 20  # bytes of a JPEG looked at one by one in search of its picture: of a made-up file there may be no end


@dataclass(frozen=True)
class Header:
    """width, height: in pixels, before any rotation. alpha: whether pixels may be transparent
    (PNG, WebP).

    data: for a JPEG, where its first scan begins; else 0.
    """

    kind: str
    width: int
    height: int
    alpha: bool = False
    data: int = 0


def read_header(file: BinaryIO) -> Header | None:
    """The header of the picture that `file` (seekable, at its start) holds; None where it holds none we know.

    Raises ValueError where a picture begins but its header is broken or cut short.
    """
    start = file.read(32)
    try:
        if start.startswith(b"\xff\xd8\xff"):
            return _jpeg(file)
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(file, start)
        if start.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", start, 6)
            return Header("GIF", width, height)
        if start.startswith(b"BM"):
            return _bmp(start)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _webp(start)
        if start.startswith((b"II*\0", b"MM\0*")):
            return _tiff(file, "<" if start.startswith(b"II") else ">")
    except struct.error:
        raise ValueError("the file ends within its header") from None
    return None


def _jpeg(file: BinaryIO) -> Header:
    """Walk the segments: the frame header (SOF) tells the size, the scan header (SOS) ends the walk."""
    file.seek(2)
    size: tuple[int, int] | None = None
    before = b""
    for _ in range(STEPS):
        byte = file.read(1)
        if byte == b"":
            raise ValueError("the file ends within its header")
        # what stands between segments is skipped, as decoders do
        marker = byte[0] if before == b"\xff" else 0xFF
        before = byte
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # these have no content
            continue
        if marker == 0xD9:
            raise ValueError("the file ends before its picture begins")
        (length,) = struct.unpack(">H", file.read(2))
        if marker == 0xDA:
            if size is None:
                raise ValueError("its header tells no size")
            return Header("JPEG", *size, data=file.tell() - 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _, height, width = struct.unpack(">BHH", file.read(5))
            size = (width, height)
            length -= 5
        file.seek(max(length - 2, 0), 1)
    raise ValueError("no picture begins in it")


def _png(file: BinaryIO, start: bytes) -> Header:
    width, height, _, colour = struct.unpack_from(">IIBB", start, 16)
    alpha = colour in (4, 6)
    file.seek(8)
    for _ in range(64):  # a chunk tRNS before the first IDAT makes some colours transparent
        head = file.read(8)
        if alpha or len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            break
        alpha = head[4:] == b"tRNS"
        file.seek(struct.unpack(">I", head[:4])[0] + 4, 1)
    return Header("PNG", width, height, alpha)


def _bmp(start: bytes) -> Header:
    if struct.unpack_from("<I", start, 14)[0] == 12:  # the header of OS/2
        width, height = struct.unpack_from("<HH", start, 18)
    else:
        width, height = struct.unpack_from("<ii", start, 18)
    return Header("BMP", abs(width), abs(height))  # a negative height turns the rows' order round


def _webp(start: bytes) -> Header:
    form = start[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", start, 26)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF)
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", start, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha=bool(bits >> 28 & 1))
    if form == b"VP8X":
        flags = start[20]
        width = int.from_bytes(start[24:27], "little") + 1
        height = int.from_bytes(start[27:30], "little") + 1
        return Header("WebP", width, height, alpha=bool(flags & 0x10))
    raise ValueError("a WebP of an unknown form")


def _tiff(file: BinaryIO, order: str) -> Header:
    """The first directory's ImageWidth and ImageLength."""
    found = _directory(file, order)
    if WIDTH not in found or LENGTH not in found:
        raise ValueError("its header tells no size")
    return Header("TIFF", found[WIDTH], found[LENGTH])


def _directory(file: BinaryIO, order: str) -> dict[int, int]:
    """The numbers of a TIFF's first directory, by tag."""
    file.seek(4)
    (offset,) = struct.unpack(order + "I", file.read(4))
    file.seek(offset)
    (count,) = struct.unpack(order + "H", file.read(2))
    found: dict[int, int] = {}
    for _ in range(count):
        entry = file.read(12)
        tag, form, _ = struct.unpack_from(order + "HHI", entry)
        (found[tag],) = struct.unpack_from(order + ("H" if form == 3 else "I"), entry, 8)
    return found


def orientation(kind: str, data: bytes) -> int:
    """How a PNG or WebP is to be turned, by its Exif: 1 to 8, as the standard numbers them; 1 where it says nothing."""
    place, form, frame = (8, ">I4s", 12) if kind == "PNG" else (12, "<4sI", 8)
    for _ in range(4096):  # chunks
        if place + 8 > len(data):
            break
        head = struct.unpack_from(form, data, place)
        name, length = (head[1], head[0]) if kind == "PNG" else head
        if name in (b"eXIf", b"EXIF"):
            exif = data[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
            try:
                found = _directory(io.BytesIO(exif), "<" if exif.startswith(b"II") else ">").get(ORIENTATION, 1)
            except struct.error:
                return 1
            return found if 1 <= found <= 8 else 1
        place += frame + length + (length % 2 if kind == "WebP" else 0)
    return 1

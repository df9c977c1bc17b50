"""Picture files as people have them: turned, grey, transparent, deep, CMYK, strangely named, broken, or none at all."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lprf.builtin.crops import Crops
from lprf.builtin.headers import read_header
from lprf.builtin.images import Images, find_pictures, read_list, read_picture
from lprf.builtin.io_params import CropsParams, ImagesParams
from lprf.data import Item
from lprf.errors import InputFailure, LprfError
from running import EVERYTHING, lprf

sys.path.insert(0, str(Path(__file__).parent))
import echo

# Four squares: red, green, blue and black, written as CMYK by Pillow (Adobe's marker, inverted).
CMYK = base64.b85decode(
    "|JeWT01iQ9Z(?NtWB>pF0095n07C!}3k(hn3J?wr4iXU%6BsBO7#0>7F(V}%C^|DeJUKHsH$X^SPC!IgMK?H5ZBbWWVrOV)K233XaAbH~WoKjmzyK5o0"
    "1yBW1Va%3O%VWD5dcdO0RO}Q761VO0RR910000000000000O82mizX6c7Ob00000000000000000030+5ip&LjX+xSpZ7_06zfG8T&tI1Ni`wAIJni5D"
    "0&N|Je"
)


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    """Uint8 [h, w, 3], bright towards the right in blue and towards the bottom in green."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[:, :, 0] = np.linspace(0, 255, width).astype(np.uint8)
    image[:, :, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return image


def encoded(suffix: str, image: np.ndarray, *parameters: int) -> bytes:
    return cv2.imencode(suffix, image, list(parameters))[1].tobytes()


def read(path: Path | str) -> np.ndarray:
    image = read_picture(os.fspath(path))
    assert isinstance(image, np.ndarray), image
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return image


def reason(path: Path | str, max_megapixels: float = 100) -> str:
    with pytest.raises(InputFailure) as failure:
        read_picture(os.fspath(path), max_megapixels)
    assert failure.value.name == os.fspath(path)
    return failure.value.reason


def with_exif(jpeg: bytes, orientation: int, order: str = "<") -> bytes:
    """A JPEG with an Exif segment that holds the orientation alone."""
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    tiff += struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


# What the camera did to an upright picture, by orientation, as the Exif standard's figures show it.
STORED: dict[int, Any] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", STORED)
def test_photos_are_turned_upright(orientation: int, order: str, tmp_path: Path) -> None:
    upright = gradient()
    jpeg = encoded(".jpg", np.ascontiguousarray(STORED[orientation](upright)), cv2.IMWRITE_JPEG_QUALITY, 100)
    (tmp_path / "photo.jpg").write_bytes(with_exif(jpeg, orientation, order))
    image = read(tmp_path / "photo.jpg")
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 8


@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_transparent_pictures_are_turned_upright_too(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = gradient()
    stored = np.ascontiguousarray(STORED[orientation](upright))
    alpha = np.full((*stored.shape[:2], 1), 255, np.uint8)
    alpha[0, 0] = 254  # an encoder may leave a channel out that says nothing
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    data = encoded(suffix, np.concatenate([stored, alpha], axis=2), *lossless)
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    if suffix == ".png":
        chunk = b"eXIf" + exif
        data = data[:-12] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[-12:]
    else:  # extended: what the file has, the size less one, the picture, the Exif
        h, w = stored.shape[:2]
        sizes = (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little")
        body = b"VP8X" + struct.pack("<I", 10) + bytes([0x18, 0, 0, 0]) + sizes
        body += data[12:] if data[12:16] != b"VP8X" else data[30:]
        body += b"EXIF" + struct.pack("<I", len(exif)) + exif
        data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    (tmp_path / f"a{suffix}").write_bytes(data)
    image = read(tmp_path / f"a{suffix}")
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg"])
def test_each_format_gives_its_pixels(suffix: str, tmp_path: Path) -> None:
    image = gradient()
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    (tmp_path / f"a{suffix}").write_bytes(encoded(suffix, image, *lossless))
    difference = np.abs(read(tmp_path / f"a{suffix}").astype(int) - image).max()
    assert difference <= (12 if suffix == ".jpg" else 0)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(".png", gradient()))
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), gradient())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_grey_becomes_three_equal_channels(suffix: str, tmp_path: Path) -> None:
    grey = gradient()[:, :, 0]
    (tmp_path / f"a{suffix}").write_bytes(encoded(suffix, grey))
    image = read(tmp_path / f"a{suffix}")
    assert np.abs(image.astype(int) - grey[:, :, None]).max() <= (4 if suffix == ".jpg" else 0)
    assert (image[:, :, 0] == image[:, :, 2]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_lies_on_white(dtype: type, tmp_path: Path) -> None:
    colour = gradient()
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[:, 20:40], alpha[:, 40:] = 128, 255
    stored = np.concatenate([colour, alpha], axis=2).astype(dtype) * (257 if dtype == np.uint16 else 1)
    (tmp_path / "a.png").write_bytes(encoded(".png", stored))
    expected = colour * (alpha / 255.0) + 255 * (1 - alpha / 255.0)
    assert np.abs(read(tmp_path / "a.png") - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_the_upper_eight(suffix: str, channels: int, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (9, 11, channels), dtype=np.uint16)
    (tmp_path / f"a{suffix}").write_bytes(encoded(suffix, deep))
    assert np.abs(read(tmp_path / f"a{suffix}").astype(int) - deep // 256).max() <= 1


def test_cmyk_is_converted(tmp_path: Path) -> None:
    (tmp_path / "print.jpg").write_bytes(CMYK)
    image = read(tmp_path / "print.jpg").astype(int)
    expected = {(4, 4): (0, 0, 255), (4, 12): (0, 255, 0), (12, 4): (255, 0, 0), (12, 12): (0, 0, 0)}
    for (y, x), colour in expected.items():
        assert np.abs(image[y, x] - colour).max() <= 6


def test_names_of_any_script_and_of_none(tmp_path: Path) -> None:
    names = ["车牌 沪A12345.png", "émigré.png", "🚗.png", "two\nlines.png", "-s.png", "[1].png", "%02d.png"]
    for name in names:
        (tmp_path / name).write_bytes(encoded(".png", gradient()))
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    with open(raw, "wb") as file:  # noqa: PTH123
        file.write(encoded(".png", gradient()))
    found = find_pictures(str(tmp_path))
    assert sorted(Path(name).name for name in found) == sorted([*names, "\udcff\udcfe.png"])
    for name in found:
        np.testing.assert_array_equal(read(name), gradient())


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and has nothing behind."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_a_picture_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "vast.png").write_bytes(png_header(20_000, 20_000))
    assert reason(tmp_path / "vast.png") == ("too large: 20000 × 20000 is 400.0 megapixels; max_megapixels is 100")
    assert "truncated" in reason(tmp_path / "vast.png", max_megapixels=401)  # let through, it is what it is
    (tmp_path / "none.png").write_bytes(png_header(0, 10))
    assert "no pixels" in reason(tmp_path / "none.png")
    (tmp_path / "small.jpg").write_bytes(encoded(".jpg", gradient()))
    assert "max_megapixels is 0.002" in reason(tmp_path / "small.jpg", max_megapixels=0.002)
    read_picture(str(tmp_path / "small.jpg"), 0.0024)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
def test_each_header_tells_its_size(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(encoded(suffix, gradient(33, 71)))
    assert "too large: 71 × 33 " in reason(tmp_path / "a", max_megapixels=0.001)


def test_a_truncated_jpeg_is_read_as_far_as_it_goes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded(".jpg", cv2.resize(gradient(), (640, 480)), cv2.IMWRITE_JPEG_QUALITY, 95)
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 6 // 10])
    result = read_picture(str(tmp_path / "cut.jpg"))
    assert isinstance(result, tuple)
    image, warning = result
    assert warning == "truncated: read as far as it goes"
    assert image.shape == (480, 640, 3)
    np.testing.assert_array_equal(image[:200], read(tmp_path / "whole.jpg")[:200])
    assert capfd.readouterr().err == ""  # the decoder's own words are not shown
    (tmp_path / "stub.jpg").write_bytes(whole[:100])
    assert "within its header" in reason(tmp_path / "stub.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
def test_however_short_a_file_is_cut_it_is_an_answer(suffix: str, tmp_path: Path) -> None:
    data = encoded(suffix, gradient(20, 30))
    for length in {*range(1, min(len(data), 200), 7), *range(1, len(data), max(1, len(data) // 40))}:
        (tmp_path / "a").write_bytes(data[:length])
        try:
            read_picture(str(tmp_path / "a"))
        except InputFailure as failure:
            assert failure.reason


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\xe0\0\2"])
def test_a_jpeg_whose_picture_never_begins_is_not_searched_for_ever(filling: bytes, tmp_path: Path) -> None:
    read_so_far = 0

    class Told(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal read_so_far
            read_so_far += 1
            return super().read(size)

    with pytest.raises(ValueError, match="no picture begins in it"):
        read_header(Told(b"\xff\xd8" + b"\xff" + filling * (1 << 22)))
    assert read_so_far < 1 << 21


def test_what_is_no_picture_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("dear diary")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "damaged.png").write_bytes(encoded(".png", gradient())[:60] + bytes(500) + b"IEND")
    assert reason(tmp_path / "empty.jpg") == "the file is empty"
    assert reason(tmp_path / "text.jpg").startswith("not a picture")
    assert reason(tmp_path / "folder.jpg") == "is a folder, not a picture"
    assert reason(tmp_path / "link.jpg") == "a link to nothing"
    assert reason(tmp_path / "pipe.jpg") == "is not a regular file"
    assert reason(tmp_path / "damaged.png").startswith("damaged")
    assert reason(tmp_path / "missing.jpg") == "there is no such file"
    assert "null" in reason(str(tmp_path) + "/a\0b.jpg")
    assert "too long" in reason(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg", gradient()))
    (tmp_path / "a.jpg").chmod(0)
    assert reason(tmp_path / "a.jpg") == "permission denied"


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(encoded(".png", np.array([[[1, 2, 3]]], np.uint8)))
    assert read(tmp_path / "dot.png").tolist() == [[[1, 2, 3]]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures in folders, and what must not be taken for one."""
    for name in ["b10.jpg", "b9.jpg", "sub/deep/c.PNG", "sub/d.jpeg", ".hidden.jpg", ".git/e.jpg", "notes.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(".png", gradient()))
    (tmp_path / "sub" / "up").symlink_to(tmp_path)  # a ring
    return tmp_path


def relative(found: list[str], to: Path) -> list[str]:
    return [os.path.relpath(name, to) for name in found]


def test_a_folder_is_searched_in_natural_order(tree: Path) -> None:
    assert relative(find_pictures(str(tree)), tree) == ["b9.jpg", "b10.jpg", "sub/d.jpeg", "sub/deep/c.PNG"]
    assert relative(find_pictures(str(tree), recursive=False), tree) == ["b9.jpg", "b10.jpg"]
    assert relative(find_pictures(str(tree), [".png"]), tree) == ["sub/deep/c.PNG"]


def test_patterns(tree: Path) -> None:
    assert relative(find_pictures(f"{tree}/b*.jpg"), tree) == ["b9.jpg", "b10.jpg"]
    assert relative(find_pictures(f"{tree}/sub/**/*.PNG"), tree) == ["sub/deep/c.PNG"]
    with pytest.raises(LprfError, match="no picture fits this pattern"):
        find_pictures(f"{tree}/z*.jpg")
    (tree / "[1].jpg").write_bytes(encoded(".png", gradient()))
    assert find_pictures(f"{tree}/[1].jpg") == [f"{tree}/[1].jpg"]  # a file that is there is no pattern


def test_a_list_file(tree: Path) -> None:
    body = "\ufeffb9.jpg\r\n\n/abs/x.jpg\n".encode() + b"sub/\xff.jpg\n  two words.jpg"
    (tree / "list.txt").write_bytes(body)
    assert find_pictures(str(tree / "list.txt")) == read_list(str(tree / "list.txt"))
    assert read_list(str(tree / "list.txt")) == [
        f"{tree}/b9.jpg",
        "/abs/x.jpg",
        f"{tree}/sub/\udcff.jpg",
        f"{tree}/  two words.jpg",
    ]
    os.mkfifo(tree / "pipe.txt")
    with pytest.raises(LprfError, match="regular file"):
        find_pictures(str(tree / "pipe.txt"))


def source(**params: Any) -> Images:
    return Images(ImagesParams.model_validate(params), None)  # type: ignore[arg-type]


def test_what_is_asked_for_and_not_there(tree: Path) -> None:
    with pytest.raises(LprfError, match="there is no such file or folder"):
        list(source(path=str(tree / "missing")).items())
    (tree / "empty").mkdir()
    with pytest.raises(LprfError, match="there is no picture in it"):
        list(source(path=str(tree / "empty")).items())
    # one of several is a failure among the others
    images = source(path=[str(tree / "missing.jpg"), str(tree / "b9.jpg")])
    assert images.total == 2
    missing, good = images.items()
    assert isinstance(missing, Item)
    with pytest.raises(InputFailure, match="there is no such file"):
        missing.load()
    assert isinstance(good.load(), np.ndarray)


def test_a_high_crop_and_a_wide_one_share_no_batch() -> None:
    crops = Crops(CropsParams(path="."), None)  # type: ignore[arg-type]
    high, wide, small, turned = (
        crops.shape(np.zeros((h, w, 3), np.uint8)) for h, w in [(20_000, 1), (1, 20_000), (24, 94), (94, 24)]
    )
    assert len({high, wide, small}) == 3 and small == turned


def test_a_folder_of_everything(tmp_path: Path) -> None:
    """Every good photo is read, each bad one is named with its reason, and nothing is lost."""
    folder = tmp_path / "photos"
    folder.mkdir()
    jpeg = encoded(".jpg", cv2.resize(echo.picture(1), (320, 240)), cv2.IMWRITE_JPEG_QUALITY, 95)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    good = {f"good{i:02}.png": encoded(".png", noise[: 200 + i % 3]) for i in range(20)}
    good |= {"车牌.jpg": jpeg, "turned.jpg": with_exif(jpeg, 6), "dot.png": encoded(".png", noise[:1, :1])}
    good |= {
        "print.jpg": CMYK,
        "grey.png": encoded(".png", noise[:, :, 0]),
        "deep.png": encoded(".png", noise * np.uint16(257)),
    }
    for name, data in good.items():
        (folder / name).write_bytes(data)
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:  # noqa: PTH123
        file.write(good["good00.png"])
    (folder / "cut.jpg").write_bytes(encoded(".jpg", noise)[:20_000])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("dear diary")
    (folder / "vast.png").write_bytes(png_header(20_000, 20_000))
    (folder / "x.jpg").mkdir()
    (folder / "link.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    bad = {
        "cut.jpg": "truncated: read as far as it goes",
        "empty.jpg": "the file is empty",
        "text.jpg": "not a picture: neither JPEG, PNG, BMP, WebP, TIFF nor GIF",
        "vast.png": "too large: 20000 × 20000 is 400.0 megapixels; max_megapixels is 100",
        "x.jpg": "is a folder, not a picture",
        "link.jpg": "a link to nothing",
        "pipe.jpg": "is not a regular file",
    }
    (tmp_path / "everything.py").write_text(EVERYTHING)
    given = ["-s", "detect.uses=everything.detector", "-s", "images.path=photos", "-s", "jsonl.path=out.jsonl"]
    done = lprf("run", "detect-plates", "--plugin", "everything.py", *given, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    count = len(good) + 2  # with the one that is not UTF-8, and the part of the one cut short
    assert f"{count} photos, {count} plates, 0 read, {len(bad)} failed; " in done.stderr
    for name, why in bad.items():
        assert f"failed: photos/{name}: {why}\n" in done.stderr

    text = (tmp_path / "out.jsonl").read_bytes().decode("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {Path(line["source"]).name: line["error"] for line in lines if "error" in line} == bad
    assert all(set(line) == {"source", "error"} for line in lines if "error" in line)
    boxes = {Path(line["source"]).name: line["box"] for line in lines if "error" not in line}
    assert set(boxes) == {*good, "\udcff.png", "cut.jpg"}
    assert '"source": "photos/\\udcff.png"' in text
    assert boxes["turned.jpg"] == [0, 0, 240, 320] and boxes["车牌.jpg"] == [0, 0, 320, 240]
    assert boxes["dot.png"] == [0, 0, 1, 1]
    # in the order of the names, the failed ones among the others
    order = [line["source"] for line in lines if line["source"].startswith("photos/good")]
    assert order == sorted(order)
    assert [line["source"] for line in lines if line["source"] != "photos/cut.jpg"] == [
        name for name in find_pictures_in(tmp_path) if name != "photos/cut.jpg"
    ]


def find_pictures_in(folder: Path) -> list[str]:
    return relative(find_pictures(str(folder / "photos")), folder)

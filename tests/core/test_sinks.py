"""What the sinks leave: lines, tables, drawings and videos; whole, or a clear word why not."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lprf.builtin import io_params
from lprf.builtin.annotate import Annotate, draw
from lprf.builtin.csv import COLUMNS, Csv
from lprf.builtin.jsonl import Jsonl
from lprf.builtin.table import Table
from lprf.data import Detections, Frames, Origin, Plates, Reading, Readings
from lprf.errors import LprfError
from running import EVERYTHING, run

BOX = (20.0, 30.0, 90.25, 60.0)


def readings(
    origin: Origin, text: str | None = "沪A12345", corners: bool = False, given: bool = False, size: Any = (80, 120)
) -> Readings:
    """One frame with one detection; `text` None: nothing was read of it."""
    frames = Frames(torch.full((1, *size, 3), 90, dtype=torch.uint8), [origin])
    points = torch.tensor([[[20.0, 30], [90, 32], [89, 60], [21, 58]]]) if corners else None
    extra = {"given": torch.tensor([True])} if given else {}
    detections = Detections(frames, torch.tensor([0]), torch.tensor([BOX]), torch.tensor([0.98765]), points, extra)
    plates = Plates(detections, torch.tensor([0]), torch.zeros(1, 3, 24, 94))
    if text is None:
        return Readings(plates, torch.tensor([], dtype=torch.int64), [], torch.zeros(0), [], [])
    alternatives = [(text, 0.91), (text[:-1] + "Q", 0.03)]
    return Readings(plates, torch.tensor([0]), [text], torch.tensor([0.91]), [[0.99] * len(text)], [alternatives])


def jsonl(path: Path, **params: Any) -> Jsonl:
    return Jsonl(io_params.JsonlParams(path=str(path), **params), None)  # type: ignore[arg-type]


def test_a_run_that_fails_leaves_what_an_earlier_one_left(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("earlier")
    sink = jsonl(path)
    sink.abandon()
    assert path.read_text() == "earlier" and sink.output is None
    sink.write(readings(Origin("a.jpg")))
    sink.abandon()
    assert path.read_text() == "earlier"
    assert sink.output is not None and "a.jpg" in Path(sink.output).read_text()


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    """Locks are a process's: another one holds it here."""
    path = tmp_path / "out.jsonl"
    code = f"""
from lprf.builtin.lines import LineFile
file = LineFile({str(path)!r})
file.write("theirs")
print("begun", flush=True)
input()
file.close()
"""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "begun\n"
        mine = jsonl(path)
        with pytest.raises(LprfError, match="another run is writing it"):
            mine.write(readings(Origin("a.jpg")))
        other.communicate("\n")
    assert path.read_text() == "theirs\n"


def test_a_line_of_jsonl_is_as_the_issue_says(tmp_path: Path) -> None:
    sink = jsonl(tmp_path / "new" / "out.jsonl")
    sink.write(readings(Origin("照片/a.jpg"), corners=True))
    sink.write(readings(Origin("v.mp4", 12, 0.48), text=None))
    sink.write(readings(Origin("crop.png"), given=True))
    sink.fail("photos/\udcff.jpg", "the file is empty")
    assert not (tmp_path / "new" / "out.jsonl").exists()  # not before it is whole
    sink.close()
    raw = (tmp_path / "new" / "out.jsonl").read_bytes()
    lines = raw.decode("utf-8").splitlines()
    first = json.loads(lines[0])
    assert list(first) == [
        *("source", "frame", "time", "text", "confidence", "characters", "alternatives", "box"),
        *("detection_score", "corners"),
    ]
    assert first == {
        "source": "照片/a.jpg",
        "frame": 0,
        "time": None,
        "text": "沪A12345",
        "confidence": pytest.approx(0.91, abs=1e-6),
        "characters": [0.99] * 7,
        "alternatives": [["沪A12345", 0.91], ["沪A1234Q", 0.03]],
        "box": [20, 30, 90.25, 60],
        "detection_score": pytest.approx(0.98765, abs=1e-4),
        "corners": [[20, 30], [90, 32], [89, 60], [21, 58]],
    }
    assert "沪A12345" in lines[0]  # readable as it stands
    second = json.loads(lines[1])
    assert (second["frame"], second["time"], second["text"], second["corners"]) == (12, 0.48, "", None)
    assert (second["confidence"], second["characters"], second["alternatives"]) == (0, [], [])
    assert json.loads(lines[2])["detection_score"] is None
    assert lines[3] == '{"source": "photos/\\udcff.jpg", "error": "the file is empty"}'
    assert os.fsencode(json.loads(lines[3])["source"]) == b"photos/\xff.jpg"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out.jsonl"]


def test_detections_alone_have_lines_too(tmp_path: Path) -> None:
    sink = jsonl(tmp_path / "out.jsonl")
    sink.write(detections=readings(Origin("a.jpg")).plates.detections)
    sink.close()
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert (line["text"], line["detection_score"]) == ("", 0.9876) or line["detection_score"] == 0.9877


def test_an_old_file_stays_until_the_new_one_is_whole_and_follow_writes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    sink = jsonl(path)
    sink.write(readings(Origin("a.jpg")))
    assert path.read_text() == "old"
    sink.close()
    assert json.loads(path.read_text())["source"] == "a.jpg"
    follow = jsonl(path, follow=True)
    follow.write(readings(Origin("b.jpg")))
    assert [json.loads(line)["source"] for line in path.read_text().splitlines()] == ["a.jpg", "b.jpg"]
    follow.close()


def test_what_a_killed_run_had_is_kept_once_more(tmp_path: Path) -> None:
    path, before = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part.before"
    path.with_name("out.jsonl.part").write_text("saved\n")
    sink = jsonl(path)
    sink.write(readings(Origin("a.jpg")))
    assert before.read_text() == "saved\n"
    sink.close()
    assert json.loads(path.read_text())["source"] == "a.jpg"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", before.name]


def test_a_table_that_is_followed_has_one_header(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    for name in ("a.jpg", "b.jpg"):
        sink = Csv(io_params.CsvParams(path=str(path), follow=True), None)  # type: ignore[arg-type]
        sink.write(readings(Origin(name)))
        sink.close()
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    assert [line.partition(",")[0] for line in lines] == ["source", "a.jpg", "b.jpg"]


def test_names_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Table(io_params.TableParams(), None)  # type: ignore[arg-type]
    sink.write(readings(Origin("\x1b[31m\nb.jpg")))
    out = capsys.readouterr().out
    assert "\\x1b[31m\\nb.jpg" in out and "\x1b[31m" not in out and len(out.splitlines()) == 2


def test_of_a_full_disk_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = jsonl(tmp_path / "out.jsonl")
    sink.write(readings(Origin("a.jpg")))
    assert sink.file.file is not None
    monkeypatch.setattr(sink.file.file, "close", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    sink.abandon()
    assert sink.output == str(tmp_path / "out.jsonl.part")


def test_links_stay_links_and_devices_devices(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    sink = jsonl(tmp_path / "link.jsonl")
    sink.write(readings(Origin("a.jpg")))
    sink.close()
    assert (tmp_path / "link.jsonl").is_symlink()
    assert json.loads((tmp_path / "real.jsonl").read_text())["source"] == "a.jpg"
    null = jsonl(Path("/dev/null"))
    null.write(readings(Origin("a.jpg")))
    null.close()
    assert Path("/dev/null").is_char_device()


def test_no_readings_leave_an_empty_file(tmp_path: Path) -> None:
    jsonl(tmp_path / "out.jsonl").close()
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    with pytest.raises(LprfError, match="is a folder"):
        jsonl(tmp_path)


def test_csv_opens_in_a_spreadsheet(tmp_path: Path) -> None:
    sink = Csv(io_params.CsvParams(path=str(tmp_path / "out.csv")), None)  # type: ignore[arg-type]
    sink.write(readings(Origin('with "quotes", a comma.jpg')))
    sink.write(readings(Origin("\udcff.jpg", 3, 0.1), text=None))
    sink.fail("b.jpg", "truncated")
    sink.close()
    raw = (tmp_path / "out.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfsource,") and raw.count(b"\r\n") == 4
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["source"] == 'with "quotes", a comma.jpg'
    assert [rows[0][name] for name in ("text", "x1", "y2")] == ["沪A12345", "20.0", "60.0"]
    assert float(rows[0]["confidence"]) == pytest.approx(0.91)
    assert (rows[1]["source"], rows[1]["frame"], rows[1]["text"]) == ("\\udcff.jpg", "3", "")
    assert (rows[2]["source"], rows[2]["error"], rows[2]["text"]) == ("b.jpg", "truncated", "")


def test_the_table_in_a_pipe_has_plain_aligned_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(io_params.TableParams(limit=3), None)  # type: ignore[arg-type]
    table.write(readings(Origin("a.jpg")))
    table.write(readings(Origin("long/" * 40 + "b.jpg"), text="A1"))
    table.write(readings(Origin("[bold]c\udcff.jpg", 7), text=None))
    table.write(readings(Origin("d.jpg")))
    table.close()
    head, *rows, more = capsys.readouterr().out.splitlines()
    assert head.split() == ["plate", "confidence", "box", "source"]
    assert "\x1b" not in head
    assert rows[0].split() == ["沪A12345", "91.0%", "20", "30", "90", "60", "a.jpg"]
    assert rows[1].endswith("long/" * 40 + "b.jpg")  # never broken
    assert rows[2].split() == ["–", "0.0%", "20", "30", "90", "60", "[bold]c\\udcff.jpg", "#7"]
    assert rows[1].index("91.0%") == head.index("confidence") == rows[0].index("91.0%") + 1  # 沪 has two cells
    assert more == "… 1 more"


def test_a_text_that_fits_no_format_is_kept_and_flagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(io_params.TableParams(), None)  # type: ignore[arg-type]
    sheet = Csv(io_params.CsvParams(path=str(tmp_path / "out.csv")), None)  # type: ignore[arg-type]
    for text, fits in (("沪A12345", True), ("沪AAAAAA", False), ("A1", None)):
        reading = replace(readings(Origin("a.jpg"), text=text), fits=None if fits is None else [fits])
        table.write(reading)
        sheet.write(reading)
    table.close()
    sheet.close()
    _, good, strange, unasked, told = capsys.readouterr().out.splitlines()
    assert good.split()[:2] == ["沪A12345", "91.0%"] and unasked.split()[:2] == ["A1", "91.0%"]
    assert strange.split()[:3] == ["沪AAAAAA", "?", "91.0%"]
    assert told == "? fits no pattern of the plate format: 1 of 3"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text("utf-8-sig"), newline="")))
    assert [(row["text"], row["fits"]) for row in rows] == [("沪A12345", "true"), ("沪AAAAAA", "false"), ("A1", "")]


def annotate(path: Path, **params: Any) -> Annotate:
    return Annotate(io_params.AnnotateParams(path=str(path), **params), None)  # type: ignore[arg-type]


def put(sink: Annotate, origin: Origin, **changes: Any) -> None:
    value = readings(origin, **changes)
    sink.write(frames=value.plates.detections.frames, readings=value)


def test_pictures_of_one_name_from_several_folders_do_not_meet(tmp_path: Path) -> None:
    sink = annotate(tmp_path / "out")
    names = ["x/a.jpg", "y/a.jpg", "z/a.webp", "z/a.png", "\udcff.jpg", "车.jpg", "x/" + "l" * 251 + ".jpg"]
    names += ["y/" + "l" * 251 + ".jpg"]
    for name in names:
        put(sink, Origin(name))
    put(sink, Origin("x/a.jpg"))  # the same again is the same again
    sink.close()
    written = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(written) == len(names)
    assert {"a.jpg", "a.png", "\udcff.jpg", "车.jpg"} <= set(written)
    for path in (tmp_path / "out").iterdir():
        assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR).shape == (80, 120, 3)
    for index in (0, 1):
        put(sink, Origin("v.mp4", index, index / 10))
    assert {"v-000000.jpg", "v-000001.jpg"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_photo_is_never_replaced_by_its_drawing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"mine")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jpg").write_bytes(b"another")
    for name in ("a.jpg", "deep/a.jpg"):
        with pytest.raises(LprfError, match=f"{name}: lies where what is drawn goes"):
            put(annotate(tmp_path), Origin(str(tmp_path / name)))
    assert (tmp_path / "a.jpg").read_bytes() == b"mine"
    (tmp_path / "v.mp4").write_bytes(b"mine, too")
    with pytest.raises(LprfError, match=r"v\.mp4: lies where what is drawn goes"):
        put(annotate(tmp_path / "v.mp4"), Origin(str(tmp_path / "v.mp4"), 0, 0.0))
    assert (tmp_path / "v.mp4").read_bytes() == b"mine, too"
    with pytest.raises(LprfError, match="is a file; a folder"):
        annotate(tmp_path / "a.jpg")


def reading(text: str, box: tuple[float, float, float, float], corners: Any = None) -> Reading:
    return Reading("a", 0, None, text, 0.9, [], [], box, 0.5, corners)


@pytest.mark.parametrize("box", [(20.0, 60.0, 90.0, 90.0), (0.0, 0.0, 30.0, 10.0), (170.0, 90.0, 200.0, 100.0)])
def test_the_box_and_its_text_lie_in_the_picture(box: tuple[float, float, float, float]) -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    draw(image, [reading("沪A12345", box)])
    x1, y1, x2, y2 = map(int, box)
    for y, x in [(y1, x1), (y2 - 1, x1), (y2 - 1, x2 - 1), (y1, x2 - 1)]:
        assert (image[y, x] != 90).any()
    assert (image < 70).all(axis=2).sum() > 30  # the dark of the letters


def test_corners_are_drawn_in_place_of_the_box() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    tilted = reading("", (20, 60, 90, 90), [(20, 70), (90, 60), (90, 80), (20, 90)])
    draw(image, [replace(tilted, detection_score=None)])
    assert (image[60:63, 20:40] == 90).all()  # the corner of the box
    assert (image[70, 20] != 90).any() and (image[80, 89] != 90).any()


def test_chinese_is_drawn_as_such() -> None:
    """Another province is another picture, and not a box that stands for what the font has not."""
    drawn = []
    for text in ("沪A12345", "京A12345", "粤A12345"):
        image = np.full((200, 400, 3), 90, np.uint8)
        draw(image, [reading(text, (50, 100, 150, 130))])
        drawn.append(image)
    assert hasattr(cv2, "FontFace") is (not np.array_equal(drawn[0], drawn[1]))
    if hasattr(cv2, "FontFace"):
        assert not np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[1], drawn[2])


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (12, 400)])
def test_the_smallest_pictures_can_be_drawn_on(size: tuple[int, int]) -> None:
    draw(np.zeros((*size, 3), np.uint8), [reading("沪A12345", (0, 0, size[1], size[0]), [(0, 0)] * 4)])


def test_a_text_that_fits_no_format_is_marked() -> None:
    drawn = {}
    for fits in (None, True, False):
        image = np.zeros((200, 400, 3), np.uint8)
        draw(image, [replace(reading("A12345", (50, 100, 60, 110)), fits=fits)])
        drawn[fits] = np.flatnonzero(image.any(axis=(0, 2)))[-1]  # how far to the right
    assert drawn[None] == drawn[True] < drawn[False]


def test_only_pictures_with_plates(tmp_path: Path) -> None:
    sink = annotate(tmp_path, only_found=True)
    value = readings(Origin("a.jpg"))
    nothing = value.plates.detections.rows(torch.tensor([], dtype=torch.int64))
    sink.write(frames=nothing.frames, detections=nothing)
    put(sink, Origin("b.jpg"))
    assert [path.name for path in tmp_path.iterdir()] == ["b.jpg"]


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_is_whole_and_as_fast_as_its_frames(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"out{suffix}"
    sink = annotate(path)
    for index in range(12):
        put(sink, Origin("v.mp4", 2 * index, index / 5), size=(80, 120) if index < 9 else (40, 60))
    assert not path.exists()
    sink.close()
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == 12
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    one = annotate(tmp_path / f"one{suffix}")
    put(one, Origin("v.mp4", 0, 0.0))
    one.close()
    assert cv2.VideoCapture(str(tmp_path / f"one{suffix}")).read()[0]
    annotate(tmp_path / f"none{suffix}").close()
    assert not (tmp_path / f"none{suffix}").exists()
    assert annotate(tmp_path / f"none{suffix}").output is None  # it is not said to be written
    assert one.output == str(tmp_path / f"one{suffix}")


def test_the_video_of_a_run_that_fails_stays_beside_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "out.avi"
    path.write_text("earlier")
    sink = annotate(path)
    put(sink, Origin("v.mp4", 0, 0.0))
    sink.abandon()
    assert sink.output is None
    put(sink, Origin("v.mp4", 1, 0.1))
    put(sink, Origin("v.mp4", 2, 0.2))
    sink.abandon()
    assert path.read_text() == "earlier"
    assert sink.output is not None and sink.output != str(path) and Path(sink.output).stat().st_size


def test_a_video_that_the_disk_did_not_take_is_an_error(tmp_path: Path) -> None:
    sink = annotate(tmp_path / "out.avi")
    for index in range(5):
        put(sink, Origin("v.mp4", index, index / 5))
    sink.written += 3  # as if OpenCV had said nothing of three that did not fit
    with pytest.raises(LprfError, match="only 5 of 8 frames could be written"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ through the command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sinks")
    (folder / "everything.py").write_text(EVERYTHING)
    (folder / "photos").mkdir()
    for index in range(6):
        picture = np.full((60, 80, 3), 20 * index, np.uint8)
        (folder / "photos" / f"{index}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def command(*given: str) -> list[str]:
    words = ["run", "detect-plates", "--plugin", "everything.py", "-s", "detect.uses=everything.detector"]
    overrides = [part for text in ("images.path=photos", *given) for part in ("-s", text)]
    return [sys.executable, "-m", "lprf", *words, *overrides]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_a_clear_error(place: Path) -> None:
    done = run(*command("jsonl.path=/dev/full"), cwd=place)
    assert done.returncode == 2
    assert f"lprf: jsonl (core.jsonl): /dev/full: {os.strerror(errno.ENOSPC)}\n" in done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert Path("/dev/full").is_char_device()


def test_a_place_that_cannot_be_written_is_a_clear_error(place: Path) -> None:
    done = run(*command("jsonl.path=/proc/nowhere/out.jsonl"), cwd=place)
    assert done.returncode == 2
    assert re.search(r"^lprf: jsonl \(core\.jsonl\): /proc/nowhere: ", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    (place / "taken").write_text("a file")
    done = run(*command("jsonl.path=taken/out.jsonl"), cwd=place)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_results_go_to_standard_output_and_the_rest_to_the_other(place: Path) -> None:
    done = run(*command("jsonl.path=-", "table.limit=0"), cwd=place)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["source"] for line in lines] == [f"photos/{i}.png" for i in range(6)]
    assert re.search(r"^6 photos, 6 plates, 0 read, 0 failed; [\d.]+ s, [\d.]+ photos a second$", done.stderr, re.M)
    assert "\x1b" not in done.stderr + done.stdout
    where = run(*command("jsonl.path=found/out.jsonl"), cwd=place)
    assert "written: found/out.jsonl\n" in where.stderr


@pytest.mark.parametrize("given", [("jsonl.path=-", "table.limit=0"), ("jsonl.path=out.jsonl",)])
def test_a_reader_that_goes_away_ends_the_run_quietly(place: Path, given: tuple[str, ...]) -> None:
    (place / "out.jsonl").write_text("earlier")
    process = subprocess.Popen(
        command(*given), cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert re.match(r"\d photos, \d plates", said), said
    assert "Traceback" not in said and "Broken" not in said
    assert (place / "out.jsonl").read_text() == "earlier"


def test_on_a_terminal_a_bar_moves_under_the_table(place: Path) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command("jsonl.path=out.jsonl", "runtime.batch=1"),
        cwd=place,
        env={**os.environ, "PYTHONUTF8": "1", "TERM": "xterm", "COLUMNS": "60"},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "photos" in text and "━" in text  # the bar
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    rows = [line.split("\r")[-1] for line in plain.replace("\r\n", "\n").split("\n")]  # what the bar is written over
    for index in range(6):
        assert f"–            100.0%     0 0 80 60                photos/{index}.png" in rows
    assert any(row.startswith("6 photos, 6 plates") for row in rows)

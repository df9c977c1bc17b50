"""Video: files that are whole, cut or none; cameras and streams that come, go and come back."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from lprf.builtin import video
from lprf.builtin.io_params import VideoParams
from lprf.builtin.video import Video
from lprf.data import Item
from lprf.errors import InputFailure, LprfError
from lprf.stream import Graph, Summary

sys.path.insert(0, str(Path(__file__).parent))
import echo
from test_stream import graph


def write_video(path: Path, frames: int, fps: float = 10, size: tuple[int, int] = (64, 48)) -> Path:
    """A video whose frame i is grey of 8 i."""
    code = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(str(path), code, fps, size)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 8 * (i % 30), np.uint8))
    writer.release()
    return path


def source(path: Path | str | int, **params: Any) -> Video:
    given = str(path) if isinstance(path, Path) else path
    return Video(VideoParams.model_validate({"path": given, **params}), None)  # type: ignore[arg-type]


def values(items: Iterator[Item]) -> list[tuple[int, float | None, int]]:
    """(index, time, grey) of each frame."""
    found = []
    for item in items:
        image = item.load()
        assert isinstance(image, np.ndarray)
        found.append((item.origin.index, item.origin.time, round(float(image.mean()))))
    return found


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
@pytest.mark.parametrize("every", [1, 3])
def test_every_nth_frame_with_its_time(suffix: str, every: int, tmp_path: Path) -> None:
    made = source(write_video(tmp_path / f"drive{suffix}", 20), every=every)
    assert not made.live
    assert made.total == -(-20 // every)
    found = values(made.items())
    assert [(index, seconds) for index, seconds, _ in found] == [(i, i / 10) for i in range(0, 20, every)]
    for index, _, grey in found:
        assert abs(grey - 8 * index) <= 6  # lossy, and less than to the next
    assert values(made.items()) == found  # and again


def failures(items: Iterator[Item]) -> tuple[int, list[str]]:
    """How many frames were good, and what the others say."""
    good, reasons = 0, []
    for item in items:
        try:
            item.load()
            good += 1
        except InputFailure as failure:
            reasons.append(failure.reason)
    return good, reasons


def test_broken_videos_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("dear diary")
    for name in ("empty.mp4", "text.mp4"):
        assert failures(source(tmp_path / name).items()) == (0, ["cannot be opened as a video"])
    whole = write_video(tmp_path / "whole.avi", 100, size=(320, 240)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    good, reasons = failures(source(tmp_path / "cut.avi").items())
    assert 20 < good < 80
    assert all(reason.startswith(("ends after frame", "a frame that cannot")) for reason in reasons)
    with pytest.raises(LprfError, match="there is no such file"):
        _ = source(tmp_path / "missing.mp4").total
    with pytest.raises(LprfError, match="is not a video file"):
        _ = source(tmp_path).total
    with pytest.raises(LprfError, match="whose name is not Unicode"):
        (tmp_path / "\udcff.mp4").touch()
        _ = source(f"{tmp_path}/\udcff.mp4").total


class Camera(BaseHTTPRequestHandler):
    """A camera on this machine that sends MJPEG: twelve frames, and then the line is lost; each time it is asked."""

    asked = 0

    def do_GET(self) -> None:
        Camera.asked += 1
        if Camera.asked == 2:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
        for _ in range(12):
            self.wfile.write(head + jpeg + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


def test_a_real_stream_that_ends_and_comes_back() -> None:
    """By way of OpenCV's own network code; the second time it asks, the camera is not ready."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = source(f"http://127.0.0.1:{server.server_address[1]}/stream", reconnect=0.01)
        items = made.items()
        indices = []
        while made.reconnects < 2 or len(indices) < 30:
            item = next(items)
            image = item.load()
            assert isinstance(image, np.ndarray) and image.shape == (48, 64, 3)
            indices.append(item.origin.index)
        made.stop()
        items.close()  # type: ignore[attr-defined]
        server.shutdown()
    assert indices == list(range(len(indices)))
    assert Camera.asked >= 4


class Fake:
    """A capture that follows `script`: each opening gives that many frames and is lost; None is no opening."""

    script: ClassVar[list[int | None]] = []
    opened = 0

    def __init__(self, *_: Any):
        count = Fake.script[Fake.opened] if Fake.opened < len(Fake.script) else None
        Fake.opened += 1
        self.left = count or 0

    def grab(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, echo.picture(1)

    def release(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(video.cv2, "VideoCapture", Fake)
    Fake.script, Fake.opened = [], 0
    return Fake


@pytest.mark.parametrize("path", ["rtsp://camera.local/stream", 0])
def test_a_lost_stream_is_opened_again(path: str | int, fake: type[Fake]) -> None:
    fake.script = [3, None, 2, 4]
    made = source(path, reconnect=0.001, attempts=3)
    assert made.live and made.total is None
    assert failures(made.items()) == (9, ["could not be opened, 3 times in a row"])
    assert made.reconnects == 2
    assert fake.opened == 4 + 3


def test_a_stream_that_is_not_there(fake: type[Fake]) -> None:
    with pytest.raises(LprfError, match=r"rtsp://x: cannot be opened"):
        list(source("rtsp://x", reconnect=0).items())
    fake.script, fake.opened = [2, 5], 0
    assert failures(source("rtsp://x", reconnect=0).items()) == (2, [])  # lost, it ends


def test_waiting_for_a_lost_stream_can_be_ended(fake: type[Fake]) -> None:
    fake.script = [1]
    made = source("rtsp://x", reconnect=3600)
    items = made.items()
    next(items)
    threading.Timer(0.05, made.stop).start()
    began = time.monotonic()
    assert list(items) == []
    assert time.monotonic() - began < 60


def test_a_lost_stream_goes_on_through_a_whole_run(fake: type[Fake], tmp_path: Path) -> None:

    echo.reset()
    fake.script = [1, None, 1, 1]
    made: Graph = graph(tmp_path)
    live = source("rtsp://x", reconnect=0.05, attempts=2)
    summary = Summary()
    results = list(made.results(live, keep=[], summary=summary))
    assert [(r.origin.index, r.reason) for r in results if r.reason] == [(3, "could not be opened, 2 times in a row")]
    assert summary.failed == 1
    assert summary.reconnects == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "lprf-live"]


def test_what_is_waited_for_is_told(fake: type[Fake], caplog: pytest.LogCaptureFixture) -> None:
    assert fake.script == []  # it never opens
    list(source("rtsp://user:secret@camera/1", attempts=2, reconnect=0.01).items())
    assert "rtsp://camera/1: cannot be opened; trying again in 0.01 s" in caplog.text
    assert "secret" not in caplog.text
    assert source("rtsp://user:secret@camera/1").label == "rtsp://camera/1"


def test_a_camera_has_no_negative_number() -> None:
    """OpenCV crashes on one."""
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        VideoParams(path=-1)

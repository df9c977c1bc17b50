"""`lprf doctor`: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lprf.errors import PluginError, WeightsError

EXAMPLES = """\
Each line says ok, warn or fail, and what to do where it is not ok. The exit code is 1 where something failed.

Examples:
  lprf doctor
"""


@dataclass(frozen=True)
class Finding:
    """What one check says: a state, what was seen, and what to do where the state is not "ok"."""

    state: str
    seen: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    failed = False
    for name, check in CHECKS.items():
        try:
            finding = check()
        except Exception as error:
            finding = Finding("fail", f"{type(error).__name__}: {error}", "the package may be broken: reinstall it")
        print(f"{finding.state:<5} {name:<10} {finding.seen}", flush=True)
        if finding.remedy:
            print(f"{'':<16} -> {finding.remedy}")
        failed = failed or finding.state == "fail"
    return 1 if failed else 0


def _python() -> Finding:
    from importlib.metadata import version

    seen = f"{sys.version.split()[0]} at {sys.executable}; lprf {version('lprf')}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("warn", seen, "LPRF is tested with Python 3.11 to 3.13")
    return Finding("ok", seen)


def _torch() -> Finding:
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        return Finding("fail", torch.__version__, 'pip install "torch>=2.6"')
    return Finding("ok", torch.__version__)


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("ok", f"{', '.join(names)}; {memory:.0f} GiB on the first")
    if shutil.which("nvidia-smi"):
        return Finding(
            "warn",
            f"cpu only, though an NVIDIA driver is here (torch was built for CUDA {torch.version.cuda})",
            "install the torch build that fits the driver (`nvidia-smi` shows its CUDA version)",
        )
    return Finding("ok", "cpu (torch sees no GPU)")


def _backend() -> Finding:
    import torch

    from lprf import backend
    from lprf.recipe import Runtime

    there = [name for name in backend.MODULES if backend.installed(name)]
    used = backend.pick(Runtime(), torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    remedy = "" if "openvino" in there or torch.cuda.is_available() else "pip install 'lprf[openvino]' reads faster"
    return Finding("ok", f"{used} by default; here are {', '.join(map(backend.named, there))}", remedy)


def _opencv() -> Finding:
    import cv2

    if not hasattr(cv2, "FontFace"):
        return Finding(
            "warn",
            f"{cv2.__version__}, without a font that has Chinese characters",
            'pip install "opencv-python>=5" to have them drawn on pictures',
        )
    return Finding("ok", f"{cv2.__version__}, draws Chinese text")


def _codecs() -> Finding:
    import cv2
    import numpy as np

    frame = np.full((64, 64, 3), 128, np.uint8)
    missing = [name for name in ("jpg", "png", "webp", "tiff", "bmp") if not cv2.imencode(f".{name}", frame)[0]]
    with tempfile.TemporaryDirectory(prefix="lprf-") as folder:
        path = str(Path(folder) / "try.mp4")
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
        for _ in range(3):
            writer.write(frame)
        writer.release()
        reader = cv2.VideoCapture(path)
        if not reader.read()[0]:
            missing.append("mp4 video")
        reader.release()
    if missing:
        return Finding("warn", f"OpenCV cannot write and read {', '.join(missing)}", "pip install opencv-python")
    return Finding("ok", "jpg, png, webp, tiff, bmp, mp4")


def _threads() -> Finding:
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seen = f"{torch.get_num_threads()} for networks, {allowed} CPU cores allowed"
    if torch.get_num_threads() > allowed:
        return Finding("warn", seen, f"set OMP_NUM_THREADS={allowed}, or runtime.threads in the recipe")
    return Finding("ok", seen)


def _plugins() -> Finding:
    from lprf.plugins import installed

    found = installed()
    loaded = found.load_all()
    if found.failures:
        return Finding("fail", f"broken: {', '.join(sorted(found.failures))}", "`lprf plugins` says what is wrong")
    return Finding("ok", ", ".join(plugin.name for plugin in loaded))


def _weights() -> Finding:
    from lprf import weights
    from lprf.component import WeightsParam, marked
    from lprf.plugins import installed

    wanted: dict[str, str] = {}
    for plugin in installed().load_all():
        for name, component in plugin.components.items():
            for param in marked(component.params, WeightsParam):
                default = component.params.model_fields[param].default
                if isinstance(default, str):
                    wanted.setdefault(default, f"{plugin.name}.{name}")
    missing = []
    for name, user in wanted.items():
        try:
            weights.find(name)
        except (WeightsError, PluginError):
            missing.append(f"{name} (of {user})")
    if missing:
        return Finding("fail", f"missing: {', '.join(missing)}", "`lprf weights list` shows what is here")
    return Finding("ok", ", ".join(info.name for info in weights.available()))


def _folders() -> Finding:
    from lprf.weights import home

    faults = []
    for name, folder in [("the current folder", Path.cwd()), ("LPRF's data folder", home())]:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(nearest, os.W_OK | os.X_OK):
            faults.append(f"{name} ({folder}) cannot be written")
    if faults:
        return Finding("warn", "; ".join(faults), "run from a folder of your own; LPRF_HOME moves the data folder")
    return Finding("ok", f"runs/ goes to {Path.cwd()}, imported weights to {home() / 'weights'}")


def _terminal() -> Finding:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        return Finding("warn", f"the terminal's encoding is {encoding}", "set PYTHONUTF8=1 to see Chinese")
    return Finding("ok", "UTF-8")


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "torch": _torch,
    "device": _device,
    "backend": _backend,
    "opencv": _opencv,
    "codecs": _codecs,
    "threads": _threads,
    "plugins": _plugins,
    "weights": _weights,
    "folders": _folders,
    "terminal": _terminal,
}

"""`ccpd.dataset`: pictures whose names are their labels, so that indexing reads folders and nothing else."""

from __future__ import annotations

import hashlib
import os
import re
from functools import partial
from pathlib import Path

import numpy as np

from lprf.api import Context, Example, LprfError, Truth
from lprf.builtin.datasets import pictures_in, read_picture
from lprf_ccpd.names import parse
from lprf_ccpd.plugin import CcpdParams

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_SUBSET = re.compile(r"ccpd_([a-z]+)", re.IGNORECASE)
_RELEASE = re.compile(r"ccpd[-_]?(2018|2019|2020)", re.IGNORECASE)


class CcpdDataset:
    """CCPD as a Dataset: one plate a picture, none in the pictures of `np`; the subset is the group.

    Sources are paths relative to the root (with several roots, the number of the root stands before them), in
    sorted order. `problems` names every picture whose name is malformed, and every listed one that is not there.
    Attributes: province, colour, subset, release, tilt_horizontal and tilt_vertical (degrees, 90 upright),
    brightness, blurriness. Raises LprfError where a root is missing or holds nothing of what is asked for.
    """

    def __init__(self, params: CcpdParams, context: Context | None = None):
        self.problems: list[str] = []
        self._pictures: list[tuple[str, Path, str, str]] = []  # source, path, subset, release
        roots = [params.root] if isinstance(params.root, str) else params.root
        for number, root_name in enumerate(roots):
            root = Path(root_name)
            if not root.is_dir():
                raise LprfError(f"CCPD's folder is not there: {root}")
            prefix = f"{number}/" if len(roots) > 1 else ""
            before = len(self._pictures)
            listed = _listed(root, params)
            for name in listed if params.split is not None else pictures_in(root, _SUFFIXES):
                self._add(root, name, prefix, params, listed.get(name, ""))
            if len(self._pictures) == before:
                what = "" if params.subsets is None else f" of {', '.join(params.subsets)}"
                example = f"; for example {self.problems[-1]}" if self.problems else ""
                raise LprfError(f"{root} holds no pictures{what} with CCPD's names{example}")

    def run(self) -> dict[str, CcpdDataset]:
        return {"dataset": self}

    def _add(self, root: Path, name: str, prefix: str, params: CcpdParams, listed: str) -> None:
        path = root / name
        subset = _subset(root, name)
        if params.subsets is not None and subset not in params.subsets:
            return
        if listed and not os.path.isfile(path):  # noqa: PTH113  # Path's own raises where a name is too long
            self.problems.append(f"{prefix}{name}: listed in {listed}, but not there")
            return
        if subset != "np":
            try:
                parse(path.stem)
            except ValueError as error:
                self.problems.append(f"{prefix}{name}: {error}")
                return
        release = _release(root, subset) if params.release == "auto" else params.release
        self._pictures.append((prefix + name, path, subset, release))

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Example:
        source, path, subset, release = self._pictures[index]
        plates: tuple[Truth, ...] = ()
        if subset != "np":
            label = parse(path.stem)
            attributes = {
                "province": label.text[0],
                "colour": "green" if len(label.text) == 8 else "blue",
                "subset": subset,
                "release": release,
                "tilt_horizontal": str(label.tilt[0]),
                "tilt_vertical": str(label.tilt[1]),
                "brightness": str(label.brightness),
                "blurriness": str(label.blurriness),
            }
            plates = (Truth(label.box, np.array(label.corners, np.float32), label.text, attributes),)
        return Example(source, partial(read_picture, path, source), plates, subset)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"ccpd.dataset")
        for source, path, subset, release in self._pictures:  # the name is the label
            size = path.stat().st_size if path.exists() else -1
            digest.update(f"{source}\0{size}\0{subset}\0{release}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _listed(root: Path, params: CcpdParams) -> dict[str, str]:
    """The pictures that split lists name, one a line, sorted, each with the list that names it."""
    names: dict[str, str] = {}
    for path in [params.split] if isinstance(params.split, str) else params.split or []:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise LprfError(f"the split list cannot be read: {path}: {reason}") from None
        for line in lines:
            name = line.strip().replace("\\", "/").removeprefix("./")
            # official lists are relative to the release; the root may be one of its subsets
            if name:
                names.setdefault(name.removeprefix(f"{root.resolve().name}/"), Path(path).name)
    return dict(sorted(names.items()))


def _subset(root: Path, name: str) -> str:
    """The subset, by the nearest folder named `ccpd_…`; "" where no folder says."""
    for part in reversed((*root.resolve().parts, *Path(name).parts[:-1])):
        if match := _SUBSET.fullmatch(part):
            return match.group(1).lower()
    return ""


def _release(root: Path, subset: str) -> str:
    for part in reversed(root.resolve().parts):
        if match := _RELEASE.search(part):
            return match.group(1)
    return "2020" if subset == "green" else "unknown"

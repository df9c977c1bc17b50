"""Rebuild `recipes/samples`: `python -m lprf_synth.build_samples FOLDER`. Scenes and crops that a first run reads."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from lprf.files import replacing
from lprf_synth.crops import SynthPlates
from lprf_synth.plugin import PlatesParams, ScenesParams
from lprf_synth.scenes import Scenes

SCENES = 5
CROPS = 6


def save(image: np.ndarray, path: Path) -> None:
    """Write a JPEG. Raises OSError where the picture cannot be encoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise OSError(f"{path} cannot be encoded")
    with replacing(path) as beside:
        beside.write_bytes(data.tobytes())


def build(folder: Path) -> None:
    params = ScenesParams(
        size=(900, 960), plates=2, widths=(160, 250), countries={"cn": 1}, empty=0, decoys=0.3, difficulty=0.15, seed=8
    )
    scenes = Scenes(params)
    for index in range(SCENES):
        save(scenes[index].image(), folder / "photos" / f"scene-{index + 1}.jpg")
    crops = SynthPlates(PlatesParams(size=(72, 240), difficulty=0.3, seed=8))
    for index in range(CROPS):
        image, text = crops.image_at(index)
        save(image, folder / "crops" / f"{text}.jpg")


if __name__ == "__main__":
    build(Path(sys.argv[1]))

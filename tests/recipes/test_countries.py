"""The readers of other countries that ship: their weights are whole, their recipes read plates rendered as theirs."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

import lprf
from lprf import weights
from lprf_synth.plugin import ScenesParams
from lprf_synth.scenes import Scenes

COUNTRIES = ["eu", "us"]
PHOTOS = 12


@pytest.mark.parametrize("name", [f"{country}-{net}" for country in COUNTRIES for net in ("stn", "lprnet")])
def test_the_weights_are_whole(name: str) -> None:
    assert weights.verify(weights.find(name), ["stn", "lprnet"]) == []


@pytest.mark.parametrize("country", COUNTRIES)
def test_rendered_plates_are_found_and_read(country: str, tmp_path: Path) -> None:
    scenes = Scenes(
        ScenesParams(
            countries={country: 1}, seed=21, size=(480, 640), plates=1, widths=(140, 200), empty=0, difficulty=0.1
        )
    )
    texts = {}
    for index in range(PHOTOS):
        path = tmp_path / f"{index:02}.png"
        assert cv2.imwrite(str(path), scenes[index].image())
        texts[path.name] = {plate.text for plate in scenes[index].plates}
    right = set()
    with lprf.load(f"read-plates-{country}", device="cpu") as reader:
        for reading in reader.run(tmp_path):
            name = Path(reading.source).name
            if reading.text in texts[name]:
                right.add(name)
    assert len(right) >= 0.7 * PHOTOS, f"{len(right)} of {PHOTOS}"

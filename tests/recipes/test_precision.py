"""What other backends and lower precision do to texts, on real plates: the condition under which they are a default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lprf
from lprf import backend
from lprf.bench import differences

WANTED = 0.998  # of plates, as many must read the same

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(not backend.installed(name), reason=f"{name} is not installed"))
    for name in ("openvino", "onnxruntime")
]


def answers(recipe: str, photos: list[str], name: str, precision: str) -> dict[str, list[Any]]:
    reader = lprf.load(recipe, overrides={"runtime.backend": name, "runtime.precision": precision})
    found: dict[str, list[Any]] = {}
    for plate in reader.run(photos):
        found.setdefault(plate.source, []).append((plate.text, plate.box))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS)
def test_what_auto_computes_in_changes_next_to_no_text(name: str, shared_data: Path) -> None:
    plates = differing = 0
    for recipe, folder, most in (
        ("read-crops", "crops/dev-94x24", 600),
        ("read-crops", "crops/dev", 600),
        ("read-plates", "ccpd/dev", 40),
        ("read-plates", "street/dev", 40),
    ):
        photos = [str(path) for path in sorted((shared_data / folder).iterdir()) if path.suffix.lower() != ".csv"][
            :most
        ]
        truth = answers(recipe, photos, "torch", "float32")
        plates += sum(map(len, truth.values()))
        differing += differences(answers(recipe, photos, name, "auto"), truth)["differing"]
    assert plates > 700
    assert differing <= (1 - WANTED) * plates

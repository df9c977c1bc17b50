"""The JSON Schema of recipes, against the recipes that ship and a validator that is not ours."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from lprf.plugins import installed
from lprf.recipe import shipped_recipes
from lprf.schema import recipe_schema


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = recipe_schema(installed())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_fit(validator: Any, name: str) -> None:
    recipe = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(recipe)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lprf: 1", "lprf: one"),
        ("kind: infer", "kind: inferr"),
        ("summary:", "sumary:"),
        ("uses: core.images", "use: core.images"),
        ("min_plate:", "min_plat:"),
        ("min_plate: [50, 15]", "min_plate: small"),
        ("{frames: images.frames}", "{frame: images.frames}"),
    ],
)
def test_mistakes_do_not(validator: Any, old: str, new: str) -> None:
    text = shipped_recipes()["read-plates"].read_text(encoding="utf-8")
    assert old in text
    assert list(validator.iter_errors(yaml.safe_load(text.replace(old, new, 1))))

"""The JSON Schema of recipes, against the recipes that ship and a validator that is not ours."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from lprf.component import KINDS
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


COMPONENTS = {f"{p.name}.{c.name}": c for p in installed().load_all() for c in p.components.values()}


def node(uses: str, **parts: Any) -> dict[str, Any]:
    """A recipe with this node in it; a part that extends another recipe may leave out what that has."""
    return {"lprf": 1, "extends": "x", "graph": {"node": {"uses": uses, **parts}}}


@pytest.mark.parametrize("uses", COMPONENTS)
def test_every_component_is_completed(validator: Any, uses: str) -> None:
    component = COMPONENTS[uses]
    inputs: dict[str, Any] = dict.fromkeys(component.all_inputs(), "a.b")
    assert list(validator.iter_errors(node(uses, inputs=inputs))) == []
    assert list(validator.iter_errors(node(uses, inputs={**inputs, "nonsense": "a.b"})))
    assert list(validator.iter_errors(node(uses, **{"with": {"nonsense": 1}})))
    for name, info in component.params.model_fields.items():
        key = info.alias or name
        assert list(validator.iter_errors(node(uses, **{"with": {key: "${variable}"}}))) == []
        assert list(validator.iter_errors(node(uses, **{"with": {key: {"": [{}]}}}))) or key == "overrides"
    offered = validator.schema["$defs"]["NodeForm"]["properties"]["uses"]["anyOf"]
    assert {"const": uses, "description": component.summary} in offered


def test_each_kind_is_among_them() -> None:
    assert {component.kind for component in COMPONENTS.values()} == set(KINDS)


def test_an_evaluator_of_a_recipe_takes_its_weights_and_no_other_does(validator: Any) -> None:
    rebound = {"inputs": {"dataset": "a.dataset", "read.weights": "b.lprnet"}, "with": {"recipe": "read-plates"}}
    assert list(validator.iter_errors(node("core.evaluate", **rebound))) == []


def test_a_variable_may_stand_for_any_value(validator: Any) -> None:
    recipe = node("mtcnn.detector", **{"with": {"min_plate": ["${width}", 15], "thresholds": "${both}"}})
    recipe["runtime"] = {"batch": "${batch}"}
    assert list(validator.iter_errors(recipe)) == []
    recipe["graph"]["node"]["with"]["min_plate"] = ["width", 15]
    assert list(validator.iter_errors(recipe))

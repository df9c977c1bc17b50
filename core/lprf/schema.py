"""The JSON Schema of recipes, for editors: it completes `uses:` and `with:` from the plugins that are installed."""

from __future__ import annotations

from typing import Any

from lprf.component import Component, RecipeParam, marked
from lprf.plugins import Plugins
from lprf.recipe import RecipeForm

_VARIABLE = {"type": "string", "pattern": r"\$\{[^}]*\}"}  # any value may come from `vars`


def recipe_schema(plugins: Plugins) -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe file, with the components of every plugin that loads."""
    components = {f"{p.name}.{c.name}": c for p in plugins.load_all() for c in p.components.values()}
    schema = RecipeForm.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "LPRF recipe"
    schema["required"] = ["lprf"]  # a recipe that extends another may leave the rest to it
    definitions = schema["$defs"]
    definitions["Runtime"] = _with_variables(definitions["Runtime"])
    node = definitions["NodeForm"]
    node.pop("required", None)
    described = [{"const": uses, "description": component.summary} for uses, component in sorted(components.items())]
    node["properties"]["uses"] = {"anyOf": [*described, {"type": "string"}]}
    node["allOf"] = [
        {
            "if": {"properties": {"uses": {"const": uses}}, "required": ["uses"]},
            "then": {"properties": {"with": {"$ref": f"#/$defs/{uses}"}, "inputs": _inputs(component)}},
        }
        for uses, component in sorted(components.items())
    ]
    for uses, component in components.items():
        definitions[uses] = _params(uses, component, definitions)
    # a node given as null is taken out of the recipe that is extended
    schema["properties"]["graph"]["additionalProperties"] = {"anyOf": [{"$ref": "#/$defs/NodeForm"}, {"type": "null"}]}
    schema["properties"]["graph"].pop("patternProperties", None)
    return schema


def _inputs(component: Component) -> dict[str, Any]:
    ports = {
        name: {"description": f"{port.type}{', optional' if port.optional else ''}"}
        for name, port in component.all_inputs().items()
    }
    found: dict[str, Any] = {"properties": ports, "additionalProperties": False}
    if component.kind == "evaluator" and marked(component.params, RecipeParam):
        found["patternProperties"] = {r"^[^.]+\.[^.]+$": {"description": "weights for node.param of its recipe"}}
    return found


def _params(uses: str, component: Component, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = component.params.model_json_schema(by_alias=True, ref_template=f"#/$defs/{uses}.{{model}}")
    for name, inner in schema.pop("$defs", {}).items():
        definitions[f"{uses}.{name}"] = _with_variables(inner)
    schema.pop("required", None)
    return _with_variables(schema)


def _with_variables(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that takes a variable in place of whatever stands inside a list or a mapping."""
    found = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _or_variable(found[key])
    for key in ("properties", "patternProperties"):
        if key in found:
            found[key] = {name: _or_variable(value) for name, value in found[key].items()}
    if "prefixItems" in found:
        found["prefixItems"] = [_or_variable(value) for value in found["prefixItems"]]
    if "anyOf" in found:
        found["anyOf"] = [_with_variables(value) for value in found["anyOf"]]
    return found


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: schema[key] for key in ("description", "default", "title") if key in schema}
    return {**kept, "anyOf": [_with_variables(schema), _VARIABLE]}

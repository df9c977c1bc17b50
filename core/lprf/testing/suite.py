"""What every component must keep, whatever its kind."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from lprf import weights
from lprf.component import Component, Params
from lprf.context import Context
from lprf.plugins import GROUP, installed
from lprf.recipe import Recipe, load_recipe
from lprf.schema import recipe_schema

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class ComponentSuite:
    """Checks of every kind.

    component: "plugin.component". params: as in a recipe's `with:`. kind: fixed by the suite of a kind.
    plate_size: (h, w) of the plates that the node after it is taken to read.
    """

    component: ClassVar[str] = ""
    params: ClassVar[Mapping[str, Any]] = {}
    plate_size: ClassVar[tuple[int, int]] = (24, 94)
    kind: ClassVar[str] = ""

    @pytest.fixture
    def declared(self) -> Component:
        """The component's declaration."""
        return installed().component(self.component)

    def build(self, device: str = "cpu", **changes: Any) -> Any:
        """The implementation, built as a run builds it."""
        declared = installed().component(self.component)
        return declared.load()(self.validated(declared), self.context(device, **changes))

    def validated(self, declared: Component) -> Params:
        return declared.params.model_validate(dict(self.params))

    def context(self, device: str = "cpu", **changes: Any) -> Context:
        settings = {"plate_size": self.plate_size, "node": "tested", "seed": 7, **changes}
        return Context(torch.device(device), torch.float32, weights.find_and_load, **settings)

    def graph(self) -> str:
        """The nodes of a recipe that uses the component, as YAML; `{component}` stands for it."""
        raise NotImplementedError

    def test_is_of_its_kind(self, declared: Component) -> None:
        assert declared.kind == self.kind, f"{self.component} is a {declared.kind}, this suite is for a {self.kind}"

    def test_declaring_imports_nothing_heavy(self) -> None:
        name = self.component.partition(".")[0]
        [point] = [point for point in importlib.metadata.entry_points(group=GROUP) if point.name == name]
        program = (
            f"import sys, {point.module}\n"
            "heavy = {'torch', 'cv2', 'numpy'} & set(sys.modules)\n"
            f"sys.exit(f'declaring {name} imports {{sorted(heavy)}}' if heavy else 0)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_parameters_are_described(self, declared: Component) -> None:
        schema = recipe_schema(installed())["$defs"][self.component]
        for name, info in declared.params.model_fields.items():
            assert (info.alias or name) in schema["properties"]
            assert info.description, f"the parameter '{name}' has no description"

    def loaded(self, folder: Path) -> Recipe:
        """The recipe of `graph`, written to `folder` and checked, with `params` as overrides."""
        kind = "train" if self.kind in ("dataset", "transform", "sampler", "trainer", "evaluator") else "infer"
        nodes = self.graph().replace("{component}", self.component)
        (folder / "recipe.yaml").write_text(f"lprf: 1\nkind: {kind}\nname: tested\ngraph:\n{nodes}", encoding="utf-8")
        return load_recipe(folder / "recipe.yaml", {f"tested.{name}": value for name, value in self.params.items()})

    def test_a_recipe_with_it_is_valid(self, tmp_path: Path) -> None:
        assert self.loaded(tmp_path).nodes["tested"].uses == self.component

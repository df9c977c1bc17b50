"""The suites of datasets, transforms, samplers, trainers and evaluators."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from lprf import weights
from lprf.component import Component
from lprf.data import Dataset, Example, Truth
from lprf.errors import InputFailure, LprfError
from lprf.plugins import installed
from lprf.testing.infer import frames
from lprf.testing.suite import ComponentSuite
from lprf.training.params import LoopParams

TEXTS = ("京A12345", "沪B6789C", "皖AD12345")


@dataclass(frozen=True)
class Labelled:
    """A dataset in memory: soft noise with a plate-like blue rectangle in each picture, labelled.

    broken: the numbers of pictures that cannot be read.
    """

    count: int = 6
    broken: Sequence[int] = ()
    name: str = "labelled"
    problems: Sequence[str] = ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.count:
            raise IndexError(index)
        row = index % 3
        x, y = 20.0 + 15 * row, 30.0 + 10 * row  # where `frames` draws it
        box = (x, y, x + 94, y + 28)
        corners = np.array([[x, y], [x + 94, y], [x + 94, y + 28], [x, y + 28]], np.float32)
        truth = Truth(box, corners, TEXTS[row], {"province": TEXTS[row][0]})
        return Example(f"{self.name}-{index}", functools.partial(self._image, index), (truth,))

    def _image(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise InputFailure(f"{self.name}-{index}", "broken on purpose")
        image: np.ndarray = frames(3).images[index % 3].numpy().copy()
        return image

    def fingerprint(self) -> str:
        return f"{self.name} {self.count} {list(self.broken)}"


class TrainingSuite(ComponentSuite):
    """What the kinds of training graphs share: inputs, and a recipe that connects them.

    sampler: the component, with `with:` if it needs any, that gives what an input of type Samples takes.
    """

    sampler: ClassVar[str] = "mtcnn.samples, with: {net: pnet}"

    def inputs(self, folder: Path) -> Mapping[str, Any]:
        """What the implementation is run with, by port: a labelled dataset where a Dataset is needed.

        Override it where the component needs samples, weights or other labels; `folder` is for files of theirs.
        """
        given: dict[str, Any] = {}
        for name, port in installed().component(self.component).all_inputs().items():
            if port.type == "Dataset" and not port.optional:
                given[name] = [Labelled()] if port.many else Labelled()
        return given

    def graph(self) -> str:
        declared = installed().component(self.component)
        refs = {"Dataset": "data.dataset", "Samples": "samples.samples"}
        ports = {name: port.type for name, port in declared.all_inputs().items() if not port.optional}
        links = ", ".join(f"{name}: {refs[kind]}" for name, kind in ports.items())
        nodes = "  data: {uses: core.labelled-crops, with: {path: .}}\n"
        if "Samples" in ports.values():
            uses, _, rest = self.sampler.partition(",")
            nodes += f"  samples: {{uses: {uses}, inputs: {{dataset: data.dataset}}{',' + rest if rest else ''}}}\n"
        return nodes + f"  tested: {{uses: {{component}}, inputs: {{{links}}}}}\n"

    def run(self, folder: Path, inputs: Mapping[str, Any] | None = None, **changes: Any) -> tuple[Any, dict[str, Any]]:
        """Build the implementation as a stage does and run it in `folder`: itself, and its outputs by port."""
        folder.mkdir(parents=True, exist_ok=True)
        given = self.inputs(folder.parent / f"{folder.name} inputs") if inputs is None else inputs
        torch.manual_seed(7)
        implementation = self.build(folder=folder, **changes)
        return implementation, dict(implementation.run(**given))


class DatasetSuite(TrainingSuite):
    """Checks of a dataset. `params` must name data that are there; pictures that cannot be read are allowed."""

    kind: ClassVar[str] = "dataset"

    def graph(self) -> str:
        return "  tested: {uses: {component}}\n"

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Any:
        return self.run(tmp_path / "run")[1]["dataset"]

    def test_examples_are_labelled_pictures(self, dataset: Dataset) -> None:
        check_dataset(dataset)

    def test_the_same_every_time(self, dataset: Dataset, tmp_path: Path) -> None:
        again = self.run(tmp_path / "again")[1]["dataset"]
        check_same(dataset, again)


class TransformSuite(TrainingSuite):
    """Checks of a transform."""

    kind: ClassVar[str] = "transform"

    def test_outputs_are_datasets(self, tmp_path: Path, declared: Component) -> None:
        _, outputs = self.run(tmp_path / "run")
        assert set(outputs) <= set(declared.all_outputs())
        for dataset in outputs.values():
            check_dataset(dataset)

    def test_the_same_every_time(self, tmp_path: Path) -> None:
        first, second = self.run(tmp_path / "run")[1], self.run(tmp_path / "again")[1]
        assert first.keys() == second.keys()
        for port in first:
            check_same(first[port], second[port])

    def test_a_fingerprint_follows_what_goes_in(self, tmp_path: Path) -> None:
        given = self.inputs(tmp_path)
        other = {name: [_Renamed(d) for d in v] if isinstance(v, list) else _Renamed(v) for name, v in given.items()}
        first, second = self.run(tmp_path / "run", given)[1], self.run(tmp_path / "other", other)[1]
        for port in first:
            assert first[port].fingerprint() != second[port].fingerprint(), f"{port} has the same with other data"


class SamplerSuite(TrainingSuite):
    """Checks of a sampler. `params` should make few samples."""

    kind: ClassVar[str] = "sampler"

    def test_samples_are_loaded_again_as_they_were_made(self, tmp_path: Path) -> None:
        _, outputs = self.run(tmp_path / "run")
        samples = outputs["samples"]
        if isinstance(samples, str | Path):
            assert Path(samples).resolve().is_relative_to((tmp_path / "run").resolve()), "written outside of the folder"
            assert Path(samples).exists()
            return
        again = self.build(folder=tmp_path / "run").load()["samples"]
        assert plain(again) == plain(samples)

    def test_the_same_every_time(self, tmp_path: Path) -> None:
        first, second = self.run(tmp_path / "run")[1]["samples"], self.run(tmp_path / "again")[1]["samples"]
        assert plain(first) == plain(second)

    def test_workers_change_nothing(self, tmp_path: Path) -> None:
        first = self.run(tmp_path / "run")[1]["samples"]
        second = self.run(tmp_path / "again", workers=2)[1]["samples"]
        assert plain(first) == plain(second)

    def test_a_picture_that_cannot_be_read_ends_nothing(self, tmp_path: Path) -> None:
        given = dict(self.inputs(tmp_path))
        given["dataset"] = Labelled(broken=[1])
        self.run(tmp_path / "run", given)

    def test_an_empty_dataset_is_an_error_in_words(self, tmp_path: Path) -> None:
        given = dict(self.inputs(tmp_path))
        given["dataset"] = Labelled(0)
        with pytest.raises(LprfError):
            self.run(tmp_path / "run", given)


class _Killed(BaseException):
    """Ends a process where it stands, as far as it can be played within one."""


class TrainerSuite(TrainingSuite):
    """Checks of a trainer: it trains for two steps (of `params`, `steps` is set here), is killed, resumes."""

    kind: ClassVar[str] = "trainer"

    def validated(self, declared: Component) -> Any:
        params = super().validated(declared)
        if not isinstance(params, LoopParams):
            return params
        return type(params).model_validate({**params.model_dump(exclude_unset=True), "steps": 2, "checkpoint_steps": 1})

    def trained(self, folder: Path, **changes: Any) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors of the weights it gives, by port."""
        _, outputs = self.run(folder, **changes)
        found = {}
        for port, path in outputs.items():
            assert Path(path).resolve().is_relative_to(folder.resolve()), "written outside of the folder"
            found[port] = dict(weights.load(weights.read_info(path)).tensors)
        return found

    def test_gives_weights_by_port(self, tmp_path: Path, declared: Component) -> None:
        found = self.trained(tmp_path / "run")
        outputs = {name: port for name, port in declared.all_outputs().items() if port.type == "Weights"}
        assert set(found) <= set(outputs)
        assert {name for name, port in outputs.items() if not port.optional} <= set(found)

    def test_the_same_twice(self, tmp_path: Path) -> None:
        check_tensors(self.trained(tmp_path / "run"), self.trained(tmp_path / "again"))

    def test_workers_change_nothing(self, tmp_path: Path) -> None:
        check_tensors(self.trained(tmp_path / "run"), self.trained(tmp_path / "again", workers=2))

    def test_killed_and_resumed_the_weights_are_the_same(
        self, tmp_path: Path, declared: Component, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lprf.training import loop

        if not isinstance(self.validated(declared), LoopParams):
            pytest.skip("it does not train by lprf.training")
        whole = self.trained(tmp_path / "whole")
        save = loop._Loop._save

        def saved_and_killed(self: Any) -> None:
            save(self)
            raise _Killed

        with monkeypatch.context() as patched:
            patched.setattr(loop._Loop, "_save", saved_and_killed)
            with pytest.raises(_Killed):
                self.trained(tmp_path / "cut")
        check_tensors(whole, self.trained(tmp_path / "cut"))

    def test_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        self.trained(tmp_path / "run")
        assert not [path for path in (tmp_path / "run").rglob(".*") if path.is_file()]


class EvaluatorSuite(TrainingSuite):
    """Checks of an evaluator. `params` name the recipe that is measured, where it measures one."""

    kind: ClassVar[str] = "evaluator"

    def build(self, device: str = "cpu", **changes: Any) -> Any:
        recipe = self.loaded(changes["folder"].parent).nodes["tested"].inner
        return super().build(device, recipe=recipe, **changes)

    def test_the_report_is_plain(self, tmp_path: Path) -> None:
        _, outputs = self.run(tmp_path / "run")
        report = outputs["report"]
        assert isinstance(report, dict)
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        numbers = report.get("summary", report)
        assert any(isinstance(value, int | float) for value in numbers.values()), "nothing for `lprf runs` to show"

    def test_a_picture_that_cannot_be_read_ends_nothing(self, tmp_path: Path) -> None:
        self.run(tmp_path / "run", {**self.inputs(tmp_path), "dataset": Labelled(broken=[1])})


@dataclass(frozen=True)
class _Renamed:
    """A dataset with another fingerprint."""

    dataset: Dataset

    @property
    def problems(self) -> Sequence[str]:
        return self.dataset.problems

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        return self.dataset[index]

    def fingerprint(self) -> str:
        return f"other {self.dataset.fingerprint()}"


def check_dataset(dataset: Dataset, limit: int = 20) -> None:
    """Its contract, the pictures of the first examples included."""
    assert len(dataset) > 0, "there is nothing in it"
    assert all(isinstance(problem, str) for problem in dataset.problems)
    assert isinstance(dataset.fingerprint(), str)
    assert dataset.fingerprint()
    read = 0
    for index in range(min(len(dataset), limit)):
        example = dataset[index]
        assert isinstance(example, Example)
        assert isinstance(example.group, str)
        for plate in example.plates:
            x1, y1, x2, y2 = plate.box
            assert all(math.isfinite(value) for value in plate.box)
            assert x1 < x2
            assert y1 < y2
            assert plate.text is None or isinstance(plate.text, str)
            assert plate.corners is None or np.asarray(plate.corners).shape == (4, 2)
            assert all(isinstance(value, str) for value in plate.attributes.values())
        try:
            image = example.image()
        except InputFailure:
            continue
        read += 1
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        height, width = image.shape[:2]
        for plate in example.plates:
            x1, y1, x2, y2 = plate.box
            assert x1 >= -1 and y1 >= -1 and x2 <= width + 1 and y2 <= height + 1, "boxes are in pixels of the picture"
            assert x2 - x1 >= 1 and y2 - y1 >= 1, "boxes are in pixels, not in parts of the picture"
    assert read, "not one of its pictures can be read"
    sources = [dataset[index].source for index in range(min(len(dataset), 1000))]
    assert len(set(sources)) == len(sources), "two examples have the same name"


def check_same(first: Dataset, second: Dataset, limit: int = 20) -> None:
    """That two datasets hold the same, the pictures of the first examples included."""
    assert len(first) == len(second)
    assert first.fingerprint() == second.fingerprint(), "a fingerprint must not depend on the run"
    for index in range(min(len(first), limit)):
        a, b = first[index], second[index]
        assert (a.source, a.group) == (b.source, b.group)
        assert [(p.box, p.text) for p in a.plates] == [(p.box, p.text) for p in b.plates]
        try:
            image = a.image()
        except InputFailure:
            continue
        assert np.array_equal(image, b.image())


def check_tensors(first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]) -> None:
    """That weights are the same, bit for bit."""
    assert first.keys() == second.keys()
    for port in first:
        assert first[port].keys() == second[port].keys()
        for name, tensor in first[port].items():
            assert torch.equal(tensor, second[port][name]), f"{port}: {name} differs"


def plain(value: Any) -> Any:
    """Samples of whatever kind as plain values that compare: a file by its content, arrays by their bytes."""
    if isinstance(value, Path):
        return value.read_bytes() if value.is_file() else None
    if isinstance(value, torch.Tensor):
        return plain(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    return value

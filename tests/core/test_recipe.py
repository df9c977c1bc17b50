"""Recipes: every mistake at its place, overrides, extends, vars, paths; against small components of our own."""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pydantic
import pytest

from lprf.api import Component, InputPath, OutputPath, Params, Port, hookimpl
from lprf.errors import RecipeError
from lprf.plugins import Plugins
from lprf.recipe import Recipe, load_recipe


class Photos(Params):
    path: InputPath | list[InputPath] = "."


class Find(Params):
    thresholds: list[Annotated[float, pydantic.Field(ge=0, le=1)]] = pydantic.Field([0.6, 0.8])
    min_plate: tuple[int, int] = (50, 15)
    label: str = ""


class Write(Params):
    path: OutputPath = "out.jsonl"


@hookimpl
def lprf_components() -> list[Component]:
    corners = Port("Detections", features=frozenset({"corners"}))
    return [
        Component("photos", "source", "nowhere:Photos", Photos),
        Component("find", "detector", "nowhere:Find", Find),
        Component("warp", "rectifier", "nowhere:Warp", inputs={"detections": corners}),
        Component("cut", "rectifier", "nowhere:Cut"),
        Component("read", "recognizer", "nowhere:Read"),
        Component("lines", "sink", "nowhere:Lines", Write, inputs={"readings": Port("Readings", optional=True)}),
        Component("labels", "dataset", "nowhere:Labels", Photos),
        Component("count", "evaluator", "nowhere:Count"),
        Component("join", "transform", "nowhere:Join", inputs={"datasets": Port("Dataset", many=True)}),
    ]


@pytest.fixture
def plugins() -> Plugins:
    here = importlib.metadata.EntryPoint("our", __name__, "lprf")
    broken = importlib.metadata.EntryPoint("yolo", "no_such_module_anywhere", "lprf")
    return Plugins([here, broken])


GOOD = """\
    lprf: 1
    kind: infer
    name: good
    vars: {where: photos}
    graph:
      images: {uses: our.photos, with: {path: "${where}/a"}}
      detect:
        uses: our.find
        inputs: {frames: images.frames}
        with:
          thresholds: [0.5, 0.7]
      cut: {uses: our.cut, inputs: {detections: detect.detections}}
      read: {uses: our.read, inputs: {plates: cut.plates}}
      lines: {uses: our.lines, inputs: {readings: read.readings}}
    """


@pytest.fixture
def load(tmp_path: Path, plugins: Plugins) -> Callable[..., Recipe]:
    def load(text: str, overrides: object = (), name: str = "my.yaml") -> Recipe:
        (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
        return load_recipe(tmp_path / name, overrides, plugins)  # type: ignore[arg-type]

    return load


def complaints(call: Callable[[], object], folder: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        call()
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_good_recipe(load: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = load(GOOD)
    assert list(recipe.nodes) == ["images", "detect", "cut", "read", "lines"]
    assert recipe.nodes["images"].params.path == str(tmp_path / "photos/a")  # type: ignore[attr-defined]
    assert recipe.nodes["detect"].params.thresholds == [0.5, 0.7]  # type: ignore[attr-defined]
    assert recipe.nodes["lines"].params.path == "out.jsonl"  # type: ignore[attr-defined]
    assert str(recipe.nodes["read"].inputs["plates"][0]) == "cut.plates"


def test_nodes_may_stand_in_any_order(load: Callable[..., Recipe]) -> None:
    head, graph = GOOD.split("graph:\n")
    lines = graph.splitlines(keepends=True)
    nodes = [lines[0], "".join(lines[1:6]), *lines[6:9]]
    recipe = load(head + "graph:\n" + "".join(reversed(nodes)))
    order = list(recipe.nodes)
    assert order.index("images") < order.index("detect") < order.index("cut") < order.index("read")


SIX = """\
    lprf: 1
    kind: infer
    name: six
    graph:
      images: {uses: our.photos, with: {path: x}}
      detect:
        uses: our.find
        inputs: {frames: images.frames}
        with:
          thresholds: [0.6, 1.7]
          min_plat: [50, 15]
      rectify:
        uses: our.cutt
        inputs: {detections: detect.detections}
      read:
        uses: our.read
        inputs: {plates: images.frames}
      sink: {uses: our.lines, inputs: {readings: reed.readings}}
      alt:
        uses: yolo.detector
        inputs: {frames: images.frames}
    """


def test_six_mistakes_are_six_lines(load: Callable[..., Recipe], tmp_path: Path) -> None:
    assert complaints(lambda: load(SIX), tmp_path) == [
        "my.yaml:10:25: graph.detect.with.thresholds.1: input should be less than or equal to 1 (got 1.7)",
        "my.yaml:11:7: graph.detect.with.min_plat: unknown key 'min_plat'; did you mean 'min_plate'?",
        "my.yaml:13:5: graph.rectify.uses: plugin 'our' has no component 'cutt'; did you mean 'cut'?",
        "my.yaml:17:22: graph.read.inputs.plates: needs Plates, but images.frames gives Frames",
        "my.yaml:18:46: graph.sink.inputs.readings: there is no node 'reed'; did you mean 'read'?",
        "my.yaml:20:5: graph.alt.uses: plugin 'yolo' (unknown) did not load: "
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lprf: 1", "lprf: 2"), "my.yaml:1:7: lprf: input should be 1 (got 2)"),
        (("kind: infer", "kid: infer"), "my.yaml:2:1: kid: unknown key 'kid'; did you mean 'kind'?"),
        (("name: good", "name: a/b"), "my.yaml:3:7: name: string should match pattern"),
        (("uses: our.find", "use: our.find"), "graph.detect.uses: is missing"),
        (("  detect:", "  vars:"), "graph.vars: 'vars' is no name for a node: overrides need it"),
        (("{where: photos}", "{wher: photos}"), "there is no variable 'where'; did you mean 'wher'?"),
        (("frames: images.frames", "frame: images.frames"), "'our.find' has no input 'frame'; did you mean 'frames'?"),
        (("frames: images.frames", "frames: images.frams"), "no output 'frams'; did you mean 'frames'?"),
        (("frames: images.frames", "frames: images"), "'images' is no connection: write node.port"),
        (
            ("inputs: {frames: images.frames}", "inputs: {}"),
            "graph.detect.inputs.frames: is missing: connect it",
        ),
        (
            ("inputs: {frames: images.frames}", "inputs: 3"),
            "my.yaml:9:13: graph.detect.inputs: input should be",
        ),
        (("our.photos", "our.labels"), "'our.labels' is a dataset; a graph of kind 'infer' is made of: source"),
        (("uses: our.cut,", "uses: our.warp,"), "needs Detections with corners, which detect.detections does not give"),
        (("{readings: read.readings}", "{}"), "connect at least one of readings"),
        (("{frames: images.frames}", "{frames: [images.frames, images.frames]}"), "takes one connection, not a list"),
        (("0.5, 0.7", "0.5, .nan"), "thresholds.1: input should be a finite number"),
    ],
)
def test_mistakes(load: Callable[..., Recipe], tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    found = complaints(lambda: load(GOOD.replace(*change)), tmp_path)
    assert any(message in line for line in found), found


def test_a_node_is_left_out_by_an_override(load: Callable[..., Recipe], tmp_path: Path) -> None:
    assert list(load(GOOD, ["lines=null"]).nodes) == ["images", "detect", "cut", "read"]
    assert "lines" not in load(GOOD, {"lines": None}).nodes
    (found,) = complaints(lambda: load(GOOD, ["cut=null"]), tmp_path)
    assert "there is no node 'cut'" in found
    (found,) = complaints(lambda: load(GOOD, ["lnes=null"]), tmp_path)
    assert "'lnes' is not an override" in found


def test_two_outputs_need_two_files(load: Callable[..., Recipe], tmp_path: Path) -> None:
    more = (
        GOOD.rstrip()
        + "\n      more: {uses: our.lines, inputs: {readings: read.readings}, with: {path: ./out.jsonl}}\n"
    )
    found = complaints(lambda: load(more), tmp_path)
    assert found == [
        "my.yaml:15:75: graph.more.with.path: 'lines' writes ./out.jsonl already; give one of them another path"
    ]
    for there, what in (("my.yaml", "the recipe itself"), ("in.jpg", "what 'images' reads")):
        (tmp_path / "in.jpg").touch()
        changes = {"images.path": str(tmp_path / "in.jpg"), "lines.path": str(tmp_path / there)}
        (found,) = complaints(lambda changes=changes: load(GOOD, changes), tmp_path)  # type: ignore[misc]
        assert f"{there} is {what}, and would be replaced" in found
    for several in ("-", "/dev/null"):
        load(more, {"lines.path": several, "more.path": several})


def test_a_circle_is_a_mistake(load: Callable[..., Recipe], tmp_path: Path) -> None:
    text = """\
    lprf: 1
    kind: train
    name: round
    graph:
      a: {uses: our.join, inputs: {datasets: [b.dataset]}}
      b: {uses: our.join, inputs: {datasets: [a.dataset]}}
    """
    text = text.replace("dataset]", "out]")
    assert any("no output 'out'" in line for line in complaints(lambda: load(text), tmp_path))


def test_overrides_are_typed_and_checked(load: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = load(GOOD, ["detect.thresholds=[0.1, 0.2]", "detect.label=007", "runtime.batch=3", "vars.where=/v"])
    assert recipe.nodes["detect"].params.thresholds == [0.1, 0.2]  # type: ignore[attr-defined]
    assert recipe.nodes["detect"].params.label == "007"  # type: ignore[attr-defined]
    assert recipe.runtime.batch == 3
    assert recipe.nodes["images"].params.path == "/v/a"  # type: ignore[attr-defined]
    assert load(GOOD, {"detect.thresholds.1": 0.9}).nodes["detect"].params.thresholds == [0.5, 0.9]  # type: ignore[attr-defined]
    found = complaints(lambda: load(GOOD, ["detect.min_plat=3", "detekt.x=1", "runtime.batch=0", "nonsense"]), tmp_path)
    assert found == [
        "-s detect.min_plat=3: graph.detect.with.min_plat: unknown key 'min_plat'; did you mean 'min_plate'?",
        "-s detekt.x=1: there is no node 'detekt'; did you mean 'detect'?",
        "-s nonsense: an override is written node.key=value",
        "-s runtime.batch=0: runtime.batch: input should be greater than or equal to 1 (got 0)",
    ]


@pytest.mark.parametrize("path", ["ordner mit: doppelpunkt", "#1", "-", "*.jpg", "皖A.jpg", "\udcff.jpg", "007"])
def test_paths_on_the_command_line_are_as_typed(load: Callable[..., Recipe], path: str) -> None:
    assert load(GOOD, [f"images.path={path}"]).nodes["images"].params.path == path  # type: ignore[attr-defined]


def test_swapping_a_component_drops_the_parameters_of_the_old(load: Callable[..., Recipe]) -> None:
    assert load(GOOD, ["detect.label=x", "detect.uses=our.find"]).nodes["detect"].params.label == "x"  # type: ignore[attr-defined]
    load(GOOD, ["cut.uses=our.cut"])
    found = load(GOOD.replace("our.cut,", "our.cut, with: {},"), ["read.uses=our.read"])
    assert found.nodes["read"].uses == "our.read"


def test_extends_merges_node_by_node(load: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(textwrap.dedent(GOOD), encoding="utf-8")
    child = """\
    lprf: 1
    kind: infer
    extends: good.yaml
    graph:
      detect: {with: {label: mine}}
      cut: {uses: our.cut}
      lines: null
    """
    recipe = load(child, name="child.yaml")
    assert recipe.nodes["detect"].params.label == "mine"  # type: ignore[attr-defined]
    assert recipe.nodes["detect"].params.thresholds == [0.5, 0.7]  # type: ignore[attr-defined]
    assert "lines" not in recipe.nodes
    bad = child.replace("label: mine", "lable: mine")
    assert complaints(lambda: load(bad, name="child.yaml"), tmp_path) == [
        "child.yaml:5:19: graph.detect.with.lable: unknown key 'lable'; did you mean 'label'?"
    ]


def test_extends_in_a_circle(load: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lprf: 1\nextends: my.yaml\n", encoding="utf-8")
    found = complaints(lambda: load("lprf: 1\nextends: a.yaml\n"), tmp_path)
    assert found == ["a.yaml:2:10: extends: recipes extend one another in a circle"]


def test_a_missing_recipe_suggests_one(plugins: Plugins) -> None:
    with pytest.raises(RecipeError, match="there is no such recipe; did you mean 'read-plates'"):
        load_recipe("read-plate", (), plugins)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "graph",
        "graph: 1",
        "graph: {a: 1}",
        "graph: {a: {uses: [1]}}",
        "lprf: [",
        "vars: 1",
        "{}: 1",
        "a: \x00",
    ],
)
def test_any_text_gives_problems_and_never_a_crash(load: Callable[..., Recipe], tmp_path: Path, text: str) -> None:
    assert complaints(lambda: load(text), tmp_path)


def test_a_format_is_a_name_or_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = "lprf: 1\nkind: train\nname: t\ngraph:\n  a: {uses: synth.plates, with: {country: %s}}\n"
    for given, wanted in (("de", "de"), ("my.yaml", str(tmp_path / "mine/my.yaml"))):
        (tmp_path / "mine/r.yaml").write_text(text % given, encoding="utf-8")
        assert load_recipe(tmp_path / "mine/r.yaml").nodes["a"].params.country == wanted  # type: ignore[attr-defined]


def test_weights_are_looked_for_where_other_parameters_are_wrong() -> None:
    wrong = {"detect.pnet": "cn-nowhere", "detect.onet": "cn-pnet", "detect.min_sise": 3}
    with pytest.raises(RecipeError) as caught:
        load_recipe("read-plates", wrong)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert set(found) == {f"graph.{name.replace('.', '.with.')}" for name in wrong}
    assert "no weights 'cn-nowhere'" in found["graph.detect.with.pnet"]
    assert "are of mtcnn.pnet, onet needs mtcnn.onet" in found["graph.detect.with.onet"]
    # the defaults, where nothing is given
    with pytest.raises(RecipeError) as caught:
        load_recipe("read-plates", {"detect.min_sise": 3})
    assert [problem.path for problem in caught.value.problems] == ["graph.detect.with.min_sise"]


def test_an_evaluator_that_runs_no_recipe_has_no_weights_to_replace(
    load: Callable[..., Recipe], tmp_path: Path
) -> None:
    nodes = "data: {uses: our.labels}, count: {uses: our.count, inputs: {dataset: data.dataset, a.b: data.dataset}}"
    said = complaints(lambda: load(f"lprf: 1\nkind: train\nname: x\ngraph: {{{nodes}}}"), tmp_path)
    assert len(said) == 1 and "'our.count' has no input 'a.b'" in said[0]


def test_a_tilde_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for given, meant in (("~/in", str(tmp_path / "me/in")), (["~/in"], [str(tmp_path / "me/in")])):
        nodes = load_recipe("read-plates", {"images.path": given}).nodes
        assert nodes["images"].params.path == meant  # type: ignore[attr-defined]
    recipe = load_recipe("read-plates", {"jsonl.path": "~/out.jsonl"})
    assert recipe.nodes["jsonl"].params.path == str(tmp_path / "me/out.jsonl")  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match=r"draw\.path"):
        load_recipe("read-plates", {"draw.path": ""})

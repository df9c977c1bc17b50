"""Recipes from strangers: whatever is in the file, checking it ends, imports nothing, and points at lines."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lprf.errors import RecipeError
from lprf.plugins import installed
from lprf.recipe import load_recipe, shipped_recipes

SECONDS = 20  # far more than any of these takes: what takes longer hangs
SHIPPED = {name: path.read_text(encoding="utf-8") for name, path in shipped_recipes().items()}
COMPONENTS = sorted(f"{plugin.name}.{name}" for plugin in installed().load_all() for name in plugin.components)


@pytest.fixture(scope="module", autouse=True)
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module that could be imported, and must not be; all that recipes do import is there already."""
    folder = tmp_path_factory.mktemp("trap")
    (folder / "trap.py").write_text("raise SystemExit('imported')\n")
    sys.path.insert(0, str(folder))
    for name in SHIPPED:
        with contextlib.suppress(RecipeError):
            load_recipe(name)
    yield
    sys.path.remove(str(folder))


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def hangs(*_: Any) -> None:
        raise AssertionError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def complaints(text: str | bytes, folder: Path) -> list[str]:
    """What is wrong with a recipe, each of it checked to stand in a line of a file."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    path = folder / "strange.yaml"
    path.write_bytes(data)
    modules = set(sys.modules)
    try:
        with limited():
            load_recipe(path)
        problems = []
    except RecipeError as error:
        problems = error.problems
        assert problems
    assert set(sys.modules) == modules, f"imported {set(sys.modules) - modules}"
    lines = len(data.decode("utf-8", "replace").splitlines()) + 1
    for problem in problems:
        assert problem.line >= 1, problem
        assert problem.column >= 1, problem
        assert problem.message
        assert len(str(problem).splitlines()) == 1
        if problem.file == str(path):
            assert problem.line <= lines, problem
    return [str(problem) for problem in problems]


HEAD = "lprf: 1\nkind: infer\nname: strange\n"
TRAIN = "lprf: 1\nkind: train\nname: strange\n"
LOADED = HEAD + "graph:\n  images: {uses: core.images, with: {path: a}}\n"


def laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines)


def deep_by_aliases() -> str:
    lines = [f"a0: &a0 {'[' * 20}{']' * 20}"]
    lines += [f"a{i}: &a{i} {'[' * 20}*a{i - 1}{']' * 20}" for i in range(1, 300)]
    return "\n".join(lines)


def many_nodes(inputs: Callable[[int], str]) -> str:
    nodes = (f"  n{i}: {{uses: core.crop, inputs: {{detections: {inputs(i)}}}}}\n" for i in range(3000))
    return HEAD + "graph:\n" + "".join(nodes)


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "aliases that explode": (laughs(), "once its aliases are followed"),
    "aliases that explode, in a parameter": (
        LOADED.replace("path: a", "path: *a9") + "".join(f"{line}\n" for line in laughs().splitlines()),
        "",
    ),
    "an alias of itself": ("a: &a [*a]", "an alias that contains itself"),
    "deep brackets": ("[" * 100_000, "nest"),
    "deep braces": ("{a: " * 50_000, "nest"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(600)), "nested deeper than 32 levels"),
    "deep dashes": ("- " * 50_000, "nested deeper than 32 levels"),
    "deep by aliases": (deep_by_aliases(), "once its aliases are followed"),
    "50 MB": (b"# nothing\n" * 5_000_000, "larger than 256 KiB"),
    "many values": (HEAD + "graph: [" + "1, " * 60_000 + "]", "more than 20000 values"),
    "a number of many digits": (HEAD + f"runtime: {{batch: {'9' * 100_000}}}\ngraph: {{}}", "not a number"),
    "a hexadecimal number of many digits": (HEAD + f"runtime: {{batch: 0x{'f' * 100_000}}}\ngraph: {{}}", "not a num"),
    "a number with many colons": (HEAD + f"runtime: {{batch: 1{':1' * 60_000}}}\ngraph: {{}}", "runtime.batch"),
    "a number beyond doubles": (LOADED + "runtime: {batch: 1e400}", "runtime.batch"),
    "a number beyond 64 bits": (LOADED + "runtime: {seed: 99999999999999999999}", "not a number"),
    "not a number": (LOADED + "runtime: {seed: .nan}", "runtime.seed"),
    "long keys": (HEAD + f"graph:\n  {'a' * 900}: {{uses: core.crop, {'b' * 900}: 1}}\n", "unknown key"),
    "long names that differ a little": (
        HEAD + f"graph: {{? {'ab' * 50_000} : {{uses: core.crop, inputs: {{detections: {'ba' * 50_000}.x}}}}}}",
        "there is no node",
    ),
    "thousands of nodes one after another": (many_nodes(lambda i: f"n{i + 1}.plates"), "needs Detections"),
    "thousands of nodes in a circle": (many_nodes(lambda i: f"n{(i + 1) % 3000}.plates"), "needs Detections"),
    "thousands of unknown nodes": (many_nodes(lambda i: f"m{i}.detections"), "there is no node"),
    "thousands of unknown components": (
        HEAD + "graph:\n" + "".join(f"  n{i}: {{uses: core.crp{i}}}\n" for i in range(6000)),
        "has no component",
    ),
    "thousands of unknown keys": (LOADED + "".join(f"nmae{i}: 1\n" for i in range(8000)), "unknown key"),
    "thousands of unknown parameters": (
        LOADED.replace("path: a", ", ".join(f"pth{i}: a" for i in range(8000))),
        "unknown key 'pth0'",
    ),
    "variables that explode": (
        LOADED.replace("path: a", f'path: "{"${a}" * 20_000}"') + f"vars: {{a: {'x' * 100_000}}}",
        "once variables are filled in",
    ),
    "variables that explode bit by bit": (
        LOADED.replace("path: a", "path: [" + '"-${a}", ' * 3000 + "]") + f"vars: {{a: {'x' * 100_000}}}",
        "once variables are filled in",
    ),
    "a variable of a list": (LOADED.replace("path: a", 'path: "${a}"') + "vars: {a: [1]}", "there is no variable 'a'"),
    "itself, measured": (
        TRAIN
        + "graph:\n  data: {uses: core.labelled-crops, with: {path: .}}\n"
        + "  it: {uses: core.evaluate, inputs: {dataset: data.dataset}, with: {recipe: strange.yaml}}\n",
        "is not 'infer'",
    ),
    "itself, measured while it reads": (
        HEAD + "graph:\n  it: {uses: core.evaluate, with: {recipe: strange.yaml}}\n",
        "a graph of kind 'infer' is made of",
    ),
    "itself, measured by neither": (
        "lprf: 1\nkind: other\ngraph:\n  it: {uses: core.evaluate, with: {recipe: strange.yaml}}\n",
        "input should be 'infer' or 'train'",
    ),
    "overrides of any depth": (
        TRAIN + "graph:\n  it:\n    uses: core.evaluate\n"
        f"    with: {{recipe: read-plates, overrides: {{'detect.{'a.' * 40}a': 1, 'images.path.²': 1}}}}\n",
        "deeper than 32 levels",
    ),
    "itself, extended": (HEAD + "extends: strange.yaml\n", "extend one another in a circle"),
    "extends a folder": (HEAD + "extends: .\n", "extends"),
    "extends a device": (HEAD + "extends: /dev/zero\n", "extends"),
    "extends a null byte": (HEAD + 'extends: "a\\0.yaml"\n', "extends"),
    "extends half a character": (HEAD + 'extends: "\\ud800.yaml"\n', ""),
    "extends a plugin's secret": (HEAD + "extends: core/../../secret\n", "extends"),
    "extends a number": (HEAD + "extends: 7\n", "extends"),
    "null bytes everywhere": (LOADED.replace("a}", '"\\0"}').replace("core.images", '"core.\\0"'), "has no component"),
    "the terminal": (LOADED + '"\\e[2J\\n\\r\\u2028": 1', "\\x1b[2J\\n\\r\\u2028"),
    "weights with a null byte": (
        HEAD + 'graph: {r: {uses: lprnet.recognizer, with: {weights: "/tmp/\\0.safetensors"}}}',
        "no weights",
    ),
    "weights of a long name": (
        HEAD + f"graph: {{r: {{uses: lprnet.recognizer, with: {{weights: {'x' * 100_000}}}}}}}",
        "no weights",
    ),
    "a module in `uses`": (HEAD + "graph: {d: {uses: trap.detector}}", "there is no plugin 'trap'"),
    "a module and what is in it": (HEAD + "graph: {d: {uses: 'trap:detector'}}", "there is no plugin"),
    "a module of a plugin": (HEAD + "graph: {d: {uses: lprf_mtcnn.detector}}", "there is no plugin 'lprf_mtcnn'"),
    "a module in `plugins`": (LOADED + "plugins: [trap, os, [trap], {trap: trap}, null]", "there is no plugin 'trap'"),
    "a file in `plugins`": (LOADED + "plugins: [./trap.py, /etc/passwd]", "there is no plugin './trap.py'"),
    "a tag that runs code": ("a: !!python/object/apply:os.system ['touch pwned']", "tag"),
    "a tag that imports": ("a: !!python/name:trap.x", "tag"),
    "a tag of a set": ("a: !!set {b}\nb: !!binary aGVsbG8=\nc: 2020-01-01", "tag:yaml.org,2002:binary"),
    "merge keys": ("a: &a {b: 1}\nc: {<<: *a}", "merge keys are not supported"),
    "duplicate keys": ("a: 1\na: 2\n", "duplicate key"),
    "keys that are no text": ("? [a]\n: 1\n? {b: 1}\n: 2\n", "a key must be plain text"),
    "two documents": (LOADED + "---\n" + LOADED, "not valid YAML"),
    "UTF-16": (LOADED.encode("utf-16"), "not UTF-8"),
    "control characters": (b"a: \x01\x02", "not valid YAML"),
    "carriage returns": (LOADED.replace("\n", "\r") + "nmae: 1", "unknown key"),
    "tabs": (LOADED.replace("  ", "\t"), "not valid YAML"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 100, "not UTF-8"),
    "nothing": ("", "the file is empty"),
    "comments": ("# nothing\n" * 1000, "the file is empty"),
    "a directive": ("%YAML 9.9\n---\na: 1", "not valid YAML"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_recipes(case: str, tmp_path: Path) -> None:
    text, expected = HOSTILE[case]
    found = complaints(text, tmp_path)
    assert found
    assert any(expected in line for line in found), found[:10]
    assert len(found) <= 250
    assert not Path("pwned").exists()


def test_a_long_chain_of_recipes_ends(tmp_path: Path) -> None:
    for i in range(1500):
        (tmp_path / f"r{i}.yaml").write_text(f"extends: r{i + 1}.yaml\n")
    assert "more than 16 recipes extend one another" in complaints("extends: r0.yaml", tmp_path)[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "is not a file" in complaints("extends: pipe.yaml", tmp_path)[0]
    text = HEAD + "graph: {r: {uses: lprnet.recognizer, with: {weights: pipe.safetensors}}}"
    assert any("no weights" in line for line in complaints(text, tmp_path))
    with limited(), pytest.raises(RecipeError, match="is not a file"):
        load_recipe(tmp_path / "pipe.yaml")


NASTY: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        "",
        " ",
        ".",
        "a.b",
        "..",
        "~",
        "${x}",
        "${samples}",
    ),
    *("\0", "\ud7ff", "\x1b[0m", "皖A12345", "é" * 300, "a: b", "[", "{", "007", "1:30", "0x1f", "1e3", "*", "!", "%"),
    *([], {}, [[]], [{}], {"": None}, {"a": {"b": {"c": []}}}, [None] * 50, "images.frames", "read.readings", "infer"),
    *("trap.x", "trap", "os.system", "/", "/dev/null", "/dev/zero", "rtsp://x", "strange.yaml", "read-plates"),
    *COMPONENTS,
]
NAMES = [
    *("lprf", "kind", "name", "summary", "extends", "vars", "runtime", "plugins", "graph", "uses", "inputs", "with"),
    "device",
    "a.b",
    "",
    "1",
]


def mutated(text: str, rng: random.Random) -> str:
    """A recipe with a few mistakes, in its text or in what it says."""
    for _ in range(rng.randint(1, 5)):
        text = rng.choice([_lines, _characters, _said])(text, rng)
    return text


def _lines(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    change = rng.randrange(6)
    if change == 0:
        del lines[i]
    elif change == 1:
        lines.insert(i, lines[j])
    elif change == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif change == 3:
        lines[i] = " " * rng.randrange(9) + lines[i].strip()
    elif change == 4:
        other = rng.choice(list(SHIPPED.values())).split("\n")
        lines.insert(i, rng.choice(other))
    else:
        lines = lines[: i + 1]
    return "\n".join(lines)


def _characters(text: str, rng: random.Random) -> str:
    i = rng.randrange(len(text) + 1)
    some = rng.choice(
        ["", *"[]{}:,&*!|>'\"%@`#-? \n\t\\\x00\x07\u2028\ufeff皖😀", "&a ", "*a", "<<: ", "--- ", "!!int "]
    )
    return text[:i] + some + text[i + rng.randrange(4) :]


def _said(text: str, rng: random.Random) -> str:
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for step in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, step))
            visit(value[step])

    visit(tree)
    if not places:
        return text
    inside, step = rng.choice(places)
    change = rng.randrange(4)
    if change == 0:
        del inside[step]
    elif change == 1 and isinstance(inside, dict):
        inside[rng.choice(NAMES)] = inside.pop(step)
    elif change == 2:
        other, there = rng.choice(places)
        inside[step] = yaml.safe_load(yaml.safe_dump(other[there])) if there in range(len(other)) else rng.choice(NASTY)
    else:
        inside[step] = rng.choice(NASTY)
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 13))])
def test_mutated_recipes(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    wrong = 0
    for _ in range(100):
        text = mutated(rng.choice(list(SHIPPED.values())), rng)
        try:
            wrong += bool(complaints(text, tmp_path))
        except BaseException:
            print(text)
            raise
    assert wrong > 50, "mutations that change nothing show nothing"


strange = settings(
    max_examples=1000,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
words = st.sampled_from([*NAMES, *COMPONENTS]) | st.text(max_size=20)
values = st.recursive(
    st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
nodes = st.fixed_dictionaries(
    {},
    optional={
        "uses": st.sampled_from(COMPONENTS) | values,
        "inputs": st.dictionaries(words, st.sampled_from(["a.frames", "b.detections", "c.plates"]) | values) | values,
        "with": st.dictionaries(words, values, max_size=4) | values,
    },
)
recipes = st.fixed_dictionaries(
    {"lprf": st.just(1) | values, "kind": st.sampled_from(["infer", "train"]) | values},
    optional={
        "name": words,
        "extends": st.sampled_from(["read-plates", "train-mtcnn", "strange.yaml"]) | values,
        "vars": st.dictionaries(words, values, max_size=3) | values,
        "runtime": st.dictionaries(words, values, max_size=3) | values,
        "plugins": st.lists(words, max_size=3) | values,
        "graph": st.dictionaries(st.sampled_from(["a", "b", "c", "read", "images", "detect"]) | words, nodes | values),
    },
)


@pytest.mark.slow
@strange
@given(text=st.text() | st.binary())
def test_any_text(tmp_path: Path, text: str | bytes) -> None:
    complaints(text.encode("utf-8", "replace") if isinstance(text, str) else text, tmp_path)


@pytest.mark.slow
@strange
@given(recipe=recipes)
def test_any_recipe(tmp_path: Path, recipe: dict[str, Any]) -> None:
    complaints(yaml.safe_dump(recipe, allow_unicode=True), tmp_path)


@pytest.mark.slow
@strange
@given(overrides=st.dictionaries(st.lists(words, max_size=4).map(".".join) | words, values, max_size=4))
def test_any_override(overrides: dict[str, Any]) -> None:
    try:
        with limited():
            load_recipe("read-plates", overrides)
            load_recipe("read-plates", [f"{key}={value}" for key, value in overrides.items()])
    except RecipeError as error:
        assert error.problems
        assert all(problem.message and (problem.line or problem.file) for problem in error.problems)

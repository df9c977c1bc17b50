"""Recipes: the models a recipe file is checked against, and the way from a file to a checked graph. No torch.

`load_recipe` reads the file, lays it over the recipe it extends, applies overrides, fills in `${vars}`, checks the
form with pydantic, then has `lprf.check` check the graph. Every step works on values that know their place, so
that each mistake is reported at its line and column, all of them at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lprf.component import Component, Params
from lprf.errors import PluginError, Problem, RecipeError
from lprf.files import shipped
from lprf.plugins import Plugins, installed, suggest
from lprf.source import MAX_DEPTH, Located, Place, located, read_file, read_text

RESERVED = ("runtime", "vars")  # the first parts of overrides that are not nodes
MAX_PARENTS = 16  # of a recipe that extends one that extends one …
MAX_FILLED = 1_000_000  # characters of text with `${vars}` in it, filled in
_VARIABLE = re.compile(r"\$\{([^}]*)\}")

NodeName = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=64)]
RecipeName = Annotated[str, pydantic.StringConstraints(pattern=r"^\w[\w .-]*$", max_length=100)]
Scalar = str | int | float | bool | None


class Runtime(Params):
    """Where and how a recipe runs.

    Of it the seed decides what a training stage computes, and an evaluated recipe's precision and backend what is
    measured.
    """

    device: str = pydantic.Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = pydantic.Field(
        "auto", description="what networks compute in; auto goes below float32 only where accuracy was shown to hold"
    )
    backend: Literal["auto", "torch", "onnxruntime", "openvino"] = pydantic.Field(
        "auto", description="what networks run in; auto is openvino on a CPU where it is installed, else torch"
    )
    batch: int = pydantic.Field(8, ge=1, le=4096, description="source items (photos or crops) at a time")
    workers: int = pydantic.Field(2, ge=0, le=256, description="threads or processes that decode and prepare")
    threads: int | None = pydantic.Field(None, ge=1, le=1024, description="CPU threads of the networks; all by default")
    seed: int = pydantic.Field(7, ge=0, lt=2**63, description="of everything random in a training graph")


class NodeForm(Params):
    """One node of a recipe's graph."""

    uses: str = pydantic.Field(description="the component, as plugin.component")
    inputs: dict[str, str | list[str]] = pydantic.Field({}, description="by port: node.port, or a list of them")
    with_: dict[str, Any] = pydantic.Field({}, alias="with", description="the component's parameters")


class RecipeForm(Params):
    """A recipe file."""

    lprf: Literal[1] = pydantic.Field(description="the version of the recipe language")
    kind: Literal["infer", "train"] = pydantic.Field(description="infer: read plates; train: stages that leave weights")
    name: RecipeName = pydantic.Field(description="names the folder of its runs")
    summary: str = pydantic.Field("", max_length=400, description="one line, for `lprf recipes`")
    extends: str | None = pydantic.Field(None, description="a recipe that this one changes, node by node")
    vars: dict[str, Scalar] = pydantic.Field({}, description="values used elsewhere as ${name}")
    runtime: Runtime = Runtime()
    plugins: list[str] = pydantic.Field([], description="plugins to load for their hooks alone")
    graph: dict[NodeName, NodeForm] = pydantic.Field(description="the nodes by name")


@dataclass(frozen=True)
class Ref:
    """`node.port`: an output of a node."""

    node: str
    port: str

    def __str__(self) -> str:
        return f"{self.node}.{self.port}"


@dataclass(frozen=True)
class Node:
    """A checked node of a graph.

    inputs: by port; more than one Ref only where the port is `many`.
    rebind: an evaluator's inputs named `node.param`, which replace that parameter of `inner`.
    inner: the checked recipe that an evaluator runs.
    """

    name: str
    uses: str
    component: Component
    params: Params
    inputs: Mapping[str, tuple[Ref, ...]] = field(default_factory=dict)
    rebind: Mapping[str, Ref] = field(default_factory=dict)
    inner: Recipe | None = None


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: every name resolved, every parameter validated, nodes in an order that can run.

    tree: the recipe as it stands after `extends`, overrides and vars, each value with its place.
    plugins: where its components came from, and whom hooks are sent to.
    """

    name: str
    kind: Literal["infer", "train"]
    runtime: Runtime
    nodes: Mapping[str, Node]
    path: Path
    tree: Located
    plugins: Plugins
    summary: str = ""

    @property
    def folder(self) -> Path:
        """The recipe's folder: weights are looked for there first."""
        return self.path.parent


Overrides = Mapping[str, Any] | Sequence[str]


def load_recipe(
    name: str | Path,
    overrides: Overrides = (),
    plugins: Plugins | None = None,
    rebound: Iterable[str] = (),
    kind: Literal["infer", "train"] | None = None,
) -> Recipe:
    """Load and check a recipe: a path, the name of a shipped recipe, or `plugin/recipe`.

    overrides: {"node.key": value} from Python, or ["node.key=value"] from the command line.
    rebound: "node.param" of weights that whoever runs the recipe will replace, so they need not be there.
    kind: the kind it must be of; the graph of one of another kind is not even looked at.
    Raises RecipeError with every mistake in it.
    """
    plugins = installed() if plugins is None else plugins
    path = find_recipe(name, plugins)
    tree = _extended(read_file(path), path, plugins, ())
    given = tree.get("kind")
    if kind is not None and (given is None or given.value != kind):
        raise RecipeError([tree.problem(("kind",), f"is not '{kind}', which is what is needed here")])
    return checked(tree, path, plugins, overrides, rebound)


def checked(
    tree: Located, path: Path, plugins: Plugins, overrides: Overrides = (), rebound: Iterable[str] = ()
) -> Recipe:
    """The recipe that a tree of values says, which may have been made by a program; else as `load_recipe`."""
    from lprf.check import check_graph, form_problems

    tree, problems = _overridden(tree, overrides)
    tree, unknown = _interpolated(tree)
    problems += unknown
    if isinstance(tree.value, dict) and "name" not in tree.value:
        tree = Located({**tree.value, "name": Located(path.stem, tree.place)}, tree.place)
    form, mistakes = form_problems(RecipeForm, tree)
    problems += mistakes
    # the graph is checked even where the form has mistakes: every mistake at once
    nodes, mistakes = check_graph(tree, path.parent, plugins, frozenset(rebound))
    problems += mistakes
    if problems or form is None:
        raise RecipeError(_in_order(problems))
    return Recipe(form.name, form.kind, form.runtime, nodes, path, tree, plugins, form.summary)


def shipped_recipes(plugins: Plugins | None = None) -> dict[str, Path]:
    """The recipes that ship with LPRF by name, then those of plugins as `plugin/recipe`."""
    found = {path.stem: path for path in sorted(shipped("recipes").glob("*.yaml"))}
    for plugin in plugins.load_all() if plugins is not None else []:
        if plugin.recipes is not None:
            found |= {f"{plugin.name}/{path.stem}": path for path in sorted(plugin.recipes.glob("*.yaml"))}
    return found


def find_recipe(name: str | Path, plugins: Plugins) -> Path:
    """The file of a recipe. Raises RecipeError with a suggestion."""
    path = Path(name)
    text = str(name)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError:  # a name too long for the file system
        is_file = is_folder = False
    if path.suffix in (".yaml", ".yml") or is_file:
        return path
    known = shipped_recipes()
    if text in known:
        return known[text]
    if is_folder:
        raise RecipeError([Problem(text, 0, 0, "", "is a folder, not a recipe")])
    plugin_name, separator, recipe_name = text.partition("/")
    if separator and plugin_name in plugins.names():
        try:
            folder = plugins.load(plugin_name).recipes
        except PluginError as error:
            raise RecipeError([Problem(text, 0, 0, "", str(error))]) from None
        if folder is not None and os.sep not in recipe_name and (folder / f"{recipe_name}.yaml").is_file():
            return folder / f"{recipe_name}.yaml"
        known = {f"{plugin_name}/{path.stem}": path for path in folder.glob("*.yaml")} if folder is not None else {}
    hint = suggest(text, known) or "; `lprf recipes` lists them"
    raise RecipeError([Problem(text, 0, 0, "", f"there is no such recipe{hint}")])


def summary_of(path: Path) -> tuple[str, str]:
    """The kind and the summary of a recipe file, without checking it; its mistake stands in for its summary."""
    try:
        tree = read_file(path)
    except RecipeError as error:
        return "", str(error)
    kind, summary = tree.get("kind"), tree.get("summary")
    return str(kind.value) if kind else "", str(summary.value) if summary else ""


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Files before overrides, top to bottom, no mistake twice."""
    return sorted(set(problems), key=lambda p: (p.line == 0, p.file, p.line, p.column, p.path, p.message))


def _extended(tree: Located, path: Path, plugins: Plugins, above: tuple[Path, ...]) -> Located:
    """Lay a recipe over the one it extends, and that over its own parent."""
    parent = tree.get("extends")
    if parent is None or parent.value is None:
        return tree
    if not isinstance(parent.value, str):
        raise RecipeError([tree.problem(("extends",), "must be the name or the file of a recipe")])
    above = (*above, path.resolve())
    if len(above) > MAX_PARENTS:
        raise RecipeError([tree.problem(("extends",), f"more than {MAX_PARENTS} recipes extend one another")])
    try:
        beside = path.parent / parent.value
        name = beside if beside.suffix in (".yaml", ".yml") else parent.value
        parent_path = find_recipe(name, plugins)
        if parent_path.resolve() in above:
            raise RecipeError([tree.problem(("extends",), "recipes extend one another in a circle")])
        base = read_file(parent_path)
    except (ValueError, OSError):  # a null byte, half of a surrogate pair, a name too long
        raise RecipeError([tree.problem(("extends",), "no file can have this name")]) from None
    except RecipeError as error:
        first = error.problems[0]
        if first.path == "extends" or first.line:  # the mistake is in a file of its own
            raise
        raise RecipeError([tree.problem(("extends",), f"'{parent.value}': {first.message}")]) from None
    return _merged(_extended(base, parent_path, plugins, above), tree)


def _merged(base: Located, over: Located) -> Located:
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = {**base.value, **over.value}
    for name in ("runtime", "vars"):
        merged |= _joined(base, over, name)
    merged |= _joined(base, over, "graph", _merged_node)
    if "summary" in base.value and "summary" not in over.value:
        del merged["summary"]
    return Located(merged, over.place, over.key)


def _joined(base: Located, over: Located, name: str, join: Any = lambda old, new: new) -> dict[str, Located]:
    """The mapping `name` of both, item by item; an item given as null in `over` goes."""
    old, new = base.get(name), over.get(name)
    if old is None or new is None or not isinstance(old.value, dict) or not isinstance(new.value, dict):
        return {}
    items = dict(old.value)
    for key, value in new.value.items():
        if value.value is None and name == "graph":
            items.pop(key, None)
        else:
            items[key] = join(items[key], value) if key in items else value
    return {name: Located(items, new.place, new.key)}


def _merged_node(old: Located, new: Located) -> Located:
    if not isinstance(old.value, dict) or not isinstance(new.value, dict):
        return new
    node = {**old.value, **new.value}
    node |= _joined(old, new, "inputs")
    if "uses" not in new.value:
        node |= _joined(old, new, "with")
    elif "with" not in new.value:
        node.pop("with", None)  # another component: the parent's parameters were not meant for it
    return Located(node, new.place, new.key)


def _overridden(tree: Located, overrides: Overrides) -> tuple[Located, list[Problem]]:
    """Apply overrides; `uses` first, because swapping a component drops the parameters of the old one."""
    problems: list[Problem] = []
    changes: list[tuple[str, Located]] = []
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            changes.append((key, located(plain, Place(f"override {key}"))))
    else:
        for text in overrides:
            key, equals, raw = text.partition("=")
            if not equals:
                problems.append(Problem(f"-s {text}", 0, 0, "", "an override is written node.key=value"))
            else:
                changes.append((key.strip(), _argument(raw, Place(f"-s {text}"))))
    for key, value in sorted(changes, key=lambda change: not change[0].endswith(".uses")):
        changed = _changed(tree, key, value)
        if isinstance(changed, str):
            problems.append(Problem(value.place.file, 0, 0, "", changed))
        else:
            tree = changed
    return tree, problems


def _argument(raw: str, place: Place) -> Located:
    """A value from the command line: YAML where it is a number, a flag, quoted, [a list] or {a mapping}; else text."""
    try:
        parsed = read_text(raw, place.file)
    except RecipeError:
        return Located(raw, place, text=raw)
    if isinstance(parsed.value, str) and not raw.lstrip().startswith(("'", '"')):
        return Located(raw, place, text=raw)
    if isinstance(parsed.value, dict | list) and not raw.lstrip().startswith(("{", "[")):
        return Located(raw, place, text=raw)
    return replace(located(parsed.plain(), place), text=parsed.text)


def _changed(tree: Located, key: str, value: Located) -> Located | str:
    """The tree with one override applied, or what is wrong with it."""
    first, *rest = key.split(".")
    if len(rest) > MAX_DEPTH:
        return f"deeper than {MAX_DEPTH} levels"
    graph = tree.get("graph")
    nodes = list(graph.value) if graph is not None and isinstance(graph.value, dict) else []
    if not rest and value.value is None and graph is not None and first in nodes:
        return _set(tree, ("graph",), replace(graph, value={k: v for k, v in graph.value.items() if k != first}))
    if not rest:
        return f"'{key}' is not an override: write node.key, runtime.key or vars.key, or node=null to leave a node out"
    if first in RESERVED:
        return _set(tree, (first, *rest), value)
    if first not in nodes:
        return f"there is no node '{first}'{suggest(first, [*nodes, *RESERVED])}"
    if rest == ["uses"]:
        old = tree.get("graph", first, "uses")
        if old is not None and old.value != value.value:
            node = tree.get("graph", first)
            assert node is not None
            tree = _set(
                tree, ("graph", first), Located({k: v for k, v in node.value.items() if k != "with"}, node.place)
            )
        return _set(tree, ("graph", first, "uses"), value)
    return _set(tree, ("graph", first, "with", *rest), value)


def _set(tree: Located, path: Sequence[str], value: Located) -> Located:
    """The tree with `value` at `path`; mappings are made where there are none."""
    if not path:
        return replace(value, key=value.place)
    step, *rest = path
    if isinstance(tree.value, list) and step.isdecimal() and int(step) < len(tree.value):
        items = list(tree.value)
        items[int(step)] = _set(items[int(step)], rest, value)
        return replace(tree, value=items)
    children = dict(tree.value) if isinstance(tree.value, dict) else {}
    children[step] = _set(children.get(step, Located({}, value.place, value.place)), rest, value)
    return replace(tree, value=children)


def _interpolated(tree: Located) -> tuple[Located, list[Problem]]:
    """Fill in `${name}`: from `vars`, or `${samples}`, the folder of bundled samples."""
    problems: list[Problem] = []
    filled = 0
    given = tree.get("vars")
    variables = dict(given.value) if given is not None and isinstance(given.value, dict) else {}
    here = tree.place
    variables.setdefault("samples", Located(str(shipped("recipes") / "samples"), here))

    def fill(value: Located, path: tuple[str | int, ...]) -> Located:
        if isinstance(value.value, dict):
            return replace(value, value={k: fill(v, (*path, k)) for k, v in value.value.items()})
        if isinstance(value.value, list):
            return replace(value, value=[fill(v, (*path, i)) for i, v in enumerate(value.value)])
        if not isinstance(value.value, str) or "${" not in value.value:
            return value
        for name in _VARIABLE.findall(value.value):
            if name not in variables or isinstance(variables[name].value, dict | list):
                place = value.place
                message = f"there is no variable '{name}'{suggest(name, variables)}"
                problems.append(Problem(place.file, place.line, place.column, ".".join(map(str, path)), message))
                return value
        whole = _VARIABLE.fullmatch(value.value)
        if whole:  # ${epochs} alone keeps its type
            used = variables[whole[1]]
            return replace(
                value, value=used.value, text=used.text, place=replace(value.place, folder=used.place.folder)
            )
        nonlocal filled
        parts = [str(variables[name].text or variables[name].value) for name in _VARIABLE.findall(value.value)]
        over, filled = filled > MAX_FILLED, filled + sum(map(len, parts))
        if over:  # which has been said
            return value
        if filled > MAX_FILLED:
            place = value.place
            message = f"more than {MAX_FILLED} characters once variables are filled in"
            problems.append(Problem(place.file, place.line, place.column, ".".join(map(str, path)), message))
            return value
        text = _VARIABLE.sub(lambda match: str(variables[match[1]].text or variables[match[1]].value), value.value)
        start = _VARIABLE.match(value.value)
        folder = variables[start[1]].place.folder if start else value.place.folder
        return replace(value, value=text, text=text, place=replace(value.place, folder=folder))

    if not isinstance(tree.value, dict):
        return tree, problems
    parts = {name: part if name == "vars" else fill(part, (name,)) for name, part in tree.value.items()}
    return replace(tree, value=parts), problems

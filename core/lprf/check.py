"""Checks a recipe's form and graph, each mistake at its place: names, parameters, ports, weights. No torch."""

from __future__ import annotations

import contextlib
import heapq
import os
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from lprf import weights
from lprf.component import (
    KINDS,
    Component,
    Params,
    PathParam,
    Port,
    RecipeParam,
    WeightsParam,
    marked,
)
from lprf.errors import PluginError, Problem, RecipeError, WeightsError
from lprf.plugins import Plugins, suggest
from lprf.recipe import RESERVED, Node, Ref, load_recipe
from lprf.source import Located

P = TypeVar("P", bound=pydantic.BaseModel)
Path_ = tuple[str | int, ...]
ENOUGH = 100  # mistakes of one kind: who has made as many needs no more of them


def form_problems(model: type[P], tree: Located, prefix: Path_ = ()) -> tuple[P | None, list[Problem]]:
    """Validate the value at `prefix` of `tree` with pydantic: the model, or None and what is wrong with it."""
    part = tree.get(*prefix)
    value = part.plain() if part is not None else {}
    try:
        return model.model_validate(value), []
    except pydantic.ValidationError as error:
        problems = []
        for mistake in error.errors(include_url=False, include_context=True)[:ENOUGH]:
            path = prefix + _steps_in(part, mistake["loc"])
            if mistake["type"] == "extra_forbidden":
                hint = suggest(str(path[-1]), _field_names(model, path[len(prefix) : -1]))
                problems.append(tree.problem(path, f"unknown key '{path[-1]}'{hint}", at_key=True))
            elif mistake["type"] == "missing":
                problems.append(tree.problem(path, "is missing"))
            else:
                problems.append(tree.problem(path, _message(mistake)))
        return None, problems


def _message(mistake: Any) -> str:
    text = mistake["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = mistake["input"]
    shown = repr(given) if isinstance(given, str) else str(given)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    return f"{text[:1].lower()}{text[1:]} (got {shown})"


def _steps_in(tree: Located | None, loc: tuple[str | int, ...]) -> Path_:
    """A pydantic location without the steps that are no part of the file (members of unions, `[key]`)."""
    if tree is None:  # nothing is given: what is missing
        return loc
    steps: list[str | int] = []
    here: Located | None = tree
    for i, step in enumerate(loc):
        there = here.get(step) if here is not None else None
        if there is not None:
            steps.append(step)
            here = there
        elif i == len(loc) - 1 and here is not None and isinstance(here.value, dict) and step != "[key]":
            steps.append(step)  # a missing key
    return tuple(steps)


def _field_names(model: type[pydantic.BaseModel], path: Path_) -> list[str]:
    """The keys that a model, or the model inside it at `path`, knows."""
    fields = model.model_fields
    for step in path:
        info = next((f for name, f in fields.items() if (f.alias or name) == step), None)
        inside = _types(info.annotation) if info is not None else []
        models = [t for t in inside if isinstance(t, type) and issubclass(t, pydantic.BaseModel)]
        if models:  # else a key or an index between a container and its items
            fields = models[0].model_fields
    return [info.alias or name for name, info in fields.items()]


def _types(annotation: Any) -> list[Any]:
    """Every type inside an annotation, itself included."""
    found = [annotation]
    for argument in typing.get_args(annotation):
        if not isinstance(argument, str):
            found += _types(argument)
    return found


def check_graph(
    tree: Located, folder: Path, plugins: Plugins, rebound: frozenset[str]
) -> tuple[dict[str, Node], list[Problem]]:
    """Check the graph of a recipe: its nodes in an order that can run, and every mistake found."""
    graph, kind, extra = tree.get("graph"), tree.get("kind"), tree.get("plugins")
    problems: list[Problem] = []
    for i, name in enumerate(extra.plain() if extra is not None and isinstance(extra.value, list) else []):
        try:
            plugins.load(str(name))
        except PluginError as error:
            problems.append(tree.problem(("plugins", i), str(error)))
    if graph is None or not isinstance(graph.value, dict):
        return {}, problems
    checker = _Checker(tree, folder, plugins, rebound, str(kind.value) if kind is not None else "")
    with contextlib.suppress(_Enough):
        nodes = checker.nodes([name for name, node in graph.value.items() if isinstance(node.value, dict)])
        return nodes, problems + checker.problems
    return {}, problems + checker.problems


class _Enough(Exception):
    """There are mistakes enough."""


class _Checker:
    def __init__(self, tree: Located, folder: Path, plugins: Plugins, rebound: frozenset[str], kind: str):
        self.tree = tree
        self.folder = folder
        self.plugins = plugins
        self.rebound = rebound
        self.kind = kind
        self.problems: list[Problem] = []
        self.components: dict[str, Component] = {}
        self.params: dict[str, Params] = {}
        self.features: dict[str, Mapping[str, set[str]]] = {}

    def wrong(self, path: Path_, message: str, *, at_key: bool = False) -> None:
        self.problems.append(self.tree.problem(path, message, at_key=at_key))
        if len(self.problems) > ENOUGH:
            raise _Enough

    def nodes(self, names: list[str]) -> dict[str, Node]:
        for name in names:
            self.component(name)
        inner = {name: self.parameters(name) for name in names if name in self.components}
        links = {name: self.links(name, inner.get(name)) for name in names}
        for name in names:
            self.required(name, links[name][0])
        if self.kind == "infer":
            self.one_source()
        self.one_writer()
        ordered = self.ordered(names, links)
        if any(name not in self.params for name in names):
            return {}
        return {
            name: Node(
                name,
                f"{self.tree.nearest(('graph', name, 'uses')).value}",
                self.components[name],
                self.params[name],
                links[name][0],
                links[name][1],
                inner[name],
            )
            for name in ordered
        }

    def component(self, name: str) -> None:
        path = ("graph", name, "uses")
        uses = self.tree.get(*path)
        if name in RESERVED:
            self.wrong(("graph", name), f"'{name}' is no name for a node: overrides need it", at_key=True)
        if uses is None or not isinstance(uses.value, str):
            return  # the form says so
        try:
            component = self.plugins.component(uses.value)
        except PluginError as error:
            self.wrong(path, str(error), at_key=True)
            return
        graph = KINDS[component.kind].graph
        if self.kind in ("infer", "train") and graph != self.kind:
            fitting = ", ".join(kind.name for kind in KINDS.values() if kind.graph == self.kind)
            message = f"'{uses.value}' is a {component.kind}; a graph of kind '{self.kind}' is made of: {fitting}"
            self.wrong(path, message, at_key=True)
        self.components[name] = component

    def parameters(self, name: str) -> Any:
        """Validate a node's parameters, find its weights, and check the recipe it runs inside, which it returns."""
        component = self.components[name]
        prefix = ("graph", name, "with")
        given = self.tree.get(*prefix)
        if given is not None and not isinstance(given.value, dict):
            return None  # the form says so
        tree = self.tree
        if given is not None:
            tree = _replaced(tree, name, _as_meant(given, component.params))
        try:
            params, problems = form_problems(component.params, tree, prefix)
        except Exception as error:  # a validator of somebody's plugin
            self.wrong(prefix, f"'{component.params.__name__}' cannot check this: {type(error).__name__}: {error}")
            return None
        self.problems += problems
        if len(self.problems) > ENOUGH:
            raise _Enough
        found = self.find_weights(name, component, params, tree.get(*prefix))
        if params is None:
            return None
        self.params[name] = params
        self.find_features(name, component, params, found)
        return self.inner(name, component, params) if KINDS[component.kind].graph == self.kind else None

    def find_weights(
        self, name: str, component: Component, params: Params | None, given: Located | None
    ) -> dict[str, weights.WeightsInfo] | None:
        """The weights that parameters name, by parameter; None where one of them is not there or does not fit.

        Where the parameters are wrong otherwise (`params` None), those that are `given`, or the defaults.
        """
        found: dict[str, weights.WeightsInfo] | None = {}
        for param, marker in marked(component.params, WeightsParam).items():
            if params is not None:
                wanted = getattr(params, param)
            else:
                own = given.get(param) if given is not None else None
                wanted = own.value if own is not None else component.params.model_fields[param].default
            if not isinstance(wanted, str) or f"{name}.{param}" in self.rebound:
                continue
            path = ("graph", name, "with", param)
            at = path if self.tree.get(*path) is not None else ("graph", name, "uses")
            try:
                info = weights.find(wanted, self.folder)
                if info.architecture not in marker.architectures:
                    needed = " or ".join(marker.architectures)
                    raise WeightsError(f"the weights '{wanted}' are of {info.architecture}, {param} needs {needed}")
                if found is not None:
                    found[param] = info
            except WeightsError as error:
                there = self.tree.problem(at, str(error), at_key=at != path)
                self.problems.append(replace(there, path=".".join(path)))
                found = None
        return found

    def find_features(
        self, name: str, component: Component, params: Params, found: Mapping[str, weights.WeightsInfo] | None
    ) -> None:
        rebound = any(item.startswith(f"{name}.") for item in self.rebound)
        if component.features is None or found is None or rebound:
            return
        try:
            self.features[name] = component.features(params, found)
        except Exception as error:
            self.wrong(("graph", name), f"its features are not known: {type(error).__name__}: {error}")

    def inner(self, name: str, component: Component, params: Params) -> Any:
        for param, marker in marked(component.params, RecipeParam).items():
            overrides = getattr(params, marker.overrides) if marker.overrides else {}
            inputs = self.tree.get("graph", name, "inputs")
            rebound = (
                [port for port in inputs.value if "." in port] if inputs and isinstance(inputs.value, dict) else []
            )
            try:
                # of kind infer only: a training recipe could name itself
                return load_recipe(getattr(params, param), overrides, self.plugins, rebound, "infer")
            except RecipeError as error:
                for problem in error.problems:
                    self.wrong(("graph", name, "with", param), str(problem))
        return None

    def links(self, name: str, inner: Any) -> tuple[dict[str, tuple[Ref, ...]], dict[str, Ref]]:
        """A node's inputs by port, and an evaluator's rebindings."""
        inputs: dict[str, tuple[Ref, ...]] = {}
        rebind: dict[str, Ref] = {}
        given = self.tree.get("graph", name, "inputs")
        if given is None or not isinstance(given.value, dict):
            return inputs, rebind
        component = self.components.get(name)
        ports = component.all_inputs() if component is not None else {}
        for port_name, value in given.value.items():
            path: Path_ = ("graph", name, "inputs", port_name)
            items = value.value if isinstance(value.value, list) else [value]
            at = [(*path, i) for i in range(len(items))] if isinstance(value.value, list) else [path]
            refs = [self.ref(item, where) for item, where in zip(items, at, strict=True)]
            if component is None:
                continue
            if "." in port_name and component.kind == "evaluator" and marked(component.params, RecipeParam):
                if self.rebinds(path, port_name, inner) and refs and refs[0] is not None:
                    self.fits(refs[0], Port("Weights"), at[0])
                    rebind[port_name] = refs[0]
                continue
            if port_name not in ports:
                has = f"its inputs are {', '.join(ports)}" if ports else "it has none"
                uses = self.tree.nearest(("graph", name, "uses")).value
                hint = suggest(port_name, ports) or f"; {has}"
                self.wrong(path, f"'{uses}' has no input '{port_name}'{hint}", at_key=True)
                continue
            if len(items) > 1 and not ports[port_name].many:
                self.wrong(path, "takes one connection, not a list")
            for ref, where in zip(refs, at, strict=True):
                if ref is not None:
                    self.fits(ref, ports[port_name], where)
            inputs[port_name] = tuple(ref for ref in refs if ref is not None)
        return inputs, rebind

    def ref(self, value: Located, path: Path_) -> Ref | None:
        if not isinstance(value.value, str):
            return None  # the form says so
        node, dot, port = value.value.partition(".")
        graph = self.tree.get("graph")
        assert graph is not None
        if not dot or not port:
            self.wrong(path, f"'{value.value}' is no connection: write node.port")
        elif node not in graph.value:
            self.wrong(path, f"there is no node '{node}'{suggest(node, graph.value)}")
        elif node in self.components and port not in self.components[node].all_outputs():
            outputs = self.components[node].all_outputs()
            hint = suggest(port, outputs) or (f"; it gives {', '.join(outputs)}" if outputs else "; it has none")
            self.wrong(path, f"'{node}' has no output '{port}'{hint}")
        else:
            return Ref(node, port)
        return None

    def fits(self, ref: Ref, port: Port, path: Path_) -> None:
        if ref.node not in self.components:
            return
        output = self.components[ref.node].all_outputs()[ref.port]
        if output.type != port.type:
            self.wrong(path, f"needs {port.type}, but {ref} gives {output.type}")
            return
        given = output.features | set(self.features.get(ref.node, {}).get(ref.port, ()))
        component = self.components[ref.node]
        known = ref.node in self.features or component.features is None
        missing = sorted(port.features - given)
        if missing and known:
            self.wrong(path, f"needs {port.type} with {' and '.join(missing)}, which {ref} does not give here")

    def rebinds(self, path: Path_, name: str, inner: Any) -> bool:
        """Whether `node.param` names weights of the recipe that an evaluator runs."""
        if inner is None:
            return False
        node_name, _, param = name.partition(".")
        if node_name not in inner.nodes:
            hint = suggest(node_name, inner.nodes)
            self.wrong(path, f"the recipe '{inner.name}' has no node '{node_name}'{hint}", at_key=True)
            return False
        node = inner.nodes[node_name]
        params = marked(node.component.params, WeightsParam)
        if param not in params:
            hint = suggest(param, params)
            self.wrong(path, f"'{node.uses}' has no parameter '{param}' that names weights{hint}", at_key=True)
            return False
        return True

    def required(self, name: str, inputs: Mapping[str, tuple[Ref, ...]]) -> None:
        component = self.components.get(name)
        given = self.tree.get("graph", name, "inputs")
        if component is None or (given is not None and not isinstance(given.value, dict)):
            return
        named = set(given.value) if given is not None else set()
        ports = component.all_inputs()
        for port_name, port in ports.items():
            if port_name not in named and not port.optional:
                self.wrong(("graph", name, "inputs", port_name), f"is missing: connect it to {port.type}")
        if component.kind == "sink" and not named & set(ports):
            self.wrong(("graph", name, "inputs"), f"connect at least one of {', '.join(ports)}")

    def one_source(self) -> None:
        sources = [name for name, component in self.components.items() if component.kind == "source"]
        if len(sources) > 1:
            self.wrong(("graph", sources[1]), f"a second source beside '{sources[0]}'; a graph has one", at_key=True)
        if not sources and not self.problems:
            self.wrong(("graph",), "there is no source: a graph needs one, such as core.images", at_key=True)

    def one_writer(self) -> None:
        """Every output has a path of its own, and none that is read; devices and standard output take what several
        write."""
        read = {os.path.realpath(self.tree.place.file): "the recipe itself"}
        for name, params in self.params.items():
            for param, marker in marked(type(params), PathParam).items():
                value = getattr(params, param)
                if not marker.output and isinstance(value, str) and os.path.isfile(value):  # noqa: PTH113
                    read[os.path.realpath(value)] = f"what '{name}' reads"
        writers: dict[str, str] = {}
        for name, params in self.params.items():
            for param, marker in marked(type(params), PathParam).items():
                value = getattr(params, param)
                if not marker.output or not isinstance(value, str) or value == "-":
                    continue
                path, at = os.path.realpath(value), ("graph", name, "with", param)
                if path in read:
                    self.wrong(at, f"{value} is {read[path]}, and would be replaced")
                device = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112, PTH113
                if (writer := writers.setdefault(path, name)) != name and not device:
                    self.wrong(at, f"'{writer}' writes {value} already; give one of them another path")

    def ordered(self, names: list[str], links: Mapping[str, tuple[Any, Any]]) -> list[str]:
        """The nodes, each after those it needs, otherwise as written. A circle is a mistake."""
        needs = {
            name: {ref.node for refs in links[name][0].values() for ref in refs}
            | {r.node for r in links[name][1].values()}
            for name in names
        }
        place = {name: i for i, name in enumerate(names)}
        waiting = {name: {node for node in needs[name] if node in place} for name in names}
        feeds: dict[str, list[str]] = {name: [] for name in names}
        for name, nodes in waiting.items():
            for node in nodes:
                feeds[node].append(name)
        ready = [place[name] for name in names if not waiting[name]]
        ordered: list[str] = []
        while ready:
            name = names[heapq.heappop(ready)]
            ordered.append(name)
            for fed in feeds[name]:
                waiting[fed].discard(name)
                if not waiting[fed]:
                    heapq.heappush(ready, place[fed])
        if len(ordered) < len(names):
            name = next(name for name in names if waiting[name])
            circle: list[str] = []
            while name not in circle:  # whoever waits waits for one that waits
                circle.append(name)
                name = min(waiting[name], key=place.__getitem__)
            circle = sorted(circle[circle.index(name) :], key=place.__getitem__)
            shown = ", ".join(circle[:20]) + (", …" if len(circle) > 20 else "")
            self.wrong(("graph", circle[0], "inputs"), f"the connections form a circle: {shown}", at_key=True)
            return names
        return ordered


def _replaced(tree: Located, name: str, params: Located) -> Located:
    """The tree with the `with:` of one node replaced."""
    graph = tree.get("graph")
    assert graph is not None
    node = graph.value[name]
    node = Located({**node.value, "with": params}, node.place, node.key)
    graph = Located({**graph.value, name: node}, graph.place, graph.key)
    return Located({**tree.value, "graph": graph}, tree.place, tree.key)


def _as_meant(given: Located, params: type[Params]) -> Located:
    """A node's parameters with paths made whole and numbers that are meant as text (a folder 007) as written."""
    paths, recipes = marked(params, PathParam), marked(params, RecipeParam)
    values = {}
    for name, value in given.value.items():
        info = next((f for key, f in params.model_fields.items() if (f.alias or key) == name), None)
        if info is not None:
            value = _texts(value, _types(info.annotation))
            suffixes = (".yaml", ".yml") if name in recipes else paths[name].suffix if name in paths else None
            if suffixes is not None and str(value.value).endswith(suffixes):
                value = _placed(value, name in recipes or not paths[name].output)
        values[name] = value
    return Located(values, given.place, given.key)


def _texts(value: Located, types_: list[Any]) -> Located:
    if isinstance(value.value, list):
        return Located([_texts(item, types_) for item in value.value], value.place, value.key)
    scalar = isinstance(value.value, int | float) and value.text is not None
    if scalar and str in types_ and not {int, float, bool} & {t for t in types_ if isinstance(t, type)}:
        return Located(value.text, value.place, value.key, value.text)
    return value


def _placed(value: Located, rooted: bool) -> Located:
    """A path with its ~ expanded; `rooted` ones in the folder of the recipe they stand in, if any. URLs stay."""
    if isinstance(value.value, list):
        return Located([_placed(item, rooted) for item in value.value], value.place, value.key)
    text, folder = value.value, value.place.folder if rooted else None
    if not isinstance(text, str) or "://" in text or not text:
        return value
    return Located(os.path.join(folder or "", os.path.expanduser(text)), value.place, value.key)  # noqa: PTH111, PTH118

"""Runs a training graph: stages that are keyed, cached, locked, and taken up again where they were interrupted.

Datasets and transforms are cheap: they are made in memory in every run, before anything else, and count in keys by
their fingerprint. Samplers, trainers and evaluators are stages. Each is built as `impl(params, context)` and called as
`run(**inputs)`, by port (an evaluator's rebindings by their names, `node.param`); it gives a dict by port:

- Weights: the path of a safetensors file in `context.folder`.
- Report: a dict of JSON's types.
- Samples: a path in `context.folder`; or any object, and then the implementation also has `load()`, which gives what
  `run` gave, out of `context.folder`, in a later run.
- Dataset, from a stage: likewise an object, and `load()`.

An implementation may have `metrics`, a dict of numbers for the summary; trainers that use `lprf.training` need not.

A stage's folder is `ROOT/<recipe>/<node>/<key>`. The key is the hash of everything that decides the outcome: the
component and its version, its parameters, its inputs, the seed, the content of weights and of recipes it names. There
stand the stage's `log.txt`, its checkpoints and outputs, and, written last, `stage.json`: where that is, the stage is
done. A folder without it is gone on with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lprf import plate_format, weights
from lprf.component import Params, PathParam, RecipeParam, WeightsParam, marked
from lprf.context import Context
from lprf.errors import LprfError, PluginError, RecipeError
from lprf.files import replacing, writing
from lprf.lock import Lock
from lprf.plugins import Plugins, suggest
from lprf.recipe import Node, Recipe, Ref, load_recipe
from lprf.runs import CHECKPOINT, DONE, LOCK, LOG, METRICS, latest_done, read_done
from lprf.stream import pick_device, pick_dtype
from lprf.text import columns, duration
from lprf.training import distributed
from lprf.training.params import Unkeyed

logger = logging.getLogger("lprf.stages")

CHEAP = ("dataset", "transform")


class StageFailed(LprfError):
    """A stage could not be finished: which, why, where its log is, and how to go on."""


@dataclass(frozen=True)
class Stage:
    """A stage of a training graph, as hooks and summaries see it.

    run: the recipe's name. name: the node's. uses: its component.
    key: the hash of `parts`, which say what decides the outcome, one by one. folder: where it runs.
    status: "to run" (it will, or does), "ran", "cached" (it was done before). reason: why it runs.
    metrics, seconds: of a stage that is done.
    """

    run: str
    name: str
    uses: str
    key: str
    folder: Path
    parts: Mapping[str, str]
    status: Literal["to run", "ran", "cached"] = "to run"
    reason: str = ""
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / LOG


@dataclass(frozen=True)
class RunResult:
    """What a run of a training graph did.

    values: the outputs, by port. weights: the files it leaves for reading, by name. commands: read plates with them.
    """

    name: str
    folder: Path
    stages: list[Stage]
    values: Mapping[Ref, Any]
    weights: Mapping[str, Path]
    commands: list[str]

    def summary(self) -> str:
        """Each stage on a line: what became of it, how long it took, what it scored; then the weights."""
        rows = [["stage", "", "seconds", ""]]
        for stage in self.stages:
            metrics = ", ".join(f"{key} {value:.4g}" for key, value in list(stage.metrics.items())[:6])
            seconds = f"{stage.seconds:.0f}" if stage.status != "to run" else ""
            rows.append([stage.name, stage.status, seconds, stage.reason if stage.status == "to run" else metrics])
        lines = [columns(rows)] if self.stages else ["nothing but datasets: no stage to run"]
        for path in self.weights.values():
            lines.append(f"weights: {path}")
        for command in self.commands:
            lines += ["to read plates with them:" if command == self.commands[0] else "or:", f"  {command}"]
        return "\n".join(lines)


def run(
    recipe: Recipe,
    plugins: Plugins | None = None,
    *,
    dry_run: bool = False,
    force: Iterable[str] = (),
    root: str | Path = "runs",
    command: str | None = None,
) -> RunResult:
    """Run a training graph, or with `dry_run` only say what would run and why.

    force: stages to run again, with all that follow from them. command: what a person types to go on after a failure.
    Raises StageFailed; LprfError where a dataset or transform makes no sense.
    """
    if recipe.kind != "train":
        raise LprfError(f"recipe '{recipe.name}' is an inference graph; this needs a training graph")
    force = set(force)
    stages = [node.name for node in recipe.nodes.values() if node.component.kind not in CHEAP]
    for name in force:
        if name not in stages:
            raise LprfError(f"there is no stage '{name}'{suggest(name, stages) or '; there are ' + ', '.join(stages)}")
    threads = torch.get_num_threads()
    with _console(), torch.random.fork_rng():
        runner = _Runner(recipe, recipe.plugins if plugins is None else plugins, Path(root), force, command)
        try:
            return runner.plan() if dry_run else runner.run()
        finally:
            distributed.stop()
            torch.set_num_threads(threads)


def resume_command(recipe: Recipe) -> str:
    """What to type to go on with a run, as near as it can be known: the command line, if it was this one.

    Without `--force`, which would begin again.
    """
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if words[0] not in ("lprf", "__main__.py") or "run" not in words:
        return shlex.join(["lprf", "run", str(recipe.path)])
    kept = []
    arguments = iter(words[1:])
    for word in arguments:
        if not word.startswith("--f"):  # nothing else does; it may be shortened
            kept.append(word)
        elif "=" not in word:
            next(arguments, None)
    launcher = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1"), "-m"]
    return shlex.join([*(launcher if distributed.under_torchrun() else []), "lprf", *kept])


class _Runner:
    def __init__(self, recipe: Recipe, plugins: Plugins, root: Path, force: set[str], command: str | None):
        self.recipe, self.plugins = recipe, plugins
        self.folder = root / recipe.name
        self.force = force
        self.forced = self._forced()
        self.command = command or resume_command(recipe)
        if recipe.runtime.threads is not None:
            torch.set_num_threads(recipe.runtime.threads)
        for name in ("precision", "backend", "batch"):
            if getattr(recipe.runtime, name) != type(recipe.runtime).model_fields[name].default:
                logger.warning("runtime.%s changes nothing here: it is for recipes that read", name)
        self.device = distributed.start(pick_device(recipe.runtime.device))
        self.dtype = pick_dtype(recipe.runtime.precision)
        self.values: dict[Ref, Any] = {}
        self.keys: dict[str, str] = {}
        self.fingerprints: dict[Ref, str] = {}

    def plan(self) -> RunResult:
        """What would run, and why."""
        self._make_datasets()
        found = []
        for node in self._stages():
            stage = self._stage(node)
            done = read_done(stage.folder)
            if done is not None and node.name not in self.forced:
                stage = dataclasses.replace(stage, status="cached", seconds=done["seconds"], metrics=done["metrics"])
            else:
                stage = dataclasses.replace(stage, reason=self._reason(node, stage))
            found.append(stage)
        return RunResult(self.recipe.name, self.folder, found, self.values, {}, [])

    def run(self) -> RunResult:
        self._make_datasets()
        stages = [(node, self._stage(node)) for node in self._stages()]
        if distributed.is_main():
            # all of them now, so that a forced run that is cut short is not taken for a whole one
            for node, stage in stages:
                if node.name in self.forced and stage.folder.is_dir():
                    self._clear(node, stage)
        distributed.barrier()
        done = [self._run_stage(node, stage) for node, stage in stages]
        files = self._leave_weights()
        commands = self._commands(files) if distributed.is_main() else []
        return RunResult(
            self.recipe.name,
            self.folder,
            done,
            self.values,
            {path.stem: path for path in files.values()},
            commands,
        )

    def _clear(self, node: Node, stage: Stage) -> None:
        """Forget what a stage has done, checkpoints included; its lock stays."""
        with writing(stage.folder), _locked(Lock(stage.folder / LOCK), node.name):
            (stage.folder / DONE).unlink(missing_ok=True)
            for path in stage.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()

    def _stages(self) -> list[Node]:
        return [node for node in self.recipe.nodes.values() if node.component.kind not in CHEAP]

    # Datasets

    def _make_datasets(self) -> None:
        for node in self.recipe.nodes.values():
            if node.component.kind in CHEAP:
                context = self._context(node, self.folder / node.name)
                self._keep(node, node.component.load()(node.params, context).run(**self._inputs(node)))
                if node.component.kind == "dataset":
                    self._tell_of(node)

    def _tell_of(self, node: Node) -> None:
        """How many pictures a dataset has, and what is wrong with it."""
        value = self.values[Ref(node.name, "dataset")]
        problems = getattr(value, "problems", ())
        rows = "row" if len(problems) == 1 else "rows"
        skipped = f", {len(problems)} {rows} skipped" if problems else ""
        logger.info("%s: %d pictures%s", node.name, len(value), skipped)
        for problem in problems[:5]:
            logger.info("  %s", problem)
        if len(problems) > 5:
            logger.info("  and %d more", len(problems) - 5)

    # Keys

    def _stage(self, node: Node) -> Stage:
        parts = self._parts(node)
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
        self.keys[node.name] = key
        return Stage(self.recipe.name, node.name, node.uses, key, self.folder / node.name / key, parts)

    def _parts(self, node: Node) -> dict[str, str]:
        """Everything that decides the outcome of a stage, one by one."""
        parts = {"component": self._made_by(node), "seed": str(self.recipe.runtime.seed)}
        parts |= {f"with.{name}": text for name, text in _params(node.params, self.recipe.folder).items()}
        for port, refs in node.inputs.items():
            parts[f"inputs.{port}"] = " ".join(self._identity(ref) for ref in refs)
        for name, ref in node.rebind.items():
            parts[f"inputs.{name}"] = self._identity(ref)
        if node.inner is not None:
            for inner in node.inner.nodes.values():
                if inner.component.kind in ("source", "sink"):
                    continue
                parts[f"recipe.{inner.name}"] = self._made_by(inner)
                for name, text in _params(inner.params, node.inner.folder, set(node.rebind), inner.name).items():
                    parts[f"recipe.{inner.name}.{name}"] = text
                for port, refs in inner.inputs.items():
                    parts[f"recipe.{inner.name}.inputs.{port}"] = " ".join(map(str, refs))
            for name in ("precision", "backend"):  # what is measured differs by them
                parts[f"recipe.runtime.{name}"] = getattr(node.inner.runtime, name)
        return parts

    def _identity(self, ref: Ref) -> str:
        if ref.node in self.keys:
            return f"{self.keys[ref.node]}.{ref.port}"
        if ref not in self.fingerprints:  # of a large dataset it takes a while
            versions = " ".join(sorted(self._versions(ref.node)))
            self.fingerprints[ref] = f"{self._value(ref).fingerprint()} {versions}".rstrip()
        return self.fingerprints[ref]

    def _made_by(self, node: Node) -> str:
        """A component with its version and, of a plugin in one file, what that holds."""
        digest = self.plugins.load(node.uses.partition(".")[0]).digest
        return f"{node.uses} version {node.component.version}" + (f" of {digest[:16]}" if digest else "")

    def _versions(self, name: str) -> set[str]:
        """What made a dataset, as far as its fingerprint may not tell: later versions, and plugins in one file."""
        node = self.recipe.nodes[name]
        before = {ref.node for refs in node.inputs.values() for ref in refs}
        found = set[str]().union(*(self._versions(other) for other in before if other not in self.keys))
        made_by = self._made_by(node)
        return found if made_by.endswith(" version 1") else found | {made_by}

    def _forced(self) -> set[str]:
        """Stages that run because they were forced to, or follow from such."""
        found = set(self.force)
        for node in self._stages():
            refs = [ref for refs in node.inputs.values() for ref in refs] + list(node.rebind.values())
            if any(ref.node in found for ref in refs):
                found.add(node.name)
        return found

    def _reason(self, node: Node, stage: Stage) -> str:
        """Why a stage runs: what differs from the last time it was done."""
        if node.name in self.force:
            return "forced"
        if node.name in self.forced:
            return "follows from a stage that is forced"
        going_on = "goes on from its checkpoint; " if (stage.folder / CHECKPOINT).is_file() else ""
        last = latest_done(stage.folder.parent)
        if last is None:
            return going_on + ("was begun" if going_on else "has not run yet")
        old, new = last["parts"], stage.parts
        changes = []
        for name in sorted(set(old) | set(new)):
            if old.get(name) == new.get(name):
                continue
            short = name.removeprefix("with.")
            if name.startswith("inputs."):
                port = name.removeprefix("inputs.")
                refs = [*node.inputs.get(port, ()), *([node.rebind[port]] if port in node.rebind else [])]
                changes.append(f"{port} ({', '.join(map(str, refs)) or 'not connected now'}) changed")
            elif len(f"{old.get(name)}{new.get(name)}") < 60:
                changes.append(f"{short}: {old.get(name, 'not set')} → {new.get(name, 'not set')}")
            else:
                changes.append(f"{short} changed")
        return going_on + ("; ".join(changes) or "its outputs are gone")

    # Running

    def _run_stage(self, node: Node, stage: Stage) -> Stage:
        main = distributed.is_main()
        with contextlib.ExitStack() as stack:
            if main:
                with writing(stage.folder):
                    stage.folder.mkdir(parents=True, exist_ok=True)
                    lock = Lock(stage.folder / LOCK)
                    waited = stack.enter_context(_locked(lock, node.name))
                if waited:
                    logger.info("%s: the other run is through with it", node.name)
            done = distributed.broadcast(read_done(stage.folder) if main else None)
            if done is not None:
                logger.info("%s: done before (%s)", node.name, stage.folder)
                implementation = functools.partial(self._build, node, stage)
                self._keep(node, _load_outputs(stage, done["outputs"], implementation))
                if main and node.component.kind == "evaluator":
                    _leave(implementation())
                return dataclasses.replace(stage, status="cached", seconds=done["seconds"], metrics=done["metrics"])
            return self._run_now(node, stage)

    def _run_now(self, node: Node, stage: Stage) -> Stage:
        main = distributed.is_main()
        if main:
            stage = dataclasses.replace(stage, reason=self._reason(node, stage))
            self.plugins.notify("lprf_stage_started", stage=stage)
        try:
            with _log_to(stage.log if main else None):
                if main:
                    _sweep(stage.folder)
                logger.info("%s: %s, %s; log in %s", node.name, node.uses, stage.reason, stage.log)
                began = time.monotonic()
                implementation = self._build(node, stage)
                # samplers and evaluators run in one process; the others take what it leaves
                takes_part = main or node.component.kind == "trainer"
                outputs = _checked(node, implementation.run(**self._inputs(node))) if takes_part else {}
                distributed.barrier()
                written: dict[str, Any] = {}
                if main:
                    seconds = time.monotonic() - began
                    metrics = _metrics(node, stage.folder, implementation, outputs)
                    written = _write_outputs(node, stage, outputs, hasattr(implementation, "load"))
                    stage = dataclasses.replace(stage, status="ran", seconds=seconds, metrics=metrics)
                    _write_done(stage, written)
                    _leave(implementation)
                    said = ", ".join(f"{key} {value:.4g}" for key, value in list(metrics.items())[:8])
                    logger.info("%s: done in %s%s", node.name, duration(seconds), f": {said}" if said else "")
                written = distributed.broadcast(written)
                if not takes_part:
                    outputs = _load_outputs(stage, written, lambda: implementation)
        except BaseException as error:
            if main:
                self.plugins.notify("lprf_stage_failed", stage=stage, error=error)
            if not isinstance(error, Exception):  # Ctrl-C
                logger.info("%s: interrupted; to go on: %s", node.name, self.command)
                raise
            plain = isinstance(error, LprfError)
            what = str(error) if plain else f"{type(error).__name__}: {error}"
            lines = [f"stage '{node.name}' failed: {what}", f"its log: {stage.log}", f"to go on: {self.command}"]
            raise StageFailed("\n  ".join(lines)) from error
        self._keep(node, outputs)
        if main:
            self.plugins.notify("lprf_stage_finished", stage=stage)
        return stage

    def _build(self, node: Node, stage: Stage) -> Any:
        torch.manual_seed(self.recipe.runtime.seed)
        return node.component.load()(node.params, self._context(node, stage.folder))

    def _context(self, node: Node, folder: Path) -> Context:
        return Context(
            device=self.device,
            dtype=self.dtype,
            weights=functools.partial(weights.find_and_load, folder=self.recipe.folder),
            node=node.name,
            folder=folder,
            seed=self.recipe.runtime.seed,
            workers=self.recipe.runtime.workers,
            recipe=node.inner,
        )

    def _inputs(self, node: Node) -> dict[str, Any]:
        ports = node.component.all_inputs()
        inputs: dict[str, Any] = {}
        for port, refs in node.inputs.items():
            found = [self._value(ref) for ref in refs]
            inputs[port] = found if ports[port].many else found[0]
        return inputs | {name: self._value(ref) for name, ref in node.rebind.items()}

    def _value(self, ref: Ref) -> Any:
        if ref not in self.values:  # an optional output, such as a part that a split was not asked for
            told = f"with its inputs and parameters as they are '{ref.node}' does not give it"
            raise LprfError(f"{ref} is needed, but {told}")
        return self.values[ref]

    def _keep(self, node: Node, outputs: Mapping[str, Any]) -> None:
        self.values |= {Ref(node.name, port): value for port, value in _checked(node, outputs).items()}

    # What a finished run leaves

    def _leave_weights(self) -> dict[Ref, Path]:
        """Copy the trained weights to the run's folder: `<stage>`, or `<stage>-<port>` of a stage with several."""
        left = {}
        begun_from = {
            Path(name).resolve()
            for node in self._stages()
            for param in marked(type(node.params), WeightsParam)
            if isinstance(name := getattr(node.params, param), str)
        }
        for node in self._stages():
            ports = [port for port, declared in node.component.all_outputs().items() if declared.type == "Weights"]
            for port in ports:
                ref = Ref(node.name, port)
                if ref not in self.values:
                    continue
                name = node.name if len(ports) == 1 else f"{node.name}-{port}"
                left[ref] = self.folder / "weights" / f"{name}{weights.SUFFIX}"
                if distributed.is_main():
                    if left[ref].resolve() in begun_from:
                        logger.warning(
                            "%s is what this run began from, and is replaced: the same command would begin from what "
                            "it is now; `lprf weights publish` keeps weights under a name of their own",
                            left[ref],
                        )
                    with replacing(left[ref]) as beside:
                        shutil.copyfile(self.values[ref], beside)
        return left

    def _commands(self, files: Mapping[Ref, Path]) -> list[str]:
        """How to read plates with the trained weights: the recipes that were evaluated, else the shipped ones."""
        found: list[dict[str, Any]] = []
        for node in self._stages():
            if node.inner is not None and node.rebind:
                name = next(str(getattr(node.params, param)) for param in marked(type(node.params), RecipeParam))
                settings = {param: files[ref] for param, ref in node.rebind.items() if ref in files}
                if settings:
                    found.append({"recipe": name, "settings": settings})
        if not found and files:
            found = _shipped_for(files.values(), self.plugins)
        commands = [
            shlex.join(
                ["lprf", "run", item["recipe"], *(w for k, v in item["settings"].items() for w in ("-s", f"{k}={v}"))]
            )
            for item in found
        ]
        return list(dict.fromkeys(commands))


def _shipped_for(files: Iterable[Path], plugins: Plugins) -> list[dict[str, Any]]:
    """The shipped reading recipe that has use for the most of these weights, with what to set in it."""
    try:
        by_architecture = {weights.read_info(path).architecture: path for path in files}
    except LprfError:
        return []
    best: dict[str, Any] = {"settings": {}}
    for name in ("read-plates", "detect-plates", "read-crops"):
        try:
            nodes = load_recipe(name, (), plugins).nodes.values()
        except RecipeError:
            continue
        settings = {
            f"{node.name}.{param}": by_architecture[architecture]
            for node in nodes
            for param, marker in marked(node.component.params, WeightsParam).items()
            for architecture in marker.architectures
            if architecture in by_architecture and getattr(node.params, param) is not None
        }
        if len(settings) > len(best["settings"]):
            best = {"recipe": name, "settings": settings}
    return [best] if best["settings"] else []


def _leave(implementation: Any) -> None:
    """Let an evaluator that can put its reports where its parameters say, whether it measured now or before."""
    leave = getattr(implementation, "leave", None)
    if leave is not None:
        leave()


def _params(params: Params, folder: Path, rebound: Collection[str] = (), node: str = "") -> dict[str, str]:
    """Parameters as text by name, defaults included; weights and files by their content, not their name."""
    kind = type(params)
    unkeyed = marked(kind, Unkeyed)
    named_weights, recipes = marked(kind, WeightsParam), marked(kind, RecipeParam)
    paths = {name: marker.suffix for name, marker in marked(kind, PathParam).items() if not marker.output}
    overrides = {marker.overrides for marker in recipes.values()}  # they show in the recipe they change
    found = {}
    for name, value in params.model_dump(mode="json").items():
        if name in unkeyed or name in recipes or name in overrides or f"{node}.{name}" in rebound:
            continue
        if name in named_weights:
            found[name] = _each(value, lambda item: weights.find(item, folder).sha256)
        elif name in paths and (not paths[name] or str(value).endswith(paths[name])):
            found[name] = _each(value, lambda item: _content(Path(item)))
        elif name in paths and (own := plate_format.of_the_user(str(value))) is not None:
            found[name] = f"{value} {_content(own)}"
        else:
            found[name] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return found


def _each(value: Any, identity: Any) -> str:
    if isinstance(value, list):
        return " ".join(_each(item, identity) for item in value)
    return str(identity(value)) if value else "none"


def _content(path: Path) -> str:
    """A file by its content, a folder by the names and sizes in it."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted((str(p.relative_to(path)), p.stat().st_size) for p in path.rglob("*") if p.is_file())
    return hashlib.sha256(json.dumps(names).encode(errors="surrogateescape")).hexdigest()


def _checked(node: Node, outputs: Any) -> dict[str, Any]:
    declared = node.component.all_outputs()
    missing = [port for port, d in declared.items() if not d.optional and port not in (outputs or {})]
    if not isinstance(outputs, Mapping) or (missing and node.component.kind not in CHEAP):
        raise PluginError(f"{node.name} ({node.uses}) did not give {', '.join(missing) or 'a dict by port'}")
    return {port: value for port, value in outputs.items() if port in declared}


def _write_outputs(node: Node, stage: Stage, outputs: Mapping[str, Any], loads: bool) -> dict[str, Any]:
    """What `stage.json` says of the outputs: a file in the folder, JSON, or that the implementation loads them."""
    written: dict[str, Any] = {}
    for port, value in outputs.items():
        kind = node.component.all_outputs()[port].type
        if kind == "Report":
            with replacing(stage.folder / f"{port}.json") as beside:
                beside.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
            written[port] = {"json": f"{port}.json"}
        elif isinstance(value, str | Path):
            try:
                relative = Path(value).resolve().relative_to(stage.folder.resolve())
            except ValueError:
                raise PluginError(f"{node.name} ({node.uses}) wrote {port} outside of its folder: {value}") from None
            written[port] = {"path": relative.as_posix()}
        elif loads:
            written[port] = {"load": True}
        else:
            raise PluginError(f"{node.name} ({node.uses}) gives {port} as an object, but has no load()")
    return written


def _load_outputs(stage: Stage, written: Mapping[str, Any], implementation: Any) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for port, where in written.items():
        if "path" in where:
            outputs[port] = stage.folder / where["path"]
        elif "json" in where:
            outputs[port] = json.loads((stage.folder / where["json"]).read_text(encoding="utf-8"))
    if any("load" in where for where in written.values()):
        outputs |= {port: value for port, value in implementation().load().items() if "load" in written[port]}
    return outputs


def _metrics(node: Node, folder: Path, implementation: Any, outputs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers for the summary: the implementation's own, the training loop's, or those atop a report."""
    given = getattr(implementation, "metrics", None)
    if given is None and (folder / METRICS).is_file():
        given = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    if given is None:
        reports = [outputs[port] for port, d in node.component.all_outputs().items() if d.type == "Report"]
        given = {key: value for report in reports for key, value in report.get("summary", report).items()}
    return {
        key: float(value)
        for key, value in given.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _write_done(stage: Stage, outputs: Mapping[str, Any]) -> None:
    """Say that a stage is done, atomically, after everything else."""
    content = {
        "run": stage.run,
        "stage": stage.name,
        "uses": stage.uses,
        "key": stage.key,
        "parts": dict(stage.parts),
        "seconds": round(stage.seconds, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "metrics": dict(stage.metrics),
        "outputs": dict(outputs),
        "lprf": importlib.metadata.version("lprf"),
    }
    with replacing(stage.folder / DONE) as beside:
        beside.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half-written beside a file (`lprf.files.replacing`); the lock is ours."""
    for path in folder.glob(".*"):
        if path.name != LOCK and path.is_file():
            path.unlink()


@contextlib.contextmanager
def _locked(lock: Lock, name: str) -> Iterator[bool]:
    """Hold the lock of a stage's folder; says so when another run has it, and waits."""
    waited = False
    while not lock.acquire():
        if not waited:
            logger.warning("%s: another run (process %s) is at this stage; waiting for it", name, lock.holder())
            waited = True
        time.sleep(0.5)
    try:
        yield waited
    finally:
        lock.release()


@contextlib.contextmanager
def _log_to(path: Path | None) -> Iterator[None]:
    """Write what is said, and the stack trace of a failure, to a stage's log as well."""
    if path is None:
        yield
        return
    handler = _File(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    parent = logging.getLogger("lprf")
    parent.addHandler(handler)
    try:
        yield
    except BaseException:
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "failed", (), sys.exc_info()))
        raise
    finally:
        parent.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


class _File(logging.FileHandler):
    """A log on a disk that may be full: what does not fit is lost, and ends nothing."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Stderr(logging.StreamHandler[Any]):
    """Prints plain lines to whatever standard error is at the moment (a progress bar may stand in for it)."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@contextlib.contextmanager
def _console() -> Iterator[None]:
    """Let the first process say what it does, unless whoever runs it has set up logging."""
    parent = logging.getLogger("lprf")
    level, handler = parent.level, _Stderr()
    handler.setLevel(logging.INFO)
    quiet = parent.hasHandlers() or (distributed.under_torchrun() and not distributed.is_first())
    if not quiet:
        parent.addHandler(handler)
    if level == logging.NOTSET:
        parent.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        parent.removeHandler(handler)
        parent.setLevel(level)

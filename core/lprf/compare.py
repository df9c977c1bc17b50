"""`lprf compare`: every combination of detectors, rectifiers and recognizers, measured on the same labelled pictures.

Accuracy comes from `core.evaluate`, times from `lprf.bench`; here stands what is combined and on what.
"""

from __future__ import annotations

import functools
import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lprf import weights
from lprf.bench import Side, take_turns
from lprf.builtin.evaluate import Evaluate
from lprf.builtin.params import EvaluateParams
from lprf.builtin.report import environment
from lprf.context import Context
from lprf.data import Dataset, Item, Origin
from lprf.errors import LprfError, RecipeError
from lprf.plugins import Plugins, installed
from lprf.recipe import Recipe, checked, load_recipe
from lprf.source import Place, located
from lprf.stream import pick_device, pick_dtype

# the nodes that are swapped, by the names they have in the shipped recipes, and what each is
PARTS = {"detect": "detector", "rectify": "rectifier", "read": "recognizer"}
# What a folder may be, with the parameter that takes it and the recipe that reads it; the first that understands it.
FOLDERS = (
    ("core.table-dataset", "path", "read-plates"),
    ("ccpd.dataset", "root", "read-plates"),
    ("core.labelled-crops", "path", "read-crops"),
)


def choices(texts: Iterable[str]) -> list[str]:
    """Components with their parameters: ["a.x size=[24,94],b.y", "c.z"] are three. Commas in brackets part nothing."""
    found = [re.split(r",(?![^\[{]*[\]}])", text) for text in texts]
    return [choice.strip() for choice in itertools.chain(*found) if choice.strip()]


def compare(
    dataset: str,
    parts: Mapping[str, Sequence[str]],
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    plugins: Plugins | None = None,
    *,
    pictures: int | None = None,
    iou: float = 0.5,
    timed: int = 32,
    passes: int = 3,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure every combination of `parts` in `recipe`; gives a report in JSON's types, a row a combination.

    dataset: a folder, or a dataset's component with its parameters ("core.table-dataset path=plates.csv").
    parts: by node ("detect", "rectify", "read"), components with their parameters, as `choices` gives them; a node
    without any stays as the recipe has it, as do its parameters where its component is chosen. recipe: by default
    read-plates, or read-crops where the folder holds crops. overrides: of the recipe, in every combination.
    pictures: at most so many, drawn by the seed. iou: the overlap at which a plate counts as found. timed: at most so
    many of the pictures are timed. A combination that does not fit has the reason in its row.
    Raises LprfError where nothing can be measured: no data, no such recipe.
    """
    plugins = installed() if plugins is None else plugins
    labelled, uses, fitting = dataset_of(dataset, pictures, plugins)
    name = recipe or fitting
    told(f"{uses}: {len(labelled)} pictures")
    options = [list(parts.get(part) or [""]) for part in PARTS]
    rows: list[dict[str, Any]] = []
    sides: list[tuple[dict[str, Any], Side, Side]] = []
    items = _items(labelled, timed)
    standing: dict[str, str] = {}  # what the recipe itself has where nothing else was chosen
    for number, chosen in enumerate(combinations := list(itertools.product(*options)), 1):
        row: dict[str, Any] = {"parts": dict(zip(PARTS, chosen, strict=True)), "reason": ""}
        rows.append(row)
        try:
            one = _recipe(name, row["parts"], overrides, plugins)
            standing |= {part: one.nodes[part].uses for part in PARTS if part in one.nodes and not parts.get(part)}
            row["parts"] |= standing
            label = ", ".join(text for text in row["parts"].values() if text)
            told(f"{number} of {len(combinations)}: {label}")
            row |= _accuracy(one, labelled, iou)
            alone = replace(one, runtime=one.runtime.model_copy(update={"batch": 1}))
            sides.append((row, Side(alone, items, f"{label}, one at a time"), Side(one, items, label)))
        except RecipeError as error:
            first, *others = error.problems
            row["reason"] = first.message + (f" (and {len(others)} more)" if others else "")
        except LprfError as error:
            row["reason"] = str(error)
        if row["reason"]:
            told(f"{number} of {len(combinations)}: {row['reason']}")
    if not sides:
        raise LprfError("no combination could be measured:\n" + "\n".join(dict.fromkeys(row["reason"] for row in rows)))
    for row in rows:
        row["parts"] |= standing
    remarks = _remarks(rows, labelled)
    try:
        take_turns([side for _, *both in sides for side in both], passes, told)
    except LprfError as error:  # accuracy stands, whatever became of the times
        remarks.append(f"not timed: {error}")
    else:
        for row, alone_, batched in sides:
            spread = alone_.report()["batch_ms"]
            row |= {"latency_ms": spread["median"], "latency_ms_95": spread["p95"]}
            row["pictures_a_second"] = batched.report()["pictures_a_second"]
    counts = next(row["counts"] for row in rows if "counts" in row)
    return {
        "recipe": name,
        "iou": iou,
        "pictures": counts["pictures"],
        "plates": counts["plates"],
        "timed": len(items),
        "passes": passes,
        "batch": sides[0][2].recipe.runtime.batch,
        "rows": rows,
        "remarks": remarks,
        "provenance": {
            **environment(sides[0][2].graph),
            "weights": {
                f"{key} = {used['name']}": used for row in rows for key, used in row.get("weights", {}).items()
            },
            "dataset": f"{uses} {labelled.fingerprint()}",
            "overrides": list(overrides),
        },
    }


def dataset_of(text: str, pictures: int | None, plugins: Plugins) -> tuple[Dataset, str, str]:
    """The labelled pictures that `text` asks for, the component that has them, and the recipe that reads them.

    Raises LprfError: there are none; RecipeError: the component or its parameters are wrong.
    """
    if not Path(text).is_dir():
        uses, *given = _words(text)
        if "." not in uses or "/" in uses:
            raise LprfError(
                f"'{text}' is neither a folder nor a dataset's component; `lprf components --kind dataset` lists those"
            )
        crops = next((recipe for name, _, recipe in FOLDERS if name == uses), "read-plates")
        return _dataset(uses, [f"data.{words}" for words in given], pictures, plugins), uses, crops
    faults = []
    for uses, param, recipe in FOLDERS:
        if uses == "core.table-dataset" and not (Path(text) / "labels.csv").is_file():
            continue
        try:
            return _dataset(uses, {f"data.{param}": text}, pictures, plugins), uses, recipe
        except LprfError as error:
            if uses == "core.table-dataset":
                raise  # there is a table: what is wrong in it is what to say
            faults.append(f"{uses}: {error}")
    raise LprfError(f"no dataset understands {text}:\n" + "\n".join(faults))


def _dataset(uses: str, overrides: Any, pictures: int | None, plugins: Plugins) -> Dataset:
    graph: dict[str, Any] = {"data": {"uses": uses}}
    if pictures is not None:
        graph["some"] = {
            "uses": "core.subset",
            "inputs": {"dataset": "data.dataset"},
            "with": {"n": pictures},
        }
    tree = located({"lprf": 1, "kind": "train", "name": "compare", "graph": graph}, Place("DATASET"))
    recipe = checked(tree, Path("compare.yaml"), plugins, overrides)
    found: dict[str, Any] = {}
    for node in recipe.nodes.values():
        found = node.component.load()(node.params, _context(recipe, node.name)).run(**found)
    dataset: Dataset = found["dataset"]
    return dataset


def _recipe(name: str, parts: Mapping[str, str], overrides: Sequence[str], plugins: Plugins) -> Recipe:
    own = []
    for node, choice in parts.items():
        if choice:
            uses, *params = _words(choice)
            if (kind := plugins.component(uses).kind) != PARTS[node]:
                raise LprfError(f"{uses} is a {kind}; '{node}' wants a {PARTS[node]}")
            own += [f"{node}.uses={uses}", *(f"{node}.{param}" for param in params)]
    return load_recipe(name, [*overrides, *own], plugins)


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise LprfError(f"'{text}': {error}") from None
    wrong = [word for word in words[1:] if "=" not in word]
    if not words or wrong:
        raise LprfError(f"'{text}': write a component, then its parameters as key=value")
    return words


def _accuracy(recipe: Recipe, dataset: Dataset, iou: float) -> dict[str, Any]:
    """What `core.evaluate` says of a recipe, as far as the table has it."""
    params = EvaluateParams(recipe=recipe.name, iou=iou, failures=0)
    content = Evaluate(params, replace(_context(recipe, "compare"), recipe=recipe)).measure(dataset)
    reading = content.get("reading", {})
    return {
        "found": content["detection"][f"{iou:g}"]["recall"] if "detection" in content else None,
        "found_and_read": reading["end_to_end"]["plates"] if "end_to_end" in reading else None,
        "read_if_found": reading["given_found"]["plates"] if reading else None,
        "summary": content["summary"],
        "counts": content["counts"],
        "weights": content["provenance"]["weights"],
    }


def _context(recipe: Recipe, node: str) -> Context:
    device = pick_device(recipe.runtime.device)
    return Context(
        device=device,
        dtype=pick_dtype(recipe.runtime.precision),
        weights=functools.partial(weights.find_and_load, folder=recipe.folder),
        node=node,
        seed=recipe.runtime.seed,
        workers=recipe.runtime.workers,
    )


def _items(dataset: Dataset, most: int) -> list[Item]:
    """At most so many of the pictures, evenly drawn."""
    number = min(most, len(dataset))
    examples = [dataset[index * len(dataset) // number] for index in range(number)]
    return [Item(Origin(example.source), example.image) for example in examples]


def _remarks(rows: Sequence[Mapping[str, Any]], dataset: Dataset) -> list[str]:
    """What a reader of the table should know, a sentence each."""
    counts = [row["counts"] for row in rows if "counts" in row]
    found = []
    if unread := counts[0]["unread_pictures"]:
        found.append(f"{unread} pictures could not be read; they count in no rate")
    if failed := sum(count["failed_pictures"] for count in counts):
        found.append(f"at {failed} pictures, over all combinations, a component failed; their plates count as missed")
    if without := counts[0]["plates"] - counts[0]["plates_with_text"]:
        found.append(f"{without} plates have no text: they count where plates are found, not where they are read")
    if dataset.problems:
        found.append(f"{len(dataset.problems)} labels were skipped, such as {dataset.problems[0]}")
    return found

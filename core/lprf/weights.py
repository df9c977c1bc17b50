"""Weights: safetensors files whose metadata says what the numbers mean; their cards; import of pickled checkpoints.

The metadata is one JSON object under the safetensors key "lprf". "architecture" is required; a network reads its
sizes, input and alphabet from it; for the card there are "summary", "licence", "training" (an object: recipe, data,
seed, time, hardware and the like), "scores" (a list of objects: on, metric, right, of, interval) and "weaknesses"
(a list of sentences).

Finding weights and reading their metadata needs neither torch nor numpy; `load`, `save` and
`import_checkpoint` import torch when they are called.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs

from lprf.component import Component, WeightsParam, import_attribute, marked
from lprf.errors import PluginError, WeightsError, printable
from lprf.files import replacing, shipped

if TYPE_CHECKING:
    import torch

    from lprf.recipe import Recipe

SUFFIX = ".safetensors"
MAX_HEADER = 4 * 1024 * 1024  # bytes; the shipped networks' headers take a few thousand
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Module = TypeVar("Module", bound="torch.nn.Module")


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself.

    name: the file's stem. metadata: the JSON object under "lprf". tensors: {name: shape}.
    """

    name: str
    path: Path
    architecture: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hex; read when first asked for."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Weights:
    """A loaded weights file: `tensors` by name, on the CPU."""

    path: Path
    info: WeightsInfo
    tensors: Mapping[str, torch.Tensor]

    def require(self, architecture: str) -> Weights:
        """These weights, if they are of this architecture; raises WeightsError otherwise."""
        if self.info.architecture != architecture:
            raise WeightsError(
                f"{self.path}: these weights are of architecture '{self.info.architecture}', "
                f"but '{architecture}' is needed here"
            )
        return self

    def into(self, module: Module) -> Module:
        """Load every tensor into `module`, which is given back; one on the device "meta" gets its memory here.

        Raises WeightsError that names what does not fit.
        """
        state = module.state_dict()
        own = {name: tuple(value.shape) for name, value in state.items()}
        given = {name: tuple(value.shape) for name, value in self.tensors.items()}
        faults = [f"{name} is missing" for name in own if name not in given]
        faults += [f"{name} is not of this network" for name in given if name not in own]
        faults += [
            f"{name} is {list(given[name])}, the network has {list(shape)}"
            for name, shape in own.items()
            if name in given and given[name] != shape
        ]
        if faults:
            more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
            raise WeightsError(f"{self.path} does not fit {type(module).__name__}: {'; '.join(faults[:3])}{more}")
        # copies of the module's own types, because what is assigned is kept as it is
        tensors = {name: value.to(state[name].dtype, copy=True) for name, value in self.tensors.items()}
        module.load_state_dict(tensors, assign=any(value.is_meta for value in state.values()))
        return module


def home() -> Path:
    """The user's data folder: LPRF_HOME, else the platform's."""
    return Path(os.environ.get("LPRF_HOME") or platformdirs.user_data_dir("lprf", appauthor=False))


def folders(beside: str | Path | None = None) -> list[Path]:
    """Where weights are looked for by name, in order."""
    return [*([Path(beside)] if beside is not None else []), home() / "weights", shipped("weights")]


def find(name: str | Path, folder: str | Path | None = None) -> WeightsInfo:
    """The weights called `name`, or at the path `name` (it has a separator or ends in .safetensors).

    folder: the recipe's; a relative path is looked for there first, then in the current folder.
    Raises WeightsError, with the nearest name there is.
    """
    text = str(name)
    if isinstance(name, Path) or "/" in text or os.sep in text or text.endswith(SUFFIX):
        places = [Path(folder) / text, Path(text)] if folder is not None else [Path(text)]
    else:
        places = [place / f"{text}{SUFFIX}" for place in folders(folder)]
    for place in places:
        try:
            there = place.is_file()
        except OSError:  # a name too long for the file system, a folder that may not be entered
            there = False
        if there:
            return read_info(place)
    names = sorted({info.name for info in available(folder)})
    near = difflib.get_close_matches(Path(text).stem, names, n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(names)}" if names else ""
    raise WeightsError(f"no weights '{text}'{hint} (looked for {', '.join(map(str, places))})")


def available(folder: str | Path | None = None) -> list[WeightsInfo]:
    """All weights that `find` would give by name, sorted; files that cannot be read are left out."""
    found: dict[str, WeightsInfo] = {}
    for place in folders(folder):
        for path in sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else []:
            if path.stem not in found and not path.name.startswith(".") and path.is_file():  # a pipe waits for ever
                try:
                    found[path.stem] = read_info(path)
                except WeightsError:
                    continue
    return [found[name] for name in sorted(found)]


def named_by(recipe: Recipe, rebound: Mapping[str, str | Path] | None = None) -> Iterator[tuple[str, WeightsInfo]]:
    """The weights that a recipe names, by `node.param`, as far as they are there; `rebound` ones instead of its own."""
    for node in recipe.nodes.values():
        for param in marked(node.component.params, WeightsParam):
            name = f"{node.name}.{param}"
            value = (rebound or {}).get(name, getattr(node.params, param))
            if value:
                try:
                    yield name, find(str(value), recipe.folder)
                except WeightsError:  # named, but of a node that does not run
                    continue


def read_info(path: str | Path) -> WeightsInfo:
    """Read the header of a weights file, and nothing else of it.

    Raises WeightsError where the file is no safetensors file or has no usable "lprf" metadata.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or not 2 <= length <= size - 8:
                raise WeightsError(f"{path}: not a safetensors file")
            if length > MAX_HEADER:
                raise WeightsError(f"{path}: its header of {length} bytes is larger than the {MAX_HEADER} allowed")
            header = _json_object(file.read(length))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if header is None:
        raise WeightsError(f"{path}: not a safetensors file: its header is not a JSON object")
    extra = header.pop("__metadata__", {})
    text = extra.get("lprf") if isinstance(extra, dict) else None
    metadata = _json_object(text) if isinstance(text, str) else None
    if metadata is None:
        raise WeightsError(f"{path}: no LPRF metadata; `lprf weights import` files checkpoints of other programs")
    architecture = metadata.get("architecture")
    if not isinstance(architecture, str) or not architecture:
        raise WeightsError(f"{path}: its metadata names no architecture")
    tensors: dict[str, tuple[int, ...]] = {}
    for name, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise WeightsError(f"{path}: its header gives no shape for the tensor '{name}'")
        tensors[name] = tuple(shape)
    return WeightsInfo(path.name.removesuffix(SUFFIX), path, architecture, metadata, tensors)


def _json_object(text: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def load(info: WeightsInfo) -> Weights:
    """Read the tensors. Raises WeightsError where the file is broken or holds anything but finite numbers."""
    import safetensors
    import safetensors.torch

    try:
        tensors = safetensors.torch.load_file(info.path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{info.path}: cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise WeightsError(f"{info.path}: the tensor '{name}' ({tensor.dtype}) is not made of plain finite numbers")
    return Weights(info.path, info, tensors)


def _finite(tensor: torch.Tensor) -> bool:
    try:
        return bool(tensor.isfinite().all())
    except NotImplementedError:  # some types of 8 bits and fewer, which torch can only hold
        return False


def find_and_load(name: str | Path, folder: str | Path | None = None) -> Weights:
    """What `Context.weights` does, the recipe's folder given."""
    return load(find(name, folder))


def save(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write weights, whole or not at all; equal tensors and metadata give equal bytes.

    metadata: JSON's types; "architecture" is required.
    """
    import safetensors.torch

    if not metadata.get("architecture"):
        raise ValueError("weights need an 'architecture' in their metadata")
    text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False, sort_keys=True)
    # Clones, because tensors that share memory are refused by the format.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = safetensors.torch.save(plain, metadata={"lprf": text})  # its save_file hides what the disk says
    with replacing(path) as beside:
        beside.write_bytes(content)
    return Path(path)


# Checkpoints of other programs


@dataclass(frozen=True)
class Imported:
    """What an importer makes of a checkpoint it recognises: tensors under the names of our network.

    name: what to file it as, where the user names nothing else. metadata: without the architecture.
    """

    architecture: str
    name: str
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, Any]


Importer = Callable[["dict[str, torch.Tensor]"], "Imported | None"]


def import_checkpoint(
    path: str | Path, components: Iterable[Component], name: str | None = None, taken: Container[str] = ()
) -> WeightsInfo:
    """File a pickled checkpoint (.pth, .pt) among the user's weights, as safetensors with metadata and a card.

    components: their `importers` are asked in turn; the first that recognises the tensors wins.
    name: what to file it as; by default what the importer says, or the file's stem where that name is `taken`.
    Pickles are loaded with torch's restricted unpickler, which runs no code of theirs.
    Raises WeightsError: unreadable, hostile, or recognised by none.
    """
    path = Path(path)
    tensors = _read_checkpoint(path)
    found: Imported | None = None
    broken: list[str] = []
    for target in dict.fromkeys(target for component in components for target in component.importers):
        try:
            importer: Importer = import_attribute(target)
        except PluginError as error:
            broken.append(str(error))
            continue
        found = importer(dict(tensors))
        if found is not None:
            break
    if found is None:
        some = ", ".join(f"{key} {list(value.shape)}" for key, value in list(tensors.items())[:4])
        notes = "".join(f"; {line}" for line in broken)
        raise WeightsError(f"{path}: no installed component recognises this checkpoint ({some}, ...){notes}")
    filed = name or (path.stem if found.name in taken else found.name)
    if not _NAME.fullmatch(filed):
        raise WeightsError(f"'{filed}' cannot name weights: letters, digits, dots, dashes and underscores only")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {
        **found.metadata,
        "architecture": found.architecture,
        "imported": {"file": path.name, "sha256": digest},
    }
    target_path = home() / "weights" / f"{filed}{SUFFIX}"
    try:
        save(target_path, found.tensors, metadata)
        info = read_info(target_path)
        write_card(info)
    except OSError as error:
        raise WeightsError(f"{target_path}: cannot be written: {error.strerror or error}") from error
    return info


def _read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickled checkpoint by name, without the wrappings that training scripts add."""
    import torch

    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken or hostile pickle raises is anyone's guess
        # torch's own words advise to load it unsafely
        strange = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds {strange[1]}, and not tensors alone" if strange else "it is broken, or none of PyTorch's"
        raise WeightsError(f"{path}: not a checkpoint that can be loaded safely: {reason}") from error
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path}: holds a {type(loaded).__name__}, not tensors by name")
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors by name")
    # A tensor of a few bytes can claim any size by strides of zero.
    if sum(value.numel() * value.element_size() for value in tensors.values()) > 2 * path.stat().st_size:
        raise WeightsError(f"{path}: its tensors claim to be larger than the file")
    for key, value in tensors.items():
        if value.layout is not torch.strided or value.is_quantized or not _finite(value):
            raise WeightsError(f"{path}: the tensor '{key}' is not made of plain finite numbers")
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


# Publishing


def publish(
    source: str | Path,
    target: str | Path,
    reports: Mapping[str, Mapping[str, Any]],
    summary: str | None = None,
    weaknesses: Iterable[str] = (),
) -> WeightsInfo:
    """File trained weights under a name of their own, with a card that tells what they score.

    source: a name or path, as `find` takes it. target: the path to write, NAME.safetensors.
    reports: what `core.evaluate` reported with these weights, by a name for the data.
    Raises WeightsError, where a report is of others too.
    """
    weights = find_and_load(source)
    metadata = dict(weights.info.metadata)
    metadata["scores"] = []
    for name, report in reports.items():
        try:
            measured = {used["name"]: used["sha256"] for used in report["provenance"]["weights"].values()}
            scores = _scores(name, report)
        except (AttributeError, KeyError, TypeError):
            raise WeightsError(f"{name}: not a report of core.evaluate") from None
        if weights.info.sha256 not in measured.values():
            others = ", ".join(map(str, measured)) or "none"
            raise WeightsError(f"{name}: a report of other weights ({others}), not of {weights.info.path}")
        metadata["scores"] += scores
    if summary:
        metadata["summary"] = summary
    if listed := list(weaknesses):
        metadata["weaknesses"] = listed
    info = read_info(save(target, weights.tensors, metadata))
    write_card(info)
    return info


def _scores(name: str, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a card that a report of `core.evaluate` gives."""
    rows: list[dict[str, Any]] = []

    def add(metric: str, rate: Mapping[str, Any] | None) -> None:
        if rate and rate.get("total"):
            interval = rate["interval"]
            rows.append(
                {"on": name, "metric": metric, "right": rate["hits"], "of": rate["total"], "interval": interval}
            )

    found = report.get("detection") or {}
    for overlap, numbers in found.items():
        add(f"found at IoU {overlap}", numbers.get("recall"))
    if found:
        main = found.get(str(report.get("iou"))) or next(iter(found.values()))
        rows.append({"on": name, "metric": "false boxes", "value": main["false_boxes"], "of": report.get("pictures")})
    which, what = ("end_to_end", "found and read") if found else ("given_found", "read")
    read = (report.get("reading") or {}).get(which) or {}
    add(what, read.get("plates"))
    add("all but the first character", read.get("without_first"))
    if len(parts := report.get("provinces") or {}) > 1:
        rates = {name: ((part.get("reading") or {}).get(which) or {}).get("plates") for name, part in parts.items()}
        if counts := [f"{name} {rate['hits']}/{rate['total']}" for name, rate in rates.items() if rate]:
            rows.append({"on": name, "metric": f"{what}, by province", "value": ", ".join(counts)})
    if "expected_calibration_error" in (confidence := report.get("confidence") or {}):
        error = round(confidence["expected_calibration_error"], 4)
        rows.append({"on": name, "metric": "expected calibration error", "value": error, "of": confidence["plates"]})
    return rows


# Cards


def card_path(info: WeightsInfo) -> Path:
    """The card stands beside the file: NAME.md."""
    return info.path.with_name(f"{info.name}.md")


def card(info: WeightsInfo) -> str:
    """The model card, in Markdown, made of the metadata alone and of the file's hash; what is malformed is left out."""
    data = dict(info.metadata)
    lines = [f"# {info.name}", ""]
    if summary := data.pop("summary", None):
        lines += [str(summary), ""]
    lines += [f"- file: `{info.path.name}`", f"- sha256: `{info.sha256}`"]
    lines += [f"- architecture: {data.pop('architecture')}", f"- licence: {data.pop('licence', 'not stated')}"]
    lines += ["", "## How it was made", "", *(_listed(data.pop("training", None)) or ["Not recorded."])]
    found = (data.pop(key, None) for key in ("scores", "weaknesses"))
    scores, weaknesses = (value if isinstance(value, list) else [] for value in found)
    lines += ["", "## What it scores", ""]
    if scores:
        lines += ["| on | metric | score | right / of | 95 % interval |", "| --- | --- | --- | --- | --- |"]
        lines += [_score_row(score) for score in scores if isinstance(score, dict)]
    else:
        lines += ["Not measured."]
    lines += ["", "## Known weaknesses", "", *([f"- {line}" for line in weaknesses] or ["None recorded."])]
    lines += ["", "## What its numbers mean", "", *(_listed(data) or ["Nothing further."])]
    return "".join(f"{printable(line)}\n" for line in lines)


def _listed(data: Any) -> list[str]:
    if not isinstance(data, dict):
        return [str(data)] if data else []
    return [f"- {key}: {value if isinstance(value, str) else _compact(value)}" for key, value in data.items()]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _score_row(score: Mapping[str, Any]) -> str:
    right, of, interval = score.get("right"), score.get("of"), score.get("interval")
    if isinstance(right, int) and isinstance(of, int) and 0 <= right <= of > 0:
        share, count = f"{100 * right / of:.1f} %", f"{right} / {of}"
    else:
        share, count = str(score.get("value", "")), str(of) if of is not None else ""
    shown = ""
    if isinstance(interval, list) and len(interval) == 2 and all(map(_is_rate, interval)):
        shown = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
    return f"| {score.get('on', '')} | {score.get('metric', '')} | {share} | {count} | {shown} |"


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def write_card(info: WeightsInfo) -> Path:
    """Write the card beside the weights."""
    path = card_path(info)
    with replacing(path) as beside:
        beside.write_text(card(info), encoding="utf-8")
    return path


def verify(info: WeightsInfo, architectures: Iterable[str]) -> list[str]:
    """What is wrong with a weights file, one line each: broken tensors, no card, another hash, unknown architecture."""
    faults = []
    known = sorted(set(architectures))
    if info.architecture not in known:
        faults.append(f"no installed component has weights of architecture '{info.architecture}' ({', '.join(known)})")
    try:
        load(info)
    except WeightsError as error:
        faults.append(str(error))
    path = card_path(info)
    stated = None
    if path.is_file():
        stated = re.search(r"sha256:\s*`?([0-9a-f]{64})", path.read_text(encoding="utf-8", errors="replace"))
    if stated is None:
        faults.append(f"no card with a sha256 beside it ({path.name})")
    elif stated[1] != info.sha256:
        faults.append(f"the file's sha256 is {info.sha256}, its card says {stated[1]}")
    return faults


def architectures(components: Iterable[Component]) -> set[str]:
    """The architectures that the components' parameters name."""
    return {
        architecture
        for component in components
        for mark in marked(component.params, WeightsParam).values()
        for architecture in mark.architectures
    }

"""`core.evaluate`: runs an inference recipe on a labelled dataset, and measures how well it finds and reads plates.

Pictures stream through as in any run. What stays of each is a line per labelled plate and per box, and a small
picture of the worst failures.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lprf import weights
from lprf.builtin import metrics, report, report_html
from lprf.builtin.images import show
from lprf.builtin.metrics import Rate
from lprf.builtin.params import EvaluateParams
from lprf.context import Context
from lprf.data import Dataset, Detections, Example, Item, Origin, Reading, Readings
from lprf.errors import LprfError
from lprf.feed import Feed
from lprf.files import replacing
from lprf.recipe import Recipe
from lprf.stream import Graph, Result, Summary, build, result_port
from lprf.text import duration

logger = logging.getLogger("lprf.evaluate")

CCPD_IOU = math.nextafter(0.6, 1)  # CCPD's rule: overlap above 0.6 and every character right
NAMED = 200  # so many failures of each kind are named in the report, whatever the sheet shows
POINTS = 200  # of a curve
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, slots=True)
class Plate:
    """A labelled plate and what became of it.

    found: whether a box matched it, by overlap. text: what was read of that at the main overlap, None where it was
    not found or nothing reads. right: how many characters of `truth` were. together: CCPD's rule.
    """

    group: str
    province: str
    truth: str | None
    found: tuple[bool, ...]
    text: str | None
    confidence: float
    right: int
    together: bool


@dataclass(frozen=True, slots=True)
class Box:
    """A detection. hits: whether it matched a labelled plate, by overlap; None where it matched one that nobody asked
    for, and counts neither way."""

    group: str
    score: float
    hits: tuple[bool | None, ...]


class Worst:
    """The `n` failures of highest rank, each with pictures; how many there were in all."""

    def __init__(self, n: int):
        self.n = n
        self.total = 0
        self._heap: list[tuple[float, int, dict[str, Any], list[bytes]]] = []

    def add(self, rank: float, failure: dict[str, Any], pictures: Any) -> None:
        """`pictures` is called, for JPEGs, only where the failure is among the worst so far."""
        self.total += 1
        if self.n and (len(self._heap) < self.n or rank > self._heap[0][0]):
            entry = (rank, -self.total, failure, pictures())
            (heapq.heappush if len(self._heap) < self.n else heapq.heappushpop)(self._heap, entry)

    def sorted(self) -> list[tuple[dict[str, Any], list[bytes]]]:
        return [(failure, pictures) for _, _, failure, pictures in sorted(self._heap, reverse=True)]


@dataclass
class Seen:
    """All that is kept of the pictures that went through.

    pictures: how many, by group. unread: those that could not be decoded; they count in nothing else.
    failed: those at which a component failed; their plates count as missed. small: labels that nobody asked for.
    """

    plates: list[Plate] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    pictures: Counter[str] = field(default_factory=Counter)
    unread: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    unread_plates: int = 0
    small: int = 0


class Evaluate:
    """An evaluator: `run(dataset, **{"node.param": weights file})` gives {"report": dict of JSON's types}.

    It prints tables and leaves `report.html` in the stage's folder. A picture that cannot be decoded is named and
    counts in no rate; where a component fails at one, its plates count as missed.
    Raises LprfError where the recipe reads pictures of one plate each, and the dataset has others; where no picture
    can be decoded.
    """

    def __init__(self, params: EvaluateParams, context: Context):
        assert context.recipe is not None
        self.params = params
        self.context = context
        self.recipe = context.recipe
        self.ious = sorted({params.iou, *params.ious})
        self.main = self.ious.index(params.iou)

    def run(self, dataset: Dataset, **rebound: Path) -> dict[str, Any]:
        content = self.measure(dataset, **rebound)
        self._tell(content)
        return {"report": content}

    def measure(self, dataset: Dataset, **rebound: Path) -> dict[str, Any]:
        """What `run` gives as its report, without telling anyone."""
        recipe = self._rebound(rebound)
        wanted = result_port(recipe)
        graph = build(recipe, recipe.plugins, wanted=[wanted])
        self.reads = recipe.nodes[wanted.node].component.all_outputs()[wanted.port].type == "Readings"
        # a source that gives detections says where the plate is: the whole of its picture
        self.given = "Detections" in {port.type for port in graph.source_node.component.all_outputs().values()}
        self.worst = {kind: Worst(self.params.failures) for kind in ("misread", "missed", "false")}
        seen, summary = self._see(graph, dataset)
        if seen.unread and not seen.pictures:
            first = seen.unread[0]
            raise LprfError(
                f"none of the {len(seen.unread)} pictures could be read, such as {first['source']}: {first['reason']}"
            )
        content: dict[str, Any] = {
            "summary": {},
            **self._measured(seen, recipe),
            "failures": self._failures(seen),
            "skipped": [show(problem) for problem in dataset.problems],
            "provenance": {
                **report.environment(graph),
                "recipe": recipe.name,
                "overrides": json.loads(json.dumps(self.params.overrides, default=str)),
                "weights": _weights(recipe, rebound),
                "dataset": dataset.fingerprint(),
                "seconds": round(summary.seconds, 2),
                "pictures_a_second": round(summary.rate, 2),
            },
        }
        content["summary"] = _summary(content, self.ious, self.main)
        return content

    def _rebound(self, files: Mapping[str, Path]) -> Recipe:
        """The recipe with trained weights in place of its own, on the run's device."""
        nodes = dict(self.recipe.nodes)
        for name, file in files.items():
            node, _, param = name.partition(".")
            params = nodes[node].params.model_copy(update={param: str(Path(file).resolve())})
            nodes[node] = replace(nodes[node], params=params)
        own = {"device": str(self.context.device), "workers": self.context.workers}
        return replace(self.recipe, nodes=nodes, runtime=self.recipe.runtime.model_copy(update=own))

    # Running

    def _see(self, graph: Graph, dataset: Dataset) -> tuple[Seen, Summary]:
        seen, undecoded = Seen(), set[str]()
        summary = Summary(total=len(dataset))
        feed = Feed(graph.source, self._items(dataset, undecoded), len(dataset))
        told = time.monotonic()
        for index, result in enumerate(graph.results(feed, summary=summary)):
            example = dataset[index]
            if example.source in undecoded:
                seen.unread.append({"source": show(example.source), "reason": result.reason})
                seen.unread_plates += len(example.plates)
                continue
            if result.batch is None:
                seen.failed.append({"source": show(example.source), "reason": result.reason})
            seen.pictures[example.group] += 1
            self._picture(example, result, graph, seen)
            if time.monotonic() - told >= SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                left = duration((len(dataset) - index - 1) / max(summary.rate, 1e-9))
                logger.info("  %d of %d pictures, %.1f a second, %s left", index + 1, len(dataset), summary.rate, left)
        return seen, summary

    def _items(self, dataset: Dataset, undecoded: set[str]) -> Iterator[Item]:
        for index in range(len(dataset)):
            example = dataset[index]
            if self.given and len(example.plates) != 1:
                raise LprfError(
                    f"'{self.recipe.name}' reads pictures of one plate each, but {show(example.source)} has "
                    f"{len(example.plates)}; core.crop-plates cuts plates out of photos"
                )
            yield Item(Origin(example.source), partial(_load, example, undecoded))

    def _picture(self, example: Example, result: Result, graph: Graph, seen: Seen) -> None:
        """Match what was found in a picture with its labels."""
        readings = result.readings(graph.result)
        boxes = np.array([reading.box for reading in readings], np.float64).reshape(-1, 4)
        scores = np.array([_score(reading) for reading in readings])
        truths = np.array([plate.box for plate in example.plates], np.float64).reshape(-1, 4)

        def owners(iou: float) -> np.ndarray:
            if self.given:
                return np.zeros(len(boxes), np.int64)
            return metrics.match(boxes, scores, truths, iou)

        by_iou = [owners(iou) for iou in self.ious]
        main, strict = by_iou[self.main], owners(CCPD_IOU)
        asked = np.ones(len(truths), bool)
        if self.params.smallest is not None:
            asked = (truths[:, 2:] - truths[:, :2]).prod(axis=1) >= math.prod(self.params.smallest)
        seen.small += int((~asked).sum())
        for number, plate in enumerate(example.plates):
            if not asked[number]:
                continue
            truth = plate.text
            own = np.flatnonzero(main == number)
            reading = readings[own[0]] if len(own) else None
            text = reading.text if reading is not None and self.reads else None
            right = metrics.right_characters(truth, text) if truth and text else 0
            together = any(readings[row].text == truth for row in np.flatnonzero(strict == number))
            found = tuple(bool((owner == number).any()) for owner in by_iou)
            province = plate.attributes.get("province", "")
            confidence = reading.confidence if reading is not None else 0.0
            seen.plates.append(Plate(example.group, province, truth, found, text, confidence, right, together))
            failure = {"source": show(example.source), "group": example.group, "truth": truth, "text": text}
            if reading is None:
                failure |= {"box": _rounded(plate.box)}
                area = (plate.box[2] - plate.box[0]) * (plate.box[3] - plate.box[1])
                self.worst["missed"].add(area, failure, partial(self._pictures, graph, example, result, plate.box))
            elif truth and text is not None and text != truth:
                failure |= {"box": _rounded(reading.box), "confidence": round(confidence, 4)}
                pictures = partial(self._pictures, graph, example, result, reading.box, int(own[0]))
                self.worst["misread"].add(confidence, failure, pictures)
        for row, reading in enumerate(readings if not self.given else []):
            if main[row] >= 0 and not asked[main[row]]:
                continue
            owned = (owner[row] for owner in by_iou)
            hits = tuple(None if own >= 0 and not asked[own] else bool(own >= 0) for own in owned)
            seen.boxes.append(Box(example.group, scores[row], hits))
            if main[row] < 0:
                text = reading.text if self.reads else None
                failure = {"source": show(example.source), "group": example.group, "truth": None, "text": text}
                failure |= {"box": _rounded(reading.box), "score": round(float(scores[row]), 4)}
                self.worst["false"].add(
                    scores[row], failure, partial(self._pictures, graph, example, result, reading.box, row)
                )

    def _pictures(
        self, graph: Graph, example: Example, result: Result, box: Sequence[float], row: int | None = None
    ) -> list[bytes]:
        """The surroundings of a box, and the plate as it was read, as JPEGs."""
        if result.batch is None:
            return [report_html.surroundings(example.image(), box)]
        value = result.value(graph.result)
        found: Detections = value.plates.detections if isinstance(value, Readings) else value
        pictures = [report_html.surroundings(found.frames.images[0].numpy(), box)]
        if isinstance(value, Readings) and row is not None:
            for image in value.plates.images[value.plates.detection == row]:
                pictures.append(report_html.jpeg(image.clamp(0, 255).permute(1, 2, 0).byte().numpy()))
        return pictures

    # Measuring

    def _measured(self, seen: Seen, recipe: Recipe) -> dict[str, Any]:
        groups = [name for name in self.params.groups if name in seen.pictures]
        groups += sorted(name for name in seen.pictures if name not in groups)
        by_group: dict[str, tuple[list[Plate], list[Box]]] = {name: ([], []) for name in groups}
        by_province: dict[str, list[Plate]] = defaultdict(list)
        for plate in seen.plates:
            by_group[plate.group][0].append(plate)
            if plate.province:
                by_province[plate.province].append(plate)
        for box in seen.boxes:
            by_group[box.group][1].append(box)
        read = [p for p in seen.plates if p.truth and p.text is not None]
        measured: dict[str, Any] = {
            "iou": self.params.iou,
            "counts": {
                "pictures": sum(seen.pictures.values()),
                "unread_pictures": len(seen.unread),
                "plates_of_unread_pictures": seen.unread_plates,
                "failed_pictures": len(seen.failed),
                "plates": len(seen.plates),
                "plates_with_text": sum(bool(p.truth) for p in seen.plates),
                "boxes": len(seen.boxes),
                "smaller_plates": seen.small,
                **_unspellable(seen.plates, recipe),
            },
            **self._rates(seen.plates, seen.boxes, sum(seen.pictures.values())),
            "groups": {name: self._rates(*by_group[name], seen.pictures[name]) for name in groups},
            "provinces": {
                name: self._rates(plates, None, None)
                for name, plates in sorted(by_province.items(), key=lambda item: (-len(item[1]), item[0]))
            },
        }
        if not self.given:
            scores, hits = [b.score for b in seen.boxes], [bool(b.hits[self.main]) for b in seen.boxes]
            recall, precision, threshold = metrics.precision_recall(scores, hits, len(seen.plates))
            measured["precision_recall"] = _curve(recall=recall, precision=precision, threshold=threshold)
        if read:
            measured["confusion"] = _confusion(read)
            measured["confidence"] = _confidence(read)
        return measured

    def _rates(self, plates: list[Plate], boxes: list[Box] | None, pictures: int | None) -> dict[str, Any]:
        rates: dict[str, Any] = {"pictures": pictures, "plates": len(plates)}
        if not self.given:
            rates["detection"] = {f"{iou:g}": _detection(plates, boxes, pictures, i) for i, iou in enumerate(self.ious)}
        labelled = [p for p in plates if p.truth]
        if self.reads and labelled:
            found = [p for p in labelled if p.found[self.main]]
            rates["reading"] = {"given_found": _reading(found)}
            if not self.given:
                rates["reading"] |= {
                    "end_to_end": _reading(labelled),
                    "ccpd": Rate(sum(p.together for p in labelled), len(labelled)).as_json(),
                }
        return rates

    def _failures(self, seen: Seen) -> dict[str, Any]:
        lists: dict[str, Any] = {"unread": seen.unread[:NAMED], "failed": seen.failed[:NAMED]}
        for kind, worst in self.worst.items():
            lists[kind] = [failure for failure, _ in worst.sorted()]
        totals = {"unread": len(seen.unread), "failed": len(seen.failed)}
        return {"totals": totals | {kind: worst.total for kind, worst in self.worst.items()}, **lists}

    def _tell(self, content: Mapping[str, Any]) -> None:
        """Print the tables, and write the report as HTML."""
        report.show_tables(content)
        if self.context.folder is None:
            return
        page = self.context.folder / "report.html"
        with replacing(page) as beside:
            sheets = {kind: worst.sorted() for kind, worst in self.worst.items()}
            beside.write_text(report_html.page(content, sheets), encoding="utf-8")
        logger.info("report: %s", page)

    def leave(self) -> None:
        """Copy the reports that lie in the stage's folder, of this run or of one before, to `path`."""
        if self.params.path is None or self.context.folder is None:
            return
        for name in ("report.html", "report.json"):
            with replacing(Path(self.params.path) / name) as beside:
                shutil.copyfile(self.context.folder / name, beside)
        logger.info("report: %s", Path(self.params.path) / "report.html")


def _load(example: Example, undecoded: set[str]) -> np.ndarray:
    try:
        return example.image()
    except Exception:
        undecoded.add(example.source)
        raise


def _score(reading: Reading) -> float:
    return reading.confidence if reading.detection_score is None else reading.detection_score


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(float(value), 1) for value in box]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _unspellable(plates: Iterable[Plate], recipe: Recipe) -> dict[str, Any]:
    """Labels that the recognizer cannot get right: characters that its weights do not know."""
    alphabets = [
        alphabet
        for _, info in weights.named_by(recipe)
        if isinstance(alphabet := info.metadata.get("alphabet"), str | list)
    ]
    if len(alphabets) != 1:
        return {}
    known = set(alphabets[0])
    strange = [p.truth for p in plates if p.truth and not set(p.truth) <= known]
    characters = sorted({character for truth in strange for character in truth} - known)
    return {"plates_beyond_the_alphabet": len(strange), "characters_beyond_the_alphabet": "".join(characters)}


def _detection(plates: list[Plate], boxes: list[Box] | None, pictures: int | None, i: int) -> dict[str, Any]:
    """At the i-th overlap; where it is not known whose the boxes are (of a province), the recall alone."""
    recall = Rate(sum(p.found[i] for p in plates), len(plates))
    if boxes is None or pictures is None:
        return {"recall": recall.as_json()}
    counted = [(box.score, bool(box.hits[i])) for box in boxes if box.hits[i] is not None]
    scores, hits = [score for score, _ in counted], [hit for _, hit in counted]
    precision = Rate(sum(hits), len(hits))
    false = precision.total - precision.hits
    average = metrics.average_precision(scores, hits, len(plates))
    return {
        "recall": recall.as_json(),
        "precision": precision.as_json(),
        "f1": _number(metrics.f1(precision.value, recall.value)),
        "average_precision": _number(average),
        "false_boxes": false,
        "false_boxes_a_picture": round(false / pictures, 6) if pictures else None,
    }


def _reading(plates: Sequence[Plate]) -> dict[str, Any]:
    """Whole plates right, characters right, and plates right but for their first character; missed ones are wrong."""
    pairs = [(p.truth or "", p.text or "") for p in plates]
    return {
        "plates": Rate(sum(truth == text for truth, text in pairs), len(pairs)).as_json(),
        "characters": Rate(sum(p.right for p in plates), sum(len(truth) for truth, _ in pairs)).as_json(),
        "without_first": Rate(sum(bool(b) and a[1:] == b[1:] for a, b in pairs), len(pairs)).as_json(),
    }


def _confusion(plates: Iterable[Plate]) -> dict[str, Any]:
    """Of plates that were found: what was read for what, by character of the truth and by position."""
    found = metrics.confusion((p.truth or "", p.text or "") for p in plates)
    read_as: dict[str, Counter[str]] = defaultdict(Counter)
    for (truth, read), count in found.pairs.items():
        read_as[truth][read] += count
    characters = {
        truth: {
            **Rate(counts[truth], sum(counts.values())).as_json(),
            "read_as": {read: count for read, count in counts.most_common() if read != truth},
        }
        for truth, counts in sorted(read_as.items())
        if truth
    }
    wrong = [[*pair, count] for pair, count in found.pairs.most_common() if pair[0] != pair[1]]
    return {
        "pairs": wrong,
        "characters": characters,
        "positions": [rate.as_json() for rate in found.positions],
        "too_many": dict(read_as.get("", Counter()).most_common()),
    }


def _confidence(plates: Sequence[Plate]) -> dict[str, Any]:
    """Of plates that were found: whether the confidence of a reading is the share of such readings that are right."""
    confidences, right = [p.confidence for p in plates], [p.text == p.truth for p in plates]
    error, bins = metrics.calibration(confidences, right)
    coverage, risk, area = metrics.risk_coverage(confidences, right)
    return {
        "plates": len(plates),
        "expected_calibration_error": _number(error),
        "bins": [[round(value, 6) for value in (b.low, b.high, b.count, b.confidence, b.accuracy)] for b in bins],
        "area_under_risk_coverage": _number(area),
        "risk_coverage": _curve(coverage=coverage, risk=risk),
        "coverage_at_risk": {f"{limit:g}": _coverage(coverage, risk, limit) for limit in (0.01, 0.001)},
    }


def _coverage(coverage: np.ndarray, risk: np.ndarray, limit: float) -> float:
    """The largest share of readings, most confident first, of which at most `limit` are wrong."""
    good = np.flatnonzero(risk <= limit)
    return round(float(coverage[good[-1]]), 6) if len(good) else 0.0


def _curve(**columns: np.ndarray) -> dict[str, list[float]]:
    """A curve by at most `POINTS` of its points, evenly drawn, both ends among them."""
    length = len(next(iter(columns.values())))
    rows = np.unique(np.linspace(0, max(length - 1, 0), POINTS).round().astype(int))[:length]
    return {name: [round(float(values[row]), 6) for row in rows] for name, values in columns.items()}


def _weights(recipe: Recipe, rebound: Mapping[str, Path]) -> dict[str, Any]:
    return {
        name: {
            "name": info.name,
            "architecture": info.architecture,
            "sha256": info.sha256,
            "trained_here": name in rebound,
        }
        for name, info in weights.named_by(recipe, rebound)
    }


def _summary(content: Mapping[str, Any], ious: Sequence[float], main: int) -> dict[str, float]:
    """The numbers for the summary of a run, the most telling ones first."""
    numbers: dict[str, Any] = {}
    detection, reading = content.get("detection"), content.get("reading")
    if detection:
        at = detection[f"{ious[main]:g}"]
        numbers["recall"] = at["recall"]["value"]
        for iou in ious:
            if iou != ious[main]:
                numbers[f"recall@{iou:g}"] = detection[f"{iou:g}"]["recall"]["value"]
        numbers["false_boxes_a_picture"] = at["false_boxes_a_picture"]
    if reading:
        best = reading.get("end_to_end", reading["given_found"])
        numbers["plates_right"] = best["plates"]["value"]
        if detection:
            numbers["plates_right_if_found"] = reading["given_found"]["plates"]["value"]
        numbers["characters_right"] = best["characters"]["value"]
        numbers["right_without_first"] = best["without_first"]["value"]
    if detection:
        numbers |= {name: at[name] for name in ("average_precision", "f1")}
        numbers["precision"] = at["precision"]["value"]
    if reading and "ccpd" in reading:
        numbers["ccpd_rule"] = reading["ccpd"]["value"]
    if "confidence" in content:
        numbers["calibration_error"] = content["confidence"]["expected_calibration_error"]
    numbers |= {name: content["counts"][name] for name in ("pictures", "plates", "unread_pictures", "failed_pictures")}
    return {name: value for name, value in numbers.items() if value is not None}

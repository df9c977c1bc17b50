"""An evaluation as a page of HTML that needs nothing but itself: style, drawings and pictures are in it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import cv2
import numpy as np

from lprf.builtin import report

Sheet = Sequence[tuple[Mapping[str, Any], Sequence[bytes]]]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --ink: #2f7ed8; --bad: #d8432f }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem }
.tiles, .plots, .sheet { display: flex; flex-wrap: wrap; gap: .8rem }
.tiles div { background: var(--soft); border-radius: .5rem; padding: .5rem .9rem }
.tiles b { display: block; font-size: 1.3rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
figure { margin: 0; max-width: 19rem; overflow-wrap: anywhere; font-size: .85rem }
figure img { display: block; margin-bottom: .2rem; max-width: 100% }
figure img + img { width: 75% }
figure b { font-size: 1rem } figure .small, .note { opacity: .75 }
svg { background: var(--soft); border-radius: .5rem } svg text { font: 11px system-ui, sans-serif; fill: currentColor }
code { overflow-wrap: anywhere } dt { font-weight: 600 } dd { margin: 0 0 .4rem 0 }
"""
_SHEETS = {
    "misread": ("Misread plates", "the most confident first: the plate in its picture, and as the recognizer saw it"),
    "missed": ("Plates that were not found", "the largest first"),
    "false": ("Boxes where no plate is labelled", "the highest score first; some are plates that nobody labelled"),
}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # whatever a label says, nothing is fetched


def jpeg(image: np.ndarray) -> bytes:
    """A picture, uint8 [H, W, 3] BGR, as JPEG."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def surroundings(image: np.ndarray, box: Sequence[float], width: int = 280) -> bytes:
    """What lies around a box of a picture, with the box drawn in, at most `width` wide and high, as JPEG."""
    height, full = image.shape[:2]
    x1, y1, x2, y2 = box
    margin = 0.4 * max(x2 - x1, y2 - y1) + 4
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    right, bottom = min(full, int(np.ceil(x2 + margin))), min(height, int(np.ceil(y2 + margin)))
    cut = image[top:bottom, left:right]
    if cut.size == 0:  # the label lies outside
        cut, left, top = image, 0, 0
    scale = min(width / cut.shape[1], width / cut.shape[0])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    shown = cv2.resize(np.ascontiguousarray(cut), size, interpolation=way)
    low = (round((x1 - left) * scale), round((y1 - top) * scale))
    high = (round((x2 - left) * scale) - 1, round((y2 - top) * scale) - 1)
    cv2.rectangle(shown, low, high, (40, 200, 60), 1)
    return jpeg(shown)


def page(content: Mapping[str, Any], sheets: Mapping[str, Sheet]) -> str:
    """The whole page. content: the report. sheets: failures by kind, each with its JPEGs."""
    provenance, counts = content["provenance"], content["counts"]
    title = f"{provenance['recipe']} on {counts['pictures']} pictures with {counts['plates']} plates"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(provenance["time"])}, {escape(provenance["device"])}</p>',
        _tiles(content["summary"]),
        _list(report.remarks(content)),
        *map(_table, report.tables(content)),
        _plots(content),
        *(_sheet(kind, sheets.get(kind, ()), content["failures"]["totals"].get(kind, 0)) for kind in _SHEETS),
        _named(
            "Pictures that could not be read", content["failures"]["unread"], content["failures"]["totals"]["unread"]
        ),
        _named(
            "Pictures at which a component failed",
            content["failures"]["failed"],
            content["failures"]["totals"]["failed"],
        ),
        _section("Labels that were skipped", _list(content["skipped"][:500])) if content["skipped"] else "",
        _provenance(provenance),
    ]
    return _document(title, parts)


def comparison(content: Mapping[str, Any]) -> str:
    """The page of `lprf compare`. content: what it measured."""
    provenance = content["provenance"]
    table = report.comparison(content)
    parts = [
        f"<h1>{escape(table.title)}</h1>",
        f'<p class="note">{escape(provenance["time"])}, {escape(provenance["device"])}</p>',
        _table(replace(table, title="combinations")),
        _list(content["remarks"]),
        _provenance(provenance),
    ]
    return _document(table.title, parts)


def _document(title: str, parts: Iterable[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(title: str, body: str, note: str = "") -> str:
    shown = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<h2>{escape(title)}</h2>{shown}{body}"


def _tiles(numbers: Mapping[str, float]) -> str:
    tiles = [f"<div><b>{value:.4g}</b>{escape(name.replace('_', ' '))}</div>" for name, value in numbers.items()]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(table: report.Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if table.rows else ""
    return _section(table.title.capitalize(), body, table.note)


def _named(title: str, failures: Sequence[Mapping[str, Any]], total: int) -> str:
    if not total:
        return ""
    lines = [f"{failure['source']}: {failure['reason']}" for failure in failures]
    lines += [f"{total - len(lines)} more"] if total > len(lines) else []
    return _section(f"{title} ({total})", _list(lines))


def _sheet(kind: str, sheet: Sheet, total: int) -> str:
    if not total:
        return ""
    title, note = _SHEETS[kind]
    return _section(
        f"{title}: {len(sheet)} of {total}", f'<div class="sheet">{"".join(map(_figure, sheet))}</div>', note
    )


def _figure(entry: tuple[Mapping[str, Any], Sequence[bytes]]) -> str:
    failure, pictures = entry
    images = "".join(
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">' for picture in pictures
    )
    said = []
    if failure.get("truth") is not None:
        said.append(f"is <b>{escape(failure['truth'])}</b>")
    if failure.get("text") is not None:
        said.append(f"read <b>{escape(failure['text'] or 'nothing')}</b>")
    for name in ("confidence", "score"):
        if name in failure:
            said.append(f"{name} {failure[name]:.3f}")
    where = escape(failure["source"] + (f" ({failure['group']})" if failure["group"] else ""))
    return f'<figure>{images}<figcaption>{", ".join(said)}<br><span class="small">{where}</span></figcaption></figure>'


def _provenance(provenance: Mapping[str, Any]) -> str:
    rows = [
        [name, entry["name"], entry["architecture"], entry["sha256"], "by this run" if entry["trained_here"] else ""]
        for name, entry in provenance["weights"].items()
    ]
    weights = _table(report.Table("weights", ["", "name", "architecture", "sha256", "trained"], rows))
    others = "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd><code>{escape(str(value))}</code></dd>"
        for name, value in provenance.items()
        if name != "weights"
    )
    return weights + _section("How this was measured", f"<dl>{others}</dl>")


# --------------------------------------------------------------------------------------------------------- drawings

_SIDE, _EDGE = 220, 42  # pixels of a drawing's field, and around it


def _plots(content: Mapping[str, Any]) -> str:
    drawn = []
    if curve := content.get("precision_recall"):
        drawn.append(
            _plot(f"precision over recall, IoU {content['iou']:g}", _line(curve["recall"], curve["precision"]))
        )
    if confidence := content.get("confidence"):
        bars = "".join(_bar(low, high, accuracy) for low, high, _, _, accuracy in confidence["bins"])
        diagonal = _line([0, 1], [0, 1], "currentColor", 0.4)
        drawn.append(_plot("share right over confidence, of plates found", bars + diagonal))
        curve = confidence["risk_coverage"]
        top = max([*curve["risk"], 0.01])
        risk = [value / top for value in curve["risk"]]
        drawn.append(_plot("share wrong over share taken, most confident first", _line(curve["coverage"], risk), top))
    return _section("Curves", f'<div class="plots">{"".join(drawn)}</div>') if drawn else ""


def _plot(title: str, inside: str, top: float = 1.0) -> str:
    """A field from 0 to 1 across and from 0 to `top` up; `inside` is drawn in parts of the field."""
    ticks = ""
    for i in range(5):
        at = i / 4
        x, y = _x(at), _y(at)
        ticks += f'<path d="M{x} {_y(0)}V{_y(1)}M{_x(0)} {y}H{_x(1)}" stroke="currentColor" stroke-opacity=".15"/>'
        ticks += f'<text x="{x}" y="{_y(0) + 15}" text-anchor="middle">{at:g}</text>'
        ticks += f'<text x="{_x(0) - 5}" y="{y + 4}" text-anchor="end">{at * top:.2g}</text>'
    size = f'width="{_SIDE + 2 * _EDGE}" height="{_SIDE + 2 * _EDGE}"'
    return f"<figure><svg {size}>{ticks}{inside}</svg><figcaption>{escape(title)}</figcaption></figure>"


def _line(across: Sequence[float], up: Sequence[float], colour: str = "var(--ink)", opacity: float = 1) -> str:
    points = " ".join(f"{_x(x)},{_y(y)}" for x, y in zip(across, up, strict=True))
    style = f"fill:none;stroke:{colour};stroke-width:2;stroke-opacity:{opacity}"
    return f'<polyline points="{points}" style="{style}"/>'


def _bar(low: float, high: float, value: float) -> str:
    x, width = _x(low), _x(high) - _x(low)
    return (
        f'<rect x="{x:.1f}" y="{_y(value)}" width="{width - 1:.1f}" height="{_y(0) - _y(value):.1f}" '
        f'style="fill:var(--ink);fill-opacity:.6"/>'
    )


def _x(value: float) -> float:
    return round(_EDGE + value * _SIDE, 1)


def _y(value: float) -> float:
    return round(_EDGE + (1 - value) * _SIDE, 1)

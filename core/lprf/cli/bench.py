"""`lprf bench`: how fast a recipe is, node by node, alone or against another."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from lprf.cli.common import add_recipe_arguments, load, output_file
from lprf.errors import LprfError
from lprf.text import columns

EXAMPLES = """\
Sinks are off. One pass over the source warms up, then each of --passes counts; two recipes take turns.

Examples:
  lprf bench read-plates -s images.path=photos/
  lprf bench read-plates -s runtime.batch=1 --passes 10
  lprf bench read-plates --vs seed-compatible -s images.path=photos/ --vs-set images.path=photos/
  lprf bench read-plates --json bench.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--vs", metavar="RECIPE", help="another recipe, timed in turn with the first")
    parser.add_argument(
        "--vs-set", action="append", default=[], metavar="NODE.KEY=VALUE", help="an override of the other recipe"
    )
    parser.add_argument("--passes", type=positive, default=5, metavar="N", help="passes that count (5)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all that was measured here, as JSON")


def run(args: argparse.Namespace) -> int:
    recipe = load(args)
    other = None
    if args.vs is None and args.vs_set:
        raise LprfError("--vs-set changes the recipe that --vs names; there is none")
    if args.vs is not None:
        other = load(argparse.Namespace(recipe=args.vs, set=args.vs_set, plugin=args.plugin))
    from lprf.bench import bench
    from lprf.files import replacing

    report = bench(recipe, other, args.passes, lambda line: print(line, file=sys.stderr, flush=True))
    for side in report["sides"]:
        print(_side(side))
    if "ratio" in report:
        print(_ratio(report))
    print(_environment(report["environment"]))
    if args.json is not None:
        with replacing(args.json) as beside:
            beside.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
        print(f"written: {args.json}", file=sys.stderr)
    return 1 if any(side["failed"] for side in report["sides"]) else 0


def _side(side: dict[str, Any]) -> str:
    rows = [["", "median ms", "95 % ms"]]
    for node, spread in {**side["nodes_ms"], "a batch": side["batch_ms"]}.items():
        rows.append([node, f"{spread['median']:.2f}", f"{spread['p95']:.2f}"])
    names = ", ".join(f"{item['name']} {item['sha256'][:12]}" for item in side["weights"].values())
    lines = [
        f"{side['recipe']} on {side['device']} in {side['backend']}, batches of {side['batch']}; {names}",
        columns(rows),
        f"{side['pictures']} pictures, {side['plates']} plates, {side['failed']} failed; "
        f"{side['pictures_a_second']:.1f} pictures and {side['plates_a_second']:.1f} plates a second",
    ]
    peaks = {"host": side["host_peak_bytes"], "GPU": side["gpu_peak_bytes"]}
    waits = {what: share for what, share in side["waited_share"].items() if what == "pictures" or peaks["GPU"]}
    lines += ["waiting: " + ", ".join(f"{100 * share:.0f} % for {what}" for what, share in waits.items())]
    lines += [
        "peak memory: " + ", ".join(f"{peak / 2**20:.0f} MiB on the {name}" for name, peak in peaks.items() if peak)
    ]
    return "\n".join(lines) + "\n"


def _ratio(report: dict[str, Any]) -> str:
    one, other = (side["recipe"] for side in report["sides"])
    if one == other:
        one, other = "the first", "the second"
    found = report["differences"]
    lines = [
        f"{one} is {report['ratio']:.2f} times as fast as {other}; "
        f"pair by pair {' '.join(f'{ratio:.2f}' for ratio in report['ratios'])}"
    ]
    counts = [side["pictures"] for side in report["sides"]]
    if counts[0] != counts[1]:
        lines.append(f"they read {counts[0]} and {counts[1]} pictures; --vs-set gives the second the first one's")
    if found["differing"]:
        lines.append(f"their answers differ on {found['differing']} of {found['pictures']} pictures:")
        for item in found["first"]:
            lines.append(f"  {item['source']}: {_plates(item['one'])} | {_plates(item['other'])}")
    else:
        lines.append(f"their answers are the same on all {found['pictures']} pictures with plates")
    return "\n".join(lines)


def _plates(plates: list[dict[str, Any]]) -> str:
    return ", ".join(f"{plate['text']} [{' '.join(f'{x:.0f}' for x in plate['box'])}]" for plate in plates) or "-"


def _environment(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {found[name]}" for name in ("lprf", "torch", "opencv", "python"))
    return f"{found['device']}, {found['threads']} threads, {found['cores']} cores; {versions}; {found['system']}"


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value

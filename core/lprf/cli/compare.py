"""`lprf compare`: every combination of some detectors, rectifiers and recognizers, on labelled pictures."""

from __future__ import annotations

import argparse
import json
import sys

from lprf.cli.common import add_plugin_argument, output_file, plugins

EXAMPLES = """\
DATASET is a folder with a labels.csv (as core.table-dataset reads it), a folder of pictures with CCPD's names, a folder
of cut-out plates named by their texts, or a dataset's component with its parameters as words.
A choice is a component, with parameters as words behind it: "lprnet.recognizer weights=my-lprnet". Where it is the
component that the recipe has, the recipe's other parameters stay. Choices are parted by commas, or the option repeated.

Examples:
  lprf compare photos/ --rectify core.crop,stn.rectifier
  lprf compare photos/ --read lprnet.recognizer --read "lprnet.recognizer weights=my-lprnet" --html compare.html
  lprf compare "core.table-dataset path=labels.csv group_by=colour" --detect mtcnn.detector,yolo.detector
  lprf compare crops/ --rectify core.crop,stn.rectifier --pictures 500 --json compare.json

Exit codes: 0 all well, 1 some pictures failed, 2 no combination could be measured. A combination that does not fit is
a row with its reason.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lprf.cli.bench import positive

    parser.add_argument("dataset", metavar="DATASET", help="labelled pictures: a folder, or a dataset's component")
    for part, kind in (("detect", "detectors"), ("rectify", "rectifiers"), ("read", "recognizers")):
        parser.add_argument(
            f"--{part}",
            action="append",
            default=[],
            metavar="CHOICES",
            help=f"{kind} for the recipe's node '{part}'; may be repeated (its own)",
        )
    parser.add_argument(
        "--recipe", metavar="RECIPE", help="what is changed and run (read-plates; read-crops for a folder of crops)"
    )
    parser.add_argument(
        "-s",
        "--set",
        action="append",
        default=[],
        metavar="NODE.KEY=VALUE",
        help="override a parameter of the recipe, in every combination; may be repeated",
    )
    parser.add_argument("--pictures", type=positive, metavar="N", help="only so many pictures, drawn at random (all)")
    parser.add_argument("--iou", type=_overlap, default=0.5, help="overlap from which a plate counts as found (0.5)")
    parser.add_argument("--timed", type=positive, default=32, metavar="N", help="pictures that are timed (32)")
    parser.add_argument("--passes", type=positive, default=3, metavar="N", help="times that each is timed (3)")
    parser.add_argument("--html", type=output_file, metavar="FILE", help="write the table here as a page")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all that was measured here, as JSON")
    add_plugin_argument(parser)


def run(args: argparse.Namespace) -> int:
    found = plugins(args.plugin)
    from lprf.builtin import report, report_html
    from lprf.compare import choices, compare
    from lprf.files import replacing

    content = compare(
        args.dataset,
        {part: choices(getattr(args, part)) for part in ("detect", "rectify", "read")},
        args.recipe,
        args.set,
        found,
        pictures=args.pictures,
        iou=args.iou,
        timed=args.timed,
        passes=args.passes,
        told=lambda line: print(line, file=sys.stderr, flush=True),
    )
    console = report.stdout()
    report.print_table(console, report.comparison(content))
    for line in content["remarks"]:
        console.print(line, markup=False)
    pages = [
        (args.html, lambda: report_html.comparison(content)),
        (args.json, lambda: json.dumps(content, ensure_ascii=False, indent=1)),
    ]
    for path, text in pages:
        if path is not None:
            with replacing(path) as beside:
                beside.write_text(text(), encoding="utf-8")
            print(f"written: {path}", file=sys.stderr)
    counts = [row["counts"] for row in content["rows"] if "counts" in row]
    return 1 if any(count["failed_pictures"] or count["unread_pictures"] for count in counts) else 0


def _overlap(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value

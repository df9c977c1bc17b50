"""`lprf weights`: what weights are here, are they whole, and bringing in those of other programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lprf.component import Component
from lprf.errors import LprfError, WeightsError, printable
from lprf.files import shipped
from lprf.plugins import installed
from lprf.text import columns

if TYPE_CHECKING:
    from lprf.weights import WeightsInfo

EXAMPLES = """\
Examples:
  lprf weights list
  lprf weights show cn-pnet                    its card: how it was made, what it scores
  lprf weights verify                          hashes, cards, tensors of all of them
  lprf weights import pnet_Weights             recognised by its tensors, filed as seed-pnet
  lprf weights import best.pth --as my-lprnet
  lprf weights import checkpoints/             every checkpoint in a folder
  lprf weights publish runs/train-mtcnn/weights/pnet.safetensors --as my-pnet --report "street photos=report.json"

Weights are looked for beside the recipe, in LPRF's data folder (LPRF_HOME overrides where that is), where
imported ones go, and among the shipped ones. Pickled checkpoints are loaded so that they cannot run code.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | show | verify | import | publish")
    verbs.add_parser("list", help="name, architecture, licence and file of all weights")
    show = verbs.add_parser("show", help="print the card of weights")
    show.add_argument("name", metavar="NAME", help="a name or a path")
    verify = verbs.add_parser("verify", help="check tensors, hashes and cards")
    verify.add_argument("names", nargs="*", metavar="NAME", help="names or paths; all of them by default")
    bring = verbs.add_parser("import", help="file pickled checkpoints as safetensors with metadata")
    bring.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="checkpoints, or folders of them")
    bring.add_argument("--as", dest="name", metavar="NAME", help="what to file it as (one checkpoint only)")
    publish = verbs.add_parser("publish", help="file trained weights under a name, with a card of what they score")
    publish.add_argument("source", metavar="WEIGHTS", help="a name or a path")
    publish.add_argument("--as", dest="name", metavar="NAME", required=True, help="what to file them as")
    publish.add_argument("--to", metavar="FOLDER", type=Path, help="where; LPRF's data folder by default")
    publish.add_argument("--force", action="store_true", help="replace weights that have the name already")
    publish.add_argument("--summary", metavar="TEXT", help="one sentence that says what they are")
    publish.add_argument("--weakness", action="append", default=[], metavar="TEXT", help="a known one; may be repeated")
    publish.add_argument(
        "--report",
        action="append",
        default=[],
        metavar="DATA=FILE",
        help="a name for the data, and the report.json that core.evaluate left; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    verbs = {"list": _list, "show": _show, "verify": _verify, "import": _import, "publish": _publish}
    return verbs[args.verb](args)


def _list(args: argparse.Namespace) -> int:
    from lprf import weights

    rows = [["WEIGHTS", "ARCHITECTURE", "LICENCE", "FILE"]]
    for info in weights.available():
        row = (info.name, info.architecture, info.metadata.get("licence", "not stated"), info.path)
        rows.append([printable(str(cell)) for cell in row])
    print(columns(rows))
    for folder in weights.folders():
        for path in sorted(folder.glob(f"*{weights.SUFFIX}")) if folder.is_dir() else []:
            try:
                weights.read_info(path)
            except WeightsError as error:
                print(f"\nbroken: {printable(str(error))}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from lprf import weights

    print(weights.card(weights.find(args.name)), end="")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from lprf import weights

    known = weights.architectures(_components())
    wrong = False
    for info in [weights.find(name) for name in args.names] or weights.available():
        faults = weights.verify(info, known)
        wrong = wrong or bool(faults)
        print(f"{'FAULTY' if faults else 'ok':<7} {info.name}  {info.path}", flush=True)
        for fault in faults:
            print(f"        {printable(fault)}")
    return 1 if wrong else 0


def _import(args: argparse.Namespace) -> int:
    from lprf import weights

    files = list(_checkpoints(args.paths))
    if not files:
        raise WeightsError(f"no files in {', '.join(map(str, args.paths))}")
    if args.name and len(files) > 1:
        raise WeightsError(f"--as names one checkpoint, and there are {len(files)}")
    failed = False
    filed: set[str] = set()
    for file in files:
        try:
            info = weights.import_checkpoint(file, _components(), args.name, taken=filed)
        except WeightsError as error:
            failed = True
            print(f"not imported: {error}", flush=True)
            continue
        filed.add(info.name)
        print(f"{info.name}: {file} ({info.architecture}), filed in {info.path}", flush=True)
        _tell_of_shadow(info)
    if not filed:
        raise LprfError("nothing was imported")
    return 1 if failed else 0


def _publish(args: argparse.Namespace) -> int:
    import json

    from lprf import weights

    reports = {}
    for given in args.report:
        name, _, file = given.rpartition("=")
        try:
            reports[name or file] = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{file}: not a report: {error}") from error
        if not isinstance(reports[name or file], dict):
            raise WeightsError(f"{file}: not a report of core.evaluate")
    target = (args.to or weights.home() / "weights") / f"{args.name}{weights.SUFFIX}"
    if target.exists() and not args.force:
        raise WeightsError(f"{target} is there already; --force replaces it")
    info = weights.publish(args.source, target, reports, args.summary, args.weakness)
    print(f"{info.name}: {info.path}, its card beside it; sha256 {info.sha256}")
    _tell_of_shadow(info)
    return 0


def _tell_of_shadow(info: WeightsInfo) -> None:
    """Tell of weights that come before shipped ones of the same name."""
    from lprf import weights

    own = shipped("weights") / info.path.name
    if own.is_file() and weights.find(info.name).path == info.path != own:
        told = f"{info.name} is now {info.path}, in every recipe that names it, not the one that LPRF ships"
        print(f"note: {told}; another name (--as) leaves that alone", file=sys.stderr)


def _checkpoints(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".") if path.is_dir() else [path]


def _components() -> list[Component]:
    return [component for plugin in installed().load_all() for component in plugin.components.values()]

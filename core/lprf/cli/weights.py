"""`lprf weights`: what weights are here, are they whole, and bringing in those of other programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from lprf.cli.common import columns
from lprf.component import Component
from lprf.errors import LprfError, WeightsError
from lprf.plugins import installed

EXAMPLES = """\
Examples:
  lprf weights list
  lprf weights show cn-pnet                    its card: how it was made, what it scores
  lprf weights verify                          hashes, cards, tensors of all of them
  lprf weights import pnet_Weights             recognised by its tensors, filed as seed-pnet
  lprf weights import best.pth --as my-lprnet
  lprf weights import checkpoints/             every checkpoint in a folder

Weights are looked for beside the recipe, in LPRF's data folder (LPRF_HOME overrides where that is), where
imported ones go, and among the shipped ones. Pickled checkpoints are loaded so that they cannot run code.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | show | verify | import")
    verbs.add_parser("list", help="name, architecture, licence and file of all weights")
    show = verbs.add_parser("show", help="print the card of weights")
    show.add_argument("name", metavar="NAME", help="a name or a path")
    verify = verbs.add_parser("verify", help="check tensors, hashes and cards")
    verify.add_argument("names", nargs="*", metavar="NAME", help="names or paths; all of them by default")
    bring = verbs.add_parser("import", help="file pickled checkpoints as safetensors with metadata")
    bring.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="checkpoints, or folders of them")
    bring.add_argument("--as", dest="name", metavar="NAME", help="what to file it as (one checkpoint only)")


def run(args: argparse.Namespace) -> int:
    verbs = {"list": _list, "show": _show, "verify": _verify, "import": _import}
    return verbs[args.verb](args)


def _list(args: argparse.Namespace) -> int:
    from lprf import weights

    rows = [["WEIGHTS", "ARCHITECTURE", "LICENCE", "FILE"]]
    for info in weights.available():
        rows.append([info.name, info.architecture, str(info.metadata.get("licence", "not stated")), str(info.path)])
    print(columns(rows))
    for folder in weights.folders():
        for path in sorted(folder.glob(f"*{weights.SUFFIX}")) if folder.is_dir() else []:
            try:
                weights.read_info(path)
            except WeightsError as error:
                print(f"\nbroken: {error}")
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
            print(f"        {fault}")
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
    if not filed:
        raise LprfError("nothing was imported")
    return 1 if failed else 0


def _checkpoints(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".") if path.is_dir() else [path]


def _components() -> list[Component]:
    return [component for plugin in installed().load_all() for component in plugin.components.values()]

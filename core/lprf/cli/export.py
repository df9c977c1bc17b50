"""`lprf export`: a recipe's networks as ONNX files, and the proof that they read the same."""

from __future__ import annotations

import argparse
from pathlib import Path

from lprf.cli.common import add_recipe_arguments, load
from lprf.text import columns

EXAMPLES = """\
Then the recipe runs over its source twice, with the networks as they are and with the files in their places, and the
texts that differ are printed; exit code 1 where any does, or a picture could not be read. In float32, on the CPU.
Needs the extra `lprf[onnx]`.

Examples:
  lprf export read-plates
  lprf export read-plates -s images.path=photos/ --out models/    proven on photos of your own
  lprf export read-crops -s crops.path=crops/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("export"), metavar="FOLDER", help="where the files go (export/)"
    )


def run(args: argparse.Namespace) -> int:
    recipe = load(args)
    from lprf.export import export

    proof = export(recipe, args.out)
    rows = [["NETWORK", "LARGEST DIFFERENCE", "OF NUMBERS UP TO", "FILE"]]
    for network in proof.networks:
        numbers = [f"{x:.2g}" if x is not None else "not run" for x in (network.difference, network.largest)]
        rows.append([network.name, *numbers, str(network.path)])
    print(columns(rows))
    texts = proof.texts
    failed = f", {proof.failed} could not be read" if proof.failed else ""
    print(f"\n{proof.pictures} pictures, {proof.plates} plates{failed}: ", end="")
    if not texts["differing"]:
        print("no text differs")
        return 1 if proof.failed else 0
    print(f"{texts['differing']} of {texts['pictures']} pictures differ")
    for entry in texts["first"]:
        one, other = (", ".join(plate["text"] for plate in entry[side]) or "none" for side in ("one", "other"))
        print(f"  {entry['source']}: {one} -> {other}")
    return 1

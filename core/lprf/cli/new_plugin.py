"""`lprf new-plugin`: a distribution of one's own that installs, validates, runs and passes its tests at once."""

from __future__ import annotations

import argparse
import keyword
import re
import shutil
from importlib.metadata import entry_points
from pathlib import Path

from lprf.component import KINDS
from lprf.errors import LprfError
from lprf.files import shipped, writing
from lprf.plugins import GROUP
from lprf.templates import PYPROJECT, TEMPLATES

EXAMPLES = """\
A small example of that kind, with parameters, tests and a recipe, to write your own in place of. Then:
pip install -e lprf-NAME.

Examples:
  lprf new-plugin red --kind detector      writes lprf-red/, which gives red.detector
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the first part of its components' names: small letters, digits")
    parser.add_argument("--kind", choices=list(KINDS), default="detector", help="what it gives; a detector by default")
    parser.add_argument("--into", type=Path, default=Path(), metavar="FOLDER", help="where lprf-NAME is made")


def run(args: argparse.Namespace) -> int:
    name, kind = args.name, args.kind
    if not re.fullmatch(r"[a-z][a-z0-9]{0,39}", name) or keyword.iskeyword(name):
        raise LprfError(f"'{name}' does not do: a small letter, then small letters and digits, no word of Python's")
    if name in {point.name for point in entry_points(group=GROUP)}:
        raise LprfError(f"a plugin '{name}' is installed; two of one name would keep each other out")
    folder: Path = args.into / f"lprf-{name}"
    if folder.exists():
        raise LprfError(f"{folder} is there already")
    template = TEMPLATES[kind]
    recipes = f"lprf_{name}/recipes"
    files = {
        "pyproject.toml": PYPROJECT,
        f"lprf_{name}/__init__.py": "",
        f"lprf_{name}/plugin.py": template.declaration(kind),
        f"lprf_{name}/{kind}.py": template.code,
        f"{recipes}/example.yaml": template.recipe,
        f"tests/test_{name}.py": template.tests(kind),
        **{f"{recipes}/{path}": text for path, text in template.files.items()},
    }
    with writing(folder):
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text.replace("NAME", name).replace("KIND", kind), encoding="utf-8")
        for path, sample in template.pictures.items():
            shutil.copyfile(shipped("recipes") / "samples" / sample, folder / recipes / path)
    print(f"{folder}: gives {name}.{kind}\ninstall it: pip install -e {folder}\ntest it:    pytest {folder}")
    print(f"run it:     lprf run {name}/example")
    return 0

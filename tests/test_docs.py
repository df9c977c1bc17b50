"""The documentation, held to the code: what is there is documented, links lead somewhere, examples work.

A page is a session in an empty folder, from top to bottom: a block with `title="FILE"` is that file; ```console runs
its `$` lines with a shell, and what is shown below one must come out of it (`…` stands for anything); ```python without
a title runs. A block that cannot run says why in the line before it: <!-- not run: REASON -->. Even then its commands
must be ones that the real parser takes, with overrides that the recipe takes, and its Python must compile.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import docs_reference
from lprf import cli, hooks
from lprf.component import KINDS
from lprf.errors import RecipeError
from lprf.plate_format import load_format
from lprf.plugins import Plugins
from lprf.recipe import load_recipe, shipped_recipes

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted(DOCS.rglob("*.md")),
    ]
}
GUIDES = [name for name in PAGES if not name.startswith("docs/reference/") and name != "CONTRIBUTING.md"]


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page: where it is, its language, its title, why it is not run, its text."""

    place: str
    language: str
    title: str
    not_run: str
    text: str

    def commands(self) -> list[tuple[str, list[str]]]:
        """Of a console block: each command (a `\\` at the end goes on), and the lines that it is shown to print."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.strip():
                assert found, f"{self.place}: output before the first `$ `"
                found[-1][1].append(line)
        return found


FENCE = re.compile(
    r"(?:^<!-- not run: (?P<not_run>[^\n]+?) -->\n)?^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(name: str) -> list[Block]:
    text = PAGES[name].read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match["info"])
        place = f"{name}:{text[: match.start('language')].count(chr(10)) + 1}"
        found.append(Block(place, match["language"], title[1] if title else "", match["not_run"] or "", match["text"]))
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(re.findall(FENCE, text)), f"{name}: odd fences"
    return found


def lprf_commands(name: str) -> list[tuple[str, list[str]]]:
    """The arguments of every `lprf …` that a page shows, each with its place."""
    found = []
    for block in blocks(name):
        if block.language in ("console", "sh"):
            console = block.language == "console"
            lines = [command for command, _ in block.commands()] if console else block.text.splitlines()
            for line in lines:
                found += [(block.place, words) for words in arguments_of(line)]
    return found


def arguments_of(line: str) -> list[list[str]]:
    """What `lprf` gets in a line of shell, also behind `&&`, in a pipe, or under another program."""
    found = []
    for part in re.split(r"&&|\||;", line.partition("  #")[0]):
        words = shlex.split(part.partition(" > ")[0])
        at = next((i for i, word in enumerate(words) if word == "lprf" or word.endswith("/lprf")), None)
        if at is not None and words[0] != "pip":
            found.append(words[at + 1 :])
    return found


# What must be documented


def test_the_reference_is_what_the_code_says() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")}
    written = docs_reference.pages()
    assert set(there) == set(written)
    stale = [name for name in written if written[name] != there[name]]
    assert not stale, f"stale: {', '.join(stale)}; `python -m tests.docs_reference` writes them"


def test_every_verb_hook_and_component_is_documented() -> None:
    reference = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")}
    for verb in (verb for group in cli.VERBS.values() for verb in group):
        assert f"\n### lprf {verb}\n" in reference["verbs"]
    assert len(docs_reference.hook_specifications()) == sum(name.startswith("lprf_") for name in vars(hooks))
    for name, function in docs_reference.hook_specifications().items():
        assert f"\n## {name}\n" in reference["hooks"]
        assert function.__doc__
    for kind in KINDS:
        assert f"\n## {kind}\n" in reference["components"]
    for name, component in docs_reference.shipped_components().items():
        assert f"\n### {name}\n" in reference["components"]
        assert component.summary, f"{name} has no summary"
        for param, field in component.params.model_fields.items():
            assert field.description, f"{name}: the parameter '{param}' has no description"


@pytest.mark.parametrize("verb", [verb for group in cli.VERBS.values() for verb in group])
def test_every_argument_of_a_verb_has_help_and_its_examples_parse(verb: str) -> None:
    module, parser = cli.parser_of(verb)
    for action in parser._actions:
        assert action.help or action.dest == "verb", f"lprf {verb}: {action.dest} has no help"
    _, examples = docs_reference.epilog(module.EXAMPLES)
    assert examples
    for command, _ in examples:
        check_arguments(f"lprf {verb} --help", *arguments_of(command))


def test_every_shipped_recipe_says_what_it_does_and_needs() -> None:
    for path in shipped_recipes().values():
        assert re.match(r"# .+\.\n(# .+\n)*# Needs: ", path.read_text(encoding="utf-8")), path.name


# Links


@pytest.mark.parametrize("name", PAGES)
def test_links_inside_lead_somewhere(name: str) -> None:
    text = re.sub(
        r"^```.*?^```$|`[^`\n]+`", "", PAGES[name].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (PAGES[name].parent / file).resolve() if file else PAGES[name]
        assert path.exists(), f"{name}: there is no {target}"
        if name.startswith("docs/"):
            assert path.is_relative_to(DOCS), f"{name}: {target} is not part of the site"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [_slug(heading) for heading in headings], f"{name}: there is no {target}"


def _slug(heading: str) -> str:
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    nav = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(nav) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    for page in nav:
        assert (tmp_path / "site" / page.replace("index.md", "").removesuffix(".md") / "index.html").is_file()


# Examples


def check_arguments(place: str, words: list[str]) -> None:
    """That the real parser takes these arguments of `lprf`, and that recipe and overrides go together."""
    if not words or words[0].startswith("-"):
        return
    assert words[0] in [verb for group in cli.VERBS.values() for verb in group], f"{place}: lprf {words[0]}?"
    if "--help" in words:
        return
    _, parser = cli.parser_of(words[0])
    try:
        args = parser.parse_args(words[1:])
    except SystemExit:
        pytest.fail(f"{place}: lprf {shlex.join(words)}: not what the parser takes")
    recipe = getattr(args, "recipe", None)
    if recipe is None or recipe.endswith(".yaml") or args.plugin or "/" in recipe:
        return  # a recipe or a plugin that the page makes
    check_recipe(f"{place}: lprf {shlex.join(words)}", recipe, getattr(args, "set", []))


def check_recipe(place: str, name: str | Path, overrides: Sequence[str] = (), plugins: Plugins | None = None) -> None:
    """That a recipe is right, save for weights that the page has yet to make or to import."""
    try:
        load_recipe(name, overrides, plugins)
    except RecipeError as error:
        others = [problem for problem in error.problems if "no weights '" not in problem.message]
        assert not others, f"{place}: {others[0]}"


@pytest.mark.parametrize("name", PAGES)
def test_commands_are_ones_that_lprf_takes(name: str) -> None:
    for place, words in lprf_commands(name):
        if not any(override.startswith("NODE.") or "…" in override for override in words):
            check_arguments(place, words)


@pytest.mark.parametrize("name", PAGES)
def test_yaml_validates_and_python_compiles(name: str, tmp_path: Path) -> None:
    plugins = Plugins()
    for block in blocks(name):
        if block.title:
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            compile(block.text, block.place, "exec")
            if "@hookimpl" in block.text and block.title and "/" not in block.title:
                plugins.load_file(tmp_path / block.title)
        if block.language != "yaml":
            continue
        content = yaml.safe_load(block.text)
        path = tmp_path / (block.title or "block.yaml")
        path.write_text(block.text, encoding="utf-8")
        if content is None:
            assert block.not_run, f"{block.place}: nothing in it: say why it is shown"
        elif "lprf" in content:
            check_recipe(block.place, path, plugins=plugins)
        elif "patterns" in content:
            assert load_format(str(path)).patterns, block.place
        elif "kinds" in content:
            from lprf_synth.plates import kinds

            assert kinds(str(path)), block.place
        else:
            assert block.not_run, f"{block.place}: neither a recipe nor a plate format: say why it is shown"


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDES)
def test_examples_run(name: str, tmp_path: Path) -> None:
    here, home, site = tmp_path / "here", tmp_path / "home", tmp_path / "site"
    here.mkdir()
    if Path(os.environ.get("LPRF_HOME", "none")).is_dir():  # what stands in for weights until some ship
        shutil.copytree(os.environ["LPRF_HOME"], home)
    environment = {
        **os.environ,
        "LPRF_HOME": str(home),
        "PYTHONUTF8": "1",
        "PATH": _joined(Path(sys.executable).parent, os.environ["PATH"]),
        # what a page installs goes to a folder of its own, with what is here already for its needs
        "PYTHONPATH": _joined(site, os.environ.get("PYTHONPATH", "")),
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the other way round
    }
    for block in blocks(name):
        if block.title:
            (here / block.title).parent.mkdir(parents=True, exist_ok=True)
            (here / block.title).write_text(block.text, encoding="utf-8")
        elif block.not_run:
            continue
        elif block.language == "python":
            done = _run([sys.executable, "-c", block.text], here, environment)
            assert done.returncode == 0, f"{block.place}:\n{done.stdout}{done.stderr}"
        elif block.language == "console":
            for command, shown in block.commands():
                done = _run(["sh", "-c", command], here, environment)
                printed = done.stdout + done.stderr
                # what is shown says whether the command is meant to fail: then it shows mistakes
                fails = bool(shown) and bool(re.fullmatch(r"\d+ mistakes?", shown[-1]))
                assert done.returncode == (2 if fails else 0), f"{block.place}: {command}\n{printed}"
                for line in shown:
                    pattern = re.sub(r"(\\ )+", r"\\s+", ".*".join(map(re.escape, line.rstrip().split("…"))))
                    assert re.search(rf"^{pattern}\s*$", printed, re.MULTILINE), (
                        f"{block.place}: {command}\ndoes not print: {line}\nbut:\n{printed}"
                    )


def _joined(*paths: Path | str) -> str:
    return os.pathsep.join(str(path) for path in paths if str(path))


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


# README and changelog


def test_the_readme_opens_with_two_commands_that_work_by_themselves() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert first is not None
    reads, tests = first[1].splitlines()
    for line in (reads, tests):
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt ")
    assert '-e ".[dev]"' in tests
    assert tests.endswith("&& .venv/bin/pytest")
    assert reads.endswith("&& .venv/bin/lprf run read-plates")
    assert re.search(r"^!\[.+\]\(docs/images/\S+\)$", text.partition("```sh")[0], re.MULTILINE)


def test_what_the_readme_claims_stands_on_a_card() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cards = "".join(
        (ROOT / "weights" / name).read_text(encoding="utf-8") for name in ("cn-lprnet.md", "any-centernet.md")
    )
    claims = re.findall(r"(\d+) of (\d+)[^(|]*\(([\d.]+) to ([\d.]+)\)", text)
    assert len(claims) >= 8
    for right, total, low, high in claims:
        assert f"| {right} / {total} | {low} to {high} % |" in cards
    for photos, wrong in ((45, 1), (160, 0)):
        assert re.search(rf"\| {photos} photos without plates.*cn-onet \| false boxes \| {wrong} \|", cards)


def test_the_changelog_names_every_verb() -> None:
    latest = PAGES["CHANGELOG.md"].read_text(encoding="utf-8").partition("\n## ")[2]
    missing = [verb for group in cli.VERBS.values() for verb in group if f"`{verb}`" not in latest]
    assert not missing, f"the changelog does not name {', '.join(missing)}"

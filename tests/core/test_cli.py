"""The command line, as a process of its own: what a person types, sees, and gets as an exit code."""

from __future__ import annotations

import importlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lprf.cli import VERBS
from running import lprf

ROOT = Path(__file__).resolve().parents[2]


def verbs() -> list[str]:
    return [verb for group in VERBS.values() for verb in group]


def test_help_lists_every_verb_with_examples() -> None:
    done = lprf("--help")
    assert done.returncode == 0
    for verb in verbs():
        assert re.search(rf"^  {verb} ", done.stdout, re.MULTILINE)
    assert "lprf run read-plates" in done.stdout


def test_no_arguments_is_help_and_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert lprf().stdout == lprf("--help").stdout
    assert lprf("--version").stdout == f"lprf {version('lprf')}\n"


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from lprf.cli import main

    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: lprf {verb}" in shown
    assert f"  lprf {verb}" in shown.partition("Examples:")[2]


@pytest.mark.parametrize(("given", "told"), [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_torchs_threads_sleep_soon_where_they_wait(
    given: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As GNU's OpenMP understood it when torch was imported; what the user has set stays."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    shown = lprf("doctor", OMP_DISPLAY_ENV="VERBOSE", **given).stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("torch computes with another OpenMP")
    assert f"GOMP_SPINCOUNT = '{told}'" in shown


def test_every_module_of_the_command_line_is_a_verb() -> None:
    folder = ROOT / "core" / "lprf" / "cli"
    modules = {path.stem.replace("_", "-") for path in folder.glob("*.py")} - {"--init--", "common"}
    assert modules == set(verbs())
    for verb in verbs():
        module = importlib.import_module(f"lprf.cli.{verb.replace('-', '_')}")
        assert callable(module.run)
        assert callable(module.add_arguments)


def test_an_unknown_verb_suggests_the_near_one() -> None:
    done = lprf("validat")
    assert done.returncode == 2
    assert "did you mean 'validate'?" in done.stderr
    assert done.stdout == ""


def test_an_unexpected_error_is_short_and_its_trace_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lprf import cli
    from lprf.cli import recipes

    def broken(args: object) -> int:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(recipes, "run", broken)
    assert cli.main(["recipes"]) == 3
    shown = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: by nought" in shown
    assert "Traceback" not in shown
    trace = re.search(r"the stack trace is in (\S+);", shown)
    assert trace is not None
    assert "in broken" in Path(trace[1]).read_text()
    Path(trace[1]).unlink()
    with pytest.raises(ZeroDivisionError):
        cli.main(["recipes", "--debug"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lprf", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141


SIX_MISTAKES = """\
lprf: 1
kind: infer
name: mine
runtime: {device: auto, batsh: 8}
graph:
  images: {uses: core.images, with: {path: photos}}
  detect:
    uses: mtcnn.detector
    inputs: {frames: images.frames}
    with:
      thresholds: [0.6, 1.7]
      min_plates: [50, 15]
  rectify:
    uses: stn.rectifer
    inputs: {detections: detect.detections}
  read:
    uses: lprnet.recognizer
    inputs: {plates: images.frames}
  table: {uses: core.table, inputs: {readings: raed.readings}}
"""


def test_validate_reports_six_mistakes_each_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(SIX_MISTAKES)
    done = lprf("validate", "my.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    expected = [
        (4, "runtime.batsh", "did you mean 'batch'?"),
        (11, "graph.detect.with.thresholds.1", "less than or equal to 1"),
        (12, "graph.detect.with.min_plates", "did you mean 'min_plate'?"),
        (14, "graph.rectify.uses", "did you mean 'rectifier'?"),
        (18, "graph.read.inputs.plates", "needs Plates, but images.frames gives Frames"),
        (19, "graph.table.inputs.readings", "did you mean 'read'?"),
    ]
    *lines, count = done.stderr.splitlines()
    assert count == "6 mistakes"
    assert len(lines) == 6
    for line, (number, path, hint) in zip(lines, expected, strict=True):
        place = re.match(r"my\.yaml:(\d+):(\d+): ([\w.]+): ", line)
        assert place is not None, line
        assert int(place[1]) == number
        assert place[3] == path
        assert hint in line
        # the column points at the word that is wrong
        text = SIX_MISTAKES.splitlines()[number - 1][int(place[2]) - 1 :]
        assert text.startswith(("batsh", "1.7", "min_plates", "uses", "images.frames", "raed.readings"))


def test_validate_says_ok_and_overrides_are_checked_like_the_file() -> None:
    assert lprf("validate", "read-plates").stdout.startswith("ok: read-plates (infer)")
    done = lprf("validate", "read-plates", "-s", "runtime.batch=0", "-s", "detekt.min_plate=[40,12]")
    assert done.returncode == 2
    assert "-s runtime.batch=0" in done.stderr
    assert "did you mean 'detect'?" in done.stderr


def test_show_is_a_recipe_that_validates_to_the_same(tmp_path: Path) -> None:
    first = lprf("show", "read-plates", "-s", "detect.min_plate=[40,12]")
    assert first.returncode == 0, first.stderr
    (tmp_path / "shown.yaml").write_text(first.stdout)
    shown = yaml.safe_load(first.stdout)
    assert shown["graph"]["detect"]["with"]["min_plate"] == [40, 12]
    assert re.search(r"min_plate: \[40, 12\] +# -s detect.min_plate", first.stdout)
    assert re.search(r"uses: mtcnn.detector +# \S*read-plates.yaml:\d+", first.stdout)
    assert re.search(r"workers: \d+ +# default", first.stdout)
    again = lprf("show", tmp_path / "shown.yaml")
    assert again.returncode == 0, again.stderr
    assert yaml.safe_load(again.stdout) == shown


def test_copy_refuses_to_replace(tmp_path: Path) -> None:
    assert lprf("copy", "read-plates", tmp_path / "my.yaml").returncode == 0
    assert lprf("validate", tmp_path / "my.yaml").returncode == 0
    (tmp_path / "my.yaml").write_text("mine")
    done = lprf("copy", "read-plates", tmp_path / "my.yaml")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (tmp_path / "my.yaml").read_text() == "mine"
    assert lprf("copy", "read-plates", tmp_path / "my.yaml", "--force").returncode == 0
    assert (tmp_path / "my.yaml").read_text() != "mine"
    assert lprf("copy", "reed-plates", tmp_path / "other.yaml").returncode == 2


def test_recipes_lists_what_ships() -> None:
    shown = lprf("recipes").stdout
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert re.search(rf"^{path.stem} +(infer|train) +\S", shown, re.MULTILINE), path.stem


def test_components_shows_ports_parameters_and_place() -> None:
    shown = lprf("components", "mtcnn.detector").stdout
    assert re.search(r"frames +Frames", shown)
    assert re.search(r"detections +Detections", shown)
    assert re.search(r"min_plate: .* = \[50, 15\]|min_plate: ", shown)
    assert re.search(r"implemented by lprf_mtcnn\.\w+:\w+ in \S+\.py:\d+", shown)
    assert "did you mean 'detector'?" in lprf("components", "mtcnn.detectr").stderr
    kinds = lprf("components", "--kind", "detector").stdout
    assert "mtcnn.detector" in kinds
    assert "lprnet.recognizer" not in kinds


def test_a_name_in_an_error_cannot_steer_the_terminal(tmp_path: Path) -> None:
    done = lprf("run", tmp_path / "x\x1b[31m.yaml")
    assert done.returncode == 2 and "\x1b" not in done.stdout + done.stderr
    assert r"x\x1b[31m.yaml" in done.stdout + done.stderr


def test_schema_is_json_schema(tmp_path: Path) -> None:
    schema = json.loads(lprf("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "mtcnn.detector" in json.dumps(schema)
    assert lprf("schema", tmp_path / "recipe.schema.json").returncode == 0
    assert json.loads((tmp_path / "recipe.schema.json").read_text()) == schema
    (tmp_path / "file").write_text("")
    done = lprf("schema", tmp_path / "file" / "recipe.schema.json")
    assert done.returncode == 2 and "file cannot be written: " in done.stdout + done.stderr


def test_doctor_finds_this_machine_ready() -> None:
    done = lprf("doctor")
    assert done.returncode == 0, done.stdout
    for name in ("python", "torch", "device", "opencv", "codecs", "threads", "plugins", "weights", "folders"):
        assert re.search(rf"^(ok|warn) +{name} ", done.stdout, re.MULTILINE), done.stdout


def test_weights_import_files_what_it_recognises(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"nothing.known": torch.zeros(2)}, tmp_path / "strange.pth")
    done = lprf("weights", "import", tmp_path / "strange.pth", LPRF_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert "no installed component recognises" in done.stdout
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_weights_import_brings_in_the_seed(tmp_path: Path, shared_seed: Path) -> None:
    home = str(tmp_path / "home")
    done = lprf("weights", "import", shared_seed / "weights", LPRF_HOME=home)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = lprf("weights", "list", LPRF_HOME=home).stdout
    for name in ("seed-pnet", "seed-onet", "seed-stn", "seed-lprnet"):
        assert re.search(rf"^{name} ", listed, re.MULTILINE), listed
    assert re.search(r"^sirius-lprnet ", listed, re.MULTILINE), listed  # the other LPRNet in that folder
    assert lprf("weights", "verify", "seed-pnet", LPRF_HOME=home).returncode == 0
    assert "sha256" in lprf("weights", "show", "seed-pnet", LPRF_HOME=home).stdout
    assert lprf("weights", "import", shared_seed / "weights", "--as", "x", LPRF_HOME=home).returncode == 2


def test_run_reads_the_samples(tmp_path: Path, shipped_weights: Path) -> None:
    done = lprf("run", "read-plates", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "runs/read-plates/readings.jsonl").read_text().splitlines()]
    assert lines
    assert all(set(line) >= {"source", "text", "confidence", "box"} for line in lines)
    assert re.search(r"\d+ photos", done.stderr + done.stdout)
    assert "runs/read-plates" in done.stderr + done.stdout


def test_run_names_what_it_could_not_read_and_exits_with_1(tmp_path: Path, shipped_weights: Path) -> None:
    samples = sorted(path for path in (ROOT / "recipes/samples/photos").iterdir() if path.suffix in (".jpg", ".png"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/good.jpg").write_bytes(samples[0].read_bytes())
    (tmp_path / "photos/bad.jpg").write_text("no picture")
    done = lprf("run", "read-plates", "-s", "images.path=photos", "-s", "jsonl.path=out.jsonl", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "bad.jpg" in done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert any("error" in line and line["source"].endswith("bad.jpg") for line in lines)
    assert any(line["source"].endswith("good.jpg") for line in lines if "error" not in line)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_end_leaves_whole_outputs(
    number: signal.Signals, code: int, tmp_path: Path, shipped_weights: Path
) -> None:
    samples = sorted(path for path in (ROOT / "recipes/samples/photos").iterdir() if path.suffix in (".jpg", ".png"))
    (tmp_path / "photos").mkdir()
    for index in range(2000):
        (tmp_path / f"photos/{index:04}.jpg").symlink_to(samples[index % len(samples)])
    process = subprocess.Popen(
        [sys.executable, "-m", "lprf", "run", "read-plates", "-s", "images.path=photos", "-s", "jsonl.path=out.jsonl"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list((tmp_path / "runs").rglob("*.jpg")):
        time.sleep(0.2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert lines
    assert all(json.loads(line) for line in lines)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_end_nothing(closed: str, tmp_path: Path, shipped_weights: Path) -> None:
    photo = ROOT / "recipes/samples/photos/scene-3.jpg"
    command = f"{sys.executable} -m lprf run read-plates -s images.path={photo} -s jsonl.path=out.jsonl"
    text = f"{command} {closed}"
    assert subprocess.run(["sh", "-c", text], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "out.jsonl").read_text()


def test_what_the_system_refuses_is_told_in_words(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m lprf recipes > /dev/full"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "lprf: standard output: No space left on device\n"


def test_a_folder_of_a_recipes_name_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "read-plates").mkdir()
    done = lprf("validate", "read-plates", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

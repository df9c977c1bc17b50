"""Rendered crops and scenes: what is labelled is what is drawn, and the same for one seed whoever asks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lprf.builtin.datasets import Picture, Pictures
from lprf.context import Context
from lprf.data import Truth
from lprf.errors import LprfError
from lprf_synth import scenery
from lprf_synth.atlas import field
from lprf_synth.crops import SynthPlates, draw_holder, render_crop
from lprf_synth.plates import FOLDER, Holder, cells, draw, identity, kinds, sample_style, sample_text
from lprf_synth.plugin import PlatesParams, ScenesParams
from lprf_synth.scenes import Scenes

COUNTRIES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
KINDS = [(country, name) for country in COUNTRIES for name in kinds(country)]


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def photos(folder: Path, count: int = 3) -> Pictures:
    """Photos of noise, the first two with a red plate at a known place, of which one has corners."""
    rng = np.random.default_rng(5)
    pictures = []
    for number in range(count):
        image = rng.integers(60, 200, (400, 600, 3), np.uint8)
        plates: tuple[Truth, ...] = ()
        if number < 2:
            image[200:240, 300:420] = (0, 0, 255)
            corners = np.array([[300, 200], [420, 200], [420, 240], [300, 240]], np.float32)
            plates = (Truth((300.0, 200.0, 420.0, 240.0), corners if number == 0 else None, "皖A12345"),)
        path = folder / f"{number}.png"
        assert cv2.imwrite(str(path), image)
        pictures.append(Picture(path.name, path, plates))
    return Pictures("photos", pictures)


@pytest.mark.parametrize(("country", "name"), KINDS)
def test_every_kind_renders_a_text_that_shows(country: str, name: str) -> None:
    rng = np.random.default_rng(1)
    kind = kinds(country)[name]
    text = sample_text(kind, rng)
    style = sample_style(kind, rng)
    plate = draw(kind, text, style, 0.5)
    assert plate.shape == (round(kind.size[1] * 0.5), round(kind.size[0] * 0.5), 3)
    for character, (x, y, w, h) in cells(kind, text):
        assert x >= 0 and x + w <= kind.size[0] and y >= 0 and y + h <= kind.size[1], character
        cell = plate[int(y / 2) : int((y + h) / 2), int(x / 2) : int((x + w) / 2)]
        assert np.ptp(cell.astype(int).sum(2)) > 100, f"{character} does not show"
    assert render_crop(rng, kind, text).shape == (24, 94, 3)


@pytest.mark.parametrize(("country", "name"), [(c, n) for c, n in KINDS if kinds(c)[n].vary])
def test_characters_that_vary_stay_on_the_plate(country: str, name: str) -> None:
    rng = np.random.default_rng(2)
    kind = kinds(country)[name]
    seen = set()
    for _ in range(200):
        text, style = sample_text(kind, rng), sample_style(kind, rng, 1.0)
        for character, (x, y, w, h) in cells(kind, text, style.stretch):
            assert x >= 0 and x + w <= kind.size[0] and y >= 0 and y + h <= kind.size[1], f"{character} of {text}"
            seen.add(round(h))
    assert len(seen) > 8


@pytest.mark.parametrize("mark", ["hyphen", "dot", "seals", "shield", "blot"])
def test_a_mark_is_drawn_between_the_groups_and_nowhere_else(mark: str) -> None:
    kind = kinds("eu")["plain"].model_copy(update={"relief": 0})
    style = replace(sample_style(kind, np.random.default_rng(3), 0), bolts=0, mark="none", seed=4)
    bare, marked = (draw(kind, "AB 123", replace(style, mark=which), 1.0) for which in ("none", mark))
    changed = np.flatnonzero((bare != marked).any(2).any(0))
    boxes = [box for _, box in cells(kind, "AB 123", style.stretch)]
    end_of_the_first, start_of_the_second = boxes[1][0] + boxes[1][2], boxes[2][0]
    assert len(changed) and end_of_the_first - 1 <= changed[0] and changed[-1] <= start_of_the_second + 1


def test_a_holder_covers_no_more_of_the_plate_than_it_may() -> None:
    holder = Holder(outside=(5, 20), above=(0, 12), below=(0, 8), sides=(0, 6))
    for seed in range(30):
        wide = np.full((300, 600, 3), 200, np.uint8)
        draw_holder(wide, (100, 100, 400, 100), holder, np.random.default_rng(seed), 1.0)
        assert (wide[112:192, 106:494] == 200).all(), "it covers the plate"
        changed = np.argwhere((wide != 200).any(2))
        assert changed[:, 0].min() < 100 and changed[:, 0].max() >= 200, "it is not around the plate"
        assert changed[:, 0].min() >= 80 and changed[:, 0].max() <= 220


def test_measures_are_those_of_ga_36() -> None:
    blue, green = kinds("cn")["blue"], kinds("cn")["green"]
    assert blue.size == (440, 140)
    assert green.size == (480, 140)
    boxes = [box for _, box in cells(blue, "皖A12345")]
    assert all(box[2:] == (45, 90) for box in boxes)
    pitches = np.diff([box[0] for box in boxes])
    np.testing.assert_allclose(pitches, [57, 79, 57, 57, 57, 57])
    # the dot stands in the middle of the gap after the second
    assert blue.dots[0][0] == pytest.approx((boxes[1][0] + 45 + boxes[2][0]) / 2)
    # the characters stand in the middle of the plate
    assert boxes[0][0] == pytest.approx(440 - boxes[-1][0] - 45)


def test_crops_are_the_same_in_any_order() -> None:
    params = PlatesParams(seed=3)
    forward = [digest(SynthPlates(params)[index].image()) for index in range(6)]
    backward = SynthPlates(params)
    assert [digest(backward[index].image()) for index in reversed(range(6))] == forward[::-1]
    assert [digest(backward.image_at(index)[0]) for index in range(6)] == forward
    assert len(set(forward)) == 6
    assert digest(SynthPlates(PlatesParams(seed=4))[0].image()) != forward[0]


def test_scenes_are_the_same_in_any_order(tmp_path: Path) -> None:
    params = ScenesParams(seed=3, size=(240, 320), widths=(38, 120))
    ground = photos(tmp_path)
    one = Scenes(params).run([ground])["dataset"]
    two = Scenes(params).run([ground])["dataset"]
    forward = [(one[index].plates, digest(one[index].image())) for index in range(6)]
    backward = [(two[index].plates, digest(two[index].image())) for index in reversed(range(6))]
    assert [image for _, image in backward] == [image for _, image in forward][::-1]
    assert [[p.box for p in plates] for plates, _ in backward[::-1]] == [
        [p.box for p in plates] for plates, _ in forward
    ]
    assert one.fingerprint() == two.fingerprint() != Scenes(params).run()["dataset"].fingerprint()


def test_another_description_is_another_dataset(tmp_path: Path) -> None:
    text = (FOLDER / "de.yaml").read_text(encoding="utf-8")
    for name, changed in (("a", text), ("b", text), ("c", text.replace("[520, 110]", "[520, 111]"))):
        (tmp_path / f"{name}.yaml").write_text(changed, encoding="utf-8")
    a, b, c = (identity(str(tmp_path / f"{name}.yaml")) for name in "abc")
    assert a == b != c
    one, two = (SynthPlates(PlatesParams(seed=1, country=name)).fingerprint() for name in ("de", "us"))
    assert one != two


@pytest.mark.parametrize(
    ("right", "wrong", "at"),
    [
        ("width: 466", "count: 3", "L LL DDDD,"),  # rows that hold less than the text, more, or nothing
        ("width: 466", "count: 30", "L LL DDDD,"),
        ("rows: [{", "rows: [{left: 9, top: 1, cell: [9, 9], width: 9, gap: 0}, {", "L LL DDDD,"),
        ("rows: [{left: 48, top: 17.5, cell: [42, 75], width: 466, gap: 6, space: 26}]", "rows: []", "[]\n    bolts"),
        (", width: 466", "", "{left"),
        ("top: 17.5", "top: 40", "{left"),  # a row off the plate
        ("left: 48", "left: 148", "{left"),
        ("left: 48", "left: -1", "{left"),
        ("[L LL", "[P LL", "P LL"),  # what a pattern stands for, and its glyphs
        ("[L LL", "[Ö LL", "Ö LL"),
        ("[L LL", "[l LL", "l LL"),  # `sans` has it, `plate`, which some are drawn in, has not
        ("letters: A", "letters: Ä", "ÄBC"),
        ("ink:", "tokens: {N: É}\n    ink:", "É}"),
        ("ink:", "labels: [{words: [D, Ü], box: [1, 1, 9, 9]}]\n    ink:", "Ü]"),
        ("ink:", "holder: {words: A Õ}\n    ink:", "A Õ"),
        ("face: sans", "face: gothic", "gothic"),
        ("size: [520, 110]", "size: [0, 0]", "0, 0]"),  # what would be divided by
        ("cell: [42, 75]", "cell: [0, 0]", "0, 0]"),
        ("letters: ABCDEFGHIJKLMNOPQRSTUVWXYZ", "letters: ''", "''"),  # nothing to choose from
        ("ink:", "tokens: {N: ''}\n    ink:", "''"),
        ("ink:", "labels: [{words: [], box: [1, 1, 9, 9]}]\n    ink:", "[], box"),
        ("[L LL DDDD, LL LL DDD, LL L DDDD, LLL LL DDD, L LL DDD, LL LL DDDD, LLL L DDDD]", "[]", "[]\n    colours"),
        ("[[0, 50, 160], [10, 40, 130]]", "[]", "[]}]"),
        ("[8.5, 11]", "[11, 8.5]", "[11, 8.5]"),
        ("ink:", "vary: {gap: [2, 1]}\n    ink:", "[2, 1]"),
        ("ink:", "holder: {below: [2, 1]}\n    ink:", "[2, 1]"),
        ("[245, 245, 245]", "[345, 5, 245]", "345"),
        ("[245, 245, 245]", "[245, -5, 245]", "-5"),
        ("ink:", "holder: {chance: 7}\n    ink:", "7}"),
        ("ink:", "weight: -1\n    ink:", "-1"),
        ("ink:", "weight: 0\n    ink:", "car:"),
    ],
)
def test_a_description_that_cannot_be_drawn_is_told_its_place(tmp_path: Path, right: str, wrong: str, at: str) -> None:
    text = (FOLDER / "de.yaml").read_text(encoding="utf-8").replace(right, wrong, 1)
    path = tmp_path / "xy.yaml"
    path.write_text(text, encoding="utf-8")
    before = text[: text.index(at)]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    with pytest.raises(LprfError) as error:
        kinds(str(path))
    assert str(error.value).startswith(f"{path}:{line}:{column}: "), error.value


@pytest.mark.slow
def test_scenes_are_the_same_in_another_process() -> None:
    params = ScenesParams(seed=3, size=(240, 320), widths=(38, 120))
    code = (
        "import hashlib; from lprf_synth.scenes import Scenes; from lprf_synth.plugin import ScenesParams\n"
        "s = Scenes(ScenesParams(seed=3, size=(240, 320), widths=(38, 120)))\n"
        "print(hashlib.sha256(s[2].image().tobytes()).hexdigest())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == digest(Scenes(params)[2].image())


def test_labels_of_scenes_are_in_the_frame_and_bound_their_corners(tmp_path: Path) -> None:
    scenes = Scenes(ScenesParams(seed=1, size=(240, 480), difficulty=1)).run([photos(tmp_path)])["dataset"]
    rendered = 0
    for index in range(60):
        plan = scenes.plan(index)
        example = scenes[index]
        boxes = np.array([plate.box for plate in example.plates]).reshape(-1, 4)
        assert (boxes >= 0).all() and (boxes <= [plan.size[1], plan.size[0]] * 2).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        for plate in example.plates:
            if plate.attributes.get("rendered"):
                rendered += 1
                assert plate.corners is not None and plate.text
                bounds = (*plate.corners.min(0), *plate.corners.max(0))
                np.testing.assert_allclose(plate.box, bounds, atol=1e-4)
                edges = np.roll(plate.corners, -1, 0) - plate.corners
                turns = edges[:, 0] * np.roll(edges, -1, 0)[:, 1] - edges[:, 1] * np.roll(edges, -1, 0)[:, 0]
                assert (turns > 0).all(), "corners do not run TL TR BR BL"
        for i in range(len(boxes)):
            for j in range(i):
                assert not scenery.overlap(boxes[i], boxes[j])
    assert rendered > 50
    assert scenes[7].image().shape[:2] == scenes.plan(7).size


def test_a_plate_is_drawn_where_its_corners_are() -> None:
    params = ScenesParams(
        seed=2, size=(480, 480), plates=1, widths=(150, 200), countries={"cn": 1}, empty=0, decoys=0, difficulty=0
    )
    scenes = Scenes(params)
    for index in range(8):
        example = scenes[index]
        (plate,) = example.plates
        assert plate.corners is not None
        kind = kinds("cn")[plate.attributes["kind"]]
        w, h = (round(side) for side in kind.size)
        upright = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(plate.corners - 0.5, upright)
        found = cv2.warpPerspective(example.image(), matrix, (w, h)).astype(float).mean(2)
        style = sample_style(kind, np.random.default_rng(0), 0)
        text = example.plates[0].text or ""
        expected = draw(kind, text, style, 1.0).astype(float).mean(2)
        inner = (slice(h // 8, -h // 8), slice(w // 20, -w // 20))
        alike = np.corrcoef(found[inner].ravel(), expected[inner].ravel())[0, 1]
        assert abs(alike) > 0.6, f"{text}: {alike:.2f}"


def test_real_plates_stay_uncovered_and_labelled(tmp_path: Path) -> None:
    params = ScenesParams(seed=4, size=(400, 600), empty=0, rendered_ground=0, difficulty=0)
    ground = photos(tmp_path, 2)
    scenes = Scenes(params).run([ground])["dataset"]
    kept = 0
    for index in range(12):
        example = scenes[index]
        image = example.image().astype(int)
        for plate in example.plates:
            if plate.attributes.get("rendered"):
                continue
            kept += 1
            x1, y1, x2, y2 = (round(value) for value in plate.box)
            inner = image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
            red = inner[:, :, 2] - inner[:, :, :2].max(2)
            assert (red > 40).mean() > 0.95, f"scene {index}: a real plate is covered"
            # nothing of it is left beside its label
            assert plate.text == "皖A12345"
    assert kept >= 8


def test_plates_that_are_covered_do_not_show(tmp_path: Path) -> None:
    params = ScenesParams(
        seed=4, size=(400, 600), plates=1, countries={"cn": 1}, empty=0, rendered_ground=0, difficulty=0, swapped=1
    )
    kept = Scenes(params.model_copy(update={"swapped": 0.0})).run([photos(tmp_path, 2)])["dataset"]
    scenes = Scenes(params).run([photos(tmp_path, 2)])["dataset"]
    covered = 0
    for index in range(12):
        places = [plate.box for plate in kept[index].plates if not plate.attributes.get("rendered")]
        example = scenes[index]
        if not places or any(not plate.attributes.get("rendered") for plate in example.plates):
            continue  # this one drew a plate of another shape
        covered += 1
        x1, y1, x2, y2 = places[0]
        over = [box for box in (plate.box for plate in example.plates) if box[0] <= x1 and box[2] >= x2]
        assert any(box[1] <= y1 and box[3] >= y2 for box in over)
        image = example.image().astype(int)[round(y1) : round(y2), round(x1) : round(x2)]
        red = (image[:, :, 2] > 150) & (image[:, :, :2] < 80).all(2)
        assert red.mean() < 0.05, "the photo's plate shows"
    assert covered >= 4


def test_empty_scenes_have_no_plate_at_all(tmp_path: Path) -> None:
    scenes = Scenes(ScenesParams(seed=4, size=(240, 240), empty=1)).run([photos(tmp_path)])["dataset"]
    plans = [scenes.plan(index) for index in range(20)]
    assert all(not plan.real and not plan.plates for plan in plans)
    assert {plan.photo.source for plan in plans if plan.photo} == {"2.png"}


def test_a_background_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    ground = photos(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no picture")
    scenes = Scenes(ScenesParams(seed=4, size=(240, 240), empty=1, rendered_ground=0)).run([ground])["dataset"]
    assert scenes[0].image().shape[2] == 3
    assert [problem.partition(":")[0] for problem in scenes.problems] == ["2.png"]


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(LprfError, match="countries"):
        Scenes(ScenesParams(countries={"cn": 0}))
    with pytest.raises(LprfError, match="atlantis"):
        Scenes(ScenesParams(countries={"atlantis": 1}))


def test_no_board_has_a_text_that_could_be_a_plates() -> None:
    rng = np.random.default_rng(0)
    texts = {scenery.sign_text(rng) for _ in range(3000)}
    assert len(texts) > 500
    assert not [text for text in texts if scenery.platelike(text)]
    for country, name in KINDS:
        kind = kinds(country)[name]
        serials = [text for text in kind.text if text.count("D") > 1]  # one that its owner chose may be any word
        text = sample_text(kind.model_copy(update={"text": serials or kind.text}), rng)
        assert scenery.platelike(text), f"{country} {name}: {text}"


def test_every_character_of_signs_is_in_the_atlas() -> None:
    for character in set(scenery.PLACES + scenery.SHOP + "".join(scenery.WORDS + scenery.MAKERS + scenery.MODELS)):
        if character != " ":
            assert field(character, "sans").shape == (102, 57)


def test_a_face_without_a_character_takes_it_from_the_one_that_goes_with_it() -> None:
    for character in "粤鲁B0":  # drawn as strokes, and as plates of no other country have them
        np.testing.assert_array_equal(field(character, "road"), field(character, "plate"))
    np.testing.assert_array_equal(field("粤", "sans"), field("粤", "uni"))
    assert (field("6", "road") != field("6", "plate")).any()
    with pytest.raises(KeyError):
        field("é", "road")


def test_older_opencv_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    params = ScenesParams(seed=5, size=(240, 240))
    before = digest(Scenes(params)[0].image()), digest(SynthPlates(PlatesParams(seed=5))[0].image())
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    assert (digest(Scenes(params)[0].image()), digest(SynthPlates(PlatesParams(seed=5))[0].image())) == before


def test_samples_are_those_that_ship(tmp_path: Path) -> None:
    from lprf_synth.build_samples import build

    build(tmp_path)
    shipped = Path(__file__).resolve().parents[2] / "recipes/samples"
    names = sorted(path.relative_to(shipped) for path in shipped.rglob("*.jpg"))
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jpg"))
    assert sum((shipped / name).stat().st_size for name in names) < 1_000_000
    for name in names:  # another build of OpenCV may round otherwise
        one, two = (cv2.imread(str(folder / name)).astype(float) for folder in (shipped, tmp_path))
        assert np.abs(one - two).mean() < 3, name


@pytest.mark.slow
def test_a_reader_of_real_plates_reads_rendered_ones(tmp_path: Path, shared_seed: Path) -> None:
    """The seed's networks, trained on real plates alone, read easy rendered blue ones."""
    (tmp_path / "crops").mkdir()
    # 皖 is nearly all it was trained on
    params = PlatesParams(seed=6, size=(48, 160), difficulty=0.1, kinds={"blue": 1}, provinces={"皖": 1000})
    crops, texts = SynthPlates(params), []
    for index in range(60):
        image, text = crops.image_at(index)
        texts.append(text)
        done, data = cv2.imencode(".png", image)
        assert done
        (tmp_path / f"crops/{index:03}.png").write_bytes(data.tobytes())
    environment = {**os.environ, "LPRF_HOME": str(tmp_path / "home")}

    def lprf(*arguments: str) -> None:
        command = [sys.executable, "-m", "lprf", *arguments]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120)

    lprf("weights", "import", str(shared_seed / "weights"))
    seed = ("-s", "rectify.weights=seed-stn", "-s", "read.weights=seed-lprnet")
    lprf("run", "read-crops", "-s", "crops.path=crops", "-s", "jsonl.path=out.jsonl", *seed)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    read = {Path(line["source"]).stem: line["text"] for line in lines if "text" in line}
    right = sum(read.get(f"{index:03}") == text for index, text in enumerate(texts))
    assert right >= 0.6 * len(texts), f"{right} of {len(texts)}"


def test_two_datasets_of_one_recipe_draw_different_plates() -> None:
    """By default; an explicit seed that is the run's gives others too."""

    def texts(node: str, seed: int | None = None) -> list[str]:
        context = Context(torch.device("cpu"), torch.float32, None, node=node, seed=7)  # type: ignore[arg-type]
        made = SynthPlates(PlatesParams(count=20, seed=seed), context)
        return [made.plan(index)[2] for index in range(20)]

    assert texts("train") == texts("train")
    sets = [set(texts("train")), set(texts("val")), set(texts("train", 7))]
    assert all(not one & other for i, one in enumerate(sets) for other in sets[:i])

"""Plate formats: what fits, what is refused with its place, what is never changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lprf import plate_format
from lprf.errors import LprfError, RecipeError
from lprf.plate_format import load_format


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LPRF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("name", "text", "pattern"),
    [
        ("cn", "皖A12345", "ordinary"),
        ("cn", "沪AD12345", "energy-small"),
        ("cn", "粤B12345D", "energy-large"),
        ("cn", "京A1234警", "special"),
        ("cn", "粤Z1A34港", "special"),
        ("cn", "使123001", "embassy"),
        ("cn", "粤A1234领", "special"),
        ("cn", "WJ皖12345", "police-force"),
        ("cn", "VA12345", "army"),
        ("cn", "皖A1234", None),
        ("cn", "皖AI2345", None),
        ("cn", "A皖12345", None),
        ("cn", "皖A123456", None),
        ("cn", "", None),
        ("de", "MAB123", "ordinary"),
        ("de", "FÜXY9999", "ordinary"),
        ("de", "BAB123E", "marked"),
        ("de", "MAB0123", None),
        ("us-ca", "6ABC123", "car"),
        ("us-ca", "8Z12345", "lorry"),
        ("us-any", "ABC1234", "any"),
        ("us-any", "A", None),
    ],
)
def test_real_plates_fit_and_others_do_not(name: str, text: str, pattern: str | None) -> None:
    found = load_format(name).pattern(text)
    assert (found and found.name) == pattern


def test_ccpd_labels_and_street_plates_fit(shared_data: Path) -> None:
    cn = load_format("cn")
    names = [p.name.split("_")[0].split(".")[0] for p in (shared_data / "crops/dev").glob("*.jpg")]
    texts = [name.split("-")[0] for name in names]
    assert len(texts) > 100
    odd = [text for text in texts if not cn.fits(text)]
    assert len(odd) <= 1, odd


def test_texts_are_grouped_as_people_write_them() -> None:
    assert load_format("cn").grouped("皖A12345", "·") == "皖A·12345"
    assert load_format("cn").grouped("no plate", "·") == "no plate"
    assert load_format("us-ca").grouped("6ABC123") == "6ABC123"


def test_near_texts_change_look_alikes_only_and_as_few_as_they_can() -> None:
    near = load_format("cn").near("皖AO2345")
    assert near[0] in ("皖A02345", "皖AD2345", "皖AQ2345") and "皖AO2345" not in near
    assert load_format("cn").near("皖A02345")[0] == "皖A02345"
    assert load_format("cn").near("皖!02345") == []
    assert len(load_format("us-any").near("O0O0O0O0")) <= 8


def test_ones_own_format_is_found_by_name_and_by_path(home: Path, tmp_path: Path) -> None:
    text = "alphabet: AB12\nclasses: {n: '12'}\npatterns: {one: [[A, n 1-2], [B]]}\n"
    (home / "formats").mkdir(parents=True)
    (home / "formats/mine.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(text)
    assert "mine" in plate_format.available()
    for name in ("mine", str(tmp_path / "other.yaml")):
        mine = load_format(name)
        assert [mine.fits(t) for t in ("A1B", "A12B", "AB", "A112B")] == [True, True, False, False]
        assert mine.grouped("A12B") == "A12 B"


def test_a_missing_format_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(LprfError, match="did you mean 'us-ca'"):
        load_format("us-cal")
    for name in ("../cn", "nowhere.yaml", "no plugin/x", "a\0b"):
        with pytest.raises(LprfError):
            load_format(name)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("patterns: {p: [[A]]}\n", "1:1: alphabet"),
        ("alphabet: ABA\npatterns: {p: [[A]]}\n", "1:11: alphabet"),
        ("alphabet: AB\nclasses: {x: AC}\npatterns: {p: [[x]]}\n", "2:14: classes.x"),
        ("alphabet: AB\npatterns: {p: [[A, C]]}\n", "2:20: patterns.p.0.1"),
        ("alphabet: AB\nclasses: {mark: AB}\npatterns: {p: [[mrak]]}\n", "did you mean 'mark'"),
        ("alphabet: AB\npatterns: {p: [[A 3-1]]}\n", "repeats from 3 to 1"),
        ("alphabet: AB\npatterns: {p: [[A 99]]}\n", "32 at most"),
        ("alphabet: AB\npatterns: {p: [[A 0-9], [A 0-9], [A 0-9]]}\n", "more than 62 patterns"),
        ("alphabet: AB\npatterns: {p: [[A 30], [A 30]]}\n", "60 characters"),
        ("alphabet: AB\npatterns: {p: [[]]}\n", "empty group"),
        ("alphabet: AB\npatterns: {p: [[A]]}\nlook_alikes: [AX]\n", "look_alikes.0"),
        ("alphabet: AB\nalphabet: AB\n", "duplicate"),
        ("alphabet: AB\npatterns: {p: [[A]]}\npattern: 1\n", "did you mean 'patterns'"),
        ("alphabet: AB\npatterns: 5\n", "patterns"),
        ("- 1\n", ""),
    ],
)
def test_every_mistake_has_a_place(text: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        load_format(str(tmp_path / "x.yaml"))
    assert place in str(error.value)


def test_formats_are_light() -> None:
    code = "import sys; from lprf.plate_format import load_format; load_format('cn')\n"
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

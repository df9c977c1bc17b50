"""Weights: finding, reading headers of any file, refusing what does not fit, importing pickles safely."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from lprf import weights
from lprf.cli import main
from lprf.component import Component, Params, weights_name
from lprf.errors import LprfError, WeightsError
from lprf.weights import Imported
from running import lprf


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LPRF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _save(path: Path, **metadata: Any) -> Path:
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
    return weights.save(path, tensors, {"architecture": "toy", **metadata})


def test_written_weights_are_plain_safetensors_and_come_back_whole(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.safetensors", alphabet="皖A")
    with safe_open(path, "pt") as file:  # the format's own reader, not ours
        assert json.loads(file.metadata()["lprf"]) == {"architecture": "toy", "alphabet": "皖A"}
        assert torch.equal(file.get_tensor("a.weight"), torch.arange(6.0).reshape(2, 3))
    info = weights.find(path)
    assert (info.name, info.architecture, info.metadata["alphabet"]) == ("x", "toy", "皖A")
    assert info.tensors == {"a.weight": (2, 3), "a.bias": (2,)}
    assert torch.equal(weights.load(info).tensors["a.bias"], torch.ones(2))


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    first, second = _save(tmp_path / "1.safetensors", b=1, a=2), _save(tmp_path / "2.safetensors", a=2, b=1)
    assert first.read_bytes() == second.read_bytes()


def test_a_name_is_found_beside_the_recipe_then_at_home_then_shipped(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "shipped", lambda _: tmp_path / "shipped")
    places = [tmp_path / "recipe", own_home / "weights", tmp_path / "shipped"]
    for place in places:
        _save(place / "net.safetensors")
    for place in places:
        assert weights.find("net", tmp_path / "recipe").path == place / "net.safetensors"
        (place / "net.safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights 'net'"):
        weights.find("net", tmp_path / "recipe")


def test_a_path_is_beside_the_recipe_or_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "recipe/sub/net.safetensors")
    _save(tmp_path / "here/other.safetensors")
    monkeypatch.chdir(tmp_path / "here")
    assert weights.find("sub/net.safetensors", tmp_path / "recipe").architecture == "toy"
    assert weights.find("other.safetensors", tmp_path / "recipe").architecture == "toy"
    assert weights.find(tmp_path / "here/other.safetensors").architecture == "toy"


def test_a_near_name_is_suggested(tmp_path: Path) -> None:
    _save(tmp_path / "cn-lprnet.safetensors")
    with pytest.raises(WeightsError, match="did you mean 'cn-lprnet'"):
        weights.find("cn-lprent", tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "../" * 50, "", ".", "\udcff"])
def test_no_name_crashes_the_search(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        weights.find(name, tmp_path)


def _header(header: Any, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        _header(b"[" * 100_000),
        _header(b"not json"),
        _header([1, 2]),
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        _header({"__metadata__": {"lprf": "[]"}}),
        _header({"__metadata__": {"lprf": "{}"}}),
        _header({"__metadata__": {"lprf": json.dumps({"architecture": 3})}}),
        _header({"__metadata__": 5}),
        _header({"__metadata__": {"lprf": json.dumps({"architecture": "x"})}, "a": {"shape": [-1]}}),
        _header({"__metadata__": {"lprf": json.dumps({"architecture": "x"})}, "a": 7}),
        _header(b" " * (weights.MAX_HEADER + 1)),
    ],
)
def test_a_broken_or_hostile_header_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        weights.read_info(path)
    assert weights.available(tmp_path) == [] or all(info.name != "bad" for info in weights.available(tmp_path))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        weights.read_info(path)


def test_truncated_tensors_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.load(weights.find(path))


@pytest.mark.parametrize("tensor", [torch.tensor([1.0, float("nan")]), torch.ones(2).to(torch.float8_e4m3fn)])
def test_values_that_are_not_plain_finite_numbers_are_refused(tensor: torch.Tensor, tmp_path: Path) -> None:
    info = weights.find(weights.save(tmp_path / "x.safetensors", {"w": tensor}, {"architecture": "toy"}))
    with pytest.raises(WeightsError, match=r"'w'.*not made of plain finite numbers"):
        weights.load(info)
    assert any("'w'" in fault for fault in weights.verify(info, {"toy"}))


def test_a_mismatch_is_named(tmp_path: Path) -> None:
    loaded = weights.load(weights.find(_save(tmp_path / "x.safetensors")))
    with pytest.raises(WeightsError, match="architecture 'toy', but 'lprnet'"):
        loaded.require("lprnet")
    net = torch.nn.Sequential()
    net.add_module("a", torch.nn.Linear(4, 2))
    with pytest.raises(WeightsError, match=r"a\.weight is \[2, 3\], the network has \[2, 4\]"):
        loaded.into(net)
    net.add_module("b", torch.nn.Linear(1, 1))
    with pytest.raises(WeightsError, match=r"b\.weight is missing"):
        loaded.into(net)
    good = torch.nn.Sequential()
    good.add_module("a", torch.nn.Linear(3, 2))
    assert torch.equal(loaded.require("toy").into(good).get_parameter("a.weight"), torch.arange(6.0).reshape(2, 3))


def test_a_network_without_memory_gets_its_own_once_the_tensors_fit(tmp_path: Path) -> None:
    tensors = {"weight": torch.arange(6.0).reshape(2, 3).half(), "bias": torch.ones(2)}
    loaded = weights.load(weights.find(weights.save(tmp_path / "x.safetensors", tensors, {"architecture": "toy"})))
    with torch.device("meta"):
        first, second, vast = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), torch.nn.Linear(1 << 20, 1 << 20)
    with pytest.raises(WeightsError, match="weight is"):
        loaded.into(vast)
    loaded.into(first).weight.data.zero_()
    weight = loaded.into(second).weight
    assert weight.dtype == torch.float32 and weight.requires_grad
    assert torch.equal(weight.data, torch.arange(6.0).reshape(2, 3))


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.safetensors")
    before = path.read_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))  # as a full disk does
    try:
        with pytest.raises(LprfError, match=r"the disk is full, or the quota is used up: .*x\.safetensors"):
            _save(path, b=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


# Import


def toy_importer(tensors: dict[str, torch.Tensor]) -> Imported | None:
    if {name: tuple(value.shape) for name, value in tensors.items()} != {"fc.weight": (2, 3)}:
        return None
    return Imported("toy", "their-toy", {"a": tensors["fc.weight"]}, {"licence": "none"})


TOY = Component("toy", "detector", "nowhere:x", importers=("nowhere_at_all:f", f"{__name__}:toy_importer"))


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module"])
def test_a_checkpoint_is_recognised_and_filed_with_a_card(wrap: str, tmp_path: Path, own_home: Path) -> None:
    tensors = {"fc.weight": torch.rand(2, 3)}
    saved: Any = {
        "plain": tensors,
        "state_dict": {"epoch": 3, "state_dict": tensors},
        "module": {f"module.{name}": value for name, value in tensors.items()},
    }[wrap]
    torch.save(saved, tmp_path / "x.pth")
    info = weights.import_checkpoint(tmp_path / "x.pth", [TOY])
    assert info.path == own_home / "weights/their-toy.safetensors"
    assert torch.equal(weights.find_and_load("their-toy").tensors["a"], tensors["fc.weight"])
    assert weights.verify(info, {"toy"}) == []
    assert weights.import_checkpoint(tmp_path / "x.pth", [TOY], name="mine").name == "mine"
    with pytest.raises(WeightsError, match="cannot name weights"):
        weights.import_checkpoint(tmp_path / "x.pth", [TOY], name="../mine")


def test_an_unknown_checkpoint_says_what_it_holds_and_what_did_not_load(tmp_path: Path) -> None:
    torch.save({"other": torch.rand(5)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"no installed component recognises.*other \[5\].*nowhere_at_all"):
        weights.import_checkpoint(tmp_path / "x.pth", [TOY])


class Hostile:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["pickle", "torch", "nested"])
def test_a_hostile_pickle_runs_nothing(how: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "owned", tmp_path / "x.pth"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Hostile(mark)))
    else:
        torch.save({"fc.weight": Hostile(mark)} if how == "torch" else {"state_dict": [Hostile(mark)]}, path)
    with pytest.raises(WeightsError, match="be loaded safely"):
        weights.import_checkpoint(path, [TOY])
    assert not mark.exists()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([torch.rand(2)], "holds a list"),
        ({"a": 1}, "no tensors"),
        ({"fc.weight": torch.tensor([[float("inf")]])}, "finite"),
        ({"fc.weight": torch.ones(2).to(torch.float8_e4m3fn)}, "finite"),
        ({"fc.weight": torch.zeros(1).expand(1 << 20)}, "larger than the file"),
    ],
)
def test_checkpoints_of_other_things_are_refused(saved: Any, message: str, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        weights.import_checkpoint(tmp_path / "x.pth", [TOY])


@pytest.mark.parametrize("content", [b"", b"no pickle at all", b"PK\x03\x04broken zip"])
def test_files_that_are_no_checkpoint_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth"):
        weights.import_checkpoint(tmp_path / "x.pth", [TOY])


# Cards


def test_the_card_tells_scores_with_counts_and_the_hash_is_checked(tmp_path: Path) -> None:
    path = _save(
        tmp_path / "x.safetensors",
        licence="Apache-2.0",
        training={"recipe": "train-toy", "seed": 7, "data": "rendered"},
        scores=[{"on": "held out", "metric": "whole plate", "right": 97, "of": 100, "interval": [0.915, 0.99]}],
        weaknesses=["snow"],
    )
    info = weights.find(path)
    text = weights.write_card(info).read_text(encoding="utf-8")
    for part in ["Apache-2.0", "seed: 7", "| held out | whole plate | 97.0 % | 97 / 100 | 91.5 to 99.0 % |", "- snow"]:
        assert part in text
    assert weights.verify(info, {"toy"}) == []
    assert "no installed component" in weights.verify(info, {"other"})[0]
    _save(path, licence="changed")
    assert any("its card says" in fault for fault in weights.verify(weights.find(path), {"toy"}))
    weights.card_path(info).unlink()
    assert any("no card" in fault for fault in weights.verify(weights.find(path), {"toy"}))


@pytest.mark.parametrize(
    "metadata",
    [
        {"weaknesses": 5},
        {"scores": 5},
        {"scores": [5, {"on": "rain", "right": 1, "of": 2, "interval": 5}]},
        {"scores": [{"on": "rain", "right": 1, "of": 2, "interval": [10**400, "x"]}]},
        {"scores": [{"on": "rain", "right": 10**400, "of": 2}]},
    ],
)
def test_the_card_leaves_out_what_is_malformed(metadata: dict[str, Any], tmp_path: Path) -> None:
    card = weights.card(weights.find(_save(tmp_path / "x.safetensors", **metadata)))
    assert ("| rain |" in card) == ("rain" in str(metadata)) and "None recorded." in card


def test_metadata_does_not_steer_the_terminal(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(own_home / "weights/x.safetensors", licence="MIT\x1b[2J", summary="a\x1b]0;b\x07\nc", weaknesses=["\r"])
    assert main(["weights", "list"]) == main(["weights", "show", "x"]) == 0
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.split("\n"))
    assert r"MIT\x1b[2J" in said and r"a\x1b]0;b\x07\nc" in said


def test_architectures_come_from_the_parameters() -> None:
    class Read(Params):
        weights: weights_name("toy") = "x"  # type: ignore[valid-type]
        other: str = ""

    assert weights.architectures([Component("r", "recognizer", "m:f", Read)]) == {"toy"}


def test_finding_weights_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    _save(tmp_path / "x.safetensors")
    code = (
        "import sys; from lprf import weights; i = weights.find('x', sys.argv[1]); weights.card(i);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'cv2', 'safetensors')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_a_name_that_is_taken_is_not_published_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPRF_HOME", str(tmp_path / "home"))
    trained = weights.save(tmp_path / "trained.safetensors", {"a": torch.ones(2)}, {"architecture": "lprnet"})
    publish = ["weights", "publish", str(trained), "--as"]
    assert lprf(*publish, "mine", LPRF_HOME=str(tmp_path / "home")).returncode == 0
    again = lprf(*publish, "mine", LPRF_HOME=str(tmp_path / "home"))
    assert again.returncode == 2 and "is there already; --force replaces it" in again.stderr
    assert lprf(*publish, "mine", "--force", LPRF_HOME=str(tmp_path / "home")).returncode == 0
    shadow = lprf(*publish, "cn-lprnet", LPRF_HOME=str(tmp_path / "home"))
    assert shadow.returncode == 0 and "not the one that LPRF ships" in shadow.stderr


def test_published_weights_have_a_card_of_their_scores(tmp_path: Path) -> None:
    torch.manual_seed(1)
    tensors = {"a": torch.randn(2, 3)}
    trained = weights.save(tmp_path / "trained.safetensors", tensors, {"architecture": "lprnet", "licence": "MIT"})
    rate = {"value": 0.75, "hits": 3, "total": 4, "interval": [0.3, 0.95]}
    report = {
        "iou": 0.5,
        "pictures": 7,
        "detection": {"0.5": {"recall": rate, "false_boxes": 2}},
        "reading": {"end_to_end": {"plates": rate, "without_first": rate}, "given_found": {"plates": None}},
        "plates": 4,
        "provinces": {name: {"reading": {"end_to_end": {"plates": rate}}} for name in "粤皖"},
        "confidence": {"expected_calibration_error": 0.01234567, "plates": 3},
    }
    used = {"read.weights": {"name": "trained", "sha256": weights.read_info(trained).sha256}}
    report |= {"provenance": {"weights": used}}
    crops = {"detection": None, "reading": {"given_found": {"plates": rate}}, "provenance": {"weights": used}}
    info = weights.publish(
        *(str(trained), tmp_path / "mine.safetensors", {"street": report, "crops": crops}, "A reader."), ["dark ones"]
    )
    card = weights.card_path(info).read_text(encoding="utf-8")
    assert weights.verify(info, ["lprnet"]) == []
    assert "| street | found at IoU 0.5 | 75.0 % | 3 / 4 | 30.0 to 95.0 % |" in card
    assert "| street | found and read, by province | 粤 3/4, 皖 3/4 |" in card
    assert "| street | expected calibration error | 0.0123 | 3 |" in card
    assert "| street | false boxes | 2 | 7 |" in card and "| crops | read | 75.0 % |" in card
    assert "A reader." in card and "- dark ones" in card and info.metadata["licence"] == "MIT"
    assert torch.equal(weights.load(info).tensors["a"], tensors["a"])
    for wrong in ({"detection": [1]}, {"detection": {"0.5": {}}}, {"reading": 5}):
        with pytest.raises(WeightsError, match="street: not a report"):
            report = {**wrong, "provenance": {"weights": used}}
            weights.publish(str(trained), tmp_path / "other.safetensors", {"street": report})
    others = {"provenance": {"weights": {"read.weights": {"name": "cn-lprnet", "sha256": "0" * 64}}}}
    with pytest.raises(WeightsError, match=r"street: a report of other weights \(cn-lprnet\), not of .*trained"):
        weights.publish(str(trained), tmp_path / "other.safetensors", {"street": crops | others})
    assert not (tmp_path / "other.safetensors").exists()

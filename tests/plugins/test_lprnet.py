"""LPRNet against the seed's numbers, and as a recognizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pydantic
import pytest
import torch

from lprf import weights
from lprf.context import Context
from lprf.data import Detections, Frames, Origin, Plates, Readings, readings_by_frame
from lprf.errors import LprfError, WeightsError
from lprf.testing import RecognizerSuite
from lprf.training import distributed
from lprf_lprnet import importers
from lprf_lprnet.build import build
from lprf_lprnet.layers import Dropout, every_nth
from lprf_lprnet.net import LPRNet
from lprf_lprnet.params import RecognizerParams
from lprf_lprnet.plugin import lprf_components
from lprf_lprnet.recognizer import LprnetRecognizer
from lprf_lprnet.slots import SlotNet
from nothing_from_the_host import NOWHERE, NothingFromTheHost
from plain_lprnet import PlainLPRNet
from running import at_most


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LPRF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def imported(checkpoint: Path) -> weights.Weights:
    return weights.load(weights.import_checkpoint(checkpoint, lprf_components()))


class TestRecognizer(RecognizerSuite):
    component = "lprnet.recognizer"


class TestRecognizerGreedily(RecognizerSuite):
    component = "lprnet.recognizer"
    params: ClassVar[dict[str, Any]] = {"decode": "greedy"}


class TestRecognizerWithinAFormat(RecognizerSuite):
    component = "lprnet.recognizer"
    params: ClassVar[dict[str, Any]] = {"format": "cn", "top": 5}


@torch.inference_mode()
@pytest.mark.parametrize("folded", [False, True])
def test_the_seeds_numbers_in_any_batch(folded: bool, shared_seed: Path, home: Path) -> None:
    golden = np.load(shared_seed / "golden/seed_networks.npz")
    net, metadata = build(imported(shared_seed / "weights/Final_LPRNet_model.pth"))
    assert (metadata.size, metadata.blank, metadata.decoder) == ((24, 94), 67, "ctc")
    net = net.folded() if folded else net
    images = torch.from_numpy(golden["lprnet_input"])
    truth = golden["lprnet_logits_one_by_one"]
    others = torch.rand(5, 3, 24, 94) * 2 - 1
    batches = {
        "one by one": torch.cat([net(image[None]) for image in images]),
        "together": net(images),
        "backwards": net(images.flip(0)).flip(0),
        "among others": net(torch.cat([others, images]))[5:],
        "channels last": net(images.to(memory_format=torch.channels_last)),
    }
    for name, logits in batches.items():
        assert np.abs(logits.numpy() - truth).max() <= 1e-5 * np.abs(truth).max(), name


def test_both_lprnets_are_imported_each_by_its_name(shared_seed: Path, home: Path) -> None:
    names = {}
    for file in ("Final_LPRNet_model.pth", "sirius_LPRNet_model.pth"):
        loaded = imported(shared_seed / "weights" / file)
        names[file] = loaded.info.name
        theirs = torch.load(shared_seed / "weights" / file, map_location="cpu", weights_only=True)
        net, _ = build(loaded)
        assert sum(x.sum().item() for x in net.state_dict().values()) == pytest.approx(
            sum(x.sum().item() for x in theirs.values()), rel=1e-4
        )
    assert list(names.values()) == ["seed-lprnet", "sirius-lprnet"]


def test_the_importer_takes_only_its_own(shared_seed: Path) -> None:
    def checkpoint(name: str) -> dict[str, torch.Tensor]:
        return dict(torch.load(shared_seed / "weights" / name, map_location="cpu", weights_only=True))

    own = checkpoint("Final_LPRNet_model.pth")
    assert importers.seed(own) is not None
    assert importers.seed({**own, "backbone.0.bias": torch.zeros(3)}) is None
    assert importers.seed({key: value for key, value in own.items() if key != "container.0.bias"}) is None
    for other in ("Final_STN_model.pth", "pnet_Weights", "onet_Weights"):
        assert importers.seed(checkpoint(other)) is None
    assert importers.seed({}) is None


ALPHABET = "AB12"


def filed(tmp_path: Path, net: LPRNet | SlotNet | None = None, **changes: Any) -> Path:
    torch.manual_seed(1)
    net = net or LPRNet(len(ALPHABET) + 1)
    metadata = {**net.metadata(), "alphabet": ALPHABET, "blank": len(ALPHABET), **changes}
    return weights.save(tmp_path / "net.safetensors", net.state_dict(), metadata)


def recognizer(path: Path, dtype: torch.dtype = torch.float32, **params: Any) -> LprnetRecognizer:
    context = Context(torch.device("cpu"), dtype, weights.find_and_load, node="read")
    return LprnetRecognizer(RecognizerParams(weights=str(path), **params), context)


def plates(images: torch.Tensor) -> Plates:
    n = len(images)
    frames = Frames(torch.zeros(1, 30, 100, 3, dtype=torch.uint8), [Origin("a")])
    boxes = torch.tensor([[0.0, 0, 94, 24]]).expand(n, 4)
    return Plates(Detections(frames, torch.zeros(n, dtype=torch.int64), boxes, torch.ones(n)), torch.arange(n), images)


@pytest.mark.parametrize("net", [None, SlotNet(len(ALPHABET) + 1, (24, 96), 0.25, 5)])
def test_more_plates_than_a_chunk_are_read_one_like_another(net: SlotNet | None, tmp_path: Path) -> None:
    read = recognizer(filed(tmp_path, net))
    images = torch.rand(130, 3, *read.size) * 255
    together = read(plates(images))
    assert len(together) == 130
    for row in (0, 63, 64, 129):
        alone = read(plates(images[row : row + 1]))
        assert alone.texts[0] == together.texts[row]
        assert float(alone.confidences) == pytest.approx(float(together.confidences[row]), abs=1e-4)
        assert alone.characters[0] == pytest.approx(together.characters[row], abs=1e-4)


@pytest.mark.parametrize("net", [None, SlotNet(len(ALPHABET) + 1, (24, 96), 0.25, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_shape_depends_on_what_is_read(net: SlotNet | None, dtype: torch.dtype, tmp_path: Path) -> None:
    path = filed(tmp_path, net)
    read = LprnetRecognizer(RecognizerParams(weights=str(path)), Context(NOWHERE, dtype, weights.find_and_load))
    images, there = torch.empty(12, 3, *read.size, device=NOWHERE), torch.empty(12, dtype=torch.bool, device=NOWHERE)
    with NothingFromTheHost():
        codes, *_, left = read.decode._fixed(read.log_probabilities, images, there)
    assert len(codes) == len(left) == 12


def test_plates_of_another_size_are_refused_naming_both(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"read: the plates are 32 x 128.*net\.safetensors read 24 x 94"):
        recognizer(filed(tmp_path))(plates(torch.zeros(1, 3, 32, 128)))


def test_metadata_does_not_decide_how_much_is_allocated(tmp_path: Path) -> None:
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 10_000)))
    vast = filed(tmp_path, size=[512, 512], width=8, alphabet=alphabet, blank=len(alphabet))
    with at_most(500_000_000), pytest.raises(WeightsError, match=r"net\.safetensors does not fit LPRNet"):
        recognizer(vast)


def test_the_first_alternative_is_the_text_and_its_confidence(tmp_path: Path) -> None:
    read = recognizer(filed(tmp_path), top=5)
    readings = read(plates(torch.rand(20, 3, 24, 94) * 255))
    for row in range(20):
        texts, values = zip(*readings.alternatives[row], strict=True)
        assert texts[0] == readings.texts[row] and values[0] == pytest.approx(float(readings.confidences[row]))
        assert len(texts) == len(set(texts)) == 5 and list(values) == sorted(values, reverse=True)
        assert sum(values) <= 1 + 1e-5


def test_temperature_divides_logits(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 24, 94) * 255
    hot = recognizer(filed(tmp_path, temperature=2.0)).log_probabilities(images)
    cold = recognizer(filed(tmp_path)).log_probabilities(images)
    torch.testing.assert_close(hot, (cold / 2).log_softmax(2), rtol=0, atol=1e-5)


def test_pictures_of_nothing_have_finite_confidences(tmp_path: Path) -> None:
    net = LPRNet(len(ALPHABET) + 1)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)  # no feature is left, and the mean that divides them is 0
    readings = recognizer(filed(tmp_path, net))(plates(torch.zeros(2, 3, 24, 94)))
    assert bool(readings.confidences.isfinite().all())


@pytest.mark.parametrize("net", [None, SlotNet(len(ALPHABET) + 1, (24, 96), 0.25, 5)])
def test_bfloat16_computes_the_network_alone(net: SlotNet | None, tmp_path: Path) -> None:
    path = filed(tmp_path, net)
    images = torch.rand(4, 3, *(net.size if net else (24, 94))) * 255
    low, high = (recognizer(path, dtype).log_probabilities(images) for dtype in (torch.bfloat16, torch.float32))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.exp(), high.exp(), rtol=0, atol=0.1)


class Told(LprnetRecognizer):
    """A recognizer whose network gives the log-probabilities that it is told."""

    def log_probabilities(self, images: torch.Tensor) -> torch.Tensor:
        return self.told[: len(images)]

    told: torch.Tensor


def told(tmp_path: Path, steps: list[dict[str, float]], **params: Any) -> tuple[LprnetRecognizer, Readings]:
    """Reads one plate whose slots have these probabilities; what is missing to 1 is the blank's."""
    path = filed(tmp_path, SlotNet(len(ALPHABET) + 1, (24, 96), 0.25, 5))
    context = Context(torch.device("cpu"), torch.float32, weights.find_and_load)
    read = Told(RecognizerParams(weights=str(path), unsure=0, **params), context)
    rows = [[step.get(c, 1e-9) for c in ALPHABET] + [max(1 - sum(step.values()), 1e-9)] for step in steps]
    read.told = torch.tensor([rows]).log()
    return read, read(plates(torch.zeros(1, 3, 24, 96)))


@pytest.fixture
def own_format(tmp_path: Path) -> str:
    text = "alphabet: AB12\nclasses: {letter: AB, digit: '12'}\npatterns: {one: [[letter 1-2, digit 2]]}\n"
    (tmp_path / "own.yaml").write_text(text)
    return str(tmp_path / "own.yaml")


def test_a_format_chooses_among_what_was_seen_and_says_what_it_passed_over(tmp_path: Path, own_format: str) -> None:
    steps = [{"A": 0.9}, {"B": 0.55, "1": 0.45}, {"B": 0.6, "1": 0.4}, {}, {}]
    _, free = told(tmp_path, steps)
    assert free.texts == ["ABB"] and free.fits is None
    _, fitting = told(tmp_path, steps, format=own_format)
    assert fitting.texts == ["A11"] and fitting.fits == [True]
    assert float(fitting.confidences) == pytest.approx(0.9 * 0.45 * 0.4, rel=1e-4)
    assert fitting.alternatives[0][0] == ("ABB", pytest.approx(0.9 * 0.55 * 0.6, rel=1e-4))
    assert ("A11", pytest.approx(float(fitting.confidences))) in fitting.alternatives[0]
    [[reading]] = readings_by_frame(fitting)
    assert reading.as_json()["fits"] is True
    assert "fits" not in readings_by_frame(free)[0][0].as_json()
    _, alone = told(tmp_path, steps, format=own_format, top=1)
    assert [text for text, _ in alone.alternatives[0]] == ["A11"]


def test_a_text_that_fits_no_format_is_kept_and_marked(tmp_path: Path, own_format: str) -> None:
    steps = [{"1": 0.99}, {"2": 0.99}, {"A": 0.99}, {}, {}]
    _, readings = told(tmp_path, steps, format=own_format)
    assert readings.texts == ["12A"] and readings.fits == [False]
    assert float(readings.confidences) == pytest.approx(0.99**3, rel=1e-4)
    assert readings_by_frame(readings)[0][0].as_json()["fits"] is False


def test_a_format_that_the_alphabet_cannot_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("alphabet: AX\npatterns: {one: [[X, A]]}\n")
    with pytest.raises(LprfError, match=r"x\.yaml.*net\.safetensors, AB12"):
        recognizer(filed(tmp_path), format=str(tmp_path / "x.yaml"))


def test_a_format_needs_the_beam() -> None:
    with pytest.raises(pydantic.ValidationError, match="decode: beam"):
        RecognizerParams(decode="greedy", format="cn")


# Layers that cost less in training


@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_nth_channel_and_its_gradient(n: int) -> None:
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(every_nth(x, n), x[:, ::n], rtol=0, atol=0)
    assert torch.autograd.gradcheck(lambda x: every_nth(x, n), x)


@pytest.mark.parametrize("shape", [(3, 16, 9, 5), (1, 64, 300, 400)])  # the second needs more coins than a table has
def test_dropout_is_fair_and_new_each_time(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.25)
    x = torch.ones(shape).contiguous(memory_format=torch.channels_last)
    once, again = dropout(x), dropout(x)
    assert once.unique().tolist() == pytest.approx([0, 1 / 0.75])
    kept = (once > 0).float()
    error = 5 * (0.25 * 0.75 / kept.numel()) ** 0.5
    assert abs(float(kept.mean()) - 0.75) < error
    both = float(((once > 0) & (again > 0)).float().mean())
    assert abs(both - 0.75**2) < 2 * error
    assert once.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(dropout.eval()(x), x)


def test_it_gives_what_the_paper_written_down_plainly_gives() -> None:
    torch.manual_seed(3)
    ours = LPRNet(79, (24, 94), dropout=0.0)
    plain = PlainLPRNet(79, dropout=0.0).load_ours(ours)
    images = torch.randn(5, 3, 24, 94)
    torch.testing.assert_close(ours(images), plain(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-4)


def test_of_several_processes_each_drops_what_one_would_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    dropout = Dropout(0.5)
    x = torch.ones(6, 4, 5, 7).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(3)
    whole = dropout(x)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "share", lambda rank=rank: distributed.Share(rank, 2))
        torch.manual_seed(3)
        parts.append(dropout(x[3 * rank : 3 * rank + 3]))
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(*parts)

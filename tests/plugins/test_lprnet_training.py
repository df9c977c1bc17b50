"""What the recognizer's trainer learns from, its curriculum, its temperature, and that it learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lprf import weights
from lprf.context import Context
from lprf.data import Example, Truth
from lprf.errors import InputFailure, LprfError, WeightsError
from lprf.plate_format import load_format
from lprf_lprnet.build import build
from lprf_lprnet.pictures import Kept, Real, cut, keep, pictures
from lprf_lprnet.trainer import ReaderTask, ReaderTrainer
from lprf_lprnet.trainer_params import TrainerParams
from lprf_stn.net import STN
from lprf_synth.crops import SynthPlates
from lprf_synth.plugin import PlatesParams
from tiny_photos import Listed

SIZE = (24, 96)
ALPHABET = "AB京皖"


def photo(height: int = 60, width: int = 200) -> np.ndarray:
    rng = np.random.default_rng(1)
    return cv2.resize(rng.integers(0, 256, (6, 20, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def example(text: str | None, name: str = "a", image: Callable[[], np.ndarray] = photo, **truth: Any) -> Example:
    box = truth.pop("box", (40.0, 20.0, 136.0, 44.0))
    return Example(name, image, (Truth(box, text=text, **truth),))


def fails() -> np.ndarray:
    raise InputFailure("gone.jpg", "no such file")


class Still(np.random.Generator):
    """Draws no jitter at all."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:  # type: ignore[override]
        return 0.0 if size is None else np.zeros(size)

    def random(self, *_: Any, **__: Any) -> Any:
        return 0.99

    def integers(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        return 0


def test_a_plate_that_is_cut_without_jitter_is_its_box() -> None:
    one = example("A")
    found = cut(keep(one, one.plates[0], SIZE), Still(), 0.0, SIZE)
    np.testing.assert_array_equal(found, photo()[20:44, 40:136])  # the network's own size: nothing is resampled


def test_corners_are_made_upright() -> None:
    image = photo()
    corners = np.array([[44, 18], [140, 26], [138, 48], [42, 40]], np.float32)
    kept = Kept(image, np.array([[42, 18], [140, 18], [140, 48], [42, 48]], np.float32), corners, "A")

    class Upright(Still):
        def random(self, *_: Any, **__: Any) -> Any:
            return next(self.draws)

        draws = iter([0.1, 0.9])  # by the corners, wholly

    upright = np.array([[0, 0], [96, 0], [96, 24], [0, 24]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners - 0.5, upright - 0.5)
    wanted = cv2.warpPerspective(image, matrix, (96, 24), borderMode=cv2.BORDER_REPLICATE)
    found = cut(kept, Upright(), 0.0, SIZE)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_large_plates_are_kept_small() -> None:
    one = example("A", image=lambda: photo(1200, 4000), box=(800.0, 400.0, 2720.0, 880.0))
    kept = keep(one, one.plates[0], SIZE)
    assert kept.image.shape[1] < 250
    np.testing.assert_allclose(kept.box[1, 0] - kept.box[0, 0], 1.4 * 96, atol=2)


def test_what_cannot_be_learnt_is_named_and_left_out() -> None:
    dataset = Listed(
        example("A京", "good"),
        example("AX", "strange"),
        example("ABABABAB", "long"),
        example("A", "empty", box=(10.0, 10.0, 10.0, 20.0)),
        example("A", "outside", box=(500.0, 500.0, 600.0, 520.0)),
        example("A", "gone", image=fails),
        example(None, "unlabelled"),
    )
    real = Real(dataset, SIZE, ALPHABET, 4, 0.5)
    assert len(real) == 1
    said = "\n".join(real.problems)
    assert all(name in said for name in ("strange", "long", "empty", "outside", "gone")) and "unlabelled" not in said
    assert "X" in said
    with pytest.raises(LprfError, match="none of 1 pictures"):
        Real(Listed(example("X")), SIZE, ALPHABET, 4, 0.5)


def test_rare_first_characters_are_drawn_more_often() -> None:
    dataset = Listed(*(example("皖A", str(i)) for i in range(90)), *(example("京A", f"j{i}") for i in range(10)))
    real = Real(dataset, SIZE, ALPHABET, 4, 0.5)
    rng = np.random.default_rng(3)
    found = Counter(real.draw(rng, 0.0)[1][0] for _ in range(2000))
    assert 0.21 < found["京"] / 2000 < 0.29  # sqrt(10) / (sqrt(10) + sqrt(90)) = 0.25


def task(**params: Any) -> ReaderTask:
    settings = TrainerParams(**{"steps": 2, "size": SIZE, "batch": 4, **params})
    rendered = SynthPlates(PlatesParams(size=SIZE, seed=1))
    return ReaderTask(settings, torch.device("cpu"), [rendered], None, rendered.kinds[0].provinces + "0123456789" + L)


L = "ABCDEFGHJKLMNPQRSTUVWXYZIO警学挂港澳使领民航应急"


@pytest.mark.parametrize("decoder", ["slots", "ctc"])
def test_a_batch_does_not_depend_on_how_many_share_it(decoder: str) -> None:
    from lprf.training.distributed import Share

    one = task(decoder=decoder)
    whole = one.batch(0, np.random.default_rng(5), Share())
    halves = [one.batch(0, np.random.default_rng(5), Share(rank, 2)) for rank in range(2)]
    assert torch.equal(whole["images"], torch.cat([half["images"] for half in halves]))
    assert torch.equal(whole["lengths"], torch.cat([half["lengths"] for half in halves]))


def test_the_curriculum_rises_only_where_plates_are_read() -> None:
    one = task(difficulty=(0.2, 0.5), raise_at=0.6, raise_by=0.2)
    assert not one.interval(50, {"right": 0.5}) and one.difficulty == 0.2
    assert one.interval(100, {"right": 0.7}) and one.difficulty == pytest.approx(0.4)
    other = task(difficulty=(0.2, 0.5))
    other.load_state(one.state())
    assert other.difficulty == one.difficulty
    assert one.interval(150, {"right": 0.9}) and one.difficulty == 0.5
    assert not one.interval(200, {"right": 1.0})


def test_shares_must_fit_the_datasets() -> None:
    with pytest.raises(LprfError, match="3 numbers for 1 datasets"):
        task(shares=[1, 1, 1])
    with pytest.raises(LprfError, match="every one of `shares` is 0"):
        task(shares=[0])


@pytest.mark.parametrize(
    ("alphabet", "longest", "told"), [("AB", 8, "has .*, which the alphabet"), (None, 4, "is longer than 4")]
)
def test_rendered_plates_that_cannot_be_learnt_are_told(alphabet: str | None, longest: int, told: str) -> None:
    rendered = SynthPlates(PlatesParams(count=9, size=SIZE))
    one = pictures(rendered, SIZE, alphabet or load_format("cn").alphabet, longest, balance=1)
    with pytest.raises(LprfError, match=f"a rendered plate cannot be learnt: its text '.*' {told}"):
        one.draw(np.random.default_rng(1), 0.5)


def test_slots_want_sides_of_eights() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        TrainerParams(steps=1, size=(50, 160))
    assert TrainerParams(steps=1, size=(50, 161), decoder="ctc").size == (50, 161)


def test_the_temperature_undoes_overconfidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts drawn from a known distribution; logits three times too steep."""
    one = task(slots=4)
    one.alphabet, one.codes = "ABC", {"A": 0, "B": 1, "C": 2}
    generator = torch.Generator().manual_seed(2)
    true = torch.randn(4000, 4, 4, generator=generator) * 2
    codes = torch.distributions.Categorical(logits=true.transpose(1, 2))
    torch.manual_seed(3)
    drawn = codes.sample()
    ended = (drawn == 3).cumsum(1) > 0
    texts = [
        "".join("ABC"[c] for c, end in zip(row, stop, strict=True) if not end)
        for row, stop in zip(drawn, ended, strict=True)
    ]
    # what follows the first blank is no choice of the network's: sure of the blank
    after = (ended.cumsum(1) > 1)[:, None].expand_as(true)
    sure = torch.tensor([-50.0, -50.0, -50.0, 50.0])[None, :, None].expand_as(true)
    one.val = (torch.zeros(4000, 1), texts)
    monkeypatch.setattr(one, "logits", lambda _: 3 * torch.where(after, sure, true))
    assert one.temperature() == pytest.approx(3, rel=0.06)


def test_a_pooled_transformer_looks_at_the_mean_of_pixels() -> None:
    torch.manual_seed(4)
    large, small = STN((48, 160), pool=2), STN((24, 80))
    torch.nn.init.normal_(large.fc2.weight, 0, 0.01)
    small.load_state_dict(large.state_dict())
    images = torch.randn(2, 3, 48, 160)
    mean = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(large.theta(images), small.theta(mean))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["slots", "ctc"])
def test_it_learns_and_its_weights_read(decoder: str, tmp_path: Path) -> None:
    """Eight texts over and over: the loss falls by far, and the weights that are left load and read."""
    plates = SynthPlates(PlatesParams(size=SIZE, count=8, seed=1, difficulty=0.0))
    context = Context(torch.device("cpu"), torch.float32, lambda _: None, folder=tmp_path, seed=3)  # type: ignore[arg-type, return-value]
    params = TrainerParams(
        steps=120,
        batch=16,
        warmup=20,
        size=SIZE,
        decoder=decoder,
        difficulty=(0, 0),
        width=0.5,
        dropout=0.0,
        validate_every=60,
        log_every=10,
    )
    paths = ReaderTrainer(params, context).run([plates], plates)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("loss")]) for row in rows[1:]]
    assert losses[-1] < 0.5 * losses[0]
    net, metadata = build(weights.find_and_load(str(paths["lprnet"])))
    assert metadata.decoder == decoder and metadata.temperature > 0
    assert net(torch.zeros(1, 3, *SIZE)).shape[1] == len(metadata.alphabet) + 1


def test_training_can_begin_from_other_weights(tmp_path: Path) -> None:
    plates = SynthPlates(PlatesParams(size=SIZE, count=8, seed=1))
    settings = {"steps": 1, "batch": 2, "size": SIZE, "width": 0.25, "warmup": 0, "validate_every": 1}

    def trained(folder: str, **more: Any) -> dict[str, Path]:
        (tmp_path / folder).mkdir()
        context = Context(
            torch.device("cpu"), torch.float32, weights.find_and_load, folder=tmp_path / folder, node="read"
        )
        return ReaderTrainer(TrainerParams(**{**settings, **more}), context).run([plates])

    first = trained("first")
    begin = {"init": str(first["lprnet"]), "init_stn": str(first["stn"])}
    onward = trained("onward", lr=1e-12, **begin)
    for name, path in first.items():
        before, after = (weights.find_and_load(str(p)).tensors for p in (path, onward[name]))
        trained_parts = [key for key in before if "running" not in key and "num_batches" not in key]
        assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in trained_parts)
    with pytest.raises(WeightsError, match=r"width is 0\.5, in .*lprnet\.safetensors it is 0\.25"):
        trained("other", init=str(first["lprnet"]), width=0.5)
    with pytest.raises(WeightsError, match="stn is false"):
        trained("without", init_stn=str(first["stn"]), stn=False)

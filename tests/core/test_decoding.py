"""Decoding against float64: every alignment and every text enumerated, and the textbook prefix beam search."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lprf import decoding
from lprf.data import Detections, Filled, Frames, Origin, Plates, Readings
from lprf.decoding import LOOKS, SURER, Decoder, Grammar, Texts, strings
from lprf.decoding_params import DecodingParams
from lprf.plate_format import Pattern, PlateFormat
from nothing_from_the_host import NOWHERE, NothingFromTheHost

CPU = torch.device("cpu")


def log_probabilities(n: int, steps: int, classes: int, seed: int, sharpness: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, steps, classes, generator=generator) * sharpness).log_softmax(2)


def found(texts: Texts, row: int, alphabet: str) -> list[tuple[str, float]]:
    """Texts with their probabilities, as they come."""
    of = zip(*(x[row].tolist() for x in (texts.codes, texts.lengths, texts.log_p.exp())), strict=True)
    return [(strings(codes, length, alphabet), p) for codes, length, p in of if p > 0]


def all_texts(log_p: Tensor, alphabet: str) -> dict[str, float]:
    """One plate's texts with the sum over their alignments, by going through all of them."""
    p, blank = log_p.double().exp().numpy(), log_p.shape[1] - 1
    sums: dict[str, float] = defaultdict(float)
    for path in itertools.product(range(blank + 1), repeat=len(p)):
        text = "".join(alphabet[code] for code, _ in itertools.groupby(path) if code != blank)
        sums[text] += math.prod(p[t, code] for t, code in enumerate(path))
    return sums


def textbook_beam(log_p: Tensor, width: int, alphabet: str) -> list[str]:
    """Prefix beam search as it is written in Hannun et al., a dictionary of prefixes, float64."""
    p, blank = log_p.double().exp().numpy(), log_p.shape[1] - 1
    beams = {"": (1.0, 0.0)}
    for now in p:
        after: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for text, (by_blank, by_last) in beams.items():
            after[text][0] += (by_blank + by_last) * now[blank]
            for code, character in enumerate(alphabet):
                if text.endswith(character):
                    after[text][1] += by_last * now[code]
                    after[text + character][1] += by_blank * now[code]
                else:
                    after[text + character][1] += (by_blank + by_last) * now[code]
        best = sorted(after, key=lambda text: -sum(after[text]))[:width]
        beams = {text: (after[text][0], after[text][1]) for text in best}
    return list(beams)


def plate_format(*patterns: str, alphabet: str) -> PlateFormat:
    """Slots apart by spaces: "ab a ab" is three characters."""
    split = [tuple(pattern.split()) for pattern in patterns]
    return PlateFormat("test", "", alphabet, tuple(Pattern(" ".join(s), s, (len(s),)) for s in split))


def texts_by_slot(log_p: Tensor, alphabet: str) -> dict[str, float]:
    """One plate's texts with their probabilities: characters, then the blank, if there is a slot left for it."""
    p = log_p.double().exp().numpy()
    texts = {}
    for length in range(len(p) + 1):
        for codes in itertools.product(range(len(alphabet)), repeat=length):
            value = math.prod(p[i, code] for i, code in enumerate(codes))
            texts["".join(alphabet[code] for code in codes)] = value * (p[length, -1] if length < len(p) else 1)
    return texts


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_ctc_probabilities_are_summed_over_all_alignments(sharpness: float) -> None:
    log_p = log_probabilities(6, 5, 4, 1, sharpness)
    greedy, beam = decoding.ctc_greedy(log_p), decoding.ctc_beam(log_p, 64)
    for row in range(6):
        truth = all_texts(log_p[row], "abc")
        for text, p in [*found(greedy, row, "abc"), *(texts := found(beam, row, "abc"))]:
            assert p == pytest.approx(truth[text], rel=1e-4), text
        assert len({text for text, _ in texts}) == len(texts), "a text twice"
        of_texts = beam.codes[row : row + 1], beam.lengths[row : row + 1]
        for text, p in found(Texts(*of_texts, decoding.ctc_forward(log_p[row : row + 1], *of_texts)), 0, "abc"):
            assert p == pytest.approx(truth[text], rel=1e-4), text
        best = sorted(truth, key=lambda text: -truth[text])[:10]
        assert [text for text, _ in texts[:10]] == best


def test_a_wide_beam_finds_every_text() -> None:
    log_p = log_probabilities(4, 4, 3, 2)
    for row in range(4):
        truth = all_texts(log_p[row], "ab")
        assert dict(found(decoding.ctc_beam(log_p, 64), row, "ab")) == pytest.approx(dict(truth), rel=1e-4)


def test_ctc_beam_is_the_textbooks() -> None:
    """With as many classes and time steps as plates have; by texts, as the textbook's sums lack pruned paths."""
    alphabet = "".join(chr(ord("A") + i) for i in range(40))
    log_p = log_probabilities(12, 18, 41, 3, 3.0)
    log_p[:, ::2, 40] += 4  # blanks between characters, as a trained network puts them
    log_p = log_p.log_softmax(2)
    beam = decoding.ctc_beam(log_p, 8)
    same = 0
    for row in range(12):
        texts = [text for text, _ in found(beam, row, alphabet)]
        textbook = textbook_beam(log_p[row], 8, alphabet)
        assert len(set(texts)) == 8
        same += len(set(texts) & set(textbook))
        assert texts[0] in textbook and textbook[0] in texts[:2]
    assert same >= 92  # of 96: the last places may differ where sums of float32 are close


def test_a_character_on_the_first_time_step_is_kept() -> None:
    logits = torch.full((1, 6, 4), -9.0)
    for t, code in enumerate([0, 1, 1, 3, 1, 3]):
        logits[0, t, code] = 9
    log_p = logits.log_softmax(2)
    for texts in (decoding.ctc_greedy(log_p), decoding.ctc_beam(log_p, 4)):
        text, p = found(texts, 0, "abc")[0]
        assert text == "abb" and p > 0.99
    characters = decoding.ctc_characters(log_p, texts.codes[:, 0], texts.lengths[:, 0])
    assert bool((characters[0, :3] > 0.99).all())


def test_characters_have_the_probability_of_their_best_time_step() -> None:
    log_p = log_probabilities(8, 5, 4, 4)
    texts = decoding.ctc_beam(log_p, 4)
    characters = decoding.ctc_characters(log_p, texts.codes[:, 0], texts.lengths[:, 0])
    for row in range(8):
        text = texts.codes[row, 0, : int(texts.lengths[row, 0])].tolist()
        p = log_p[row].double().exp().numpy()
        best, at = -1.0, ()
        for path in itertools.product(range(4), repeat=5):
            runs = [(code, len(list(run))) for code, run in itertools.groupby(path)]
            value = math.prod(p[t, code] for t, code in enumerate(path))
            if [code for code, _ in runs if code != 3] == text and value > best:
                best, at = value, tuple(runs)
        expected, t = [], 0
        for code, count in at:
            if code != 3:
                expected.append(max(p[t : t + count, code]))
            t += count
        assert characters[row, : len(text)].tolist() == pytest.approx(expected, rel=1e-4)


def test_greedily_read_characters_are_those_of_the_best_alignment() -> None:
    log_p = log_probabilities(50, 18, 6, 4)
    log_p[0, :, :5] = -30  # nothing but blanks
    log_p[1, 4:] = log_p[1, 4]  # one character, again and again
    texts = decoding.ctc_greedy(log_p)
    assert sorted(set(texts.lengths[:, 0].tolist()))[0] == 0
    ours, theirs = (
        decoding.ctc_greedy_characters(log_p),
        decoding.ctc_characters(log_p, texts.codes[:, 0], texts.lengths[:, 0]),
    )
    for row, length in enumerate(texts.lengths[:, 0].tolist()):
        assert ours[row, :length].tolist() == pytest.approx(theirs[row, :length].tolist(), rel=1e-5)


def test_no_plates_and_one_class() -> None:
    for decode in (decoding.ctc_greedy, decoding.slots_greedy):
        assert decode(torch.zeros(0, 5, 4)).codes.shape == (0, 1, 5)
    for search in (decoding.ctc_beam, decoding.slots_beam):
        assert search(torch.zeros(0, 5, 4), 3).codes.shape == (0, 3, 5)
        texts = search(torch.full((1, 3, 2), 0.5).log(), 8)
        assert sum(p for _, p in found(texts, 0, "a")) == pytest.approx(1)


@pytest.mark.parametrize("decoder", ["ctc", "slots"])
def test_a_format_gives_the_most_probable_texts_that_fit(decoder: str) -> None:
    form = plate_format("a bc", "bc ab c", "c c", alphabet="abc")
    log_p = log_probabilities(30, 4, 4, 5, 1.5)
    grammar = Grammar(form, "abc", CPU)
    texts = (decoding.ctc_beam if decoder == "ctc" else decoding.slots_beam)(log_p, 64, grammar)
    for row in range(30):
        truth = (all_texts if decoder == "ctc" else texts_by_slot)(log_p[row], "abc")
        fitting = {text: p for text, p in truth.items() if form.fits(text)}
        got = found(texts, row, "abc")
        assert dict(got) == pytest.approx(fitting, rel=1e-4)
        assert [p for _, p in got] == sorted((p for _, p in got), reverse=True)


def test_a_narrow_beam_with_few_texts_gives_none_twice() -> None:
    """Where a format leaves fewer texts than beams, an empty beam must not come to life as another's twin."""
    grammar = Grammar(plate_format("a b", "a b a", alphabet="abcdefgh"), "abcdefgh", CPU)
    for search in (decoding.ctc_beam, decoding.slots_beam):
        texts = search(log_probabilities(50, 12, 9, 6, 1.0), 8, grammar)
        for row in range(50):
            assert sorted(text for text, _ in found(texts, row, "abcdefgh")) == ["ab", "aba"]


def test_sixty_two_patterns_and_codes_beyond_the_longest() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    form = plate_format(*(f"{letter} {letter}" for letter in letters), alphabet=letters)
    grammar = Grammar(form, letters, CPU)
    texts = decoding.slots_beam(log_probabilities(4, 3, 63, 7), 8, grammar)
    for row in range(4):
        assert all(len(text) == 2 and text[0] == text[1] for text, _ in found(texts, row, letters))


def test_a_format_may_be_beyond_the_alphabet() -> None:
    assert not Grammar(plate_format("x a", alphabet="abx"), "ab", CPU).writable
    assert Grammar(plate_format("x a", "xb a", alphabet="abx"), "ab", CPU).writable


@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize("sharpness", [0.3, 2.0])
def test_slots_give_exactly_the_most_probable_texts(width: int, sharpness: float) -> None:
    log_p = log_probabilities(40, 3, 5, 8, sharpness)
    texts = decoding.slots_beam(log_p, width)
    for row in range(40):
        truth = texts_by_slot(log_p[row], "abcd")
        got = found(texts, row, "abcd")
        assert [p for _, p in got] == pytest.approx(sorted(truth.values(), reverse=True)[:width], rel=1e-4)
        assert all(p == pytest.approx(truth[text], rel=1e-4) for text, p in got)


def test_slots_greedily() -> None:
    log_p = log_probabilities(40, 4, 5, 9)
    texts = decoding.slots_greedy(log_p)
    characters = decoding.slots_characters(log_p, texts.codes[:, 0])
    for row in range(40):
        best = log_p[row].argmax(1).tolist()
        expected = "".join("abcd"[code] for code in itertools.takewhile(lambda code: code != 4, best))
        [(text, p)] = found(texts, row, "abcd")
        assert text == expected and p == pytest.approx(texts_by_slot(log_p[row], "abcd")[text], rel=1e-4)
        each = np.exp(log_p[row].double().numpy().max(1))[: len(text)]
        assert characters[row, : len(text)].tolist() == pytest.approx(each.tolist(), rel=1e-4)


SIZE = (24, 96)


def of_light(images: Tensor) -> Tensor:
    """As a network, log-probabilities [N, 1, 3]: A the likelier the brighter the upper left quarter."""
    light = images[:, :, : SIZE[0] // 2, : SIZE[1] // 2].double().mean((1, 2, 3)) / 255
    return torch.stack([light, (1 - light) * 0.7, (1 - light) * 0.3], 1).log().unsqueeze(1).float()


@pytest.mark.parametrize("way", ["slots", "ctc"])
def test_an_unsure_reader_by_slots_looks_again(way: decoding.Way) -> None:
    picture = np.random.default_rng(5).integers(0, 256, SIZE).astype(np.float32)
    images = torch.full((3, 3, *SIZE), 250.0)
    images[1] = torch.from_numpy(picture)
    frames = Frames(torch.zeros(1, 30, 100, 3, dtype=torch.uint8), [Origin("a")])
    found_at = Detections(frames, torch.zeros(3, dtype=torch.int64), torch.zeros(3, 4), torch.ones(3))
    shown: list[Tensor] = []
    decoder = Decoder(DecodingParams(unsure=0.8), way, "AB", CPU)
    readings = decoder(Plates(found_at, torch.arange(3), images), lambda seen: (shown.append(seen), of_light(seen))[1])
    assert readings.confidences[[0, 2]].tolist() == pytest.approx([250 / 255] * 2)
    if way == "ctc":
        assert len(shown) == 1
        return
    assert [len(seen) for seen in shown] == [3] + [1] * len(LOOKS)
    height, width = SIZE
    for (zoom, right, down), seen in zip(LOOKS, shown[1:], strict=True):
        across = (1 - zoom) * (width - 1) / 2 + right * width
        along = (1 - zoom) * (height - 1) / 2 + down * height
        matrix = np.array([[zoom, 0, across], [0, zoom, along]])
        there = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(seen[0, 0].numpy() - there).mean() < 3, "but for OpenCV's 32nds of a pixel"
    mean = torch.cat([of_light(images[1:2]), *map(of_light, shown[1:])]).double().mean(0)[0].mul(SURER).exp()
    assert float(readings.confidences[1]) == pytest.approx(float(mean.max() / mean.sum()), abs=1e-5)


WAYS = [
    ("slots", {}),
    ("slots", {"decode": "greedy"}),
    ("slots", {"format": "de"}),
    ("ctc", {}),
    ("ctc", {"decode": "greedy"}),
    ("ctc", {"format": "de"}),
]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def of_squares(sharpness: float) -> Callable[[Tensor], Tensor]:
    """As a network, log-probabilities [N, 8, 37], of the brightness of 24 parts of a picture."""
    mixed = torch.randn(24, 8 * 37, generator=torch.Generator().manual_seed(3)) * sharpness
    return lambda images: (
        ((F.adaptive_avg_pool2d(images / 255, (2, 4)).flatten(1) - 0.5) @ mixed).unflatten(1, (8, 37)).log_softmax(2)
    )


def some_plates(count: int, filled: Filled | None = None) -> Plates:
    light = torch.rand(count, 3, 2, 4, generator=torch.Generator().manual_seed(4)) * 255
    frames = Frames(torch.zeros(1, 30, 100, 3, dtype=torch.uint8), [Origin("a")])
    rows, zeros = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    found_at = Detections(frames, zeros, torch.zeros(count, 4), torch.ones(count), filled=filled)
    return Plates(found_at, rows, F.interpolate(light, SIZE))


@pytest.mark.parametrize("real", [0, 1, 10, 13, 40])
@pytest.mark.parametrize(("sharpness", "unsure"), [(6.0, 0.9), (60.0, 0.5), (60.0, 0.7), (60.0, 0.0)])
@pytest.mark.parametrize(("way", "params"), WAYS, ids=str)
def test_where_a_gpu_alone_knows_how_many_the_same_is_read(
    way: decoding.Way, params: dict[str, Any], sharpness: float, unsure: float, real: int
) -> None:
    """Ten rows are read at a time, with room for three that are looked at again: ten are, one or two, three or four."""
    decoder = Decoder(DecodingParams(unsure=unsure, **params), way, LETTERS, CPU)
    told: list[Any] = []
    filled = Filled(torch.tensor([real, 7]), lambda *rest: told.append(rest))
    network = of_squares(sharpness)
    ours = decoder(some_plates(40, filled), network)
    plates = some_plates(40)
    theirs = decoder(Plates(plates.detections, plates.detection[:real], plates.images[:real]), network)
    assert len(ours) == real
    assert told == [(7,)]
    assert filled.rows() == real
    same_readings(ours, theirs)


def same_readings(ours: Readings, theirs: Readings) -> None:
    assert ours.plate.tolist() == theirs.plate.tolist()
    assert ours.texts == theirs.texts
    assert ours.fits == theirs.fits
    torch.testing.assert_close(ours.confidences, theirs.confidences, rtol=1e-4, atol=1e-6)
    for one, other in zip(ours.characters, theirs.characters, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for one, other in zip(ours.alternatives, theirs.alternatives, strict=True):
        assert dict(one) == pytest.approx(dict(other), rel=1e-3)


@pytest.mark.parametrize(("way", "params"), WAYS, ids=str)
def test_no_shape_depends_on_what_is_read(way: decoding.Way, params: dict[str, Any]) -> None:
    classes = len(LETTERS) + 1
    decoder = Decoder(DecodingParams(**params), way, LETTERS, NOWHERE)
    images, there = torch.empty(12, 3, *SIZE, device=NOWHERE), torch.empty(12, dtype=torch.bool, device=NOWHERE)
    with NothingFromTheHost():
        codes, lengths, probabilities, characters, fits, left = decoder._fixed(
            lambda images: images.new_empty(len(images), 8, classes), images, there
        )
    assert {len(values) for values in (codes, lengths, probabilities, characters, fits, left)} == {12}
    assert codes.shape[1] == lengths.shape[1] == probabilities.shape[1]
    assert characters.shape == (12, 8)


@pytest.mark.parametrize(("way", "params"), WAYS, ids=str)
def test_what_is_recorded_once_reads_other_plates_too(way: decoding.Way, params: dict[str, Any]) -> None:
    """As a CUDA graph is replayed: what was decided by a value at the recording would be decided so for ever."""
    decoder = Decoder(DecodingParams(**params), way, LETTERS, CPU)
    fixed = functools.partial(decoder._fixed, of_squares(60.0))
    plates = some_plates(24).images
    recorded = make_fx(fixed)(plates[:12], torch.arange(12) < 3)
    there = torch.arange(12) < 11
    for ours, theirs in zip(recorded(plates[12:], there), fixed(plates[12:], there), strict=True):
        torch.testing.assert_close(ours, theirs)

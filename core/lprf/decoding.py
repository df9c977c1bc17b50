"""From logits to texts: CTC (Graves et al., 2006) and slots, greedily or by beam, freely or within a plate format.

Log-probabilities are float32 [N, T, C]: T time steps or slots, the last class the blank. Texts are codes, int64
[N, K, L] padded with the blank, with lengths [N, K]. Everything is done for all plates at once, on their device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lprf.captured import Captured
from lprf.data import Filled, Plates, Readings
from lprf.decoding_params import DecodingParams
from lprf.errors import LprfError
from lprf.plate_format import PlateFormat, load_format

Way = Literal["ctc", "slots"]

CHUNK = 64  # plates decoded at a time on a CPU, so that memory stays bounded
CUDA_CHUNK = 256  # fewer, larger kernels
ROOM = 4  # where a GPU alone knows how many: of the rows a quarter is read at a time, of those one is looked at again
LIKELY = 0.01  # how probable a text that fits the format must be, as part of the most probable text, to be taken
NEVER = -1e30  # a log-probability; infinities would give NaN in differences
CLASSES = 12  # of every time step, the beam follows so many of the most probable, or `width` if that is more
# how an unsure reader looks again: zoomed, and moved by parts of a plate's width and height
LOOKS = ((1.0, 0.02, 0.0), (1.0, -0.02, 0.0), (1.0, 0.0, 0.04), (1.0, 0.0, -0.04), (0.95, 0.0, 0.0), (1.05, 0.0, 0.0))
SURER = 1.4  # the mean of all looks is times as sure as each: least surprised by 3,000 rendered plates of another seed
NOBODY, NOTHING = -2, -1  # the names of a beam that holds no prefix, and of what it would be without a character


@dataclass(frozen=True)
class Texts:
    """K texts a plate, the most probable first: codes [N, K, L] padded with the blank, lengths [N, K], log_p [N, K].

    Where there are fewer, the rest have the log-probability NEVER.
    """

    codes: Tensor
    lengths: Tensor
    log_p: Tensor


class Decoder:
    """From what a network sees to readings, as a recognizer's parameters say.

    With a plate format the most probable text that fits it is taken, unless it is LIKELY nowhere near: then the text
    is what was seen, and `fits` of the readings says that it fits nothing. Either way the most probable text of all
    is among the alternatives, so nothing is corrected in silence.

    way: what the time steps are: "ctc" or "slots". alphabet: the characters of the classes; the blank follows them.
    node, owner: for messages: the node, and the file whose alphabet it is.
    """

    def __init__(
        self, params: DecodingParams, way: Way, alphabet: str, device: torch.device, node: str = "", owner: str = ""
    ):
        self.params, self.way, self.alphabet = params, way, alphabet
        self.chunk = CHUNK if device.type == "cpu" else CUDA_CHUNK
        looks = [[[1 / zoom, 0, -2 * right], [0, 1 / zoom, -2 * down]] for zoom, right, down in LOOKS]
        self.looks = torch.tensor(looks, device=device)
        self.captured = Captured()
        self.grammar = None
        if params.format is not None:
            self.grammar = Grammar(load_format(params.format), alphabet, device)
            if not self.grammar.writable:
                raise LprfError(
                    f"{node}: no plate of the format '{params.format}' can be written in the alphabet of "
                    f"{owner}, {alphabet}"
                )

    def __call__(self, plates: Plates, network: Callable[[Tensor], Tensor]) -> Readings:
        """Read every plate.

        network: the same every time: images [n, 3, h, w] to log-probabilities float32 [n, T, C]; called chunk by chunk,
        and again with moved pictures of the plates that it is unsure of (`unsure`, slots alone).
        """
        filled, count, chunk = plates.detections.filled, len(plates), self.chunk
        if filled is not None:
            chunk = math.ceil(count / ROOM)
        parts: list[_Part] = []
        first = 0
        while first < count:
            images = plates.images[first : first + chunk]
            if filled is None:
                part = self._read(images, network)
            else:
                part, count = self._read_fixed(images, network, first, filled)
            parts.append(part)
            first += chunk
        return Readings(
            plates,
            torch.arange(count, device=plates.images.device),
            texts=[text for part in parts for text in part.texts],
            confidences=torch.cat([part.confidences for part in parts]) if parts else plates.images.new_zeros(0),
            characters=[characters for part in parts for characters in part.characters],
            alternatives=[alternatives for part in parts for alternatives in part.alternatives],
            fits=None if self.grammar is None else [fits for part in parts for fits in part.fits],
        )

    def _read(self, images: Tensor, network: Callable[[Tensor], Tensor]) -> _Part:
        """What is read of one chunk."""
        decoded = self._decoded(self._seen(images, network))
        return self._part(decoded[2][:, 0], *_on_host(*decoded))

    def _seen(self, images: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        """What the network sees; of plates whose slots it is unsure of, the mean over several looks at them."""
        log_p = network(images)
        if self.way != "slots":  # time steps move with the picture: there is no mean of them
            return log_p
        unsure = self._unsure(log_p).nonzero().squeeze(1)
        if not len(unsure):
            return log_p
        return log_p.index_copy(0, unsure, self._again(images[unsure], network, log_p[unsure]))

    def _unsure(self, log_p: Tensor) -> Tensor:
        """Which plates the network is unsure of, bool [N]."""
        return log_p.amax(2).sum(1).exp() < self.params.unsure

    def _again(self, images: Tensor, network: Callable[[Tensor], Tensor], log_p: Tensor) -> Tensor:
        """The mean over several looks at plates of which the first gave `log_p`."""
        looks = [log_p, *(network(_moved(images, look)) for look in self.looks)]
        return (SURER * torch.stack(looks).mean(0)).log_softmax(2)

    def _read_fixed(
        self, images: Tensor, network: Callable[[Tensor], Tensor], first: int, filled: Filled
    ) -> tuple[_Part, int]:
        """The same of a chunk that begins with row `first`, and how many rows of the batch hold a plate, where the GPU
        alone knows that: the host waits once."""
        rows = torch.arange(first, first + len(images), device=images.device)
        fixed = functools.partial(self._fixed, network)
        decoded = [value for value in self.captured(fixed, images, rows < filled.told[0]) if value is not None]
        *columns, left, told = _on_host(*decoded, filled.told.expand(len(rows), -1))
        count = filled.rows(told[0])
        there = min(count - first, len(rows))
        if left[0]:  # seldom
            return self._read(images[:there], network), count
        return self._part(decoded[2][:there, 0], *(column[:there] for column in columns)), count

    @torch.inference_mode()
    def _fixed(self, network: Callable[[Tensor], Tensor], images: Tensor, there: Tensor) -> tuple[Tensor, ...]:
        """In tensors whose shapes do not depend on what is read: as `_decoded` gives it, then how many unsure plates
        found no room for another look, int64 [N], the same in each row.

        there: which rows hold a plate, bool [N]; of the others anything may be read.
        """
        log_p = network(images)
        left = torch.zeros_like(there[0], dtype=torch.int64)
        if self.way == "slots" and self.params.unsure:
            unsure = self._unsure(log_p) & there
            rows = unsure.byte().argsort(descending=True, stable=True)[: math.ceil(len(images) / ROOM)]
            again = self._again(images[rows], network, log_p[rows])
            log_p = log_p.index_copy(0, rows, torch.where(unsure[rows, None, None], again, log_p[rows]))
            left = unsure.sum() - unsure[rows].sum()
        return *self._decoded(log_p), left.expand(len(images))

    def _decoded(self, log_p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of one chunk: the texts' codes [N, K, L], lengths [N, K] and probabilities [N, K], those of the characters of
        the first [N, L], and whether that one fits the format, bool [N]."""
        found, fits = self._texts(log_p)
        best, lengths = found.codes[:, 0], found.lengths[:, 0]
        if self.way == "slots":
            characters = slots_characters(log_p, best)
        elif self.params.decode == "greedy":
            characters = ctc_greedy_characters(log_p)
        else:
            characters = ctc_characters(log_p, best, lengths)
        return found.codes, found.lengths, found.log_p.exp(), characters, fits

    def _part(
        self,
        confidences: Tensor,
        codes: list[Any],
        lengths: list[Any],
        probabilities: list[Any],
        characters: list[Any],
        fits: list[bool],
    ) -> _Part:
        """What is read of one chunk, of what `_decoded` gives, on the host."""
        part = _Part([], confidences.contiguous(), [], [], fits)
        for coded, own, values, letters in zip(codes, lengths, probabilities, characters, strict=True):
            written = [strings(row, length, self.alphabet) for row, length in zip(coded, own, strict=True)]
            part.texts.append(written[0])
            part.characters.append(letters[: own[0]])
            part.alternatives.append(_alternatives(written, values, self.params.top))
        return part

    def _texts(self, log_p: Tensor) -> tuple[Texts, Tensor]:
        """Texts, the one to take first, and whether that one fits the format, bool [N]."""
        slots = self.way == "slots"
        every = torch.ones(len(log_p), dtype=torch.bool, device=log_p.device)
        if self.params.decode == "greedy":
            return (slots_greedy(log_p) if slots else ctc_greedy(log_p)), every
        search = slots_beam if slots else ctc_beam
        width = max(self.params.beam, self.params.top)
        free = search(log_p, width)
        if self.grammar is None:
            return free, every
        fitting = search(log_p, width, self.grammar)
        take = fitting.log_p[:, :1] >= free.log_p[:, :1] + math.log(LIKELY)
        # the last column: the most probable text of all, should it not fit
        texts = Texts(
            torch.cat([torch.where(take[:, :, None], fitting.codes, free.codes), free.codes[:, :1]], 1),
            torch.cat([torch.where(take, fitting.lengths, free.lengths), free.lengths[:, :1]], 1),
            torch.cat([torch.where(take, fitting.log_p, free.log_p), free.log_p[:, :1]], 1),
        )
        return texts, take[:, 0]


def _on_host(*values: Tensor) -> list[list[Any]]:
    """Tensors [N, ...] as lists; copied as one, in float64, which holds all: so a device is waited for once."""
    rows = [value.reshape(len(value), -1).to(torch.float64) for value in values]
    parts = torch.cat(rows, dim=1).cpu().split([row.shape[1] for row in rows], dim=1)
    return [part.to(value.dtype).view(value.shape).tolist() for part, value in zip(parts, values, strict=True)]


def _moved(images: Tensor, look: Tensor) -> Tensor:
    """Pictures [N, 3, h, w] seen another way: `look`, [2, 3], an affine map as `affine_grid` has it; borders repeat."""
    grid = F.affine_grid(look.to(images.dtype).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@dataclass
class _Part:
    """Readings of one chunk, see `Readings`."""

    texts: list[str]
    confidences: Tensor
    characters: list[list[float]]
    alternatives: list[list[tuple[str, float]]]
    fits: list[bool]


def _alternatives(texts: list[str], probabilities: list[float], top: int) -> list[tuple[str, float]]:
    """The `top` most probable of the texts, the first of them whatever its probability; each once."""
    of = {text: value for text, value in zip(texts, probabilities, strict=True) if value > 0}
    of.setdefault(texts[0], probabilities[0])
    others = sorted((pair for pair in of.items() if pair[0] != texts[0]), key=lambda pair: -pair[1])[: top - 1]
    return sorted([(texts[0], of[texts[0]]), *others], key=lambda pair: -pair[1])


class Grammar:
    """A plate format over an alphabet, as bits: bit p of a mask says that pattern p is still possible.

    writable: whether there is a pattern that the alphabet can write.
    """

    def __init__(self, plate_format: PlateFormat, alphabet: str, device: torch.device):
        self.whole = (1 << len(plate_format.patterns)) - 1
        longest = max(len(pattern.slots) for pattern in plate_format.patterns)
        allowed = [[0] * (len(alphabet) + 1) for _ in range(longest + 1)]
        ends = [0] * (longest + 2)
        for bit, pattern in enumerate(plate_format.patterns):
            ends[len(pattern.slots)] |= 1 << bit
            for place, slot in enumerate(pattern.slots):
                for code, character in enumerate(alphabet):
                    if character in slot:
                        allowed[place][code] |= 1 << bit
        self.writable = any(
            all(set(slot) & set(alphabet) for slot in pattern.slots) for pattern in plate_format.patterns
        )
        self.allowed = torch.tensor(allowed, device=device)
        self.ends = torch.tensor(ends, device=device)

    def step(self, masks: Tensor, lengths: Tensor, codes: Tensor) -> Tensor:
        """Masks after a further character, of the same shape as `codes`; `masks` and `lengths` broadcast to it."""
        return masks & self.allowed[lengths.clamp(max=len(self.allowed) - 1), codes]

    def ended(self, masks: Tensor, lengths: Tensor) -> Tensor:
        """Whether a text may end here, bool."""
        return (masks & self.ends[lengths.clamp(max=len(self.ends) - 1)]) != 0


def ctc_greedy(log_p: Tensor) -> Texts:
    """The most probable class at each time step, repetitions and blanks dropped; one text a plate."""
    n, steps, classes = log_p.shape
    _, best, place, lengths = _greedily(log_p)
    codes = best.new_full((n, steps + 1), classes - 1)
    codes.scatter_(1, place, best)
    return _exact(log_p, codes[:, None, :steps], lengths[:, None])


def _greedily(log_p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At each time step the greatest log-probability, its class, and which character of the text that is part of, T for
    a blank, [N, T]; the texts' lengths [N]."""
    steps, blank = log_p.shape[1], log_p.shape[2] - 1
    values, best = log_p.max(2)
    seen = best != blank
    new = seen.clone()
    new[:, 1:] &= best[:, 1:] != best[:, :-1]
    return values, best, (new.cumsum(1) - 1).masked_fill(~seen, steps), new.sum(1)


def ctc_beam(log_p: Tensor, width: int, grammar: Grammar | None = None) -> Texts:
    """The `width` most probable texts that prefix beam search finds (Hannun et al., arXiv 1408.2873).

    Their log-probabilities are exact, summed over all alignments, not the beam's lower bounds.
    """
    n, steps, classes = log_p.shape
    device, blank = log_p.device, classes - 1
    some = min(max(CLASSES, width), blank)
    top_values, top_characters = log_p[:, :, :blank].topk(some, 2)
    rows = torch.arange(n, device=device)[:, None]
    codes = torch.full((n, width, steps), blank, device=device)
    lengths = torch.zeros(n, width, dtype=torch.int64, device=device)
    last = torch.full((n, width), blank, device=device)
    masks = torch.full((n, width), grammar.whole if grammar else 1, device=device)
    names = torch.full((n, width), NOBODY, device=device)  # a hash of each prefix
    shorter = torch.full((n, width), NOTHING, device=device)  # that of the prefix without its last character
    names[:, 0] = 0
    ends_blank = log_p.new_full((n, width), NEVER)  # log-probability of the prefix by paths that end in a blank
    ends_blank[:, 0] = 0
    ends_last = log_p.new_full((n, width), NEVER)  # by paths that end in its last character
    for t in range(steps):
        now, value, character = log_p[:, t], top_values[:, t, None], top_characters[:, t, None]
        both = torch.logaddexp(ends_blank, ends_last)
        stay_blank = both + now[:, blank:]
        now_last = now.gather(1, last)
        stay_last = (ends_last + now_last).masked_fill(lengths == 0, NEVER)
        # where beam j is beam i and one more character, what i gives to it goes into j
        grows_into = names[:, None] == shorter[:, :, None]  # [N, j, i]
        i = grows_into.byte().argmax(2)
        given = torch.where(last.gather(1, i) == last, ends_blank.gather(1, i), both.gather(1, i)) + now_last
        stay_last = torch.logaddexp(stay_last, given.masked_fill(~grows_into.any(2), NEVER))
        # a character like the last one needs a blank between
        repeats = last[:, :, None] == character  # [N, K, M]
        grown = torch.where(repeats, ends_blank[:, :, None], both[:, :, None]) + value
        grown_masks = masks[:, :, None].expand_as(grown)
        if grammar is not None:
            grown_masks = grammar.step(grown_masks, lengths[:, :, None], character.expand_as(grown))
            grown = grown.masked_fill(grown_masks == 0, NEVER)
        there = grows_into.mT.float() @ repeats.float() > 0  # that prefix is a beam already
        grown = grown.masked_fill(there, NEVER)
        score, chosen = torch.cat([torch.logaddexp(stay_blank, stay_last), grown.flatten(1)], 1).topk(width, 1)
        is_new = chosen >= width
        which = (chosen - width).clamp(min=0)
        parent = torch.where(is_new, which // some, chosen)
        added = character[:, 0].gather(1, which % some)
        ends_last = torch.where(is_new, grown.flatten(1).gather(1, which), stay_last.gather(1, parent))
        ends_blank = stay_blank.gather(1, parent).masked_fill(is_new, NEVER)
        masks = torch.where(is_new, grown_masks.flatten(1).gather(1, which), masks.gather(1, parent))
        before, at = names.gather(1, parent), lengths.gather(1, parent)
        shorter = torch.where(is_new, before, shorter.gather(1, parent))
        names = torch.where(is_new, before * 1_000_003 + added + 1, before)
        last = torch.where(is_new, added, last.gather(1, parent))
        lengths = at + is_new
        codes = codes[rows, parent]
        codes.scatter_(2, (lengths - 1).clamp(min=0)[:, :, None], last[:, :, None])  # as it was, where nothing is new
        nobody = score <= NEVER / 2  # fewer texts than beams: these must not be taken for one of them
        names, shorter = names.masked_fill(nobody, NOBODY), shorter.masked_fill(nobody, NOTHING)
    found = torch.logaddexp(ends_blank, ends_last) > NEVER / 2
    if grammar is not None:
        found &= grammar.ended(masks, lengths)
    exact = _exact(log_p, codes, lengths)
    return _sorted(codes, lengths, exact.log_p.masked_fill(~found, NEVER))


def _exact(log_p: Tensor, codes: Tensor, lengths: Tensor) -> Texts:
    """Each text's log-probability, summed over its alignments by CTC's forward algorithm."""
    n, k, longest = codes.shape
    steps = log_p.shape[1]
    if n == 0:  # which ctc_loss refuses
        return Texts(codes, lengths, log_p.new_zeros(n, k))
    if log_p.device.type != "cpu":  # where ctc_loss waits for the lengths
        return Texts(codes, lengths, ctc_forward(log_p, codes, lengths))
    rows = log_p.transpose(0, 1).repeat_interleave(k, 1)
    all_steps = torch.full((n * k,), steps, device=log_p.device)
    cost = F.ctc_loss(rows, codes.reshape(n * k, longest), all_steps, lengths.reshape(-1), log_p.shape[2] - 1, "none")
    return Texts(codes, lengths, (-cost).view(n, k).clamp(min=NEVER))


def ctc_forward(log_p: Tensor, codes: Tensor, lengths: Tensor) -> Tensor:
    """The log-probabilities [N, K] of texts (codes [N, K, L], lengths [N, K]), all texts at once, step by step."""
    emitted, skipped = _states(log_p, codes)
    sums = F.pad(emitted[:, 0, :, :2], (2, emitted.shape[3] - 2), value=NEVER)  # two that are none before the first
    for t in range(1, log_p.shape[1]):
        came = torch.stack([sums[..., 2:], sums[..., 1:-1], sums[..., :-2] + skipped]).logsumexp(0)
        sums = F.pad((came + emitted[:, t]).clamp(min=NEVER), (2, 0), value=NEVER)
    end = 2 * lengths.unsqueeze(2) + 2  # of the state of the last blank; before it stands the last character's
    last = sums.gather(2, end - 1).masked_fill(lengths.unsqueeze(2) == 0, NEVER)
    return torch.logaddexp(sums.gather(2, end), last).squeeze(2)


def _states(log_p: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """What texts (codes [N, K, L]) emit in the states of their alignments, blank, first character, blank, second
    character, …: [N, T, K, S]; and 0 [N, K, S] where a state may come straight after the last but one, else NEVER."""
    n, k, longest = codes.shape
    states = 2 * longest + 1
    labels = codes.new_full((n, k, states), log_p.shape[2] - 1)
    labels[..., 1::2] = codes
    emitted = log_p.gather(2, labels.view(n, 1, k * states).expand(n, log_p.shape[1], k * states))
    skipped = log_p.new_full((n, k, states), NEVER)
    skipped[..., 3::2] = skipped[..., 3::2].masked_fill(codes[..., 1:] != codes[..., :-1], 0)
    return emitted.unflatten(2, (k, states)), skipped


def slots_greedy(log_p: Tensor) -> Texts:
    """The most probable class of each slot, up to the first blank; one text a plate."""
    blank = log_p.shape[2] - 1
    value, codes = log_p.max(2)
    after = (codes == blank).cumsum(1)  # 0 before the first blank, 1 from it on
    counted = after - (codes == blank).long() == 0  # the characters, and the blank that ends them
    codes, lengths = codes.masked_fill(after > 0, blank), (after == 0).sum(1)
    return Texts(codes[:, None], lengths[:, None], (value * counted).sum(1, keepdim=True))


def slots_beam(log_p: Tensor, width: int, grammar: Grammar | None = None) -> Texts:
    """The `width` most probable texts; a text's probability is that of its characters and of the blank after them.

    Without a grammar they are exactly those: what is followed is chosen by the best that may still become of it.
    """
    n, slots, classes = log_p.shape
    device, blank = log_p.device, classes - 1
    some = min(max(CLASSES, width), blank)
    top_values, top_characters = log_p[:, :, :blank].topk(some, 2)
    top_values = torch.cat([top_values, log_p[:, :, blank:]], 2)  # the end is always possible
    top_characters = F.pad(top_characters, (0, 1), value=blank)
    rest = [log_p.new_zeros(n)]  # the log-probability of the best way on from each slot, last slot first
    for t in range(slots - 1, 0, -1):
        rest.append(torch.maximum(log_p[:, t, blank], top_values[:, t, 0] + rest[-1]))
    rows = torch.arange(n, device=device)[:, None]
    codes = torch.full((n, width, slots), blank, device=device)
    lengths = torch.zeros(n, width, dtype=torch.int64, device=device)
    masks = torch.full((n, width), grammar.whole if grammar else 1, device=device)
    ended = torch.zeros(n, width, dtype=torch.bool, device=device)
    total = log_p.new_full((n, width), NEVER)
    total[:, 0] = 0
    for t in range(slots):
        grown = total.masked_fill(ended, NEVER)[:, :, None] + top_values[:, t, None]  # [N, K, M + 1]
        character = top_characters[:, t, None].expand_as(grown)
        grown_masks = masks[:, :, None].expand_as(grown)
        if grammar is not None:
            stops = character == blank
            further = grammar.step(grown_masks, lengths[:, :, None], character)
            allowed = torch.where(stops, grammar.ended(masks, lengths)[:, :, None], further != 0)
            grown_masks = torch.where(stops, grown_masks, further)
            grown = grown.masked_fill(~allowed, NEVER)
        hope = grown.clone()
        hope[:, :, :-1] += rest[slots - 1 - t][:, None, None]
        stay = total.masked_fill(~ended, NEVER)
        chosen = torch.cat([stay, hope.flatten(1)], 1).topk(width, 1).indices
        total = torch.cat([stay, grown.flatten(1)], 1).gather(1, chosen)
        is_new = chosen >= width
        which = (chosen - width).clamp(min=0)
        parent = torch.where(is_new, which // (some + 1), chosen)
        added = character.flatten(1).gather(1, which).masked_fill(~is_new, blank)
        masks = torch.where(is_new, grown_masks.flatten(1).gather(1, which), masks.gather(1, parent))
        codes = codes[rows, parent]
        codes[:, :, t] = added
        lengths = lengths.gather(1, parent) + (added != blank)
        ended = ended.gather(1, parent) | (added == blank)
    if grammar is not None:
        total = total.masked_fill(~(ended | grammar.ended(masks, lengths)), NEVER)
    return _sorted(codes, lengths, total.clamp(min=NEVER))


def _sorted(codes: Tensor, lengths: Tensor, log_p: Tensor) -> Texts:
    log_p, order = log_p.sort(dim=1, descending=True, stable=True)
    return Texts(codes.gather(1, order[:, :, None].expand_as(codes)), lengths.gather(1, order), log_p)


def slots_characters(log_p: Tensor, codes: Tensor) -> Tensor:
    """The probability of each character of one text a plate (codes [N, L]): [N, L]."""
    return log_p[:, : codes.shape[1]].gather(2, codes[:, :, None]).squeeze(2).exp()


def ctc_characters(log_p: Tensor, codes: Tensor, lengths: Tensor) -> Tensor:
    """The probability of each character of one text a plate (codes [N, L], lengths [N]): [N, L].

    It is that of the character at the surest of the time steps that the text's best alignment (Viterbi) gives it.
    """
    n, steps, _ = log_p.shape
    emitted, skipped = (values.squeeze(-2) for values in _states(log_p, codes.unsqueeze(1)))
    states = emitted.shape[2]
    best = log_p.new_full((n, states + 2), NEVER)  # two that are none before the first
    best[:, 2:4] = emitted[:, 0, :2]
    came = []
    for t in range(1, steps):
        value, back = torch.stack([best[:, 2:], best[:, 1:-1], best[:, :-2] + skipped]).max(0)
        best[:, 2:] = (value + emitted[:, t]).clamp(min=NEVER)
        came.append(back)
    best = best[:, 2:]
    end = 2 * lengths[:, None]
    with_last = best.gather(1, (end - 1).clamp(min=0))
    state = torch.where((lengths[:, None] > 0) & (with_last > best.gather(1, end)), end - 1, end)
    path = [state]
    for back in reversed(came):
        path.append((path[-1] - back.gather(1, path[-1])).clamp(min=0))
    taken = torch.cat(path[::-1], dim=1)  # the state at each time step
    values = emitted.gather(2, taken[:, :, None]).squeeze(2)
    surest = log_p.new_full((n, states), NEVER).scatter_reduce(1, taken, values, "amax")
    return surest[:, 1::2].exp()


def ctc_greedy_characters(log_p: Tensor) -> Tensor:
    """The same for the texts of `ctc_greedy`, whose best alignment is the most probable class at each time step."""
    n, steps, _ = log_p.shape
    values, _, place, _ = _greedily(log_p)
    return log_p.new_full((n, steps + 1), NEVER).scatter_reduce(1, place, values, "amax")[:, :steps].exp()


def strings(codes: Sequence[int], length: int, alphabet: str) -> str:
    """Codes as text."""
    return "".join(alphabet[code] for code in codes[:length])

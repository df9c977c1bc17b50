"""From logits to texts: CTC (Graves et al., 2006) and slots, greedily or by beam, freely or within a plate format.

Log-probabilities are float32 [N, T, C]: T time steps or slots, the last class the blank. Texts are codes, int64
[N, K, L] padded with the blank, with lengths [N, K]. Everything is done for all plates at once, on their device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lprf.plate_format import PlateFormat

NEVER = -1e30  # a log-probability; infinities would give NaN in differences
CLASSES = 12  # of every time step, the beam follows so many of the most probable


@dataclass(frozen=True)
class Texts:
    """K texts a plate, the most probable first: codes [N, K, L] padded with the blank, lengths [N, K], log_p [N, K].

    Where there are fewer, the rest have the log-probability NEVER.
    """

    codes: Tensor
    lengths: Tensor
    log_p: Tensor


class Grammar:
    """A plate format over an alphabet, as bits: bit p of a mask says that pattern p is still possible."""

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
    best = log_p.argmax(2)
    new = best != classes - 1
    new[:, 1:] &= best[:, 1:] != best[:, :-1]
    place = new.cumsum(1) - 1
    codes = best.new_full((n, steps + 1), classes - 1)
    codes.scatter_(1, torch.where(new, place, steps), best)
    lengths = new.sum(1)
    return _exact(log_p, codes[:, None, :steps], lengths[:, None])


def ctc_beam(log_p: Tensor, width: int, grammar: Grammar | None = None) -> Texts:
    """The `width` most probable texts that prefix beam search finds (Hannun et al., arXiv 1408.2873).

    Their log-probabilities are exact, summed over all alignments, not the beam's lower bounds.
    """
    n, steps, classes = log_p.shape
    device, blank = log_p.device, classes - 1
    some = min(CLASSES, blank)
    codes = torch.full((n, width, steps), blank, device=device)
    lengths = torch.zeros(n, width, dtype=torch.int64, device=device)
    names = torch.zeros(n, width, dtype=torch.int64, device=device)  # a hash of each prefix
    last = torch.full((n, width), blank, device=device)
    masks = torch.full((n, width), grammar.whole if grammar else 1, device=device)
    ends_blank = log_p.new_full((n, width), NEVER)  # log-probability of the prefix by paths that end in a blank
    ends_blank[:, 0] = 0
    ends_last = log_p.new_full((n, width), NEVER)  # by paths that end in its last character
    names[:, 1:] = -torch.arange(1, width, device=device)  # beams that are not there yet are all different
    for t in range(steps):
        now = log_p[:, t]
        both = torch.logaddexp(ends_blank, ends_last)
        stay_blank = both + now[:, blank, None]
        stay_last = torch.where(lengths > 0, ends_last + now.gather(1, last), NEVER)
        value, character = now[:, :blank].topk(some, 1)  # [N, M]
        # a character like the last one needs a blank between
        source = torch.where(character[:, None] == last[:, :, None], ends_blank[:, :, None], both[:, :, None])
        grown = source + value[:, None]  # [N, K, M]
        grown_names = names[:, :, None] * 1_000_003 + character[:, None] + 1
        if grammar is not None:
            grown_masks = grammar.step(masks[:, :, None], lengths[:, :, None], character[:, None].expand_as(grown))
            grown = torch.where(grown_masks == 0, NEVER, grown)
        else:
            grown_masks = masks[:, :, None].expand_as(grown)
        flat, flat_names = grown.flatten(1), grown_names.flatten(1)
        # a grown prefix that another beam already is goes into that one
        same = flat_names[:, None] == names[:, :, None]  # [N, K, K * M]
        stay_last = torch.logaddexp(stay_last, torch.where(same, flat[:, None], NEVER).logsumexp(2))
        flat = torch.where(same.any(1), NEVER, flat)
        score = torch.cat([torch.logaddexp(stay_blank, stay_last), flat], 1)
        chosen = score.topk(width, 1).indices
        is_new = chosen >= width
        parent = torch.where(is_new, (chosen - width).clamp(min=0) // some, chosen)
        which = (chosen - width).clamp(min=0)
        added = character.gather(1, which % some)
        ends_blank = torch.where(is_new, NEVER, stay_blank.gather(1, parent))
        ends_last = torch.where(is_new, flat.gather(1, which), stay_last.gather(1, parent))
        codes = codes.gather(1, parent[:, :, None].expand_as(codes))
        at = lengths.gather(1, parent)
        place = at.clamp(max=steps - 1)[:, :, None]
        codes.scatter_(2, place, torch.where(is_new[:, :, None], added[:, :, None], codes.gather(2, place)))
        lengths = at + is_new
        names = torch.where(is_new, flat_names.gather(1, which), names.gather(1, parent))
        last = torch.where(is_new, added, last.gather(1, parent))
        masks = torch.where(is_new, grown_masks.flatten(1).gather(1, which), masks.gather(1, parent))
    found = torch.logaddexp(ends_blank, ends_last) > NEVER / 2
    if grammar is not None:
        found &= grammar.ended(masks, lengths)
    exact = _exact(log_p, codes, lengths)
    return _sorted(codes, lengths, torch.where(found, exact.log_p, NEVER))


def _exact(log_p: Tensor, codes: Tensor, lengths: Tensor) -> Texts:
    """Each text's log-probability, summed over its alignments by CTC's forward algorithm."""
    n, k, longest = codes.shape
    steps = log_p.shape[1]
    rows = log_p.transpose(0, 1).repeat_interleave(k, 1)
    all_steps = torch.full((n * k,), steps, device=log_p.device)
    cost = F.ctc_loss(rows, codes.reshape(n * k, longest), all_steps, lengths.reshape(-1), log_p.shape[2] - 1, "none")
    return Texts(codes, lengths, (-cost).view(n, k).clamp(min=NEVER))


def slots_greedy(log_p: Tensor) -> Texts:
    """The most probable class of each slot, up to the first blank."""
    return slots_beam(log_p, 1)


def slots_beam(log_p: Tensor, width: int, grammar: Grammar | None = None) -> Texts:
    """The `width` most probable texts; a text's probability is that of its characters and of the blank after them."""
    n, slots, classes = log_p.shape
    device, blank = log_p.device, classes - 1
    many = min(CLASSES, blank) + 1
    codes = torch.full((n, width, slots), blank, device=device)
    lengths = torch.zeros(n, width, dtype=torch.int64, device=device)
    masks = torch.full((n, width), grammar.whole if grammar else 1, device=device)
    ended = torch.zeros(n, width, dtype=torch.bool, device=device)
    total = log_p.new_full((n, width), NEVER)
    total[:, 0] = 0
    for t in range(slots):
        value, character = log_p[:, t, :blank].topk(many - 1, 1)
        value = torch.cat([value, log_p[:, t, blank:]], 1)  # the end is always possible
        character = F.pad(character, (0, 1), value=blank)
        grown = torch.where(ended[:, :, None], NEVER, total[:, :, None] + value[:, None])
        which_class = character[:, None].expand_as(grown)
        if grammar is not None:
            stops = which_class == blank
            further = grammar.step(masks[:, :, None], lengths[:, :, None], which_class)
            grown_masks = torch.where(stops, masks[:, :, None], further)
            allowed = torch.where(stops, grammar.ended(masks, lengths)[:, :, None], grown_masks != 0)
            grown = torch.where(allowed, grown, NEVER)
        else:
            grown_masks = masks[:, :, None].expand_as(grown)
        score = torch.cat([torch.where(ended, total, NEVER), grown.flatten(1)], 1)
        total, chosen = score.topk(width, 1)
        is_new = chosen >= width
        which = (chosen - width).clamp(min=0)
        parent = torch.where(is_new, which // many, chosen)
        added = torch.where(is_new, which_class.flatten(1).gather(1, which), blank)
        codes = codes.gather(1, parent[:, :, None].expand_as(codes))
        codes[:, :, t] = added
        lengths = lengths.gather(1, parent) + (added != blank)
        masks = torch.where(is_new, grown_masks.flatten(1).gather(1, which), masks.gather(1, parent))
        ended = ended.gather(1, parent) | (added == blank)
    if grammar is not None:
        total = torch.where(ended | grammar.ended(masks, lengths), total, NEVER)
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
    n, steps, classes = log_p.shape
    longest = codes.shape[1]
    states = 2 * longest + 1  # blank, first character, blank, second character, …
    labels = torch.full((n, states), classes - 1, device=log_p.device)
    labels[:, 1::2] = codes
    emitted = log_p.gather(2, labels[:, None].expand(n, steps, states))
    skips = torch.zeros(n, states, dtype=torch.bool, device=log_p.device)
    skips[:, 3::2] = codes[:, 1:] != codes[:, :-1]
    best = log_p.new_full((n, states), NEVER)
    best[:, :2] = emitted[:, 0, :2]
    came = []
    for t in range(1, steps):
        one, two = F.pad(best[:, :-1], (1, 0), value=NEVER), F.pad(best[:, :-2], (2, 0), value=NEVER)
        value, back = torch.stack([best, one, torch.where(skips, two, NEVER)]).max(0)
        best = (value + emitted[:, t]).clamp(min=NEVER)
        came.append(back)
    end = 2 * lengths[:, None]
    with_last = best.gather(1, (end - 1).clamp(min=0))
    state = torch.where((lengths[:, None] > 0) & (with_last > best.gather(1, end)), end - 1, end)
    surest = log_p.new_full((n, states), NEVER)
    for t in range(steps - 1, -1, -1):
        value = torch.maximum(surest.gather(1, state), emitted[:, t].gather(1, state))
        surest.scatter_(1, state, value)
        if t:
            state = (state - came[t - 1].gather(1, state)).clamp(min=0)
    return surest[:, 1::2].exp()


def strings(codes: Sequence[int], length: int, alphabet: str) -> str:
    """Codes as text."""
    return "".join(alphabet[code] for code in codes[:length])

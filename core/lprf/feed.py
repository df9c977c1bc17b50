"""What a graph reads: items decoded ahead in threads, or a live source's newest, grouped into batches by size."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lprf.data import Item, Origin, Source
from lprf.errors import InputFailure, LprfError

PATIENCE = 3  # batches' worth of later items that a picture waits at most for others of its size
HELD = 512_000_000  # bytes of pictures that may wait, decoded or for others of their size
KEPT_FAILURES = 1000  # of a run's failures, this many are kept by name


@dataclass(frozen=True)
class Decoded:
    """An item that was decoded; `image` is None where that failed."""

    index: int
    origin: Origin
    image: np.ndarray | None
    reason: str = ""


class End:
    """Stands after the last item."""


END = End()


def decode(index: int, item: Item) -> Decoded:
    """Load an item; whatever is wrong with it becomes its reason, save mistakes of the person at the keyboard."""
    try:
        loaded = item.load()
        image, reason = loaded if isinstance(loaded, tuple) else (loaded, "")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            reason = f"not a colour picture of bytes: {image.dtype} {list(image.shape)}"
            return Decoded(index, item.origin, None, reason)
        return Decoded(index, item.origin, image, reason)
    except InputFailure as failure:
        return Decoded(index, item.origin, None, failure.reason)
    except LprfError:
        raise
    except Exception as error:
        return Decoded(index, item.origin, None, f"{type(error).__name__}: {error}")


class Decoder:
    """Draws items and decodes them in threads, at most `ahead` of what was taken; gives them in their order.

    Large pictures stop the drawing earlier. With no workers, decodes when it is asked to wait. The threads are
    daemons: one that hangs in a driver holds up nothing.
    """

    dropped = 0

    def __init__(self, items: Iterator[Item], workers: int, ahead: int):
        self.items = items
        self.ahead = ahead
        self.drawing = threading.Lock()  # held to draw an item: a video decodes as it is drawn
        self.change = threading.Condition()  # guards what follows
        self.done: dict[int, Decoded | End | BaseException] = {}
        self.drawn = 0
        self.taken = 0
        self.held = 0  # bytes of the pictures in `done`
        self.stopped = False
        self.threads = [threading.Thread(target=self._work, name="lprf-decode", daemon=True) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def take(self, wait: bool = True) -> Decoded | End | None:
        """The next item; END after the last; None where it would have to be waited for and `wait` is False."""
        if not self.threads:
            if not wait:
                return None
            self.taken += 1
            item = next(self.items, None)
            return END if item is None else decode(self.taken - 1, item)
        with self.change:
            while self.taken not in self.done:
                if not wait:
                    return None
                self.change.wait()
            entry = self.done[self.taken]
            if isinstance(entry, BaseException):
                raise entry
            if not isinstance(entry, End):
                del self.done[self.taken]
                self.held -= _bytes(entry)
                self.taken += 1
                self.change.notify_all()
            return entry

    def stop(self) -> None:
        """End the threads, and close the source's iterator; waits a moment for what is being decoded."""
        with self.change:
            self.stopped = True
            self.change.notify_all()
        deadline = time.monotonic() + 2
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self.threads):
            self.done.clear()
            close = getattr(self.items, "close", None)
            if close is not None:
                close()

    def _work(self) -> None:
        while True:
            with self.drawing:
                with self.change:
                    while (self.drawn - self.taken >= self.ahead or self.held >= HELD) and not self.stopped:
                        self.change.wait()
                    if self.stopped or self.drawn in self.done:  # where the last stands already
                        return
                last: End | BaseException = END
                try:
                    item = next(self.items, None)
                except BaseException as error:  # raised again where the item would be taken
                    item, last = None, error
                if item is None:
                    self._give(self.drawn, last)
                    return
                index = self.drawn
                self.drawn += 1
            try:
                self._give(index, decode(index, item))
            except BaseException as error:
                self._give(index, error)

    def _give(self, index: int, entry: Decoded | End | BaseException) -> None:
        with self.change:
            self.done[index] = entry
            self.held += _bytes(entry)
            self.change.notify_all()


def _bytes(entry: Decoded | End | BaseException) -> int:
    return entry.image.nbytes if isinstance(entry, Decoded) and entry.image is not None else 0


class Newest:
    """Draws a live source in a thread and keeps its newest frame; those it replaces are counted as dropped."""

    def __init__(self, items: Iterator[Item]):
        self.items = items
        self.change = threading.Condition()
        self.slot: deque[Decoded | End | BaseException] = deque()
        self.dropped = 0
        self.stopped = False
        self.thread = threading.Thread(target=self._work, name="lprf-live", daemon=True)
        self.thread.start()

    def take(self, wait: bool = True) -> Decoded | End | None:
        """As of `Decoder`."""
        with self.change:
            while not self.slot:
                if not wait:
                    return None
                self.change.wait()
            entry = self.slot[0] if isinstance(self.slot[0], End) else self.slot.popleft()
            if isinstance(entry, BaseException):
                raise entry
            return entry

    def stop(self) -> None:
        self.stopped = True
        self.thread.join(2)

    def _work(self) -> None:
        try:
            for index, item in enumerate(self.items):
                entry = decode(index, item)
                with self.change:
                    if entry.image is not None:
                        kept = [old for old in self.slot if isinstance(old, Decoded) and old.image is None]
                        self.dropped += len(self.slot) - len(kept)
                        self.slot = deque(kept[-KEPT_FAILURES:])
                    self.slot.append(entry)
                    self.change.notify_all()
                if self.stopped:
                    break
            last: End | BaseException = END
        except BaseException as error:
            last = error
        finally:
            close = getattr(self.items, "close", None)
            if close is not None:
                close()
        with self.change:
            self.slot.append(last)
            self.change.notify_all()


class Feed:
    """Items from elsewhere (a program's arrays, a labelled dataset), batched as `like`, the recipe's source, does."""

    def __init__(self, like: Source, items: Iterable[Item], total: int | None = None):
        self.like = like
        self.given = items
        self.total = total
        self.live = False

    def items(self) -> Iterator[Item]:
        return iter(self.given)

    def shape(self, image: np.ndarray) -> tuple[int, ...]:
        return self.like.shape(image)

    def batch(self, origins: Sequence[Origin], images: Sequence[np.ndarray]) -> Mapping[str, Any]:
        return self.like.batch(origins, images)


def batches(
    take: Callable[[bool], Decoded | End | None],
    shape: Callable[[np.ndarray], tuple[int, ...]],
    size: int,
    eager: bool = False,
) -> Iterator[list[Decoded]]:
    """Group what `take` gives into batches of one shape, at most `size` long; what failed comes alone.

    A picture waits at most until `PATIENCE` * size later ones have come, or `HELD` bytes of them; then its batch goes
    as it is. `eager` never waits for pictures while there is one to work on.
    """
    waiting: dict[tuple[int, ...], list[Decoded]] = {}  # in the order of each one's first item
    since: dict[tuple[int, ...], int] = {}  # bytes that had come when a group's first item did
    come = 0
    while True:
        entry = take(not (eager and waiting))
        if isinstance(entry, End):
            yield from waiting.values()
            return
        if entry is None:
            yield waiting.pop(next(iter(waiting)))
            continue
        if entry.image is None:
            yield [entry]
        else:
            key = shape(entry.image)
            group = waiting.setdefault(key, [])
            if not group:
                since[key] = come
            group.append(entry)
            come += entry.image.nbytes
            if len(group) >= size:
                yield waiting.pop(key)
        while waiting:
            key, group = next(iter(waiting.items()))
            if entry.index - group[0].index < PATIENCE * size and come - since[key] < HELD:
                break
            yield waiting.pop(key)

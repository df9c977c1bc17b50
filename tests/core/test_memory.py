"""How the process treats its memory."""

from __future__ import annotations

import gc
import weakref

import pytest

from lprf.memory import lasting


class Ring:
    """An object that only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


def test_the_collector_leaves_alone_what_lasts_and_works_on_after_it() -> None:
    with lasting():
        assert not gc.isenabled()
        kept = weakref.ref(Ring())
    freed = weakref.ref(Ring())
    gc.collect()
    assert gc.isenabled() and kept() is not None and freed() is None
    gc.unfreeze()
    gc.collect()
    assert kept() is None


def test_the_collector_is_put_back_as_it_was() -> None:
    with pytest.raises(ValueError, match="no recipe"), lasting():
        raise ValueError("no recipe")
    assert gc.isenabled()
    gc.disable()
    try:
        with lasting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()

"""LPRF reads licence plates, by recipe. `lprf.load("read-plates").run("photos/")` streams readings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lprf.data import Reading
    from lprf.reader import Reader, load

__all__ = ["Reader", "Reading", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and most of the command line never needs it
    if name in ("Reader", "load"):
        from lprf import reader

        return getattr(reader, name)
    if name == "Reading":
        from lprf.data import Reading

        return Reading
    raise AttributeError(f"module 'lprf' has no attribute '{name}'")

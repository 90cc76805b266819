"""A progress bar for what takes longer than a second, where somebody is looking."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds after which one begins to wonder.
_PATIENCE = 1.0


def shown(items: Iterable[T], total: int, what: str, unit: str = "run") -> Iterator[T]:
    """The items; after a second, with a bar on stderr that tells how many there were."""
    started, bar = time.monotonic(), None
    try:
        for done, item in enumerate(items):
            if bar is None and time.monotonic() - started > _PATIENCE and _somebody_looks():
                bar = _bar()(total=total, initial=done, desc=what, unit=unit, leave=False)
            yield item
            if bar is not None:
                bar.update()
    finally:
        if bar is not None:
            bar.close()


def _somebody_looks() -> bool:
    return _in_notebook() or sys.stderr.isatty()


def _in_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def _bar() -> Any:
    if _in_notebook() and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as in_notebook

        return in_notebook
    from tqdm import tqdm

    return tqdm

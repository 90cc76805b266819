"""Which modules another process finds under the same name."""

from __future__ import annotations

import functools
import sys

#: What Python calls the script of this process, and multiprocessing the one of its parent.
_SCRIPTS = ("__main__", "__mp_main__")


@functools.cache
def is_importable(name: str) -> bool:
    """Whether another process can import a module: there is a file for it, or it is part of Python.

    A script is not, nor a module that a notebook or a program made up and put into `sys.modules`.
    """
    top = name.partition(".")[0]
    if top in _SCRIPTS:
        return False
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and find(top, None) is not None:
            return True
    return False

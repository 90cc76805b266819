"""How the program ended: by itself, by an exception, or with a status other than 0.

CPython tells nobody with which status a program leaves: no hook is called for a SystemExit, and whatever runs
at the end runs after it was cleared. But the interpreter reads its `code` once it has reached the top, and at
that moment no Python frame is left. So `SystemExit.code` is made a property here that notes such a reading.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import types
import warnings
from typing import Any

#: What a program left with, once it has: the `code` of the SystemExit that reached the top.
_codes: list[Any] = []
_is_watched = False


def watch() -> None:
    """Take note of the status with which the program will leave. Harmless a second time."""
    global _is_watched
    if _is_watched:
        return
    _is_watched = True
    try:
        _watch_code()
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ):  # another Python: its exit statuses are not seen
        return
    if sys.version_info < (3, 12):
        _make_exit_raise_objects()


def _watch_code() -> None:
    plain = SystemExit.__dict__["code"]

    def read(error: SystemExit) -> Any:
        code = plain.__get__(error)
        if sys._getframe().f_back is None:  # the interpreter itself asks, because the program is over
            _codes.append(code)
        return code

    # the dict behind the proxy: a builtin type takes no attribute by assignment
    (attributes,) = gc.get_referents(SystemExit.__dict__)
    attributes["code"] = property(read, plain.__set__, plain.__delete__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.13 has another name for it besides
        sys._clear_type_cache()  # the old attribute may have been looked up before


def _make_exit_raise_objects() -> None:
    """Before Python 3.12, `sys.exit(1)` raises no object with a `code` unless it is caught on its way."""
    leave = sys.exit  # perhaps another library's already

    def exit(status: Any = None, /) -> Any:
        try:
            leave(status)
        except SystemExit:  # noqa: TRY203 - caught, it becomes an object
            raise

    sys.exit = exit


def error_of_program() -> str | None:
    """What the program failed of, once its main thread is done; None if it ended well.

    What goes wrong at an interactive prompt ends nothing, and does not count.
    """
    status = _status_of_child() if not _codes else _codes[-1]
    if _is_failure(status):
        return f"SystemExit: {status}"
    error = getattr(sys, "last_value", None)
    if error is None or is_exit(error) or not _is_of_program(error):
        return None
    return f"{type(error).__name__}: {error}"


def is_exit(error: BaseException | None) -> bool:
    """Whether this is a SystemExit that says that all is well."""
    return isinstance(error, SystemExit) and not _is_failure(error.code)


def _is_failure(status: Any) -> bool:
    """Whether a process that leaves with this as its SystemExit's `code` has a status other than 0."""
    return status is not None and (not isinstance(status, int) or status != 0)


def _is_of_program(error: BaseException) -> bool:
    """Whether an exception went through the program's outermost frame, and so ended it.

    Others are shown by IPython, Jupyter or `code.interact`, which go on. Python's own prompt has no frame and
    calls what is typed there `<stdin>`, as it calls a program that it reads from a pipe.
    """
    trace = error.__traceback__
    if trace is None:
        return True
    frame = trace.tb_frame
    if hasattr(sys, "ps1") and frame.f_code.co_filename == "<stdin>":
        return False
    return frame.f_back is None and frame.f_globals.get("__name__") in ("__main__", "runpy")


def _status_of_child() -> Any:
    """The status of a child of `multiprocessing`, which handles its exceptions by itself; None elsewhere."""
    frame: types.FrameType | None = None
    ident = threading.main_thread().ident
    if ident is not None:
        frame = sys._current_frames().get(ident)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_bootstrap" and frame.f_globals.get("__name__") == "multiprocessing.process":
            with contextlib.suppress(KeyError):  # it is not done yet
                return frame.f_locals["exitcode"]
        frame = frame.f_back
    return None

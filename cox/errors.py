"""Every error and warning that cox raises.

Each error is a `CoxError` and also the builtin that upstream cox (or the library under it) raised in
the same place, so that `except ValueError` in an old program goes on working::

    CoxError
    ├── RunNameError          (ValueError)         an exp_id that cannot name a run
    ├── RunExistsError        (ValueError)         new=True on a run that is there
    ├── RunNotFoundError      (FileNotFoundError)  mode='r' on a run that is not there
    ├── RunInUseError         (OSError)            another process writes this run
    ├── ReadOnlyError         (ValueError)         writing through a store opened with mode='r'
    ├── ClosedError           (ValueError)         using a store after close()
    ├── ForkError             (RuntimeError)       using the parent's store in a forked child
    ├── SchemaError           (ValueError)         a table or column that cannot be declared so
    ├── RowError              (ValueError)         a row that does not fit its table
    ├── TableNotFoundError    (KeyError)           no table of that name
    ├── ColumnNotFoundError   (KeyError)           no column, or parameter, of that name
    ├── PredicateError        (ValueError)         a condition on rows or runs that makes no sense
    ├── CompareError          (ValueError)         runs that cannot be compared as asked
    ├── ExportError           (ValueError)         a place that rows cannot be exported to
    ├── CopyError             (ValueError)         a place that a run cannot be copied to
    ├── ParametersError       (ValueError)         parameters other than those that the run has
    ├── RewindError           (ValueError)         a rewind to a place that does not exist
    ├── ViewError             (ValueError)         runs that cannot be shown in TensorBoard as asked
    ├── StorageError          (OSError)            the file system refused a write
    │   └── RunGoneError                           the run was removed or moved while it was written
    ├── DamagedError          (OSError)            a file that cannot be read as what it is
    │   ├── RebuildError                            an object whose code is gone, or is not what it was
    │   └── IrregularFileError               a link, a pipe or a device in the place of a file
    ├── FormatVersionError    (ValueError)         a file written by a newer cox
    ├── UntrustedObjectError  (UnpicklingError)    an object that only code of a stranger could rebuild
    └── MissingExtraError     (ImportError)        an optional package is not installed

    CoxWarning (UserWarning)
    ├── LossyConversionWarning    a value lost something on its way into its column
    ├── PendingRowWarning         a store was closed with a row that was never flushed
    ├── RepeatedMetadataWarning   a resumed script logged other metadata than the run has
    ├── DamageWarning             something of a run could not be read; the rest was
    ├── StorageWarning            the file system refused a row, and on_error='warn' goes on without it
    └── CollectionWarning         a run was left out, or runs disagree about a table
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

# `with` blocks of this package pass through contextlib
_NOT_THE_PROGRAM = (str(Path(__file__).parent), contextlib.__file__)
#: How many names an error lists, and how much of each.
_MOST_NAMES, _MOST_OF_A_NAME = 20, 100


class CoxError(Exception):
    """The base of every error that cox raises by itself."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the program's own lines and the error, without the inside of this package.

        IPython asks for it. `%tb`'s post mortem and every other traceback are whole.
        """
        text = f"{type(self).__name__}: {self}"
        frames = [
            frame
            for frame in traceback.extract_tb(self.__traceback__)
            if not frame.filename.startswith(_NOT_THE_PROGRAM) and not _is_of_ipython(frame.filename)
        ]
        lines = [line.rstrip("\n") for entry in traceback.format_list(frames) for line in entry.splitlines()]
        return [*(["Traceback (most recent call last):", *lines] if lines else []), text]


def _is_of_ipython(path: str) -> bool:
    return f"{os.sep}IPython{os.sep}" in path


class RunNameError(CoxError, ValueError):
    """An exp_id that cannot name a run directory."""


class RunExistsError(CoxError, ValueError):
    """`new=True` was asked for, and the run is already there."""


class RunNotFoundError(CoxError, FileNotFoundError):
    """The run to be read is not there."""


class RunInUseError(CoxError, OSError):
    """Another living process holds the claim to write this run."""


class ReadOnlyError(CoxError, ValueError):
    """The store was opened with mode='r'."""


class ClosedError(CoxError, ValueError):
    """The store was closed."""


class ForkError(CoxError, RuntimeError):
    """The store belongs to the process that opened it, and this is a forked child."""


class SchemaError(CoxError, ValueError):
    """A table or a column that cannot be declared this way."""


class RowError(CoxError, ValueError):
    """A row, or a value in it, that does not fit its table."""


class TableNotFoundError(CoxError, KeyError):
    """No table of that name."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a sentence wants to be read as one
        return str(self.args[0]) if self.args else ""


class ColumnNotFoundError(CoxError, KeyError):
    """No column, or parameter, of that name."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class PredicateError(CoxError, ValueError):
    """A condition on rows or runs that cannot be read, or that does not fit what it is asked of."""


class CompareError(CoxError, ValueError):
    """Runs that cannot be compared, or drawn, as asked."""


class ExportError(CoxError, ValueError):
    """Rows cannot be exported to such a place."""


class CopyError(CoxError, ValueError):
    """A run cannot be copied to such a place."""


class ParametersError(CoxError, ValueError):
    """Parameters that cannot be logged, or that are other than those the run has."""


class RewindError(CoxError, ValueError):
    """A rewind to a place that the table does not have."""


class ViewError(CoxError, ValueError):
    """What was asked of `cox-tensorboard` cannot be shown."""


class StorageError(CoxError, OSError):
    """The file system refused something that a store needs."""


class RunGoneError(StorageError):
    """The run was removed, or moved to where it cannot be followed, while a store was writing it."""


class DamagedError(CoxError, OSError):
    """A file of a run that cannot be read as what it should be."""


class RebuildError(DamagedError):
    """An object that its own code cannot rebuild any more, though its bytes are whole.

    Attributes:
        needs: The classes and functions that it is made of, as far as they are known.
    """

    def __init__(self, message: str, needs: str = "") -> None:
        super().__init__(message)
        self.needs = needs


class IrregularFileError(DamagedError):
    """A link, a pipe, a device or a directory where a run has a file, or a link where it has a directory."""


class FormatVersionError(CoxError, ValueError):
    """A file in a format that a newer cox wrote."""


class UntrustedObjectError(CoxError, pickle.UnpicklingError):
    """A stored object that could run code on being read, and that nobody vouched for."""


class MissingExtraError(CoxError, ImportError):
    """An optional package that this call needs is not installed."""


class CoxWarning(UserWarning):
    """The base of every warning that cox gives."""


class LossyConversionWarning(CoxWarning):
    """A value lost something when it was converted to its column's type."""


class PendingRowWarning(CoxWarning):
    """A store was closed while a table had a row that was never flushed."""


class RepeatedMetadataWarning(CoxWarning):
    """A resumed script logged other metadata than the run has."""


class DamageWarning(CoxWarning):
    """Part of a run could not be read; what could be is there."""


class StorageWarning(CoxWarning):
    """The file system refused something, and the store was opened with on_error='warn'."""


class CollectionWarning(CoxWarning):
    """Something about a run in a collection that its reader should know."""


_options: ContextVar[bool] = ContextVar("cox_options", default=False)


@contextlib.contextmanager
def as_options() -> Iterator[None]:
    """Within the block, errors name the options of a command where they otherwise name Python's arguments."""
    token = _options.set(True)
    try:
        yield
    finally:
        _options.reset(token)


def argument(name: str, value: object = ...) -> str:
    """An argument as whoever reads the error would write it: `by=…`, or `--by` on a command line.

    Args:
        name: The argument.
        value: What was, or is to be, given; left out for any value.
    """
    if not _options.get():
        return f"{name}=…" if value is ... else f"{name}={value!r}"
    option = f"--{name.replace('_', '-')}"
    return option if value is ... or value is True else f"{option} {value!r}"


def in_python(text: str) -> str:
    """A remedy that only a program has; nothing on a command line."""
    return "" if _options.get() else text


def unknown(
    what: str, name: object, known: Iterable[object], where: str = "", *, spell: Callable[[str], str] = repr
) -> str:
    """Return a sentence about a name that is not known: which names there are, and which one may be meant.

    Args:
        what: The sentence up to the name, such as "table 't' has no column".
        name: The name.
        known: Those there are.
        where: What follows the name, such as " in runs/a".
        spell: How a name is written.
    """
    text = name if isinstance(name, str) else repr(name)
    return f"{what} {_cut(spell(text))}{where}; {there_are(known, text, spell=spell)}"


def there_are(known: Iterable[object], wanted: str = "", *, spell: Callable[[str], str] = repr) -> str:
    """Return the names there are, or some of very many, and which one may be meant.

    Args:
        known: The names.
        wanted: What was given in place of one.
        spell: How a name is written.
    """
    import difflib

    names = list(known)
    if not names:
        return "there are none"
    listed = ", ".join(
        _cut(spell(str(name)) if isinstance(name, str) else repr(name)) for name in names[:_MOST_NAMES]
    )
    more = len(names) - _MOST_NAMES
    rest = f" and {more:,} more" if more > 0 else ""
    close = difflib.get_close_matches(wanted, map(str, names), n=1)
    hint = f"; did you mean {_cut(spell(close[0]))}?" if close else ""
    return f"there are [{listed}]{rest}{hint}"


def _cut(text: str) -> str:
    """A very long text without its middle: both ends of a name tell it apart."""
    half = _MOST_OF_A_NAME // 2
    return text if len(text) <= _MOST_OF_A_NAME else f"{text[:half]}…{text[-half:]}"


def warn(message: str, category: type[CoxWarning]) -> None:
    """Warn, pointing at the newest line of the program that is not in this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_PROGRAM):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)

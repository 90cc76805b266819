"""`cox-tensorboard`: the runs of a folder in TensorBoard, under names made of their parameters.

A temporary directory of symbolic links, one for each run that passes the filters, is handed to the
real `tensorboard` program and goes when that ends. Runs are only read. No shell is involved, and no
`--logdir_spec`, which has no way to hold a comma or a colon.

`links` selects and names, and touches nothing; `serve` makes the links and runs the server.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import click
import numpy as np

from cox import objects
from cox.errors import CollectionWarning, CoxError, CoxWarning
from cox.readers import find_runs
from cox.schema import Column
from cox.storage import layout, snapshot

__all__ = ["Filter", "ViewError", "links", "main", "serve"]

#: A run's own name is a parameter of every run, as it was upstream.
_EXP_ID = "exp_id"
#: What file systems take for one name, in bytes.
_NAME_BYTES = 255
#: Values that an error lists of each parameter.
_VALUES_SHOWN = 20
#: Seconds that `tensorboard` has to end by itself once it was told to.
_GRACE = 10.0

# no part of a file name, or able to garble a terminal: separators, control characters, line breaks,
# overrides of the direction of writing, halves of surrogate pairs
_UNSAFE = re.compile(r"[/\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# format() makes as many characters as a width or a precision says
_TOO_WIDE = re.compile(r"\d{4,}")


class ViewError(CoxError, ValueError):
    """What was asked for cannot be shown."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps the runs whose parameter, as text, begins with something that the regex matches."""

    param: str
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, param: str, regex: str) -> Filter:
        """Make a filter.

        Raises:
            ViewError: It is no regular expression.
        """
        try:
            return cls(param, re.compile(regex))
        except (re.error, OverflowError, RecursionError) as error:
            raise ViewError(f"--filter-param {param} {regex!r} is no regular expression: {error}") from error

    def keeps(self, values: Mapping[str, Any]) -> bool:
        """Whether a run with these parameters is kept."""
        return self.regex.match(str(values[self.param])) is not None


@dataclass(frozen=True, slots=True)
class _Field:
    """`{param:spec}` in a format string."""

    param: str
    spec: str


@dataclass(frozen=True, slots=True)
class _Metadata:
    """A run and the first row of its metadata table, objects still as they are stored."""

    run: layout.RunLayout
    table: str
    cells: Mapping[str, tuple[Column, Any]]

    def value(self, param: str) -> Any:
        """A parameter; None where the run lacks it."""
        if param == _EXP_ID:
            return self.run.root.name
        column, cell = self.cells.get(param, (None, None))
        if column is None or cell is None:
            return None
        where = f"column {param!r} of table {self.table!r} in run {self.run.root}"
        if column.kind == "object":
            return objects.from_text(cell, objects.Trust(self.run), where)
        if column.kind == "pickle":
            return objects.read_pickle(self.run.objects_dir / Path(cell).name, objects.Trust(self.run), where)
        return cell


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A run that could be shown, with the parameters that filters and names ask for."""

    exp_id: str
    events: Path
    values: Mapping[str, Any]


# --- Which runs, under which names


def links(
    logdir: Path, format_str: str, *, metadata_table: str = "metadata", filters: Sequence[Filter] = ()
) -> dict[str, Path]:
    """The runs of a folder that pass all filters, under the names that TensorBoard is to show.

    A run that cannot be shown (no metadata, no TensorBoard directory, damage) is left out with a
    `CollectionWarning`.

    Args:
        logdir: The folder of runs.
        format_str: What a name begins with: `{param}`, or `{param:spec}` with a format spec of Python's,
            stands for a parameter. `-<exp_id>` is always appended.
        metadata_table: The table whose first row holds a run's parameters.
        filters: What a run has to pass.

    Returns:
        Names to directories of event files, in the order of the runs. Every name is distinct, and a
        file name.

    Raises:
        ViewError: There is nothing to show, or no such parameter; the error says what there is.

    Example:
        >>> links(Path("runs"), "lr-{lr}", filters=[Filter.parse("arch", "resnet")])
    """
    found = _read_metadata(logdir, metadata_table)
    known = sorted({_EXP_ID}.union(*(metadata.cells for metadata in found)))
    for wanted in filters:
        if wanted.param not in known:
            raise ViewError(_no_parameter("--filter-param", wanted.param, known))
    pieces = _parse_format(format_str, known)
    params = [wanted.param for wanted in filters]
    params += [piece.param for piece in pieces if isinstance(piece, _Field)]
    candidates = _candidates(found, params)
    kept = [run for run in candidates if all(wanted.keeps(run.values) for wanted in filters)]
    if not kept:
        raise ViewError(_nothing_left(candidates, filters, logdir))
    taken: dict[str, Path] = {}
    for run in kept:
        names = _names(_render(pieces, run), run.exp_id)
        taken[next(name for name in names if name not in taken)] = run.events
    return taken


def _read_metadata(logdir: Path, table: str) -> list[_Metadata]:
    if not logdir.is_dir():
        raise ViewError(f"--logdir {logdir} is no directory of runs")
    logdir = logdir.absolute()
    found, without, tables, runs = [], [], set[str](), 0
    for run in find_runs(logdir):
        runs += 1
        now = _guarded(run, lambda run=run: snapshot.read(run, tables=[table]))
        if now is None:
            continue
        now.warn(run.root.name)
        tables.update(now.tables)
        if table in now.tables and now.tables[table].nrows:
            cells = {c.name: (c, _first(*now.tables[table].column(c))) for c in now.tables[table].schema}
            found.append(_Metadata(run, table, cells))
        else:
            without.append(run.root.name)
    if not runs:
        remedy = (
            "; it is a run itself: give the folder above"
            if layout.RunLayout(logdir).store_file.exists()
            else ""
        )
        raise ViewError(f"--logdir {logdir} holds no runs{remedy}")
    if not found:
        raise ViewError(
            f"--metadata-table: no run in {logdir} has a row in a table {table!r}; there are the tables "
            f"{sorted(tables)}{_close(table, tables)}"
        )
    _warn_without(f"row in the table {table!r}", without)
    return found


def _first(values: np.ndarray[Any, Any], missing: np.ndarray[Any, Any] | None) -> Any:
    return None if missing is not None and missing[0] else values[:1].tolist()[0]


def _candidates(found: Iterable[_Metadata], params: Sequence[str]) -> list[_Candidate]:
    """The runs that have event files to show, with these parameters decoded."""
    made, without = [], []
    for metadata in found:
        run = metadata.run
        if not run.tensorboard_dir.is_dir():
            without.append(run.root.name)
            continue
        values = _guarded(run, lambda m=metadata: {param: m.value(param) for param in params})
        if values is not None:
            made.append(_Candidate(run.root.name, run.tensorboard_dir, values))
    _warn_without(f"directory {layout.TENSORBOARD_DIR!r}", without)
    return made


def _guarded(run: layout.RunLayout, read: Callable[[], Any]) -> Any:
    """What `read` returns; None, with a warning, where this run cannot be read."""
    try:
        return read()
    # the latter two: a stored object whose class is gone
    except (CoxError, OSError, ImportError, AttributeError) as error:
        _warn(f"run {run.root.name} is left out: {error}")
        return None


def _warn_without(what: str, names: Sequence[str]) -> None:
    if names:
        _warn(f"left out, for want of a {what}: {', '.join(names)}")


def _warn(sentence: str) -> None:
    warnings.warn(sentence, CollectionWarning, stacklevel=2)


def _no_parameter(option: str, param: str, known: Sequence[str]) -> str:
    return f"{option}: there is no parameter {param!r}; there are {list(known)}{_close(param, known)}"


def _close(word: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _nothing_left(candidates: Sequence[_Candidate], filters: Sequence[Filter], logdir: Path) -> str:
    if not candidates:
        return f"none of the runs in {logdir} can be shown"
    asked = " ".join(f"--filter-param {wanted.param} {wanted.regex.pattern!r}" for wanted in filters)
    there = "; ".join(
        f"{param}: {_values_shown(run.values[param] for run in candidates)}"
        for param in dict.fromkeys(wanted.param for wanted in filters)
    )
    return f"no run is left: none of {len(candidates)} passes {asked}. The values there are: {there}"


def _values_shown(values: Iterable[Any]) -> str:
    counted = Counter(str(value) for value in values)
    shown = [
        (repr(text) if len(text) <= 80 else repr(text[:80]) + "…") + (f" ({runs} runs)" if runs > 1 else "")
        for text, runs in list(counted.items())[:_VALUES_SHOWN]
    ]
    return ", ".join(shown) + (
        f" and {len(counted) - _VALUES_SHOWN} more" if len(counted) > _VALUES_SHOWN else ""
    )


# --- Names


def _parse_format(text: str, known: Sequence[str]) -> list[str | _Field]:
    """A format string as text and fields.

    Not `str.format`, which reaches into attributes. A name may hold anything, colons and braces too:
    the longest known one counts.
    """
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    piece = re.compile(rf"(?P<text>[^{{}}]+|\{{\{{|\}}\}})|\{{(?P<param>{names})(?::(?P<spec>[^{{}}]*))?\}}")
    pieces: list[str | _Field] = []
    at = 0
    while at < len(text):
        match = piece.match(text, at)
        if match is None:
            raise ViewError(_why_no_format(text, at, known))
        if match["text"]:
            pieces.append(match["text"] if match["text"][0] not in "{}" else match["text"][0])
        else:
            pieces.append(_Field(match["param"], _checked_spec(match["spec"] or "", text)))
        at = match.end()
    return pieces


def _why_no_format(text: str, at: int, known: Sequence[str]) -> str:
    field = re.compile(r"\{([^{}]*)\}").match(text, at)
    if field is None:
        return f"--format-str {text!r}: a brace stands alone at position {at}; write {{{{ or }}}} for the character"
    return _no_parameter(f"--format-str {text!r}", field[1], known)


def _checked_spec(spec: str, text: str) -> str:
    if _TOO_WIDE.search(spec):
        raise ViewError(f"--format-str {text!r}: {spec!r} asks for more than 999 characters")
    return spec


def _render(pieces: Iterable[str | _Field], run: _Candidate) -> str:
    return "".join(piece if isinstance(piece, str) else _show(piece, run) for piece in pieces)


def _show(field: _Field, run: _Candidate) -> str:
    value = run.values[field.param]
    if value is None:
        return "None"
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is list:
        value = ".".join(map(str, value))
    elif not isinstance(value, (int, float, str)):
        value = str(value)  # the spec must not reach the object
    try:
        return format(value, field.spec)
    except (ValueError, OverflowError) as error:
        raise ViewError(
            f"--format-str: {{{field.param}:{field.spec}}} cannot show {value!r} of run {run.exp_id}: {error}"
        ) from error


def _names(prefix: str, exp_id: str) -> Iterator[str]:
    """`<prefix>-<exp_id>` as a file name, then the same with a number, for where it is taken."""
    prefix, exp_id = _UNSAFE.sub("_", prefix), _UNSAFE.sub("_", exp_id)
    for number in count(1):
        mark = f" ({number})" if number > 1 else ""
        tail = f"{mark}-{exp_id}"
        room = _NAME_BYTES - len(tail.encode())
        # an exp_id that fills a name by itself leaves no room for more than the number
        yield (
            f"{_shortened(prefix, room)}{tail}"
            if room >= 0
            else _shortened(exp_id, _NAME_BYTES - len(mark)) + mark
        )


def _shortened(text: str, room: int) -> str:
    """The text in at most so many bytes; what was cut off shows as an ellipsis, where there is room for it."""
    if len(text.encode()) <= room:
        return text
    ellipsis = "…" if room >= len("…".encode()) else ""
    return text.encode()[: room - len(ellipsis.encode())].decode(errors="ignore") + ellipsis


# --- The server


def serve(targets: Mapping[str, Path], *, port: int = 6006, options: Sequence[str] = ()) -> int:
    """Run `tensorboard` on these directories until it ends, or until a signal ends it.

    SIGINT, SIGTERM and SIGHUP end the server; whatever ends it, neither it nor the links are left behind.

    Args:
        targets: Names to directories of event files.
        port: The server's port.
        options: More command line arguments for `tensorboard`.

    Returns:
        Its exit status; 128 and the number of the signal, if one ended it.
    """
    with _Stop() as stop, _directory_of(targets) as logdir:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
        return stop.wait_for([*command, *options])


@contextmanager
def _directory_of(targets: Mapping[str, Path]) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="cox-tensorboard-"))
    try:
        for name, target in targets.items():
            (directory / name).symlink_to(target, target_is_directory=True)
        yield directory
    finally:
        shutil.rmtree(directory)  # of a link it removes the link


class _Stop:
    """Turns the signals that would end this process into the end of the one that it waits for.

    No handler raises: an exception between two lines would leave a process or a directory behind.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._deadline: threading.Timer | None = None

    def __enter__(self) -> _Stop:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # ignored ones stay so: nohup, and shells that start a job in the background
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait_for(self, command: Sequence[str]) -> int:
        """Run a program to its end and return its exit status, or 128 and the signal that ended it."""
        # safe path: a random.py in the working directory is none of the server's modules
        process = subprocess.Popen(command, env={**os.environ, "PYTHONSAFEPATH": "1"})
        self._process = process
        if self._received is not None:  # while there was nothing to end yet
            self._end(process)
        status = process.wait()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._received is not None:
            return 128 + self._received
        return status if status >= 0 else 128 - status

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._received = self._received is not None, number
        if self._process is not None:
            self._process.kill() if again else self._end(self._process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        self._deadline = threading.Timer(_GRACE, process.kill)
        self._deadline.daemon = True
        self._deadline.start()


# --- The command


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--logdir", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The folder of runs."
)
@click.option(
    "--format-str",
    required=True,
    metavar="TEXT",
    help="How runs are named: {param} stands for a parameter, as does {param:.3g} with a format spec; "
    "-<exp_id> is always appended.",
)
@click.option(
    "--port", default=6006, type=click.IntRange(0, 65535), help="The server's port; 0 picks a free one."
)
@click.option(
    "--metadata-table", default="metadata", metavar="NAME", help="The table that holds the parameters."
)
@click.option(
    "--filter-param",
    multiple=True,
    nargs=2,
    metavar="PARAM REGEX",
    help="Show only runs whose PARAM begins with a match of REGEX: resnet keeps resnet18; end it with $ for the "
    "whole value. Can be given several times: a run has to pass all.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- TENSORBOARD-OPTIONS]")
def main(
    logdir: Path,
    format_str: str,
    port: int,
    metadata_table: str,
    filter_param: tuple[tuple[str, str], ...],
    options: tuple[str, ...],
) -> None:
    """Show the runs of a folder in TensorBoard, under names made of their parameters.

    What follows -- goes to tensorboard as it is. Runs that begin later show after a restart.

    \b
    cox-tensorboard --logdir runs --format-str 'lr-{lr}' --filter-param arch resnet
    """
    for option in options[:1]:
        if not option.startswith("-"):
            raise click.UsageError(f"unexpected argument {option!r}: does a value want quotes?")
    for option in options:
        if re.match("--(logdir|port)", option):
            raise click.UsageError(f"{option!r} is no option to hand on: give it before the --")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", CoxWarning)
            warnings.showwarning = _show_warning
            filters = [Filter.parse(param, regex) for param, regex in filter_param]
            targets = links(logdir, format_str, metadata_table=metadata_table, filters=filters)
        _say(f"Showing {len(targets)} runs of {logdir}")
        status = serve(targets, port=port, options=options)
    except (CoxError, OSError) as error:
        raise click.UsageError(_UNSAFE_TO_SHOW.sub("_", str(error))) from error
    sys.exit(status)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"Warning: {message}", err=True)


def _say(text: str, *, err: bool = False) -> None:
    stream = click.get_text_stream("stderr" if err else "stdout", errors="backslashreplace")
    click.echo(_UNSAFE_TO_SHOW.sub("_", text), file=stream)


if __name__ == "__main__":
    main()

"""Which of a run's objects may be rebuilt by running code. Nothing here unpickles.

Signatures, the list that `cox trust` keeps in the run, and what the caller vouches for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from cox.errors import StorageError
from cox.objects import signing
from cox.storage import fs, layout, runinfo

#: A longer list of what is trusted, no run has.
_MOST_BYTES = 256 * 1024 * 1024
ALLOW_VARIABLE = "COX_ALLOW_PICKLE"


class Place(NamedTuple):
    """Where a stored object stands: its signature has to be made for it, and errors name it.

    Attributes:
        table: Its table.
        columns: Its column, or those that it may be of, where only the cell is known.
        where: How errors call it: "column 'o' of table 't' in run runs/a".
    """

    table: str
    columns: tuple[str, ...]
    where: str


#: Text that belongs to no run.
TEXT = Place("", ("",), "this text")


def place_of(run: layout.RunLayout, table: str, column: str) -> Place:
    """A cell of a run."""
    return Place(table, (column,), f"column {column!r} of table {table!r} in run {run.root}")


class Vouched(NamedTuple):
    """What this user said about a run, in `trusted.json`.

    Attributes:
        digests: SHA-256 of the objects that may be rebuilt, in hex.
        old_signatures: Whether signatures count that are bound to no run: those of a run that was begun
            before there were others, and goes on.
    """

    digests: frozenset[str] = frozenset()
    old_signatures: bool = False


class Trust:
    """Which of a run's objects may be rebuilt by running code.

    Args:
        run: The run; None for an object without a run.
        allow_pickle: Whether the caller vouches for everything.
        run_id: The run's id, where its files are elsewhere.
    """

    def __init__(
        self,
        run: layout.RunLayout | None = None,
        *,
        allow_pickle: bool = False,
        run_id: str | None = None,
    ) -> None:
        self._run = run
        self._run_id = run_id
        self._allow = allow_pickle
        self._known: tuple[str | None, Vouched] | None = None

    def covers(self, file: BinaryIO, place: Place) -> bool:
        """Whether the bytes of a file, which nobody else can change meanwhile, may be unpickled.

        Args:
            file: The bytes. It is left anywhere.
            place: Where they are stored.
        """
        if self._allow or os.environ.get(ALLOW_VARIABLE, "") not in ("", "0"):
            return True
        data = signing.sealed(file)
        for run_id, vouched in self._now():
            origins = (signing.Origin(run_id or "", place.table, column) for column in place.columns)
            if data.digest.hex() in vouched.digests or signing.is_signed(data, origins):
                return True
            if vouched.old_signatures and signing.is_signed_anywhere(file):
                return True
        return False

    def _now(self) -> Iterator[tuple[str | None, Vouched]]:
        """The run's id and what is said about it: as known, and if that does not do, as it is by now."""
        if self._known is not None:
            yield self._known
        before, self._known = self._known, self._read()
        if self._known != before:
            yield self._known

    def _read(self) -> tuple[str | None, Vouched]:
        if self._run is None:
            return None, Vouched(old_signatures=True)
        run_id = self._run_id or runinfo.run_id(self._run)
        return run_id, read_vouched(self._run, run_id)


def read_vouched(run: layout.RunLayout, run_id: str | None) -> Vouched:
    """What this user said about a run; nothing where it is not signed by this user, for this run.

    Args:
        run: The run.
        run_id: Its id; None for one of before format 2, where signatures are bound to nothing.
    """
    try:
        content = json.loads(fs.read_bytes(run.trust_file, most=_MOST_BYTES))
        digests, signature = sorted(content["digests"]), str(content["signature"])
        old = content.get("old_signatures", False) is True
        is_ours = (
            signing.is_signed_old_list(digests, signature)
            if run_id is None
            else signing.is_signed_list([digests, old], run_id, signature)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Vouched(old_signatures=run_id is None)  # no list, or none that anybody signed
    return Vouched(frozenset(digests) if is_ours else frozenset(), run_id is None or (is_ours and old))


def vouch(run: layout.RunLayout, digests: Iterable[str] = (), *, old_signatures: bool = False) -> None:
    """Vouch for objects of a run, and for what was vouched for before.

    Args:
        run: The run.
        digests: SHA-256 of the objects, in hex.
        old_signatures: Whether signatures are to count that are bound to no run.

    Raises:
        StorageError: The list cannot be written, or this user can keep no secret to sign it with.
    """
    if not signing.keeps_secret():
        raise StorageError(
            f"run {run.root}: there is no secret of yours to sign with that would last: the log says why; "
            "set COX_CONFIG_HOME to a directory that only you can write, or pass allow_pickle=True"
        )
    run_id = runinfo.run_id(run)
    before = read_vouched(run, run_id)
    _write(run, run_id, Vouched(before.digests.union(digests), before.old_signatures or old_signatures))


def adopt(run: layout.RunLayout, run_id: str) -> None:
    """Have the objects of a run that has got its id just now decode as before.

    Their signatures are of the old kind, and so is what `cox trust` said of them.
    """
    if signing.keeps_secret():
        _write(run, run_id, Vouched(read_vouched(run, None).digests, old_signatures=True))


def _write(run: layout.RunLayout, run_id: str | None, vouched: Vouched) -> None:
    digests, old = sorted(vouched.digests), vouched.old_signatures
    content = {
        "digests": digests,
        **({} if run_id is None else {"old_signatures": old}),
        "signature": signing.sign_old_list(digests)
        if run_id is None
        else signing.sign_list([digests, old], run_id),
    }
    fs.refuse_links(run.meta_dir)
    fs.make_directories(run.meta_dir)
    fs.replace_bytes(run.trust_file, json.dumps(content).encode(), durable=True)

"""Which runs a command is about. Loads no pandas, so that `cox ls` is quick."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cox.errors import RunNameError, RunNotFoundError, TableNotFoundError

if TYPE_CHECKING:
    from cox.readers import CollectionReader
    from cox.storage.layout import RunLayout


def reader_at(path: Path, *, nested: bool = False, empty: bool = False) -> CollectionReader:
    """The runs of a folder, or the one run at a path. Runs that cannot be read are left out, with a warning.

    Args:
        path: The folder.
        nested: Whether to look deeper.
        empty: Whether a folder without runs will do.

    Raises:
        RunNotFoundError: There is no run.
    """
    from cox.collection.naming import readable
    from cox.readers import CollectionReader
    from cox.storage.scan import is_run

    if is_run(path):
        root = path.absolute()
        return CollectionReader(root.parent, exp_filter=readable(root.name).__eq__, skip_errs=True)
    reader = CollectionReader(path, nested=nested, skip_errs=True)
    if not len(reader) and not empty:
        raise RunNotFoundError(f"there is no run in {path}" + ("" if nested else "; --nested looks deeper"))
    return reader


def table_of(reader: CollectionReader, text: str) -> str:
    """The table of that name, or the one that is shown so because not all of its name is printable.

    Raises:
        TableNotFoundError: Several are shown so; names them.
    """
    from cox.collection.moment import Moment
    from cox.collection.naming import shown_as, some

    if "?" not in text:
        return text
    alike = shown_as(text, list(Moment(reader.source).schemas(quiet=True)))
    if len(alike) > 1:
        raise TableNotFoundError(f"{len(alike)} tables are shown as {text}: {some(alike)}")
    return alike[0] if alike else text


def find(text: str) -> RunLayout:
    """The run at a path, whose last part may be only the beginning of a name, or `beginning…end` of it.

    Raises:
        RunNotFoundError: There is none; names what may have been meant.
        RunNameError: There are several; names them.
    """
    from cox.collection.naming import resolve
    from cox.storage.layout import RunLayout
    from cox.storage.scan import is_run, run_names

    path = Path(text).expanduser()
    if is_run(path):
        return RunLayout(path.absolute())
    folder = _folder(path.parent)
    if not folder.is_dir():
        raise RunNotFoundError(f"there is no run {text}: {folder} is not a directory")
    if path.is_dir():
        raise RunNotFoundError(f"{path} is not a run: name one of the runs in a folder")
    name = resolve(path.name, run_names(os.fspath(folder)), text)
    return RunLayout((folder / name).absolute())


def _folder(path: Path) -> Path:
    """A folder, or the one whose path is shown so because not all of it is printable.

    Raises:
        RunNameError: Several are shown so; names them.
    """
    from cox.collection.naming import shown_as, some
    from cox.storage.fs import names_in

    if path.is_dir() or path == path.parent:
        return path
    parent = _folder(path.parent)
    alike = shown_as(path.name, [name for name in names_in(parent) if (parent / name).is_dir()])
    if len(alike) > 1:
        raise RunNameError(f"{len(alike)} folders in {parent} are shown as {path.name}: {some(alike)}")
    return parent / (alike[0] if alike else path.name)

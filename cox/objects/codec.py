"""OBJECT, PICKLE and PYTORCH_STATE: how an object becomes a cell and comes back.

This is the only module that unpickles anything but plain data, and it asks for a reason first:

* plain data (see `cox.safe_pickle`) needs none;
* what this user wrote is signed (see `cox.objects.signing`) and decodes by itself, in any process;
* everything else is refused, unless the caller passes `allow_pickle=True`, the user vouched for the
  run with `cox trust PATH`, or COX_ALLOW_PICKLE=1 is set (see `cox.objects.trust`).

An OBJECT cell is base64 text of a pickle, a PICKLE or PYTORCH_STATE cell the name of a file in
`.table_objects/`. A signature stands after the pickle's end, where other readers do not look.

Whoever may write in the run may replace a file, or change it in place, at any moment. So what decides
whether code runs is done on bytes that nobody else can change: those that are checked are those that are
loaded, and those that are signed are those that were written.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import pickle
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import crc32c

from cox import safe_pickle
from cox.errors import (
    DamagedError,
    IrregularFileError,
    MissingExtraError,
    RebuildError,
    UntrustedObjectError,
    in_python,
)
from cox.objects import payloads, signing
from cox.objects.signing import Origin
from cox.objects.trust import ALLOW_VARIABLE, Place, Trust
from cox.storage import fs, layout

#: Files of so many bytes or less are read into memory at once; larger ones only where they are to run code.
_IN_MEMORY = 1 << 24
#: Larger ones even then are copied to a file without a name.
_PRIVATE_IN_MEMORY = 1 << 28
#: What is not plain data is rebuilt once when it is stored, unless it has more bytes than this.
_TRIED_BYTES = 1 << 24


def to_bytes(obj: Any, origin: Origin) -> bytes:
    """Pickle an object, by value where it must be, and sign it unless it is plain data.

    Args:
        obj: The object.
        origin: Where it is stored.

    Raises:
        Exception: What pickle or dill raise for what nothing can store.
    """
    try:
        data, is_plain = safe_pickle.dumps(obj)
    except Exception:  # noqa: BLE001 - any object's __reduce__ may raise anything; dill has the last word
        data, is_plain = _by_value(obj), False
    if is_plain:
        return data
    _check_rebuilt(obj, len(data))
    return data + signing.sign(data, origin)


def _check_rebuilt(obj: Any, size: int) -> None:
    """Rebuild an object once: pickle takes what it cannot give back, as many exceptions are.

    Raises:
        PicklingError: Nobody could read it again. Says why, and what to do.
    """
    if size > _TRIED_BYTES:
        return
    try:
        data = pickle.dumps(obj, safe_pickle.PROTOCOL)
    except Exception:  # noqa: BLE001 - it is stored by value, together with the classes that rebuild it
        return
    try:
        pickle.loads(data)
    except MemoryError:
        raise
    except Exception as error:
        raise pickle.PicklingError(
            f"pickle takes it and cannot rebuild it: {type(error).__name__}: {error}; give its class a "
            "__reduce__ that calls it rightly, or store plain data in its place, as str(…) or vars(…)"
        ) from error


def from_bytes(data: bytes, trust: Trust, place: Place) -> Any:
    """Undo `to_bytes`.

    Args:
        data: A pickle, with or without a signature after it.
        trust: What may be unpickled that is not plain data.
        place: Where it is stored.

    Raises:
        UntrustedObjectError: It is not plain data, and nobody vouched for it.
        RebuildError: The code that it is made of is not there any more, or another.
        DamagedError: It is not a pickle.
    """
    return _unpickled(io.BytesIO(data), trust, place, f"its {len(data)} bytes")


def to_text(obj: Any, origin: Origin) -> str:
    """Pickle an object into the text of an OBJECT cell."""
    return base64.encodebytes(to_bytes(obj, origin)).decode("ascii")


def from_text(text: str, trust: Trust, place: Place) -> Any:
    """Undo `to_text`. Raises as `from_bytes` does."""
    return from_bytes(cell_bytes(text, place.where), trust, place)


def cell_bytes(text: str, where: str) -> bytes:
    """The pickle, with or without a signature, that an OBJECT cell stands for.

    Raises:
        DamagedError: The text is not base64.
    """
    try:
        return base64.b64decode(text)
    except ValueError as error:
        raise DamagedError(f"{where}: {text[:60]!r} is not base64 text of an object") from error


class _Summed:
    """A file being written, and the CRC-32C of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.checksum = 0
        self.flush = file.flush  # torch.save calls it

    def write(self, data: Any) -> int:
        """Write all of `data`, any contiguous buffer."""
        self.checksum = crc32c.crc32c(data, self.checksum)
        return self._file.write(data)

    def sign(self, origin: Origin) -> None:
        """Write a signature of all that was written."""
        self._file.flush()
        signature = signing.sign_file(self._file, origin)
        self.write(signature)

    def begin_anew(self) -> None:
        """Drop what was written."""
        self._file.seek(0)
        self._file.truncate()
        self.checksum = 0


def write_pickle(obj: Any, path: Path, origin: Origin) -> int:
    """Pickle an object into a new file, without a copy of it in memory where it is plain data.

    Args:
        obj: The object.
        path: The file.
        origin: Where it is stored.

    Returns:
        The CRC-32C of the file's bytes.

    Raises:
        StorageError: The file cannot be written.
        Exception: What pickle or dill raise for what nothing can store.
    """
    with fs.new_file(path, others_write=False) as opened:
        file = _Summed(opened)
        pickler = safe_pickle.Pickler(file)
        try:
            pickler.dump(obj)
            is_plain = pickler.plain
        except OSError as error:
            raise fs.refused(error, "cannot store an object", path) from error
        except Exception:  # noqa: BLE001 - as in to_bytes
            file.begin_anew()
            file.write(_by_value(obj))
            is_plain = False
        if not is_plain:
            _check_rebuilt(obj, opened.tell())
            file.sign(origin)
        return file.checksum


def read_pickle(path: Path, trust: Trust, place: Place) -> Any:
    """Undo `write_pickle`. Raises as `from_bytes` does, and DamagedError if the file is missing."""
    with opened(path, place.where) as file:
        return _unpickled(file, trust, place, str(path))


def write_torch(value: Any, path: Path, origin: Origin) -> int:
    """Write a state into a new file, with torch.save. What has a `state_dict()` is asked for it.

    Args:
        value: The state.
        path: The file.
        origin: Where it is stored.

    Returns:
        The CRC-32C of the file's bytes.

    Raises:
        MissingExtraError: torch is not installed.
        StorageError: The file cannot be written.
    """
    _torch()  # before a file is made
    if hasattr(value, "state_dict"):
        value = value.state_dict()
    with fs.new_file(path, others_write=False) as opened:
        file = _Summed(opened)
        try:
            if _save_torch(value, opened, file):
                _check_rebuilt(value, opened.tell())
                file.sign(origin)
        except OSError as error:
            raise fs.refused(error, "cannot store a state", path) from error
        return file.checksum


def _save_torch(value: Any, opened: BinaryIO, file: _Summed) -> str:
    """Save a state, by value where it must be. Returns what it needs beyond torch's own allow-list."""
    from cox.objects import byvalue

    def save(**options: Any) -> BinaryIO:
        file.begin_anew()
        _torch().save(value, file, **options)
        file.flush()
        return opened

    try:
        needs = beyond_weights(save())
        if not needs or not byvalue.strays(_references(opened)):
            return needs
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - as in to_bytes
        pass
    return beyond_weights(byvalue.dump(lambda module: save(pickle_module=module), _references))


def _references(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The names that the pickle in a torch archive looks up."""
    return safe_pickle.references(_pickle_in_archive(file))


def _names_in_archive(file: BinaryIO) -> str:
    with contextlib.suppress(Exception):  # as in _names_in
        return _names_in(_pickle_in_archive(file))
    return ""


def _pickle_in_archive(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            # torch compresses nothing: what is compressed may be without end
            if entry.filename.endswith("/data.pkl") and entry.compress_type == zipfile.ZIP_STORED:
                return io.BytesIO(archive.read(entry))
    return io.BytesIO()


def read_torch(path: Path, trust: Trust, place: Place, **options: Any) -> Any:
    """Undo `write_torch`.

    Args:
        path: The file.
        trust: What may be unpickled that torch's own allow-list refuses.
        place: Where it is stored.
        options: For torch.load, `map_location` above all. An explicit `weights_only` is obeyed.
    """
    _torch()  # before a missing file is spoken of
    with opened(path, place.where) as file:
        if "weights_only" in options:
            return _load_torch(file, options)
        try:
            return _load_torch(file, {**options, "weights_only": True})
        except pickle.UnpicklingError as refusal:
            with private(file) as copy:
                if not trust.covers(copy, place):
                    raise _untrusted(refusal, beyond_weights(copy), place.where) from None
                from cox.objects import byvalue

                with _rebuilding(place.where):
                    return _load_torch(copy, {"pickle_module": byvalue, **options, "weights_only": False})
        except (RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{place.where}: no state can be read from {path}: {error}") from error


def _load_torch(file: BinaryIO, options: dict[str, Any]) -> Any:
    file.seek(0)
    source: Any = file
    if options.get("mmap"):  # torch wants a name for that
        if isinstance(file, io.BytesIO):
            options = {**options, "mmap": False}
        else:
            source = f"/dev/fd/{file.fileno()}"
    return _torch().load(source, **options)


def _unpickled(file: BinaryIO, trust: Trust, place: Place, source: str) -> Any:
    """The object of a pickle; `source` is what an error calls its bytes."""
    try:
        return safe_pickle.load(file)
    except safe_pickle.NotPlainError as refusal:
        with private(file) as copy:
            if not trust.covers(copy, place):
                raise _untrusted(refusal, _names_in(copy), place.where) from None
            from cox.objects import byvalue

            copy.seek(0)
            with _rebuilding(place.where, copy):
                return byvalue.load(copy)
    except Exception as error:
        raise DamagedError(f"{place.where}: no object can be read from {source}: {error}") from error


@contextlib.contextmanager
def private(file: BinaryIO) -> Iterator[BinaryIO]:
    """The bytes of a file where nobody else can change them: in memory, or in a file without a name."""
    if isinstance(file, io.BytesIO):
        yield file
        return
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    if size <= _PRIVATE_IN_MEMORY:
        yield io.BytesIO(file.read(size))
        return
    with contextlib.ExitStack() as opened:
        try:
            copy = opened.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy, 1 << 20)
        except OSError as error:
            raise fs.refused(error, "cannot copy an object to check it", tempfile.gettempdir()) from error
        yield copy


@contextlib.contextmanager
def _rebuilding(where: str, file: BinaryIO | None = None) -> Iterator[None]:
    """Say of which cell an object is that its own code cannot rebuild any more."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise RebuildError(
            f"{where}: the object cannot be rebuilt: {type(error).__name__}: {error}; is the code that it is "
            "made of still there, under the same name?",
            needs=_names_in(file),
        ) from error


def _untrusted(refusal: Exception, needs: str, where: str) -> UntrustedObjectError:
    needs = needs or getattr(refusal, "name", None) or str(refusal).partition("\n")[0]
    return UntrustedObjectError(
        f"{where}: this object is rebuilt by {needs}, which may run any code, and it carries no valid "
        f"signature of yours. If you know where it comes from: {in_python('pass allow_pickle=True, or ')}run "
        f"`cox trust PATH` once for the run, or set {ALLOW_VARIABLE}=1 for programs that you cannot change"
    )


def _by_value(obj: Any) -> bytes:
    from cox.objects import byvalue  # dill takes a while to import

    return byvalue.dumps(obj)


def _names_in(file: BinaryIO | None) -> str:
    if file is None:
        return ""
    file.seek(0)
    with contextlib.suppress(Exception):  # a name for a message is worth less than the message
        return ", ".join(safe_pickle.names_in(file))
    return ""


def beyond_weights(file: BinaryIO) -> str:
    """What a torch file needs beyond torch's own allow-list, which needs no signature; '' for nothing.

    Raises:
        MissingExtraError: torch is not installed.
    """
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ", ".join(_torch().serialization.get_unsafe_globals_in_checkpoint(file))
    except (RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        return _names_in_archive(file) or f"(torch cannot tell what: {error})"


@contextlib.contextmanager
def opened(path: Path, where: str) -> Iterator[BinaryIO]:
    """The bytes of an object's file, which are those of its checksum; in memory, unless they are many.

    Raises:
        UntrustedObjectError: It is not a file of the run.
        DamagedError: It is missing, or not what was written.
    """
    if path.parent.name != layout.OBJECTS_DIR:
        raise UntrustedObjectError(f"{where}: {path.name!r} is not the name of a file of this run")
    try:
        file = fs.open_regular(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{where}: its file {path} is missing") from error
    except OSError as error:
        if isinstance(error, IrregularFileError):
            raise UntrustedObjectError(
                f"{where}: {path.name!r} is not the name of a file of this run"
            ) from error
        raise DamagedError(f"{where}: its file {path} cannot be opened: {error.strerror}") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        bytes_ = io.BytesIO(file.read(size)) if size <= _IN_MEMORY else file
        if not payloads.has_its_checksum(bytes_, path.name):
            raise DamagedError(
                f"{where}: the bytes of {path} are not those that were written: it was cut off, or changed"
            )
        yield bytes_


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("PYTORCH_STATE needs torch: pip install 'cox[torch]'") from error
    return torch

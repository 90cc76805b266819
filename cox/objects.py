"""OBJECT, PICKLE and PYTORCH_STATE: how an object becomes a cell and comes back.

This is the only module that unpickles anything but plain data, and it asks for a reason first:

* plain data (see `cox.plain`) needs none;
* what this user wrote is signed (see `cox.signing`) and decodes by itself, in any process;
* everything else is refused, unless the caller passes `allow_pickle=True`, the user vouched for the
  run with `cox trust PATH`, or COX_ALLOW_PICKLE=1 is set.

An OBJECT cell is base64 text of a pickle, a PICKLE or PYTORCH_STATE cell the name of a file in
`.table_objects/`. A signature stands after the pickle's end, where other readers do not look.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import crc32c

from cox import payloads, plain, signing
from cox.errors import DamagedError, MissingExtraError, StorageError, UntrustedObjectError
from cox.storage import fs, layout

ALLOW_VARIABLE = "COX_ALLOW_PICKLE"


class Trust:
    """Which of a run's objects may be rebuilt by running code.

    Args:
        run: The run whose `cox trust` list counts; None for an object without a run.
        allow_pickle: Whether the caller vouches for everything.
    """

    def __init__(self, run: layout.RunLayout | None = None, *, allow_pickle: bool = False) -> None:
        self._run = run
        self._allow = allow_pickle
        self._digests: frozenset[str] | None = None

    def covers(self, data: bytes) -> bool:
        """Whether these bytes may be unpickled."""
        return self._everything() or signing.is_signed(data) or self._listed(hashlib.sha256(data).hexdigest())

    def covers_file(self, path: Path) -> bool:
        """Whether the bytes of this file may be unpickled."""
        return self._everything() or signing.is_signed_file(path) or self._listed(digest_of(path))

    def _everything(self) -> bool:
        return self._allow or os.environ.get(ALLOW_VARIABLE, "") not in ("", "0")

    def _listed(self, digest: str) -> bool:
        if self._run is None:
            return False
        if self._digests is None:
            self._digests = read_trusted(self._run)
        return digest in self._digests


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            running.update(block)
    return running.hexdigest()


def read_trusted(run: layout.RunLayout) -> frozenset[str]:
    """The digests that this user vouched for in a run; none where the list is not signed by this user."""
    try:
        listed = json.loads(run.trust_file.read_bytes())
        digests, signature = sorted(listed["digests"]), bytes.fromhex(listed["signature"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()  # no list, or none that anybody signed: nothing is trusted by it
    signed = json.dumps(digests).encode()
    return frozenset(digests) if signing.is_signed(signed + signature) else frozenset()


def write_trusted(run: layout.RunLayout, digests: Iterable[str]) -> None:
    """Vouch for these digests, and those vouched for before.

    Raises:
        StorageError: The list cannot be written, or this user can keep no secret to sign it with.
    """
    listed = sorted(read_trusted(run) | set(digests))
    signature = signing.sign(json.dumps(listed).encode())
    if not signature:
        raise StorageError(f"no secret to sign with can be kept in {signing.secret_path()}")
    fs.make_directories(run.meta_dir)
    data = json.dumps({"digests": listed, "signature": signature.hex()})
    fs.replace_bytes(run.trust_file, data.encode(), durable=True)


def to_bytes(obj: Any) -> bytes:
    """Pickle an object, by dill where it must be, and sign it unless it is plain data.

    Raises:
        Exception: What dill raises for what nothing can store.
    """
    try:
        data, is_plain = plain.dumps(obj)
    except Exception:  # noqa: BLE001 - any object's __reduce__ may raise anything; dill has the last word
        data, is_plain = _dill_dumps(obj), False
    return data if is_plain else data + signing.sign(data)


def from_bytes(data: bytes, trust: Trust, where: str) -> Any:
    """Undo `to_bytes`.

    Args:
        data: A pickle, with or without a signature after it.
        trust: What may be unpickled that is not plain data.
        where: Which cell it is, for the error: "column 'x' of table 't' in run 'id'".

    Raises:
        UntrustedObjectError: It is not plain data, and nobody vouched for it.
        DamagedError: It is no pickle.
    """
    try:
        return plain.loads(data)
    except plain.NotPlainError as refusal:
        if not trust.covers(data):
            raise _untrusted(refusal, io.BytesIO(data), where) from None
    except Exception as error:
        raise DamagedError(f"{where}: no object can be read from its {len(data)} bytes: {error}") from error
    import dill

    with _rebuilding(where):
        return dill.loads(data)


def to_text(obj: Any) -> str:
    """Pickle an object into the text of an OBJECT cell."""
    return base64.encodebytes(to_bytes(obj)).decode("ascii")


def from_text(text: str, trust: Trust, where: str) -> Any:
    """Undo `to_text`. Raises as `from_bytes` does."""
    return from_bytes(cell_bytes(text, where), trust, where)


def cell_bytes(text: str, where: str) -> bytes:
    """The pickle, with or without a signature, that an OBJECT cell stands for.

    Raises:
        DamagedError: The text is no base64.
    """
    try:
        return base64.b64decode(text)
    except ValueError as error:
        raise DamagedError(f"{where}: {text[:60]!r} is no base64 text of an object") from error


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

    def begin_anew(self) -> None:
        """Drop what was written."""
        self._file.seek(0)
        self._file.truncate()
        self.checksum = 0


def write_pickle(obj: Any, path: Path) -> int:
    """Pickle an object into a new file, without a copy of it in memory where it is plain data.

    Returns:
        The CRC-32C of the file's bytes.

    Raises:
        StorageError: The file cannot be written.
        Exception: What dill raises for what nothing can store.
    """
    with fs.new_file(path) as opened:
        file = _Summed(opened)
        pickler = plain.Pickler(file)
        try:
            pickler.dump(obj)
        except OSError as error:
            raise fs.refused(error, "cannot store an object", path) from error
        except Exception:  # noqa: BLE001 - as in to_bytes
            file.begin_anew()
            data = _dill_dumps(obj)
            file.write(data + signing.sign(data))
            return file.checksum
        if not pickler.plain:
            file.flush()
            with path.open("rb") as written:
                file.write(signing.sign_file(written))
        return file.checksum


def read_pickle(path: Path, trust: Trust, where: str) -> Any:
    """Undo `write_pickle`. Raises as `from_bytes` does, and DamagedError if the file is missing."""
    with _open_payload(path, where) as file:
        try:
            return plain.load(file)
        except plain.NotPlainError as refusal:
            if not trust.covers_file(path):
                file.seek(0)
                raise _untrusted(refusal, file, where) from None
        except Exception as error:
            raise DamagedError(f"{where}: no object can be read from {path}: {error}") from error
        import dill

        file.seek(0)
        with _rebuilding(where):
            return dill.load(file)


def write_torch(value: Any, path: Path) -> int:
    """Write a state into a new file, with torch.save. What has a `state_dict()` is asked for it.

    Returns:
        The CRC-32C of the file's bytes.

    Raises:
        MissingExtraError: torch is not installed.
        StorageError: The file cannot be written.
    """
    torch = _torch()
    if hasattr(value, "state_dict"):
        value = value.state_dict()
    with fs.new_file(path) as opened:
        file = _Summed(opened)
        try:
            torch.save(value, file)
        except OSError as error:
            raise fs.refused(error, "cannot store a state", path) from error
        except Exception:  # noqa: BLE001 - as in to_bytes
            import dill

            file.begin_anew()
            torch.save(value, file, pickle_module=dill)
        file.flush()
        if beyond_weights(path):
            with path.open("rb") as written:
                file.write(signing.sign_file(written))
        return file.checksum


def read_torch(path: Path, trust: Trust, where: str, **options: Any) -> Any:
    """Undo `write_torch`.

    Args:
        path: The file.
        trust: What may be unpickled that torch's own allow-list refuses.
        where: Which cell it is, for the error.
        options: For torch.load, `map_location` above all. An explicit `weights_only` is obeyed.
    """
    torch = _torch()
    with _open_payload(path, where) as file:
        if "weights_only" in options:
            return torch.load(file, **options)
        try:
            return torch.load(file, weights_only=True, **options)
        except pickle.UnpicklingError as refusal:
            if not trust.covers_file(path):
                raise _untrusted(refusal, None, where) from None
        except (RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{where}: no state can be read from {path}: {error}") from error
        import dill

        file.seek(0)
        with _rebuilding(where):
            return torch.load(file, weights_only=False, **{"pickle_module": dill, **options})


@contextlib.contextmanager
def _rebuilding(where: str) -> Iterator[None]:
    """Say of which cell an object is that its own code cannot rebuild any more."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(
            f"{where}: the object cannot be rebuilt: {type(error).__name__}: {error}; is the code that it is "
            "made of still there, under the same name?"
        ) from error


def _untrusted(refusal: Exception, file: BinaryIO | None, where: str) -> UntrustedObjectError:
    names: list[str] = []
    if file is not None:
        with contextlib.suppress(Exception):  # the message is worth less than the refusal
            names = plain.names_in(file)
    needs = ", ".join(names) or getattr(refusal, "name", None) or str(refusal).partition("\n")[0]
    return UntrustedObjectError(
        f"{where}: this object is rebuilt by {needs}, which may run any code, and it carries no valid "
        "signature of yours. If you know where it comes from: pass allow_pickle=True, or run "
        f"`cox trust PATH` once for the run, or set {ALLOW_VARIABLE}=1 for programs that you cannot change"
    )


def _dill_dumps(obj: Any) -> bytes:
    import dill

    try:
        # recurse: of a function's globals only those it uses, so that a lambda does not drag the script along
        return bytes(dill.dumps(obj, protocol=plain.PROTOCOL, recurse=True))
    except Exception:  # noqa: BLE001 - dill's tracing itself fails on some objects that it can store
        return bytes(dill.dumps(obj, protocol=plain.PROTOCOL))


def beyond_weights(path: Path) -> str:
    """What a torch file needs beyond torch's own allow-list, which needs no signature; '' for nothing.

    Raises:
        MissingExtraError: torch is not installed.
    """
    unsafe = getattr(_torch().serialization, "get_unsafe_globals_in_checkpoint", None)
    if unsafe is None:
        return "(this version of torch does not say what)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ", ".join(unsafe(path))
    except (RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        return f"(torch cannot tell what: {error})"


def _open_payload(path: Path, where: str) -> BinaryIO:
    if path.parent.name != layout.OBJECTS_DIR or path.is_symlink() or (path.exists() and not path.is_file()):
        raise UntrustedObjectError(f"{where}: {path.name!r} is no name of a file of this run")
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DamagedError(f"{where}: its file {path} is missing") from error
    if not payloads.has_its_checksum(file, path.name):
        file.close()
        raise DamagedError(
            f"{where}: the bytes of {path} are not those that were written: it was cut off, or changed"
        )
    return file


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("PYTORCH_STATE needs torch: pip install 'cox[torch]'") from error
    return torch

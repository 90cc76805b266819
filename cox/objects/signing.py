"""Who vouches for an object: signatures made with a secret that only this user can read.

An object that only code can rebuild (an own class, a lambda) is signed when it is stored, and decodes
by itself wherever the same user reads it. A signature binds the bytes to the run, table and column that
they were stored in, so that a signed object proves nothing anywhere else. The secret is made on first
use, mode 0600, in the user's configuration directory. Nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cox.storage import fs

#: Stand between a pickle, which ends at its STOP opcode, and the digest that follows. The old one binds
#: nothing but the bytes.
MARK, OLD_MARK = b"COXSIGN2", b"COXSIGN1"
SIGNATURE_SIZE = len(MARK) + hashlib.sha256().digest_size
_SECRET_SIZE = 32
_BLOCK = 1 << 20
#: What group and others may do with the secret, and with its directory: nothing, and not write.
_SECRET_MODE, _DIRECTORY_MODE = 0o077, 0o022

_log = logging.getLogger("cox")


class Origin(NamedTuple):
    """Where an object was stored: a signature counts there and nowhere else.

    Attributes:
        run_id: The run's id.
        table: The table's name.
        column: The column's name.
    """

    run_id: str
    table: str
    column: str


#: Of text that belongs to no run.
NOWHERE = Origin("", "", "")


class Sealed(NamedTuple):
    """An object's bytes, as far as signatures and lists of digests look at them.

    Attributes:
        body: SHA-256 of all bytes before the place of a signature.
        digest: SHA-256 of all bytes.
        signature: The last bytes, as many as a signature has.
    """

    body: bytes
    digest: bytes
    signature: bytes


class _Secret(NamedTuple):
    key: bytes
    is_kept: bool  # another process of this user has it, too


def secret_path() -> Path | None:
    """The file of this user's secret: in $COX_CONFIG_HOME, $XDG_CONFIG_HOME/cox or ~/.config/cox.

    None where there is no home directory: a container with a random uid and without HOME.
    """
    if own := os.environ.get("COX_CONFIG_HOME"):
        return Path(own) / "secret"
    if base := os.environ.get("XDG_CONFIG_HOME"):
        return Path(base) / "cox" / "secret"
    try:
        return Path.home() / ".config" / "cox" / "secret"
    except RuntimeError:
        return None


def keeps_secret() -> bool:
    """Whether this user has a secret that another process of theirs will have, too."""
    return _secret().is_kept


def sealed(file: BinaryIO) -> Sealed:
    """Read an object's bytes from the beginning to the end, in blocks."""
    size = file.seek(0, os.SEEK_END)
    left = max(0, size - SIGNATURE_SIZE)
    file.seek(0)
    running = hashlib.sha256()
    while left and (block := file.read(min(_BLOCK, left))):
        running.update(block)
        left -= len(block)
    body, signature = running.digest(), file.read()
    running.update(signature)
    return Sealed(body, running.digest(), signature)


def sign(data: bytes, origin: Origin) -> bytes:
    """The signature to put after `data`, which is stored at `origin`."""
    return _signature(hashlib.sha256(data).digest(), origin)


def sign_file(file: BinaryIO, origin: Origin) -> bytes:
    """As `sign`, for all that a file holds, in blocks. The file is left at its end."""
    running = hashlib.sha256()
    file.seek(0)
    while block := file.read(_BLOCK):
        running.update(block)
    return _signature(running.digest(), origin)


def is_signed(data: Sealed, origins: Iterable[Origin]) -> bool:
    """Whether the bytes end in a signature of this user's, made for one of these places."""
    if not data.signature.startswith(MARK):
        return False
    return any(hmac.compare_digest(data.signature, _signature(data.body, origin)) for origin in origins)


def is_signed_anywhere(file: BinaryIO) -> bool:
    """Whether a file ends in a signature of this user's of the old kind, which is bound to no place."""
    left = file.seek(0, os.SEEK_END) - SIGNATURE_SIZE
    if left < 0:
        return False
    file.seek(left)
    signature = file.read()
    if not signature.startswith(OLD_MARK):
        return False
    file.seek(0)
    running = hmac.new(_secret().key, digestmod="sha256")
    while left and (block := file.read(min(_BLOCK, left))):
        running.update(block)
        left -= len(block)
    return hmac.compare_digest(signature, OLD_MARK + running.digest())


def sign_list(entries: object, run_id: str) -> str:
    """The signature, in hex, of a list that counts for one run; `entries` is anything that is JSON."""
    return _mac("list", [run_id, entries]).hex()


def is_signed_list(entries: object, run_id: str, signature: str) -> bool:
    """Whether `signature` is this user's for the list, made for this run."""
    return hmac.compare_digest(signature.encode(), sign_list(entries, run_id).encode())


def sign_old_list(digests: list[str]) -> str:
    """The signature of a list for a run that has no id, which is bound to nothing but the digests."""
    body = json.dumps(digests).encode()
    return (OLD_MARK + hmac.digest(_secret().key, body, "sha256")).hex()


def is_signed_old_list(digests: list[str], signature: str) -> bool:
    """As `is_signed_list`, for a run that has no id."""
    return hmac.compare_digest(signature.encode(), sign_old_list(digests).encode())


def _signature(digest: bytes, origin: Origin) -> bytes:
    return MARK + _mac("object", [*origin, digest.hex()])


def _mac(purpose: str, content: object) -> bytes:
    """HMAC of JSON, which tells where each part ends; a key for each purpose, none the secret itself."""
    key = hmac.digest(_secret().key, f"cox {purpose} 2".encode(), "sha256")
    return hmac.digest(key, json.dumps(content).encode(), "sha256")


# --- The secret


def _secret() -> _Secret:
    return _secret_in(secret_path())


@functools.lru_cache(maxsize=4)
def _secret_in(path: Path | None) -> _Secret:
    try:
        if path is not None:
            return _Secret(_read_secret(path) or _make_secret(path), is_kept=True)
        reason = "there is no home directory: set HOME or COX_CONFIG_HOME"
    except OSError as error:
        reason = str(error)
    _log.warning(
        "no secret of yours can be used: %s. Objects of own classes that this process stores will need "
        "allow_pickle=True, or `cox trust RUN`, to be read by another one",
        reason,
    )
    return _Secret(secrets.token_bytes(_SECRET_SIZE), is_kept=False)


def _read_secret(path: Path) -> bytes | None:
    """The secret in a file; None without a file.

    Raises:
        OSError: Somebody else may know the secret, or have put it there, so that a signature proves nothing.
    """
    try:
        with fs.open_regular(path) as file:
            secret, now = file.read(_SECRET_SIZE + 1), os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    directory = path.parent.stat()
    mine = (os.geteuid(), 0)
    if now.st_mode & _SECRET_MODE:
        raise OSError(f"others can read or write {path}: `chmod 600 {path}`, or better, have a new one made")
    if directory.st_mode & _DIRECTORY_MODE:
        raise OSError(f"others can write to the directory of {path}: `chmod 700 {path.parent}`")
    if now.st_uid not in mine or directory.st_uid not in mine:
        raise OSError(f"{path} or its directory belongs to another user: move it away to have a new one made")
    if len(secret) != _SECRET_SIZE:
        raise OSError(f"{path} is not a secret of {_SECRET_SIZE} bytes: move it away to have a new one made")
    return secret


def _make_secret(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = fs.temporary_beside(path)
    fd = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        fs.write_at(fd, secrets.token_bytes(_SECRET_SIZE), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    fs.link_or_leave(fresh, path)  # of several processes that start at once, one secret wins
    with contextlib.suppress(OSError):  # else what is signed with it may need trust after a loss of power
        fs.sync_directories(path.parent, path.parent.parent.parent)
    secret = _read_secret(path)
    if secret is None:
        raise OSError(f"{path} was removed while it was made")
    return secret

"""Who vouches for an object: signatures made with a secret that only this user can read.

An object that only code can rebuild (an own class, a lambda) is signed when it is stored, and decodes
by itself wherever the same user reads it. The secret is made on first use, mode 0600, in the user's
configuration directory. Nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from cox.storage import fs

#: Stands between a pickle, which ends at its STOP opcode, and the digest that follows.
MARK = b"COXSIGN1"
SIGNATURE_SIZE = len(MARK) + hashlib.sha256().digest_size
_SECRET_SIZE = 32
_BLOCK = 1 << 20

_log = logging.getLogger("cox")


def secret_path() -> Path:
    """The file of this user's secret: in $COX_CONFIG_HOME, $XDG_CONFIG_HOME/cox or ~/.config/cox."""
    if own := os.environ.get("COX_CONFIG_HOME"):
        return Path(own) / "secret"
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "cox" / "secret"


def sign(data: bytes) -> bytes:
    """The signature to put after `data`; empty where this user can keep no secret."""
    secret = _secret(secret_path())
    return MARK + hmac.digest(secret, data, "sha256") if secret else b""


def sign_file(file: BinaryIO) -> bytes:
    """As `sign`, for all that a file holds, in blocks."""
    secret = _secret(secret_path())
    if not secret:
        return b""
    return MARK + _digest_file(secret, file, None)


def is_signed(data: bytes) -> bool:
    """Whether `data` ends in a signature of this user's over what stands before it."""
    body, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    expected = sign(body) if signature.startswith(MARK) else b""
    return bool(expected) and hmac.compare_digest(signature, expected)


def is_signed_file(path: Path) -> bool:
    """As `is_signed`, for a file, in blocks."""
    secret = _secret(secret_path())
    size = path.stat().st_size - SIGNATURE_SIZE
    if not secret or size < 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        signature = file.read()
        file.seek(0)
        return hmac.compare_digest(signature, MARK + _digest_file(secret, file, size))


def _digest_file(secret: bytes, file: BinaryIO, size: int | None) -> bytes:
    running = hmac.new(secret, digestmod="sha256")
    left = size
    while block := file.read(_BLOCK if left is None else min(_BLOCK, left)):
        running.update(block)
        if left is not None:
            left -= len(block)
    return running.digest()


@lru_cache(maxsize=4)
def _secret(path: Path) -> bytes | None:
    try:
        return _read_secret(path) or _make_secret(path)
    except OSError as error:
        _log.warning(
            "cannot keep a secret in %s (%s): objects of own classes will need allow_pickle=True to be read",
            path,
            error,
        )
        return None


def _read_secret(path: Path) -> bytes | None:
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(secret) != _SECRET_SIZE:
        raise OSError(f"{path} is no secret of {_SECRET_SIZE} bytes: move it away to have a new one made")
    return secret


def _make_secret(path: Path) -> bytes | None:
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
    return _read_secret(path)

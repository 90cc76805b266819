"""What stands in the place of an object that cannot be rebuilt here."""

from __future__ import annotations

import base64
import hashlib
import io
import pickletools
from typing import TYPE_CHECKING, Any

from cox import safe_pickle

if TYPE_CHECKING:
    from typing_extensions import Self

_SHOWN = 8


class Unreadable(str):
    """An object that is stored, but not rebuilt: nobody vouched for it, or its code is gone.

    It is text, for tables and terminals, such as `<train.Opt 3f2a9c41, not rebuilt>`. Two count as the same
    only if the same bytes are stored.

    Args:
        name: The class or function that would rebuild it.
        digest: SHA-256 of what is stored, in hex.
        reason: Why it is not rebuilt.
    """

    __slots__ = ("digest", "name", "reason")
    name: str
    digest: str
    reason: str

    def __new__(cls, name: str, digest: str, reason: str = "") -> Self:
        """Make the text."""
        made = super().__new__(cls, f"<{name} {digest[:_SHOWN]}, not rebuilt>")
        made.name, made.digest, made.reason = name, digest, reason
        return made

    def __repr__(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Unreadable) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.digest, self.reason)


def of_text(text: str, reason: str) -> Unreadable:
    """The placeholder for an OBJECT cell."""
    return _of_pickle(_bytes_of(text), reason)


def of_bytes(data: bytes, reason: str) -> Unreadable:
    """The placeholder for the content of a PICKLE cell's file."""
    return _of_pickle(data, reason)


def digest_of_text(text: str) -> str:
    """SHA-256 of the pickle that an OBJECT cell stands for, in hex."""
    return digest_of_bytes(_bytes_of(text))


def digest_of_bytes(data: bytes) -> str:
    """SHA-256 of a pickle without the signature behind it, which differs between runs, in hex."""
    return hashlib.sha256(data[: _end_of_pickle(data)]).hexdigest()


def _of_pickle(data: bytes, reason: str) -> Unreadable:
    try:
        names = safe_pickle.names_in(io.BytesIO(data), limit=1)
    except Exception:  # noqa: BLE001 - damaged bytes make pickletools raise all kinds
        names = []
    name = names[0].rpartition(" ")[2] if names else "damaged object"  # "the script's class Net"
    return Unreadable(name, digest_of_bytes(data), reason)


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return text.encode(errors="surrogatepass")


def _end_of_pickle(data: bytes) -> int:
    """How many bytes the pickle has; all of them where it has no end."""
    last = 0
    try:
        for _, _, position in pickletools.genops(data):
            last = position or 0
    except Exception:  # noqa: BLE001 - as above
        return len(data)
    return last + 1

"""What the commands share: text that is safe to print, whoever made it."""

from __future__ import annotations


def printable(text: object) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(text))

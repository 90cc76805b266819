"""The error that plain data's unpickler raises."""

from __future__ import annotations

import pickle


class NotPlainError(pickle.UnpicklingError):
    """The pickle names something outside the allow-list. `name` says what."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is no plain data")
        self.name = name

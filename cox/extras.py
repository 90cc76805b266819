"""Packages that are not always installed: each belongs to an extra of ours."""

from __future__ import annotations

import importlib
from typing import Any

from cox.errors import MissingExtraError


def needed(module: str, extra: str, what: str = "this") -> Any:
    """An optional package.

    Args:
        module: The module to import.
        extra: The extra that has it.
        what: What it is needed for, as the beginning of a sentence.

    Raises:
        MissingExtraError: It is not installed; says how to.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{what} needs {package}: pip install 'cox[{extra}]'") from error

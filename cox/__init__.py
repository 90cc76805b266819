"""A serverless experiment log.

`Store` writes a run, `CollectionReader` reads all of them, `cox-tensorboard` compares them. Importing
`cox` loads none of pandas, torch, tables or tensorboardX; each is loaded when it is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cox.version import __version__

if TYPE_CHECKING:
    from cox.readers import CollectionReader
    from cox.store import OBJECT, PICKLE, PYTORCH_STATE, Store, Table

__all__ = ["OBJECT", "PICKLE", "PYTORCH_STATE", "CollectionReader", "Store", "Table", "__version__"]

_HOMES = {
    "Store": "cox.store",
    "Table": "cox.store.table",
    "OBJECT": "cox.schema",
    "PICKLE": "cox.schema",
    "PYTORCH_STATE": "cox.schema",
    "CollectionReader": "cox.readers",
}


# upstream's modules, which `import cox.store` used to bring along
_MODULES = ("errors", "readers", "store", "tensorboard_view", "utils")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"cox.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'cox' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

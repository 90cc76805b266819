"""The writing side: `Store`, a run opened for writing or for reading, and its `Table`s.

Scripts written for upstream find its helpers here, too.
"""

from __future__ import annotations

from cox.schema import OBJECT, PICKLE, PYTORCH_STATE
from cox.storage import layout
from cox.store.store import Store
from cox.store.table import Table
from cox.utils import (  # where scripts written for upstream find them, too
    Parameters,
    _clean_dict,
    consistent,
    has_tensorboard,
    mkdirp,
    obj_to_string,
    override_json,
    schema_from_dict,
    string_to_obj,
)

__all__ = [
    "COX_DATA_KEY",
    "OBJECT",
    "PICKLE",
    "PYTORCH_STATE",
    "Parameters",
    "SAVE_DIR",
    "STORE_BASENAME",
    "TABLE_OBJECT_DIR",
    "TENSORBOARD_DIR",
    "Store",
    "Table",
    "_clean_dict",
    "consistent",
    "has_tensorboard",
    "mkdirp",
    "obj_to_string",
    "override_json",
    "schema_from_dict",
    "string_to_obj",
]

# upstream's names for these
STORE_BASENAME = layout.STORE_FILE
SAVE_DIR = layout.SAVE_DIR
TENSORBOARD_DIR = layout.TENSORBOARD_DIR
TABLE_OBJECT_DIR = layout.OBJECTS_DIR
COX_DATA_KEY = "COX_DATA"

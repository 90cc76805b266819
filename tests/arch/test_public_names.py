"""The names that programs rely on, and what importing them costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import cox
import cox.errors
import cox.readers
import cox.store

HEAVY = [
    "pandas",
    "torch",
    "tables",
    "tensorboardX",
    "tensorboard",
    "h5py",
    "numpy",
    "dill",
    "matplotlib",
    "scipy",
]
TOLD = """
    import json, sys
    {statement}
    print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def loaded(run: Callable[..., list[str]], statement: str, *args: object) -> set[str]:
    return set(json.loads(run(TOLD.format(statement=statement), *args)[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import cox",
        "import cox.store",
        "from cox import Store, Table, OBJECT",
        "from cox.store import *",
        "from cox.utils import *",
        "import cox.errors, cox.schema, cox.store.table, cox.objects.codec",
        "from cox.readers import CollectionReader",
        "import cox; dir(cox); cox.CollectionReader",
    ],
)
def test_importing_loads_nothing_heavy(run: Callable[..., list[str]], statement: str) -> None:
    assert not loaded(run, statement) & set(HEAVY)


def test_logging_rows_loads_neither_pandas_nor_torch(out: Any, run: Callable[..., list[str]]) -> None:
    statement = (
        "from cox.store import Store; store = Store(sys.argv[1], 'run'); "
        "store.add_table('t', {'x': int, 's': str}).append_row({'x': 1, 's': 'a'})"
    )
    assert not loaded(run, statement, out) & {
        "pandas",
        "torch",
        "tables",
        "tensorboardX",
        "matplotlib",
        "h5py",
    }


def test_the_package_has_no_import_side_effects(run: Callable[..., list[str]]) -> None:
    printed = run(
        """
        import signal, sys, threading, warnings

        def state():
            handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
            return list(warnings.filters), threading.enumerate(), handlers, sys.excepthook

        before = state()
        import cox, cox.store, cox.readers, cox.utils
        assert state() == before
        import pandas as pd
        option = pd.get_option("io.hdf.default_format")
        cox.CollectionReader, cox.Store
        assert pd.get_option("io.hdf.default_format") == option
        print("none")
        """
    )
    assert printed == ["none"]


def test_the_names_of_the_package() -> None:
    assert {"OBJECT", "PICKLE", "PYTORCH_STATE", "CollectionReader", "Store", "Table", "__version__"} <= set(
        cox.__all__
    )
    assert sorted(set(cox.__all__)) == sorted(cox.__all__)
    for name in cox.__all__:
        assert getattr(cox, name) is not None
        assert name in dir(cox)
    assert cox.Store is cox.store.Store
    assert cox.Table is cox.store.Table
    assert cox.CollectionReader is cox.readers.CollectionReader
    with pytest.raises(AttributeError, match="no attribute 'Stor'"):
        cox.Stor  # noqa: B018
    namespace: dict[str, Any] = {}
    exec("from cox import *", namespace)
    assert namespace["Store"] is cox.Store


def test_the_names_of_upstreams_modules() -> None:
    assert (cox.store.OBJECT, cox.store.PICKLE, cox.store.PYTORCH_STATE) == (
        "__object__",
        "__pickle__",
        "__pytorch_state__",
    )
    assert cox.store.STORE_BASENAME == "store.h5"
    assert cox.store.SAVE_DIR == "save"
    assert cox.store.TENSORBOARD_DIR == "tensorboard"
    assert cox.store.TABLE_OBJECT_DIR == ".table_objects"
    assert cox.store.COX_DATA_KEY == "COX_DATA"
    for name in cox.store.__all__:
        assert hasattr(cox.store, name)


def test_upstreams_modules_are_found_as_attributes(run: Callable[..., list[str]]) -> None:
    """`import cox.store` and then `cox.utils…`: upstream's store had imported utils."""
    printed = run(
        """
        import cox.store
        print(cox.utils.Parameters({"a": 1}).A, cox.store.Store.__name__)
        """
    )
    assert printed == ["1 Store"]


def test_the_version_is_that_of_the_project() -> None:
    from pathlib import Path

    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{cox.__version__}"' in text

"""C30: stores that upstream cox wrote, and stores that upstream and pandas read.

The golden stores and what they hold are described in golden/README.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import tables

from cox.errors import UntrustedObjectError
from cox.readers import CollectionReader
from cox.schema import KINDS, kind_of
from cox.store import PICKLE, PYTORCH_STATE, Store

GOLDEN = Path(__file__).with_name("golden")
RUNS = sorted(path.parent for path in GOLDEN.glob("stores/*/*/expected.json"))


def _load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_golden = _load_generator()


def _name(run: Path) -> str:
    return f"{run.parent.name}/{run.name}"


def _state(folder: Path) -> dict[str, tuple[str, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in files
    }


def _bits(value: float) -> bytes:
    return struct.pack("<d", value)


def _expected_cell(cell: Any, given: str) -> Any:
    kind = given.removeprefix("numpy.").rstrip("0123456789_")
    if kind == "float":
        return float.fromhex(cell)
    if kind in ("int", "uint"):
        return int(cell)
    return cell["stored"] if isinstance(cell, dict) else cell


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return _bits(float(found)) == _bits(expected) or (expected != expected and found != found)
    return bool(found == expected)


def _check_rows(frame: Any, columns: list[str], schema: dict[str, str], rows: dict[int, list[Any]]) -> None:
    assert list(frame.columns)[: len(columns)] == columns
    for number, row in rows.items():
        for column, cell in zip(columns, row, strict=True):
            expected = _expected_cell(cell, schema[column])
            found = frame[column].iloc[number]
            assert _same(found, expected), (column, number, found, expected)


def _sampled(table: dict[str, Any]) -> dict[int, list[Any]]:
    if "rows" in table:
        return dict(enumerate(table["rows"]))
    return {int(number): row for number, row in table["sample"].items()}


@pytest.mark.parametrize("run", RUNS, ids=_name)
def test_c30_upstream_stores_read_back_equal(run: Path) -> None:
    """Every table, cell by cell, through Store and CollectionReader; reading leaves every file as it was."""
    before = _state(run)
    expected = json.loads((run / "expected.json").read_text())
    with Store(run.parent, run.name, mode="r") as store:
        assert set(store.keys) == set(expected["tables"])
        for name, table in expected["tables"].items():
            assert store[name].nrows == table["nrows"]
            assert {column: kind_of(given) for column, given in store[name].schema.items()} == {
                column: _kind(given) for column, given in table["schema"].items()
            }
            _check_rows(store[name].df, table["columns"], table["schema"], _sampled(table))
    reader = CollectionReader(run.parent, exp_filter=lambda name: name == run.name)
    assert reader.tables == set(expected["tables"])
    for name, table in expected["tables"].items():
        if not table["trusted"]:
            frame = reader.df(name, keep_serialized=table["columns"])
            _check_rows(frame, table["columns"], table["schema"], _sampled(table))
            assert frame["exp_id"].tolist() == [run.name] * table["nrows"]
    assert _state(run) == before


def _kind(given: str) -> str | None:
    plain = {"float": float, "int": int, "str": str, "bool": bool}
    if given.startswith("numpy."):
        return given.removeprefix("numpy.").rstrip("0123456789")
    return kind_of(plain.get(given, given))


@pytest.mark.parametrize("run", RUNS, ids=_name)
def test_c30_plain_objects_need_no_trust(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OBJECT and PICKLE cells of plain data decode through the allow-list, whatever dill wrote them."""
    monkeypatch.delenv("COX_ALLOW_PICKLE", raising=False)
    expected = json.loads((run / "expected.json").read_text())
    store = Store(run.parent, run.name, mode="r")
    for name, table in expected["tables"].items():
        for column, given in table["schema"].items():
            if table["trusted"] or kind_of(given) not in ("object", "pickle"):
                continue
            get = store[name].get_pickle if given == PICKLE else store[name].get_object
            for row in table["rows"]:
                cell = row[table["columns"].index(column)]
                assert make_golden.encode_object(get(cell["stored"])) == cell["value"], (name, column, cell)


def _is_decodable_here(value: dict[str, Any], versions: dict[str, Any]) -> bool:
    """Code objects are those of one minor version of Python."""
    own = ".".join(str(part) for part in sys.version_info[:2])
    return str(versions["python"]).startswith(own + ".")


@pytest.mark.parametrize("run", [run for run in RUNS if run.name == "everything"], ids=_name)
def test_c30_own_objects_need_trust(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream signed nothing: own classes are refused, with the remedies, until the caller allows them."""
    monkeypatch.delenv("COX_ALLOW_PICKLE", raising=False)
    expected = json.loads((run / "expected.json").read_text())
    versions = json.loads((run.parent / "VERSIONS.json").read_text())
    table = expected["tables"]["own_objects"]
    refusing = Store(run.parent, run.name, mode="r")["own_objects"]
    trusting = Store(run.parent, run.name, mode="r", allow_pickle=True)["own_objects"]
    for row in table["rows"]:
        for column, cell in zip(table["columns"], row, strict=True):
            if not isinstance(cell, dict):
                continue
            is_file = KINDS[kind_of(table["schema"][column]) or "str"].in_file
            with pytest.raises(UntrustedObjectError, match="allow_pickle=True.*cox trust.*COX_ALLOW_PICKLE"):
                (refusing.get_pickle if is_file else refusing.get_object)(cell["stored"])
            if _is_decodable_here(cell["value"], versions):
                made = (trusting.get_pickle if is_file else trusting.get_object)(cell["stored"])
                assert make_golden.encode_object(made) == cell["value"]


@pytest.mark.parametrize("run", RUNS, ids=_name)
def test_c30_torch_states(run: Path) -> None:
    """PYTORCH_STATE of upstream decodes without trust."""
    expected = json.loads((run / "expected.json").read_text())
    states = [
        (name, cell)
        for name, table in expected["tables"].items()
        for at, column in enumerate(table["columns"])
        for row in table.get("rows", [])
        if table["schema"][column] == PYTORCH_STATE
        for cell in [row[at]]
    ]
    if not states:
        pytest.skip("this label was made without torch: it has no states")
    pytest.importorskip("torch", reason="reading torch states needs torch")
    store = Store(run.parent, run.name, mode="r")
    for name, cell in states:
        state = store[name].get_state_dict(cell["stored"], map_location="cpu")
        assert make_golden.encode_object(state) == cell["value"]


@pytest.mark.parametrize("run", [run for run in RUNS if run.name != "large"], ids=_name)
def test_c30_upstream_stores_can_be_continued(run: Path, tmp_path: Path) -> None:
    """A row more in every table, the old ones as they were, before and after the fold, also for pandas."""
    import pandas as pd

    shutil.copytree(run, tmp_path / run.name)
    expected = json.loads((run / "expected.json").read_text())
    old = {name: Store(run.parent, run.name, mode="r")[name].df for name in expected["tables"]}
    with Store(tmp_path, run.name) as store:
        for name, table in expected["tables"].items():
            if any(
                kind_of(given) in ("object", "pickle", "pytorch_state") for given in table["schema"].values()
            ):
                continue
            row = {column: old[name][column].tolist()[0] for column in old[name]}
            if any(type(value) is int and value >= 2**63 for value in row.values()):
                row = dict.fromkeys(row, 1)  # beyond what a column takes today, but kept
            store[name].append_row(row)
            frame = store[name].df
            assert len(frame) == table["nrows"] + 1
            pd.testing.assert_frame_equal(frame.iloc[:-1], old[name])
            assert [frame[column].tolist()[-1] for column in row] == pytest.approx(
                list(row.values()), nan_ok=True
            )
    reopened = Store(tmp_path, run.name, mode="r")
    for name, frame in old.items():
        pd.testing.assert_frame_equal(reopened[name].df.iloc[: len(frame)], frame)
        assert len(pd.read_hdf(tmp_path / run.name / "store.h5", name)) == len(reopened[name].df)


def _fill(folder: Path) -> Path:
    with Store(folder, "ours") as store:
        store.add_table("results", {"step": int, "loss": float, "f(x)": float, "a/b": str, "ok": bool})
        for step in range(300):
            row = {
                "step": step,
                "loss": step / 3,
                "f(x)": -0.0,
                "a/b": "é漢" * (step % 5),
                "ok": step % 2 == 0,
            }
            store["results"].append_row(row)
        store["results"].append_row({"step": 300, "loss": float("nan"), "f(x)": 1, "a/b": "nan", "ok": True})
        store.add_table("L1 ball", {"radius": float, "norm(w_t)": float})
        store["L1 ball"].append_row({"radius": 1.5, "norm(w_t)": 2.5})
        store.add_table(
            "nested/table of mine", {"FW gap": float, "lambda": float, "5_rewards": int, "index": int}
        )
        store["nested/table of mine"].append_row({"FW gap": 0.5, "lambda": 2.0, "5_rewards": 5, "index": 7})
    return folder / "ours" / "store.h5"


def test_c30_pandas_opens_our_stores(tmp_path: Path) -> None:
    """pandas.read_hdf gives the same frame, also by where, start and stop; and lists the same keys."""
    import pandas as pd

    path = _fill(tmp_path)
    store = Store(tmp_path, "ours", mode="r")
    for name in store.keys:
        pd.testing.assert_frame_equal(
            pd.read_hdf(path, name), store[name].df, check_index_type=False, check_dtype=True
        )
    part = pd.read_hdf(path, "results", where="step > 10 & step < 20")
    assert part["step"].tolist() == list(range(11, 20))
    assert pd.read_hdf(path, "results", start=5, stop=8)["step"].tolist() == [5, 6, 7]
    assert pd.read_hdf(path, "results", columns=["loss"]).columns.tolist() == ["loss"]
    with pd.HDFStore(path, mode="r") as opened:
        assert sorted(opened.keys()) == sorted(f"/{name}" for name in store.keys)


def test_c30_pandas_goes_on_with_our_stores(tmp_path: Path) -> None:
    """A program that appends with pandas itself, as upstream does, finds a table that takes it; so do we."""
    import pandas as pd

    path = _fill(tmp_path)
    more = pd.DataFrame(
        {"step": [301], "loss": [0.5], "f(x)": [1.0], "a/b": ["é"], "ok": [False]}, index=[301]
    )
    with pd.HDFStore(path) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore", tables.NaturalNameWarning)
        opened.append("results", more, format="table")
        opened.append("of pandas' own", more, format="table")
    frame = Store(tmp_path, "ours", mode="r")["results"].df
    assert frame["step"].tolist() == list(range(302)) and frame["a/b"].iloc[-1] == "é"
    with Store(tmp_path, "ours") as store:
        assert "of pandas' own" not in store.keys  # it has no schema of cox, which upstream requires too
        store["results"].append_row({**more.iloc[0].to_dict(), "step": 302})
        assert store["results"].df["step"].tolist() == list(range(303))
        assert store["results"].df.index.tolist() == list(range(303))
    pd.testing.assert_frame_equal(pd.read_hdf(path, "of pandas' own"), more)  # and nothing of theirs is lost


def test_c30_upstream_reads_our_stores(tmp_path: Path) -> None:
    """Upstream's way of finding tables and schemas: COX_DATA, through PyTables' own unpickling."""
    import pandas as pd

    path = _fill(tmp_path)
    with pd.HDFStore(path, mode="r") as opened:
        data = {key: opened.get_storer(key).attrs["COX_DATA"] for key in opened.keys()}
    assert data["/results"] == {
        "name": "results",
        "schema": {"step": int, "loss": float, "f(x)": float, "a/b": str, "ok": bool},
    }
    assert data["/nested/table of mine"]["name"] == "nested/table of mine"


@pytest.mark.skipif(
    "COX_UPSTREAM_PYTHON" not in os.environ,
    reason="needs an interpreter with upstream cox 0.2 in COX_UPSTREAM_PYTHON; see golden/README.md",
)
def test_c30_upstream_itself_reads_and_continues_our_stores(tmp_path: Path) -> None:
    """The published cox 0.2, in an environment of its own."""
    import subprocess

    _fill(tmp_path)
    script = """
import sys
from cox.store import Store
from cox.readers import CollectionReader
frame = CollectionReader(sys.argv[1]).df("results")
assert len(frame) == 301 and list(frame)[-1] == "exp_id", frame
store = Store(sys.argv[1], "ours")
store["L1 ball"].append_row({"radius": 9.5, "norm(w_t)": 1.0})
store.close()
"""
    subprocess.run(
        [os.environ["COX_UPSTREAM_PYTHON"], "-c", script, str(tmp_path)],
        check=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},  # it leads to ours
        timeout=600,
    )
    assert Store(tmp_path, "ours", mode="r")["L1 ball"].df["radius"].tolist() == [1.5, 9.5]

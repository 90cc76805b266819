"""SPEC C10: OBJECT, PICKLE and PYTORCH_STATE, from any process, after a move, and never a stranger's code."""

from __future__ import annotations

import base64
import collections
import datetime
import decimal
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pandas as pd
import pytest

from cox.errors import DamagedError, MissingExtraError, RowError, UntrustedObjectError
from cox.objects import codec
from cox.readers import CollectionReader
from cox.store import OBJECT, PICKLE, PYTORCH_STATE, Store
from tests.spec.frames import listing

PLAIN: list[Any] = [
    None,
    True,
    -(2**200),
    0.5,
    1j,
    "é\0",
    b"\xff",
    ...,
    [1, [2]],
    (1, (2,)),
    {"a": {1: 2}},
    {1, 2},
    frozenset({3}),
    range(1, 9, 2),
    slice(1, 2),
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    collections.deque([1]),
    collections.defaultdict(list, a=[1]),
    datetime.datetime(2020, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
    datetime.timedelta(3),
    decimal.Decimal("1.5"),
    Path("a/b"),
    np.float32(1.5),
    np.int64(3),
    np.dtype("<i4"),
    np.datetime64("2020-01-01"),
]


def payloads(run: str | Path) -> list[str]:
    return listing(Path(run, ".table_objects"))


@pytest.mark.parametrize("kind", [OBJECT, PICKLE])
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_c10_plain_data_round_trips_and_needs_no_trust(
    out: Path, kind: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"o": kind})
        table.append_row({"o": value})
        get = table.get_object if kind == OBJECT else table.get_pickle
        got = get(table.df["o"][0])
        assert got == value
        assert type(got) is type(value)
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(out / "of somebody else"))
    with CollectionReader(out) as reader:
        assert reader.df("t")["o"].tolist() == [value]
    assert not (out / "of somebody else").exists()


@pytest.mark.parametrize("kind", [OBJECT, PICKLE])
def test_c10_arrays(out: Path, kind: str) -> None:
    arrays = [
        np.arange(12.0).reshape(3, 4),
        np.array([]),
        np.array("x"),
        np.zeros((2, 2), order="F"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([None, {"a": 1}], dtype=object),
    ]
    with Store(out, "run") as store:
        table = store.add_table("t", {"o": kind})
        for array in arrays:
            table.append_row({"o": array})
    with CollectionReader(out) as reader:
        for got, array in zip(reader.df("t")["o"], arrays, strict=True):
            assert got.dtype == array.dtype
            assert got.shape == array.shape
            assert np.array_equal(got, array)


def test_c10_the_frame_of_a_table_holds_what_is_stored(out: Path) -> None:
    """An OBJECT cell is base64 text of a pickle, a PICKLE cell the name of a file: as upstream has them."""
    with Store(out, "run") as store:
        table = store.add_table("t", {"o": OBJECT, "p": PICKLE})
        table.append_row({"o": {"a": [1, 2]}, "p": {"b": 3}})
        for frame in (table.df, Store(out, "run", mode="r")["t"].df):
            text, uid = frame["o"][0], frame["p"][0]
            assert pickle.loads(base64.b64decode(text)) == {"a": [1, 2]}
            with Path(store.path, ".table_objects", uid).open("rb") as file:
                assert pickle.load(file) == {"b": 3}
            assert payloads(store.path) == [uid]
            assert table.get_object(text) == {"a": [1, 2]}
            assert table.get_pickle(uid) == {"b": 3}
    frame = pd.read_hdf(out / "run" / "store.h5", "t")
    assert frame["p"].tolist() == [uid]
    assert frame["o"].tolist() == [text]


WRITER = """
    import collections, functools, sys
    import cox.store
    from cox.store import Store

    BASE = 100

    class Point:
        scale = 3
        def __init__(self, x): self.x = x
        def scaled(self): return self.x * self.scale + BASE

    class Vector(Point):
        def scaled(self): return -super().scaled()

    Pair = collections.namedtuple("Pair", "a b")

    def add(x): return x + BASE

    def maker(n):
        def inner(x): return x * n
        return inner

    values = {
        "lambda": lambda x: x + BASE,
        "set": {1, 2, 3},
        "own": Point(5),
        "sub": Vector(5),
        "nested": {"list": [Point(1), (Point(2),)], "f": lambda: Point(4).scaled()},
        "function": add,
        "closure": maker(7),
        "partial": functools.partial(add, 1),
        "class": Point,
        "pair": Pair(1, 2),
        "method": Point(6).scaled,
    }
    with Store(sys.argv[1], "run") as store:
        schema = {"name": str, "o": cox.store.OBJECT, "p": cox.store.PICKLE}
        table = store.add_table("t", schema)
        for name, value in values.items():
            table.append_row({"name": name, "o": value, "p": value})
"""

READER = """
    import sys
    from cox.readers import CollectionReader
    from cox.store import Store

    BASE = 5_000  # not the writer's: what was stored keeps its own

    def check(get):
        assert get("lambda")(1) == 101
        assert get("set") == {1, 2, 3}
        assert get("own").x == 5 and get("own").scaled() == 115
        assert get("sub").scaled() == -115
        nested = get("nested")
        assert nested["list"][0].scaled() == 103 and nested["list"][1][0].x == 2 and nested["f"]() == 112
        assert get("function")(1) == 101
        assert get("closure")(6) == 42
        assert get("partial")() == 101
        assert get("class")(2).scaled() == 106
        assert tuple(get("pair")) == (1, 2) and get("pair").b == 2
        assert get("method")() == 118

    with CollectionReader(sys.argv[1]) as reader:
        frame = reader.df("t").set_index("name")
        check(lambda name: frame["o"][name])
        check(lambda name: frame["p"][name])
        kept = reader.df("t", keep_serialized=["o"])
        assert all(isinstance(cell, str) for cell in kept["o"])
    store = Store(sys.argv[1], "run", mode="r")
    table = store["t"]
    frame = table.df.set_index("name")
    check(lambda name: table.get_object(frame["o"][name]))
    check(lambda name: table.get_pickle(frame["p"][name]))
    store.close()
    print("right")
"""


def test_c10_own_classes_and_lambdas_of_a_script_come_back_in_another_process_after_a_move(
    out: Path, tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    run(WRITER, out)
    assert run(READER, out) == ["right"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(out / "run", elsewhere / "renamed")
    shutil.move(elsewhere / "renamed", elsewhere / "run")
    out.rmdir()
    (tmp_path / "away").mkdir()
    assert run(READER, elsewhere, cwd=tmp_path / "away") == ["right"]


def test_c10_a_moved_run_can_be_gone_on_with(out: Path, tmp_path: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"p": PICKLE}).append_row({"p": {"a": 1}})
    moved = tmp_path / "moved"
    moved.mkdir()
    (out / "run").rename(moved / "other name")
    with Store(moved, "other name") as store:
        store["t"].append_row({"p": lambda: 2})
        first, second = store["t"].df["p"]
        assert store["t"].get_pickle(first) == {"a": 1}
        assert store["t"].get_pickle(second)() == 2


# --- PYTORCH_STATE


def test_c10_states_of_a_model_from_another_process_after_a_move(
    out: Path, tmp_path: Path, run: Callable[..., list[str]]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is optional")
    model = torch.nn.Linear(3, 2)
    with Store(out, "run") as store:
        table = store.add_table("ckpt", {"epoch": int, "model": PYTORCH_STATE, "more": PYTORCH_STATE})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        table.append_row({"epoch": 0, "model": model, "more": {"opt": optimizer.state_dict(), "best": 0.5}})
        table.append_row({"epoch": 1, "model": model.state_dict(), "more": torch.arange(3)})
        uid = table.df["model"][0]
        for state in (table.get_state_dict(uid), table.get_pytorch_state(uid, map_location="cpu")):
            assert torch.equal(state["weight"], model.weight)
        assert len(payloads(store.path)) == 4
    moved = tmp_path / "moved"
    moved.mkdir()
    (out / "run").rename(moved / "run")
    torch.save(model.state_dict(), tmp_path / "expected.pt")
    printed = run(
        """
        import sys, torch
        from cox.readers import CollectionReader

        expected = torch.load(sys.argv[2], weights_only=True)
        with CollectionReader(sys.argv[1]) as reader:
            frame = reader.df("ckpt")
            assert all(isinstance(cell, str) for cell in frame["model"])  # ids, also in a collection's frame
            table = reader.stores["run"]["ckpt"]
            for uid in frame["model"]:
                state = table.get_state_dict(uid, map_location=torch.device("cpu"))
                model = torch.nn.Linear(3, 2)
                model.load_state_dict(state)
                assert torch.equal(model.weight, expected["weight"])
            assert table.get_state_dict(frame["more"].iloc[0])["opt"]["param_groups"][0]["lr"] == 0.1
            assert table.get_state_dict(frame["more"].iloc[1]).tolist() == [0, 1, 2]
        print("right")
        """,
        moved,
        tmp_path / "expected.pt",
    )
    assert printed == ["right"]


def test_c10_a_whole_module_and_what_weights_only_refuses_come_back_too(
    out: Path, start: Callable[..., Any]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is optional")
    del torch
    program = start(
        """
        import sys, torch
        from cox.store import PICKLE, PYTORCH_STATE, Store

        class Note:
            text = "tuned by hand"

        with Store(sys.argv[1], "run") as store:
            table = store.add_table("t", {"s": PYTORCH_STATE, "m": PICKLE})
            state = {"note": Note(), "f": lambda x: x + 1, "w": torch.ones(2)}
            table.append_row({"s": state, "m": torch.nn.Linear(2, 1)})
        """,
        out,
    )
    program.finish()
    with Store(out, "run", mode="r") as store:
        frame = store["t"].df
        state = store["t"].get_state_dict(frame["s"][0])
        assert state["note"].text == "tuned by hand"
        assert state["f"](1) == 2
        assert state["w"].tolist() == [1.0, 1.0]
        assert store["t"].get_pickle(frame["m"][0]).in_features == 2


def test_c10_without_torch_the_error_names_the_extra(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "s": PYTORCH_STATE})
        with pytest.raises(MissingExtraError, match=r"cox\[torch\]"):
            table.append_row({"x": 1, "s": {"a": 1}})
        assert payloads(store.path) == []
        assert table.nrows == 0
        with pytest.raises(MissingExtraError, match=r"cox\[torch\]"):
            table.get_state_dict("x")


# --- Orphans, and what cannot be stored


def test_c10_a_value_replaced_in_the_working_row_leaves_no_orphan(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "p": PICKLE, "q": PICKLE})
        for value in range(3):
            table.update_row({"p": value, "q": [value]})
        table.append_row({"x": 1})
        frame = table.df
        assert payloads(store.path) == sorted([frame["p"][0], frame["q"][0]])
        assert table.get_pickle(frame["p"][0]) == 2
        with pytest.raises(RowError, match="'x'"):
            table.update_row({"p": 4, "x": "no number"})
        assert len(payloads(store.path)) == 2


def test_c10_refused_by_tensorboard_leaves_no_orphan(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"p": PICKLE})
        with pytest.raises(RowError, match="scalar"):
            store.log_table_and_tb("t", {"p": {"a": 1}})
        assert payloads(store.path) == []


def test_c10_what_a_kill_left_behind_is_cleared_away(out: Path, start: Callable[..., Any]) -> None:
    program = start(
        """
        import os, signal, sys
        from cox.store import PICKLE, Store

        table = Store(sys.argv[1], "run").add_table("t", {"x": int, "p": PICKLE})
        table.append_row({"x": 1, "p": "kept"})
        table.update_row({"p": "pending"})
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        out,
    )
    program.finish(status=-9)
    assert len(payloads(out / "run")) == 2
    with Store(out, "run") as store:
        assert payloads(store.path) == [store["t"].df["p"][0]]


@pytest.mark.parametrize("kind", [OBJECT, PICKLE])
def test_c10_what_cannot_be_stored_is_a_clear_error(out: Path, kind: str) -> None:
    with Store(out, "run") as store, (out / "file").open("w") as file:
        table = store.add_table("t", {"x": int, "o": kind})
        for value in (file.fileno and (n for n in range(3)), Unpicklable()):
            with pytest.raises(RowError, match=r"table 't', column 'o': a \w+ cannot be stored as"):
                table.append_row({"x": 1, "o": value})
        assert payloads(store.path) == []
        table.append_row({"x": 1, "o": 1})
        assert table.nrows == 1


class Unpicklable:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("a connection cannot be stored")


def test_c10_a_cell_that_is_no_file_of_this_run_is_refused(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"p": PICKLE})
        table.append_row({"p": 1})
        (out / "secret").write_bytes(pickle.dumps("stolen"))
        for uid in ("../../secret", "", ".", "..", "a/b", "a\\b", os.fspath(out / "secret"), None, 5, "\0"):
            with pytest.raises(RowError, match="no file of an object"):
                table.get_pickle(uid)
        with pytest.raises(DamagedError, match="missing"):
            table.get_pickle("0" * 8)
        Path(store.path, ".table_objects", "link").symlink_to(out / "secret")
        with pytest.raises(UntrustedObjectError, match="link"):
            table.get_pickle("link")
        uid = table.df["p"][0]
        Path(store.path, ".table_objects", uid).unlink()
    with CollectionReader(out) as reader, pytest.raises(DamagedError, match=uid):
        reader.df("t")


# --- Trust


class Own:
    """Rebuilt by code only."""

    def __init__(self, x: int) -> None:
        self.x = x


def stranger(patch: pytest.MonkeyPatch, home: Path) -> None:
    """From here on, the user is somebody else."""
    patch.setenv("COX_CONFIG_HOME", os.fspath(home))


@pytest.fixture
def signed(out: Path) -> Path:
    """A run with an own object in it, of this user's."""
    with Store(out, "run") as store:
        table = store.add_table("t", {"o": OBJECT, "p": PICKLE})
        table.append_row({"o": Own(5), "p": Own(6)})
    return out


def test_c10_trust_my_own_objects_come_back_without_asking(signed: Path) -> None:
    with CollectionReader(signed) as reader:
        row = reader.df("t").iloc[0]
        assert (row["o"].x, row["p"].x) == (5, 6)


def test_c10_trust_somebody_elses_are_refused_with_the_three_remedies(
    signed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stranger(monkeypatch, tmp_path / "stranger")
    with Store(signed, "run", mode="r") as store, CollectionReader(signed) as reader:
        row = store["t"].df.iloc[0]
        for ask in (
            lambda: store["t"].get_object(row["o"]),
            lambda: store["t"].get_pickle(row["p"]),
            lambda: reader.df("t"),
        ):
            with pytest.raises(UntrustedObjectError) as refused:
                ask()
            text = str(refused.value)
            for told in ("Own", "'t'", "run", "allow_pickle=True", "cox trust", "COX_ALLOW_PICKLE=1"):
                assert told in text
            assert isinstance(refused.value, pickle.UnpicklingError)
        with pytest.raises(UntrustedObjectError, match="column 'p'"):
            reader.df("t", keep_serialized=["o"])
        assert len(reader.df("t", keep_serialized=["o", "p"])) == 1
    with CollectionReader(signed, allow_pickle=True) as reader:
        assert reader.df("t")["o"][0].x == 5
        assert reader.stores["run"]["t"].get_pickle(row["p"]).x == 6
    monkeypatch.setenv("COX_ALLOW_PICKLE", "1")
    with CollectionReader(signed) as reader:
        assert reader.df("t")["p"][0].x == 6
    monkeypatch.setenv("COX_ALLOW_PICKLE", "0")
    with CollectionReader(signed) as reader, pytest.raises(UntrustedObjectError):
        reader.df("t")


def test_c10_trust_a_changed_object_is_refused(signed: Path) -> None:
    (payload,) = (signed / "run" / ".table_objects").iterdir()
    data = payload.read_bytes()
    changed = data.replace(b"K\x06", b"K\x07")
    assert changed != data
    payload.write_bytes(changed)
    with CollectionReader(signed) as reader, pytest.raises(DamagedError, match="'p'"):
        reader.df("t", keep_serialized=["o"])
    # with the right checksum in its name, which anybody can make, it is still not what was signed
    forged = payload.name.rpartition("-")[0] + f"-{crc32c.crc32c(changed):08x}"
    payload.rename(payload.with_name(forged))
    with Store(signed, "run", mode="r") as store, pytest.raises(UntrustedObjectError):
        store["t"].get_pickle(forged)


def test_c10_trust_opening_a_strangers_run_runs_none_of_its_code(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (os.fspath(mark),)

    hostile = pickle.dumps(Hostile())

    def write_pickle(obj: Any, path: Path, origin: Any) -> int:
        path.write_bytes(hostile)
        return crc32c.crc32c(hostile)

    def write_torch(obj: Any, path: Path, origin: Any) -> int:
        import torch

        torch.save({"state": Hostile()}, path)
        return crc32c.crc32c(path.read_bytes())

    monkeypatch.setattr(codec, "write_pickle", write_pickle)
    monkeypatch.setattr(codec, "write_torch", write_torch)
    with Store(out, "run") as store:
        table = store.add_table(
            "t", {"o": OBJECT, "p": PICKLE, "s": PYTORCH_STATE if _has_torch() else PICKLE}
        )
        table.append_row({"o": 1, "p": 1, "s": 1})
        cells = table.df.iloc[0]
    with Store(out, "run", mode="r") as store:
        for ask in (
            lambda: store["t"].get_object(base64.encodebytes(hostile).decode()),
            lambda: store["t"].get_pickle(cells["p"]),
            lambda: CollectionReader(out).df("t"),
        ):
            with pytest.raises(UntrustedObjectError, match="mkdir"):
                ask()
        if _has_torch():
            with pytest.raises(UntrustedObjectError):
                store["t"].get_state_dict(cells["s"])
    assert not mark.exists()
    with Store(out, "run", mode="r", allow_pickle=True) as store:
        store["t"].get_pickle(cells["p"])
    assert mark.exists()  # the payload was a live one


def _has_torch() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch") is not None

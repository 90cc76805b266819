"""Columns of times: what goes in comes out, with a zone or without, wherever it is read."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cox
from cox import CollectionReader, Store
from cox.cli import main
from cox.errors import CollectionWarning, DamagedError, PredicateError, RowError, SchemaError
from cox.frames import to_frame as frames_of
from cox.schema import Column, Schema, cell_value, convert, infer
from cox.storage import time_cells
from cox.storage.columns import Part, TableData
from cox.storage.hdf5.salvaging import salvage

EXAMPLES = int(os.environ.get("COX_PROPERTY_EXAMPLES", "60"))
UTC = dt.timezone.utc
NAIVE = dt.datetime(2026, 1, 2, 3, 4, 5, 6)
ZONED = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
IN_INDIA = ZONED.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
SCHEMA = {"step": int, "at": dt.datetime, "done": dt.datetime | None}
TIME = Column("at", "datetime")


def write(folder: Path, name: str, times: list[Any], *, close: bool = True) -> Store:
    store = Store(folder, name)
    table = store.add_table("t", SCHEMA)
    for step, time in enumerate(times):
        table.append_row({"step": step, "at": time, "done": time if step % 2 else None})
    if close:
        store.close()
    return store


def frames(folder: Path, name: str) -> list[pd.DataFrame]:
    """A table by every reader that gives a frame."""
    with Store(folder, name, mode="r") as store:
        own = store["t"].df
    with CollectionReader(folder, exp_filter=lambda run: run == name) as reader:
        return [own, reader.df("t"), reader.df("t", where="step >= 0")]


# --- What a column takes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAIVE, "2026-01-02T03:04:05.000006"),
        (ZONED, "2026-01-02T03:04:05.000006Z"),
        (IN_INDIA, "2026-01-02T03:04:05.000006Z"),
        (dt.datetime(1, 1, 1), "0001-01-01T00:00:00.000000"),
        (dt.datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
        (pd.Timestamp(NAIVE), "2026-01-02T03:04:05.000006"),
        (pd.Timestamp(IN_INDIA), "2026-01-02T03:04:05.000006Z"),
        (np.datetime64("2026-01-02T03:04:05.000006", "ns"), "2026-01-02T03:04:05.000006"),
        (np.datetime64("2026-01-02"), "2026-01-02T00:00:00.000000"),
        (np.array(["2026-01-02"], dtype="M8[s]"), "2026-01-02T00:00:00.000000"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05.000000Z"),
    ],
)
def test_a_time_becomes_text_that_tells_its_zone(value: Any, text: str) -> None:
    assert convert(value, TIME, table="t") == (text, False)
    told = cell_value(TIME, text)
    assert told.isoformat(timespec="microseconds").replace("+00:00", "Z") == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.datetime64("2026-01-02T03:04:05.000000001", "ns"), r"astype\('datetime64\[us\]'\)"),
        (pd.Timestamp("2026-01-02T03:04:05.000000001"), r"nanoseconds.*\.round\('us'\)"),
        (1.7e9, r"fromtimestamp\(seconds, timezone.utc\)"),
        (dt.date(2026, 1, 2), "this is date"),
        ("yesterday", "yesterday"),
        (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), "datetime"),
        (None, r"declare the column as datetime \| None"),
        (pd.NaT, r"declare the column as datetime \| None"),
        (np.datetime64("NaT"), r"declare the column as datetime \| None"),
    ],
)
def test_what_is_not_a_time_is_refused_with_the_remedy(value: Any, told: str, tmp_path: Path) -> None:
    with Store(tmp_path, "run") as store:
        table = store.add_table("t", {"at": dt.datetime})
        with pytest.raises(RowError, match=f"(?s)table 't', column 'at'.*{told}"):
            table.append_row({"at": value})
        assert table.nrows == 0


@pytest.mark.parametrize("value", [None, pd.NaT, np.datetime64("NaT"), np.datetime64("NaT", "ns"), pd.NA])
def test_what_stands_for_a_missing_time(value: Any, tmp_path: Path) -> None:
    with Store(tmp_path, "run") as store:
        store.add_table("t", {"at": dt.datetime | None}).append_row({"at": value})
    with Store(tmp_path, "run", mode="r") as store:
        frame = store["t"].df
    assert frame["at"].tolist() == [pd.NaT]
    assert frame["at"].dtype == "datetime64[us]"


def test_a_time_in_an_example_row_makes_a_column_of_times() -> None:
    example = {"a": NAIVE, "b": ZONED, "c": pd.Timestamp(NAIVE), "d": pd.NaT, "e": pd.Timestamp(1)}
    assert infer(example) == {
        "a": dt.datetime, "b": dt.datetime, "c": dt.datetime, "d": cox.OBJECT, "e": cox.OBJECT,
    }  # fmt: skip


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(SchemaError, match="'at' is of kind 'duration'; known are .*datetime"):
        Schema.from_json([["at", "duration", False]])


# --- What comes back


@pytest.mark.parametrize("close", [True, False], ids=["folded", "in the journal"])
@pytest.mark.parametrize(
    ("times", "dtype"),
    [([NAIVE] * 40, "datetime64[us]"), ([IN_INDIA] * 40, "datetime64[us, UTC]")],
    ids=["naive", "zoned"],
)
def test_pandas_gets_its_own_type(times: list[dt.datetime], dtype: str, close: bool, tmp_path: Path) -> None:
    store = write(tmp_path, "run", times, close=close)
    for frame in frames(tmp_path, "run"):
        assert str(frame["at"].dtype) == str(frame["done"].dtype) == dtype
        assert frame["at"].tolist() == times
        assert frame["done"].isna().tolist() == [step % 2 == 0 for step in range(len(times))]
        assert frame["done"].dropna().tolist() == times[1::2]
    store.close()


def test_times_with_and_without_a_zone_in_one_column_stay_what_they_are(tmp_path: Path) -> None:
    write(tmp_path, "run", [NAIVE, ZONED, IN_INDIA, NAIVE])
    for frame in frames(tmp_path, "run"):
        assert frame["at"].dtype == object
        assert frame["at"].tolist() == [NAIVE, ZONED, ZONED, NAIVE]
        assert [time.tzinfo for time in frame["at"]] == [None, UTC, UTC, None]
        assert frame["done"].tolist() == [None, ZONED, None, NAIVE]
    texts = pd.read_hdf(tmp_path / "run" / "store.h5", "t")["at"]
    assert texts.tolist()[:2] == ["2026-01-02T03:04:05.000006", "2026-01-02T03:04:05.000006Z"]


@pytest.mark.parametrize("time", [NAIVE, ZONED], ids=["naive", "zoned"])
@pytest.mark.parametrize("columns", [1, 450], ids=["a field each", "in blocks"])
def test_pandas_reads_times_from_the_file_itself(time: dt.datetime, columns: int, tmp_path: Path) -> None:
    names = [f"at{i}" for i in range(columns)]
    with Store(tmp_path, "run") as store:
        table = store.add_table("t", {**dict.fromkeys(names, dt.datetime | None), "n": int, "x": dt.datetime})
        row = dict.fromkeys(names[1:], time) | {"n": 7, "x": NAIVE}
        table.append_row(row)
        table.append_row(row | {"at0": time})
    frame = pd.read_hdf(tmp_path / "run" / "store.h5", "t")
    assert frame["at0"].tolist() == [pd.NaT, pd.Timestamp(time)]
    assert frame["x"].tolist() == [pd.Timestamp(NAIVE)] * 2
    assert frame["n"].tolist() == [7, 7]
    with Store(tmp_path, "run") as store:
        store["t"].append_row(row)
        assert store["t"].df["at0"].tolist() == [pd.NaT, pd.Timestamp(time), pd.NaT]
    with Store(tmp_path, "run", mode="r") as store:
        assert store["t"].df[names[-1]].tolist()[1:2] == [pd.Timestamp(time)]


def test_a_program_that_appends_with_pandas_is_read(tmp_path: Path) -> None:
    write(tmp_path, "run", [ZONED] * 3)
    file = tmp_path / "run" / "store.h5"
    with pd.HDFStore(file, "a") as stored:
        more = stored["t"].iloc[:2].assign(done=pd.to_datetime([pd.NaT, ZONED], utc=True).as_unit("ns"))
        stored.append("t", more, data_columns=True, index=False)
    for frame in frames(tmp_path, "run"):
        assert frame["at"].tolist() == [ZONED] * 5
        assert frame["done"].tolist() == [pd.NaT, ZONED, pd.NaT, pd.NaT, ZONED]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_time_that_pandas_has_comes_back(data: st.DataObject, tmp_path_factory: Any) -> None:
    zones = data.draw(st.sampled_from([st.none(), st.timezones(), st.none() | st.timezones()]))
    limits = {"min_value": dt.datetime(1, 1, 3), "max_value": dt.datetime(9999, 12, 29)}
    times = data.draw(st.lists(st.datetimes(timezones=zones, **limits), min_size=1, max_size=6))
    folder = tmp_path_factory.mktemp("times")
    write(folder, "run", times, close=data.draw(st.booleans())).close()
    for frame in frames(folder, "run"):
        back = frame["at"].tolist()
        assert [time.tzinfo is None for time in back] == [time.tzinfo is None for time in times]
        for one, other in zip(back, times, strict=True):
            naive = other.replace(fold=0) if other.tzinfo is None else other.astimezone(UTC)
            assert pd.Timestamp(one).to_pydatetime().replace(tzinfo=UTC) == naive.replace(tzinfo=UTC)


def test_the_way_that_is_compiled_stores_what_the_general_one_does(tmp_path: Path) -> None:
    rows = [NAIVE, ZONED, IN_INDIA, pd.Timestamp(ZONED), "2026-01-02T03:04:05.000006Z"]
    with Store(tmp_path, "run") as store:
        table = store.add_table("t", {"at": dt.datetime})
        for row in rows * 2:
            table.append_row({"at": row})
            table.update_row({"at": row})
            table.flush_row()
        with pytest.raises(RowError, match="no time"):
            table.append_row({"at": "no time"})
        back = table.df["at"].tolist()
    assert back == [time for time in [NAIVE, *[ZONED] * 4] * 2 for _ in range(2)]


def test_a_zone_of_somebodys_own_is_asked_outside_of_the_lock(tmp_path: Path) -> None:
    class Zone(dt.tzinfo):
        def utcoffset(self, when: Any) -> dt.timedelta:
            raise RuntimeError("no offset today")

    with Store(tmp_path, "run") as store:
        table = store.add_table("t", {"at": dt.datetime})
        table.append_row({"at": ZONED})
        with pytest.raises(RowError, match="no offset today"):
            table.append_row({"at": NAIVE.replace(tzinfo=Zone())})
        table.append_row({"at": ZONED})
        assert table.nrows == 2


# --- Elsewhere


@pytest.mark.parametrize(
    ("where", "steps"),
    [
        ("at > '2026-01-02'", [1, 2]),
        ("at == '2026-01-02T00:00:00'", [0]),
        ("at >= '2026-01-02T02:00:00+02:00'", [0, 1, 2]),
        ("at in ('2026-01-03', '2027-01-01Z')", [1]),
        ("at == 'no time'", []),
        ("done is None and at < '2026-01-03T00:00:00.000001'", [0]),
        ("not at <= '2026-01-03'", [2]),
    ],
)
def test_a_condition_compares_times_with_texts(where: str, steps: list[int], tmp_path: Path) -> None:
    write(tmp_path, "run", [dt.datetime(2026, 1, day, tzinfo=UTC) for day in (2, 3, 4)])
    with CollectionReader(tmp_path) as reader:
        assert reader.df("t", where=where)["step"].tolist() == steps


def test_a_condition_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    write(tmp_path, "run", [NAIVE])
    with CollectionReader(tmp_path) as reader:
        assert len(reader.df("t", where="at < '2026-02-01'")) == 1
        with pytest.raises(PredicateError, match="only one of these times has a zone"):
            reader.df("t", where="at < '2026-02-01T00:00:00Z'")
        with pytest.raises(PredicateError, match="a time is compared with another"):
            reader.df("t", where="at < 3")


def test_runs_that_differ(tmp_path: Path) -> None:
    write(tmp_path, "a", [NAIVE])
    write(tmp_path, "b", [ZONED])
    with Store(tmp_path, "c") as store:
        store.add_table("t", {"step": int, "at": str}).append_row({"step": 0, "at": "noon"})
    with CollectionReader(tmp_path, exp_filter=lambda run: run in "ab") as reader:
        assert reader.df("t")["at"].tolist() == [NAIVE, ZONED]
        assert str(reader.arrow("t").schema.field("at").type) == "string"
    told = "'at' as str, was datetime"
    with CollectionReader(tmp_path) as reader, pytest.warns(CollectionWarning, match=told):
        texts = reader.df("t")["at"].tolist()
    assert texts == ["2026-01-02T03:04:05.000006", "2026-01-02T03:04:05.000006Z", "noon"]


def test_parameters_are_times(tmp_path: Path) -> None:
    with Store(tmp_path, "run") as store:
        store.log_params({"begun": ZONED, "day": NAIVE, "lr": 0.1})
    with CollectionReader(tmp_path) as reader:
        frame = reader.params()
        assert frame["begun"].tolist() == [ZONED]
        assert frame["day"].tolist() == [NAIVE]
        assert frame["begun"].iloc[0].tzinfo is not None
    with Store(tmp_path, "run") as store:
        store.log_params({"begun": IN_INDIA, "day": NAIVE, "lr": 0.1})


@pytest.mark.parametrize(
    ("time", "arrow"), [(NAIVE, "timestamp[us]"), (ZONED, "timestamp[us, tz=UTC]")], ids=["naive", "zoned"]
)
def test_other_engines_get_times(time: dt.datetime, arrow: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write(tmp_path / "runs", "run", [time] * 3)
    with CollectionReader(tmp_path / "runs") as reader:
        rows = reader.arrow("t")
        assert [str(rows.schema.field(name).type) for name in ("at", "done")] == [arrow, arrow]
        assert rows["done"].to_pylist() == [None, time, None]
        reader.to_parquet(tmp_path / "dataset")
    with CollectionReader(tmp_path / "dataset") as reader:
        frame = reader.df("t")
    assert frame["at"].tolist() == [time] * 3
    assert frame["done"].tolist() == [pd.NaT, time, pd.NaT]


def test_a_dataset_keeps_times_of_both_sorts(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write(tmp_path / "runs", "a", [NAIVE] * 2)
    with CollectionReader(tmp_path / "runs") as reader:
        reader.to_parquet(tmp_path / "dataset")
    write(tmp_path / "runs", "b", [ZONED, NAIVE])
    with CollectionReader(tmp_path / "runs") as reader:
        reader.to_parquet(tmp_path / "dataset")
    with CollectionReader(tmp_path / "dataset") as reader:
        assert reader.df("t")["at"].tolist() == [NAIVE, NAIVE, ZONED, NAIVE]


@pytest.mark.parametrize("time", [NAIVE, ZONED], ids=["naive", "zoned"])
def test_sql_polars_and_dask(time: dt.datetime, tmp_path: Path) -> None:
    for library in ("dask.dataframe", "duckdb", "polars"):
        pytest.importorskip(library)
    write(tmp_path, "a", [time] * 3)
    write(tmp_path, "b", [time])
    with CollectionReader(tmp_path) as reader:
        whole = reader.df("t")["at"]
        lazy = reader.dask("t", runs_per_partition=1)
        assert lazy["at"].dtype == whole.dtype
        assert lazy.compute()["at"].tolist() == [time] * 4
        assert reader.polars("t")["at"].to_list() == [time] * 4
        rows = reader.sql("""select "at" from t where "at" > '2026-01-01'""")
        assert [pd.Timestamp(one) for one in rows["at"]] == [pd.Timestamp(time)] * 4


def test_dask_gets_times_of_both_sorts_as_text(tmp_path: Path) -> None:
    pytest.importorskip("dask.dataframe")
    write(tmp_path, "a", [NAIVE])
    write(tmp_path, "b", [ZONED])
    with CollectionReader(tmp_path) as reader:
        texts = reader.dask("t", runs_per_partition=1).compute()["at"].tolist()
    assert texts == ["2026-01-02T03:04:05.000006", "2026-01-02T03:04:05.000006Z"]


def cli(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_line_prints_times(tmp_path: Path) -> None:
    write(tmp_path, "run", [ZONED] * 2)
    with Store(tmp_path, "run") as store:
        store.log_params({"begun": ZONED, "lr": 0.1})
    run = tmp_path / "run"
    rows = json.loads(cli("df", "t", tmp_path, "--json"))
    assert [row["at"] for row in rows] == ["2026-01-02T03:04:05.000006+00:00"] * 2
    assert [row["done"] for row in rows] == [None, "2026-01-02T03:04:05.000006+00:00"]
    assert json.loads(cli("tail", run, "t", "--json"))[0]["at"] == rows[0]["at"]
    for command in (("df", "t", tmp_path), ("tail", run, "t"), ("ls", tmp_path)):
        assert "2026-01-02T03:04:05.000006+00:00" in cli(*command), "CSV"
    table = ("--format", "table")
    for command in (("df", "t", tmp_path, *table), ("show", run), ("ls", tmp_path, *table)):
        assert "2026-01-02 03:04:05+00:00" in cli(*command), "for people"
    assert "at: datetime, done: datetime | None" in cli("show", run)


# --- Damage


@pytest.mark.parametrize(
    "text",
    ["", "x", "2026-13-02T03:04:05.000006", "0000-01-02T03:04:05.000006", "2026-01-02T03:04:05.000006+",
     "2026-01-02T03:04:05.00000é", "2026-01-02 03:04:05.000006", "2026-01-02T03:04:05.000006Z ", "é" * 27],
)  # fmt: skip
def test_a_cell_that_is_not_a_time_is_damage_and_not_a_time(text: str) -> None:
    from cox import frames

    for cells in (np.array([text, text], dtype=object), np.array([text.encode()] * 2)):
        table = TableData("t", Schema([TIME]), [Part(2, {"at": cells})])
        with pytest.raises(DamagedError, match="'at'"):
            frames.to_frame(table)
        assert time_cells.zone_of([(cells, None)]) is None


def test_a_time_that_no_column_holds_is_damage_wherever_it_comes_from() -> None:
    with pytest.raises(DamagedError, match="years 1 to 9999"):
        time_cells.encode(np.array([2**62], dtype="M8[us]"), zoned=False)


@pytest.mark.parametrize(
    "far", [dt.datetime(1677, 9, 21), dt.datetime(2262, 4, 12), dt.datetime.min, dt.datetime.max]
)
def test_a_time_that_pandas_file_cannot_hold_makes_its_column_text_there(
    tmp_path: Path, far: dt.datetime
) -> None:
    write(tmp_path, "near", [NAIVE] * 3)
    write(tmp_path, "far", [NAIVE, far, NAIVE])
    near, other = (pd.read_hdf(tmp_path / name / "store.h5", "t")["at"] for name in ("near", "far"))
    assert near.tolist() == [NAIVE] * 3 and near.dtype == "datetime64[ns]"
    assert other.tolist() == [f"{time:%4Y-%m-%dT%H:%M:%S.%f}".rjust(26, "0") for time in (NAIVE, far, NAIVE)]
    for frame in frames(tmp_path, "far"):
        assert frame["at"].tolist() == [NAIVE, far, NAIVE] and frame["at"].dtype == "datetime64[us]"


def test_what_is_left_of_a_damaged_file_has_its_times(tmp_path: Path) -> None:
    times = [ZONED + dt.timedelta(seconds=step) for step in range(20_000)]
    with Store(tmp_path, "run") as store:
        table = store.add_table("t", SCHEMA)
        for step, time in enumerate(times):
            table.append_row({"step": step, "at": time, "done": time if step % 7 else None})
    file = tmp_path / "run" / "store.h5"
    with h5py.File(file) as stored:
        dataset = stored["t/table"].id
        chunk = dataset.get_chunk_info(1)
        rows = dataset.get_create_plist().get_chunk()[0]
    data = bytearray(file.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    file.write_bytes(data)
    found = salvage(file)
    frame = frames_of(found.content.tables["t"])
    start = chunk.chunk_offset[0]
    left = [step for step in range(len(times)) if not start <= step < start + rows]
    assert 0 < len(left) < len(times)
    assert frame["step"].tolist() == left
    assert frame["at"].tolist() == [times[step] for step in left]
    assert frame["done"].isna().tolist() == [step % 7 == 0 for step in left]

"""A resumed script that logs its parameters again: one row of metadata for a run."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cox
from cox.errors import ParametersError, ReadOnlyError, RepeatedMetadataWarning
from cox.readers import CollectionReader
from cox.store import OBJECT, PICKLE, Store
from cox.utils import Parameters

SCHEMA = {"lr": float, "arch": str, "seed": int | None, "tags": OBJECT, "big": PICKLE}
ROW = {"lr": 0.1, "arch": "é", "seed": None, "tags": ["a", 1], "big": {"x": np.arange(3)}}


def script(out: Path, rank: int | None = None, **changes: Any) -> None:
    with Store(out, "run", rank=rank) as store:
        store.add_table("metadata", SCHEMA)
        store["metadata"].append_row(ROW | changes)
        store.add_table("t", {"x": int}).append_row({"x": 1})


def rows(out: Path, table: str = "metadata") -> int:
    return len(CollectionReader(out).df(table))


def test_the_same_metadata_logged_again_changes_nothing(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    script(out)
    files = sorted((out / "run" / ".table_objects").iterdir())
    with caplog.at_level(logging.INFO, "cox"):
        script(out)
    assert "an earlier session has logged this row" in caplog.text
    script(out, lr=np.float32(0.1).item() * 0 + 0.1)
    assert rows(out) == 1
    assert rows(out, "t") == 3
    assert sorted((out / "run" / ".table_objects").iterdir()) == files
    joined = CollectionReader(out).df("t").merge(CollectionReader(out).df("metadata"), on="exp_id")
    assert len(joined) == 3


def test_nan_equals_nan(out: Path) -> None:
    for _ in range(2):
        script(out, lr=math.nan)
    assert rows(out) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 0.2}, "lr was 0.1 and is 0.2"),
        ({"seed": 3}, "seed was None and is 3"),
        ({"tags": ["b"]}, "tags is another object"),
        ({"big": {"x": np.arange(4)}}, "big is another object"),
    ],
    ids=["number", "missing", "object", "file"],
)
def test_other_metadata_is_added_and_told(out: Path, changes: dict[str, Any], told: str) -> None:
    script(out)
    with pytest.warns(RepeatedMetadataWarning, match=told):
        script(out, **changes)
    assert rows(out) == 2
    script(out)
    script(out, **changes)
    assert rows(out) == 2, "both have been logged by now"


def test_several_rows_of_one_session_stay_and_are_repeated_one_by_one(out: Path) -> None:
    for _ in range(2):
        with Store(out, "run") as store:
            table = store.add_table("metadata", {"x": int})
            for x in (1, 1, 2):
                table.append_row({"x": x})
            table.update_row({"x": 1})
            table.flush_row()
    assert CollectionReader(out).df("metadata")["x"].tolist() == [1, 1, 2, 1]
    with Store(out, "run") as store:
        with pytest.warns(RepeatedMetadataWarning, match="x was 1 and is 7"):
            store["metadata"].append_row({"x": 7})
        store["metadata"].append_row({"x": 8})
        store["metadata"].append_row({"x": 2})
    assert CollectionReader(out).df("metadata")["x"].tolist() == [1, 1, 2, 1, 7, 8]


def test_other_tables_may_repeat_themselves(out: Path) -> None:
    for _ in range(2):
        with Store(out, "run") as store:
            store.add_table("t", {"x": int}).append_row({"x": 1})
    assert rows(out, "t") == 2


def test_metadata_that_was_rewound_is_logged_anew(out: Path) -> None:
    script(out)
    with Store(out, "run") as store:
        store.rewind("metadata", nrows=0)
        for _ in range(2):
            store["metadata"].append_row(ROW)
    assert rows(out) == 2


def test_a_sole_writer_and_rank_0_are_the_same(out: Path) -> None:
    script(out)
    script(out, rank=0)
    script(out)
    assert rows(out) == 1
    script(out, rank=1)
    script(out, rank=1)
    assert rows(out) == 2


def test_mode_w_begins_the_metadata_anew(out: Path) -> None:
    script(out)
    with Store(out, "run", mode="w") as store:
        store.add_table("metadata", SCHEMA).append_row(ROW)
    assert rows(out) == 1


# --- log_params


@dataclasses.dataclass
class Model:
    width: int = 64
    layers: tuple[int, ...] = (1, 2)


class Config:
    """As those of ml_collections: not a Mapping, but with items."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def items(self) -> Any:
        return self.values.items()


class Dumped:
    """As those of pydantic."""

    def model_dump(self) -> dict[str, Any]:
        return {"lr": 0.1, "model": {"width": 64, "layers": (1, 2)}}


NESTED: dict[str, Any] = {
    "dict": {"lr": 0.1, "model": {"width": 64, "layers": (1, 2)}},
    "namespace": argparse.Namespace(lr=0.1, model=argparse.Namespace(width=64, layers=(1, 2))),
    "dataclass": {"lr": 0.1, "model": Model()},
    "Parameters": Parameters({"lr": 0.1, "model": Model()}),
    "ConfigDict": Config(lr=0.1, model=Config(width=64, layers=(1, 2))),
    "pydantic": Dumped(),
}


@pytest.mark.parametrize("given", NESTED)
def test_parameters_of_any_kind_are_flattened(out: Path, given: str) -> None:
    for _ in range(2):
        with Store(out, "run") as store:
            store.log_params(NESTED[given])
            store.log_params(NESTED["dict"])
    assert rows(out) == 1
    assert CollectionReader(out).params().iloc[0].to_dict() == {
        "lr": 0.1,
        "model.width": 64,
        "model.layers": (1, 2),
    }


def test_a_program_without_parameters_logs_none(out: Path) -> None:
    with Store(out, "run") as store:
        store.log_params(argparse.Namespace())
        store.add_table("t", {"x": int}).append_row({"x": 1})
        assert store.params == {} and list(store.tables) == ["t"]
    with Store(out, "run") as store:
        store.log_params({})
        store.log_params({"lr": 0.1})
        with pytest.raises(ParametersError, match="lr was logged and is missing"):
            store.log_params({})


def test_omegaconf_is_taken(out: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    for _ in range(2):
        with Store(out, "run") as store:
            store.log_params(omegaconf.OmegaConf.create({"lr": 0.1, "m": {"w": "${lr}", "l": [1, {"a": 2}]}}))
    assert CollectionReader(out).params().iloc[0].to_dict() == {"lr": 0.1, "m.w": 0.1, "m.l": [1, {"a": 2}]}


def test_other_parameters_are_refused(out: Path) -> None:
    params = {"lr": 0.1, "seed": 1, "tags": {"a", "b", "c"}, "nothing": None, "empty": {}, "nan": math.nan}
    for _ in range(2):
        with Store(out, "run") as store:
            store.log_params(params)
    with Store(out, "run") as store:
        with pytest.raises(ParametersError, match=r"lr was 0\.1 and is 0\.2; tags was .* and is None"):
            store.log_params(params | {"lr": 0.2, "tags": None})
        with pytest.raises(ParametersError, match="seed was logged and is missing; sed is new"):
            store.log_params({name: value for name, value in params.items() if name != "seed"} | {"sed": 1})
        with pytest.raises(ParametersError, match="seed was 1 and is 1.5"):
            store.log_params(params | {"seed": 1.5})
        store.log_params(params)
    assert rows(out) == 1


def test_what_cannot_be_parameters_is_refused(out: Path) -> None:
    with Store(out, "run") as store:
        for bad in (3, "lr", None, [1], dict):
            with pytest.raises(ParametersError, match="mapping of names to values"):
                store.log_params(bad)
        with pytest.raises(ParametersError, match="two parameters 'a.b'"):
            store.log_params({"a.b": 1, "a": {"b": 2}})
    with pytest.raises(ReadOnlyError):
        Store(out, "run", mode="r").log_params({"lr": 1})
    assert not list(cox.Store(out, "run", mode="r").tables)


def test_of_several_ranks_the_first_logs_the_parameters(out: Path) -> None:
    for _ in range(2):
        stores = [Store(out, "run", rank=rank) for rank in range(3)]
        for store in stores[::-1]:
            store.log_params({"lr": 0.1})
        for store in stores:
            store.close()
    assert rows(out) == 1
    with Store(out, "run") as store:
        store.log_params({"lr": 0.1})
    assert rows(out) == 1


def test_objects_that_each_process_stores_in_another_order_are_the_same(
    out: Path, run: Callable[..., list[str]]
) -> None:
    program = """
        import enum, sys
        from cox.store import Store

        class Opt(enum.Enum):
            SGD = "sgd"
            ADAM = "adam"

            def is_good(self):
                return self.value in {"adam", "adamw", "lion"}

        with Store(sys.argv[1], "run") as store:
            store.add_table("metadata", {"set": store.OBJECT, "file": store.PICKLE, "opt": store.OBJECT})
            texts = set(map(str, range(20)))
            store["metadata"].append_row({"set": texts, "file": texts, "opt": Opt.SGD})
            print(store["metadata"].nrows)
    """
    for seed in range(4):
        assert run(program, out, env={"PYTHONHASHSEED": str(seed)}) == ["1"]

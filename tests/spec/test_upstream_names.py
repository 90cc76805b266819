"""SPEC C29: upstream's helpers under upstream's names, and scripts written for its 0.2."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cox.store
import cox.utils
from cox.store import OBJECT, PICKLE, Store
from cox.utils import (
    Parameters,
    consistent,
    has_tensorboard,
    mkdirp,
    obj_to_string,
    override_json,
    string_to_obj,
)

#: As upstream's documentation and the programs around it have it; not a line was changed for this cox.
SCRIPT_FOR_0_2 = """
import cox
import cox.store
import cox.utils
from cox.store import *
from cox.utils import *
from cox.utils import Parameters
from cox.readers import CollectionReader
import numpy as np
import os, subprocess, sys

OUT_DIR = sys.argv[1]

def train(args, store):
    for epoch in range(args.epochs):
        loss = args.lr / (epoch + 1)
        logs = {'epoch': epoch, 'train_loss': loss, 'acc': np.float32(0.5), 'ok': np.bool_(True)}
        store['logs'].append_row(logs)
        store.log_table_and_tb('tb', {'train_loss': loss})
        store['tb'].update_row({'note': 'é' * epoch})
        store['tb'].flush_row()

def main(args):
    store = cox.store.Store(OUT_DIR, args.exp_name)
    args_dict = args.__dict__
    schema = cox.store.schema_from_dict(args_dict)
    schema['store_path'] = str
    store.add_table('metadata', schema)
    store['metadata'].update_row(args_dict)
    store['metadata'].update_row({'store_path': store.path})
    store['metadata'].flush_row()
    store.add_table('logs', {'epoch': int, 'train_loss': float, 'acc': float, 'ok': bool})
    store.add_table('tb', {'train_loss': float, 'note': str})
    store.add_table_like_example('extra', {'n': 1, 'who': 'me', 'what': [1, 2]}, alternative=store.PICKLE)
    store['extra'].append_row({'n': 1, 'who': 'me', 'what': [1, 2]})
    train(args, store)
    mkdirp(os.path.join(store.save_dir, 'checkpoints'))
    copied = store.snapshot_copy()
    assert copied == os.path.join(OUT_DIR, args.exp_name + '_snapshot', 'store.h5'), copied
    running = Store.read_from_running(OUT_DIR, args.exp_name)
    assert len(running['logs'].df) == args.epochs
    assert running['extra'].get_pickle(running['extra'].df['what'][0]) == [1, 2]
    running.close()
    running = cox.store.Store.read_from_running(store.path)
    assert set(running.tables.keys()) == {'metadata', 'logs', 'tb', 'extra'}, running.keys
    running.close()
    store.tensorboard.add_scalar('extra', 1.0, 0)
    store.close()

if __name__ == '__main__':
    args = Parameters({'lr': 0.5, 'epochs': 3, 'exp_name': 'first', 'NAME': None})
    assert args.LR == 0.5 and args.nothing is None and 'lr' in args
    main(args)
    args.lr, args.exp_name = 1.0, 'second'
    main(args)
    reader = CollectionReader(OUT_DIR)
    df = reader.df('logs')
    assert len(df) == 6 and list(df.columns) == ['epoch', 'train_loss', 'acc', 'ok', 'exp_id']
    meta = reader.df('metadata')
    best = meta[meta['params'].apply(lambda p: p['lr'] == 1.0)]
    assert best['exp_id'].tolist() == ['second']
    assert has_tensorboard(best['store_path'].iloc[0])
    assert string_to_obj(obj_to_string({'a': 1})) == {'a': 1}
    reader.close()
    print('done')
"""


def test_c29_a_script_written_for_0_2_runs_unchanged(out: Path, start: Callable[..., Any]) -> None:
    pytest.importorskip("tensorboardX", reason="the script logs to TensorBoard")
    program = start(SCRIPT_FOR_0_2, out)
    assert program.finish() == ["done"]
    assert program.errors == ""
    assert len(pd.read_hdf(out / "first" / "store.h5", "logs")) == 3


# --- Reading a run while it is written


def test_c29_snapshot_copy_is_a_file_at_rest(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "p": PICKLE})
        table.append_row({"x": 1, "p": [1]})
        path = store.snapshot_copy()
        assert path == os.fspath(out / "run_snapshot" / "store.h5")
        table.append_row({"x": 2, "p": [2]})
        assert pd.read_hdf(path, "t")["x"].tolist() == [1]
        assert store.snapshot_copy() == path  # made anew
        assert pd.read_hdf(path, "t")["x"].tolist() == [1, 2]
        with cox.readers.CollectionReader(out) as reader:  # the copy is no run of its own
            assert reader.df("t")["exp_id"].tolist() == ["run", "run"]
        assert table.nrows == 2


def test_c29_a_run_of_such_a_name_is_a_run_nevertheless(out: Path) -> None:
    for name in ("run", "run_snapshot", "other_snapshot"):
        with Store(out, name) as store:
            store.add_table("t", {"x": int}).append_row({"x": 1})
    with cox.readers.CollectionReader(out) as reader:
        assert list(reader.stores) == ["other_snapshot", "run", "run_snapshot"]


def test_c29_read_from_running_sees_the_rows_as_they_come(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int})
        table.append_row({"x": 1})
        for running in (
            Store.read_from_running(out, "run"),
            Store.read_from_running(store.path),
            Store.read_from_running(store.path + "/"),
        ):
            assert running.exp_id == "run"
            table.append_row({"x": 2})
            assert len(running["t"].df) == table.nrows
            with pytest.raises(ValueError, match="mode='r'"):
                running["t"].append_row({"x": 3})
            running.close()

    class Special(Store):
        pass

    with Special.read_from_running(out, "run") as special:
        assert type(special) is Special
    with pytest.raises(FileNotFoundError):
        Store.read_from_running(out, "missing")
    for path, expected in (("/a/b", ("/a", "b")), ("/a/b/", ("/a", "b")), ("a/b c/d", ("a/b c", "d"))):
        assert Store.split_storage_exp_paths(path) == expected


# --- Parameters


def test_c29_parameters_ignore_case_and_know_nothing_as_none() -> None:
    given = {"a": 1, "lr": 0.1, "Name": "x", "zero": 0}
    parameters = Parameters(given)
    assert (parameters.a, parameters.A, parameters.LR, parameters.name, parameters.Name, parameters.NAME) == (
        1,
        1,
        0.1,
        "x",
        "x",
        "x",
    )
    assert parameters.missing is None
    assert parameters.zero == 0
    assert parameters.as_dict() is given
    assert vars(parameters) == {"params": given}
    assert parameters.__dict__["params"] is given
    assert list(parameters) == ["a", "lr", "Name", "zero"]
    assert len(parameters) == 4
    assert "a" in parameters
    assert "missing" not in parameters
    assert getattr(parameters, "missing", 5) is None  # upstream's meaning
    assert json.loads(str(parameters)) == given
    assert repr(parameters) == str(parameters)


def test_c29_parameters_can_be_set_and_deleted() -> None:
    given: dict[str, Any] = {"a": 1, "Name": "x"}
    parameters = Parameters(given)
    parameters.A = 2
    parameters.NEW = 3
    parameters.NAME = "y"
    assert given == {"a": 2, "Name": "y", "new": 3}
    assert parameters.new == 3
    del parameters.a
    assert parameters.a is None
    assert "a" not in given
    with pytest.raises(KeyError):
        del parameters.a
    parameters.params = {"b": 1}
    assert parameters.as_dict() == {"b": 1}


@pytest.mark.parametrize("names", [("a", "A"), ("lr", "x", "LR")])
def test_c29_parameters_that_differ_in_case_only_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="case"):
        Parameters(dict.fromkeys(names, 1))


def test_c29_parameters_can_be_copied_and_pickled() -> None:
    parameters = Parameters({"a": [1], "b": None})
    for made in (copy.copy(parameters), copy.deepcopy(parameters), pickle.loads(pickle.dumps(parameters))):
        assert made.as_dict() == parameters.as_dict()
        assert made.A == [1]
    assert copy.deepcopy(parameters).a is not parameters.a


def test_c29_parameters_hold_what_json_cannot(tmp_path: Path) -> None:
    assert "out" in str(Parameters({"path": tmp_path / "out"}))


# --- override_json


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_c29_override_json_fills_what_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", {"lr": 0.1, "epochs": 5, "only here": "é"})
    args = Parameters({"lr": 0.5, "epochs": None, "arch": None, "zero": 0, "config_path": None})
    made = override_json(args, path)
    assert made.as_dict() == {
        "lr": 0.5,
        "epochs": 5,
        "only here": "é",
        "arch": None,
        "zero": 0,
        "config_path": None,
    }
    assert args.epochs is None
    assert override_json(args, os.fspath(path)).epochs == 5


def test_c29_override_json_checks_the_names(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", {"lr": 0.1})
    assert override_json(Parameters({"lr": None, "config_path": "x"}), path, check_consistency=True).lr == 0.1
    with pytest.raises(ValueError, match=r"in the arguments but not in the file: \['arch'\]"):
        override_json(Parameters({"lr": None, "arch": None}), path, check_consistency=True)
    with pytest.raises(ValueError, match=r"in the file but not in the arguments: \['lr'\]"):
        override_json(Parameters({}), path, True)
    with pytest.raises(FileNotFoundError):
        override_json(Parameters({}), tmp_path / "missing.json")


# --- The rest


def test_c29_consistent() -> None:
    assert consistent(None, 5) == 5
    assert consistent(5, 5) == 5
    assert consistent([1], [1]) == [1]
    assert consistent(None, None) is None
    for old, new in ((5, 6), (0, 1), (False, None), ("", "a")):
        with pytest.raises(ValueError, match=repr(new)):
            consistent(old, new)


def test_c29_mkdirp(tmp_path: Path) -> None:
    for _ in range(2):
        mkdirp(tmp_path / "a" / "b")
        mkdirp(os.fspath(tmp_path / "a" / "b"), should_msg=True)
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        mkdirp(tmp_path / "file" / "c")


def test_c29_has_tensorboard(out: Path) -> None:
    with Store(out, "run") as store:
        assert has_tensorboard(store.path)
    assert not has_tensorboard(out)
    assert not has_tensorboard(out / "missing")


@pytest.mark.parametrize("value", [1, "text", "", [1, {"a": (2,)}], {"x": {1, 2}}, b"\0", lambda x: x + 1])
def test_c29_obj_to_string_and_back(value: Any) -> None:
    text = obj_to_string(value)
    assert type(text) is str
    assert text.isascii()
    back = string_to_obj(text)
    assert back(1) == 2 if callable(value) else back == value


def test_c29_string_to_obj_of_what_is_none() -> None:
    assert string_to_obj(None) is None
    assert string_to_obj("") is None
    assert string_to_obj(5) == 5
    assert string_to_obj("just a text") == "just a text"
    assert string_to_obj("é") == "é"
    assert string_to_obj("YWJj") == "YWJj"  # base64, but of no pickle


def test_c29_schema_from_dict() -> None:
    for home in (cox.store, cox.utils):
        assert home.schema_from_dict({"a": 1, "b": 0.5, "c": "x", "d": True, "e": None}) == {
            "a": int,
            "b": float,
            "c": str,
            "d": bool,
            "e": OBJECT,
        }
        assert home.schema_from_dict({"e": [1]}, alternative=PICKLE) == {"e": PICKLE}
        assert home.schema_from_dict({"e": [1]}, PICKLE) == {"e": PICKLE}
        assert home.schema_from_dict(Parameters({"lr": 1}).__dict__) == {"params": OBJECT}


def test_c29_star_imports_bring_upstreams_names() -> None:
    names: dict[str, Any] = {}
    exec("from cox.utils import *", names)
    for name in (
        "Parameters",
        "override_json",
        "consistent",
        "mkdirp",
        "obj_to_string",
        "string_to_obj",
        "has_tensorboard",
    ):
        assert names[name] is getattr(cox.utils, name)
    names = {}
    exec("from cox.store import *", names)
    for name in ("Store", "Table", "OBJECT", "PICKLE", "PYTORCH_STATE", "STORE_BASENAME", "schema_from_dict"):
        assert names[name] is getattr(cox.store, name)

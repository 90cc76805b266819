"""What holds others to the promises notices when they are broken."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import cox
import cox.testing
from cox.errors import DamageWarning, MissingExtraError, StorageError
from cox.storage import fs
from cox.testing import faults, invariants, model

ROWS = [{"step": 0, "note": "a"}, {"step": 1}, {"step": 2, "note": "c"}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"step": int, "note": str | None})
        for row in ROWS:
            table.append_row(row)
    return tmp_path / "run"


def test_a_run_that_holds_what_it_must_passes(run: Path) -> None:
    assert invariants.check_run(run, {"t": ROWS, "empty": []}, closed=True) == 0
    assert invariants.check_run(run, {"t": ROWS[:2]}, {"t": ROWS}) == 1


@pytest.mark.parametrize(
    "rows", [ROWS[:2], [*ROWS, ROWS[2]], ROWS[::-1], [ROWS[0], {"step": 1, "note": ""}, ROWS[2]]]
)
def test_a_run_with_other_rows_does_not_pass(run: Path, rows: model.Rows) -> None:
    with pytest.raises(AssertionError, match="and should hold"):
        invariants.check_run(run, {"t": rows})


def test_what_a_close_must_not_leave_is_found(run: Path) -> None:
    (run / ".tmp-1").touch()
    invariants.check_run(run, {"t": ROWS})
    with pytest.raises(AssertionError, match=r"was closed, and has \['.tmp-1'\]"):
        invariants.check_run(run, {"t": ROWS}, closed=True)


def test_damage_is_found(tmp_path: Path) -> None:
    store = cox.Store(tmp_path, "run")
    store.add_table("t", {"x": cox.PICKLE}).append_row({"x": [1]})
    (payload,) = (tmp_path / "run" / ".table_objects").iterdir()
    payload.write_bytes(payload.read_bytes()[:-1])
    with pytest.raises((AssertionError, cox.errors.DamagedError)):
        invariants.check_run(tmp_path / "run", {"t": [{"x": [1]}]})
    store.close()


def test_a_row_that_only_the_journal_has_is_found_where_all_is_closed(tmp_path: Path) -> None:
    store = cox.Store(tmp_path, "run")
    store.add_table("t", {"step": int}).append_row({"step": 0})
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    store.close()
    invariants.check_run(tmp_path / "killed", {"t": [{"step": 0}]})
    with pytest.raises(AssertionError, match="was closed"):
        invariants.check_run(tmp_path / "killed", {"t": [{"step": 0}]}, closed=True)


def test_a_failure_is_raised_where_it_is_told_to(tmp_path: Path) -> None:
    store = cox.Store(tmp_path, "run")
    table = store.add_table("t", {"step": int})
    table.append_row({"step": 0})
    assert faults.calls_of(lambda: table.append_row({"step": 1})) == ["pwrite"]
    for how in ("before", "half"):
        disk = faults.Failure(lambda *_: True, errno.ENOSPC, how)  # type: ignore[arg-type]
        with faults.intercepted(disk) as names, pytest.raises(StorageError, match="free some space"):
            table.append_row({"step": 2})
        assert disk.failed[0] == names[0] == "pwrite"
    assert table.nrows == 2
    with faults.intercepted(faults.Failure.at(0, errno.EIO)) as names:
        table.append_row({"step": 2})
    assert names == ["pwrite", "pwrite"], "only the first one failed, and it was tried again"
    store.close()
    assert invariants.check_run(tmp_path / "run", {"t": [{"step": 0}, {"step": 1}, {"step": 2}]}) == 0


def test_a_block_that_ends_leaves_the_file_system_as_it_was(tmp_path: Path) -> None:
    unlink = fs.unlink
    with pytest.raises(KeyError), faults.intercepted(lambda number, name, do, half: do()):
        raise KeyError
    assert fs.unlink is unlink


class Forgetful(model.Stores):
    """A store that loses its rows if it is closed by a kill."""

    def abandon(self, store: Any) -> None:
        super().abandon(store)
        for path in (store._run.root / ".cox" / "journal").glob("*.log"):
            path.write_bytes(path.read_bytes()[:-40])


def test_the_state_machine_notices_rows_that_are_lost() -> None:
    machine = cox.testing.run_machine(Forgetful())
    few = settings(
        max_examples=200,
        stateful_step_count=12,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    with pytest.raises((AssertionError, DamageWarning, cox.errors.CoxError)):
        run_state_machine_as_test(machine, settings=few)


def test_without_hypothesis_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    with pytest.raises(MissingExtraError, match=r"needs hypothesis: pip install 'cox\[testing\]'"):
        cox.testing.run_machine()


def test_importing_it_loads_neither_hypothesis_nor_pytest(start: Callable[..., Any]) -> None:
    printed = start(
        "import sys, cox.testing, cox.testing.faults, cox.testing.invariants, cox.testing.model\n"
        "print(sorted({'hypothesis', 'pytest'} & set(sys.modules)))"
    ).finish()
    assert printed == ["[]"]

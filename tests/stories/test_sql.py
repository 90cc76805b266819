"""Questions to a thousand runs, in SQL."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cox import CollectionReader
from cox.store import Store

RUNS, ROWS = 1000, 20


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A thousand runs: fifty are logged, the others are copies under other names."""
    folder = tmp_path / "runs"
    for number in range(50):
        with Store(folder, f"run-{number:04}") as store:
            lr = 10.0 ** -(number % 5)
            store.add_table("metadata", {"lr": float, "seed": int}).append_row({"lr": lr, "seed": number})
            results = store.add_table("results", {"step": int, "acc": float})
            for step in range(ROWS):
                results.append_row({"step": step, "acc": lr * step / ROWS + number / 1e6})
    for number in range(50, RUNS):
        shutil.copytree(folder / f"run-{number % 50:04}", folder / f"run-{number:04}")
    return folder


def test_a_thousand_runs_answer_in_sql(runs: Path) -> None:
    reader = CollectionReader(runs)
    best = reader.sql("""
        select lr, count(distinct exp_id) as runs, count(*) as n, max(acc) as best
        from results join metadata using (exp_id)
        group by lr order by lr desc
    """)
    assert best["lr"].tolist() == [1.0, 0.1, 0.01, 0.001, 0.0001]
    assert best["runs"].tolist() == [200] * 5
    assert best["n"].tolist() == [200 * ROWS] * 5
    assert best["best"][0] == pytest.approx(0.95 + 45e-6)
    top = reader.sql("""
        select exp_id, seed, arg_max(step, acc) as at from results join metadata using (exp_id)
        where lr < 0.5 group by exp_id, seed order by max(acc) desc, exp_id limit 2
    """)
    assert top.to_dict("records") == [
        {"exp_id": "run-0046", "seed": 46, "at": ROWS - 1},
        {"exp_id": "run-0096", "seed": 46, "at": ROWS - 1},
    ]
    frame = reader.df("results", where="acc > 0.9")
    assert len(frame) == reader.sql("select count(*) as n from results where acc > 0.9")["n"][0]
    assert (runs / ".cox-cache").is_dir()
    assert reader.sql("select count(*) as n from runs where state = 'finished'")["n"][0] == RUNS

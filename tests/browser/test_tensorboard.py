"""`cox-tensorboard` as a person sees it: names, curves and parameters in a browser."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from cox.store import Store
from tests.conftest import PATIENCE
from tests.viewer import Viewer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RELOAD = ("--port", "0", "--", "--reload_interval", "1")


def train(out: Path, name: str, lr: float, arch: str, rows: int = 60) -> None:
    with Store(out, name) as store:
        store.add_table("metadata", {"lr": float, "arch": str}).append_row({"lr": lr, "arch": arch})
        table = store.add_table("results", {"loss": float, "acc": float})
        for step in range(rows):
            left = math.exp(-step * lr)
            store.log_table_and_tb("results", {"loss": left, "acc": 1 - left})
            table.flush_row()


@pytest.fixture
def runs(out: Path) -> Path:
    train(out, "a", 0.1, "resnet18")
    train(out, "b", 0.01, "resnet18")
    train(out, "c", 0.5, "vgg, deep: 16/19")
    return out


def wait_for(page: Page, *texts: str) -> None:
    for text in texts:
        page.get_by_text(text).first.wait_for()


def test_names_filters_and_curves(
    runs: Path, tmp_path: Path, page: Page, picture: Callable[[str], Path]
) -> None:
    with Viewer(
        tmp_path, "--logdir", runs, "--format-str", "lr-{lr}", "--filter-param", "arch", "resnet", *RELOAD
    ) as view:
        for run in view.runs(2):
            view.scalars(run, "results/acc", 60)
        page.goto(f"{view.url()}/#timeseries")
        wait_for(page, "results/acc", "results/loss", "lr-0.1-a", "lr-0.01-b")
        deadline = time.monotonic() + PATIENCE
        for card in page.locator("line-chart").all():
            while len(coloured(card.screenshot())) < 2:  # they are drawn in an animation
                assert time.monotonic() < deadline, "a curve for each run, each of its own colour"
                page.wait_for_timeout(200)
        picture("curves")
        assert page.get_by_text("-c", exact=False).filter(has_text="lr-0.5").count() == 0
        # the last values stand below the curves
        wait_for(page, f"{1 - math.exp(-5.9):.4f}")


def coloured(picture: bytes) -> set[int]:
    """The hues in a picture that many pixels have, in tenths of the circle: those of the curves."""
    pixels = matplotlib.image.imread(io.BytesIO(picture))[..., :3]
    hue, saturation, _ = np.moveaxis(matplotlib.colors.rgb_to_hsv(pixels), -1, 0)
    tenths, counts = np.unique((hue[saturation > 0.25] * 10).astype(int), return_counts=True)
    return {int(tenth) for tenth, count in zip(tenths, counts, strict=True) if count > 50}


def test_hparams_compare_runs_by_their_parameters(
    runs: Path, tmp_path: Path, page: Page, picture: Callable[[str], Path]
) -> None:
    with Viewer(tmp_path, "--logdir", runs, *RELOAD) as view:
        for run in view.runs(3):
            view.scalars(run, "results/acc", 60)
        page.goto(f"{view.url()}/#hparams")
        wait_for(page, "Trial ID", "results/acc", "0.010000", "vgg, deep: 16/19")
        picture("hparams")
        wait_for(page, f"{1 - math.exp(-5.9):.5g}")
        shown = page.get_by_text("resnet18", exact=True).locator("visible=true")
        deadline = time.monotonic() + PATIENCE
        while shown.count() != 3:  # two rows, and the list to choose from
            assert time.monotonic() < deadline, shown.count()
            page.wait_for_timeout(200)


def test_final_metrics_and_the_parameters_of_all_runs_are_in_the_hparams_tab(
    out: Path, tmp_path: Path, page: Page, picture: Callable[[str], Path]
) -> None:
    for lr in (0.1, 0.01):
        with Store(out, f"run-{lr}") as store:
            own = "arch" if lr == 0.1 else "depth"  # not all have the same
            store.add_table("metadata", {"lr": float, own: str}).append_row({"lr": lr, own: f"{own} of it"})
            table = store.add_table("results", {"loss": float, "acc": float})
            for _ in range(3):
                store.log_table_and_tb("results", {"loss": lr, "acc": float("nan")})
                table.flush_row()
            store.log_hparams(metrics={"best/acc": 0.5 + lr})
    with Viewer(tmp_path, "--logdir", out, *RELOAD) as view:
        for run in view.runs(2):
            view.scalars(run, "best/acc", 1)
        page.goto(f"{view.url()}/#hparams")
        wait_for(page, "Trial ID", "best/acc", "results/loss", "0.60000", "0.51000", "0.010000")
        picture("metrics")
        wait_for(page, "arch of it", "depth of it")


def test_a_run_that_begins_while_the_page_is_open_is_there_after_a_reload(
    runs: Path, tmp_path: Path, page: Page, picture: Callable[[str], Path]
) -> None:
    with Viewer(tmp_path, "--logdir", runs, "--where", "lr < 0.4", *RELOAD) as view:
        view.runs(2)
        page.goto(f"{view.url()}/#timeseries")
        wait_for(page, "lr=0.1-a", "lr=0.01-b")
        train(runs, "later", 0.2, "resnet18")
        train(runs, "left out", 0.7, "resnet18")
        view.runs(3)
        page.reload()
        wait_for(page, "lr=0.2-later")
        picture("later")
        assert page.get_by_text("left out").count() == 0


def test_tables_that_were_never_sent_are_drawn(
    out: Path, tmp_path: Path, page: Page, picture: Callable[[str], Path]
) -> None:
    for lr in (0.1, 0.3):
        with Store(out, f"only-rows-{lr}") as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": lr})
            table = store.add_table("results", {"step": int, "loss": float})
            for step in range(0, 600, 10):
                table.append_row({"step": step, "loss": math.exp(-step * lr / 10)})
    with Viewer(tmp_path, "--logdir", out, "--from-tables", "results", *RELOAD) as view:
        view.runs(2)
        page.goto(f"{view.url()}/#timeseries")
        wait_for(page, "results/loss", "lr=0.1-only-rows-0.1", "590")
        picture("tables")
        page.goto(f"{view.url()}/#hparams")
        wait_for(page, "Trial ID", "0.10000", "0.30000")


def test_odd_names_are_shown_as_text(
    out: Path, tmp_path: Path, page: Page, picture: Callable[[str], Path]
) -> None:
    name = "<b>bold</b> $(touch x); é漢 | 'q'"
    train(out, "odd", 0.1, name)
    train(out, "even", 0.1, "plain")
    alerts: list[Any] = []
    page.on("dialog", lambda dialog: alerts.append(dialog))
    with Viewer(tmp_path, "--logdir", out, "--format-str", "{arch}", *RELOAD) as view:
        view.runs(2)
        page.goto(f"{view.url()}/#timeseries")
        wait_for(page, "<b>bold<_b> $(touch x); é漢 | 'q'-odd")
        picture("odd")
    assert not alerts

"""A run against a plain model: whatever is done to it, in any order, readers see what the model says."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from cox.storage import writer
from cox.testing import run_machine
from tests.compat import comparison

EXAMPLES = int(os.environ.get("COX_PROPERTY_EXAMPLES", "60"))
STEPS = int(os.environ.get("COX_PROPERTY_STEPS", "30"))


class RunMachine(run_machine()):  # type: ignore[misc]
    """The reader that was written from docs/FORMAT.md alone looks too, at the end."""

    def teardown(self) -> None:
        if self.stores:
            comparison.assert_readers_agree(self.folder / "run")
        super().teardown()


@pytest.mark.slow
class TestRunMachine(RunMachine.TestCase):  # type: ignore[name-defined]
    """Run by pytest."""

    settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )

    @pytest.fixture(autouse=True)
    def fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "fdatasync"):  # to wait for a real disk shows nothing here
            monkeypatch.setattr(os, name, lambda fd: None)
        monkeypatch.setattr(writer, "FOLD_AT", 4000)

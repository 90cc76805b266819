"""One zygote for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.zygote import Zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Starts child processes in a few milliseconds each."""
    with Zygote(tmp_path_factory.mktemp("zygote") / "stderr") as started:
        yield started

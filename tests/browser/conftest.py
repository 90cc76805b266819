"""A headless Chromium. Where COX_BROWSER is set its absence is a failure; elsewhere it skips the tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PATIENCE, ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: Where pictures of what was seen are kept.
PICTURES = Path(os.environ.get("COX_PICTURES", ROOT / "build" / "pictures"))


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    program = _chromium()
    if program is None or importlib.util.find_spec("playwright") is None:
        lacks = "playwright" if program else "chromium"
        if os.environ.get("COX_BROWSER"):
            pytest.fail(f"COX_BROWSER is set, and there is no {lacks}")
        pytest.skip(f"no {lacks}: apt-get install chromium, pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-dev-shm-usage"],  # containers have little of that
            timeout=1000 * PATIENCE,
        )
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own for each test."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(1000 * PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture
def picture(page: Page, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Keep a picture of the page as it is."""

    def keep(name: str) -> Path:
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{request.node.name}-{name}.png"
        page.screenshot(path=path)
        return path

    return keep

"""The harness itself: a page that says what is not so has to fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.docs.page import PageError, blocks, compare, run

UUIDS = ("7753a944-568d-4cc2-9bb2-9019cc0b3f49", "0424807a-c9c0-4974-b881-f927fc5ae7c3")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a page; the working directory is its own."""
    monkeypatch.chdir(tmp_path)
    # `python` is the one that runs the tests, also where its environment is not activated
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def write(text: str) -> Path:
        page = tmp_path / "page.md"
        page.write_text(text.replace("'''", "```"), encoding="utf-8")
        return page

    return write


def test_blocks_share_a_namespace_and_files(write) -> None:
    run(
        write(
            "'''python\n# script.py\nprint('from', __name__)\n'''\n"
            "'''python\ndef double(x):\n    return 2 * x\n'''\n"
            "and then\n'''python\nprint(double(4))\n'''\n'''text\n8\n'''\n"
            "'''console\n$ python script.py\nfrom __main__\n$ echo a \\\n  b\na b\n'''\n"
        )
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("'''python\nprint(1)\n'''\n\n'''text\n2\n'''\n", r"line 2: the page prints\n2\n"),
        ("'''console\n$ echo 1\n2\n'''\n", r"line 2: the page prints\n2\n"),
        ("'''console\n$ echo 1\n'''\n", r"the block printed\n1\n"),
        ("'''console\n$ exit 3\n'''\n", r"`exit 3` ended with exit status 3"),
        ("'''sh\nexit 3\n'''\n'''console serve\n$ exit 3\n'''\n", "has no block of python or console"),
    ],
)
def test_a_page_that_is_not_true_fails(write, text: str, said: str) -> None:
    with pytest.raises(PageError, match=said):
        run(write(text))


def test_an_error_names_the_line_of_the_page(write) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(write("Text.\n\n'''python\nx = 1\nx / 0\n'''\n"))
    assert caught.traceback[-1].lineno + 1 == 5


def test_only_python(write) -> None:
    run(write("'''python\nx = 1\n'''\n'''console\n$ exit 3\n'''\n"), ["python"])


def test_output_belongs_to_the_block_right_before_it(write) -> None:
    page = write("'''python\n1\n'''\n\n'''text\na\n'''\n'''python\n2\n'''\nProse.\n'''text\nb\n'''\n")
    assert [block.output for block in blocks(page)] == ["a\n", None, None]


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a\nb\n", "a  \nb\n\n"),
        ("a … c\n", "a b c\n"),
        ("a\n…\nd\n", "a\nb\nc\nd\n"),
        ("a\n…\nd\n", "a\nd\n"),
        (f"run {UUIDS[0]}\n", f"run {UUIDS[1]}\n"),
        ("a.c\n", "a.c\n"),
    ],
)
def test_output_that_agrees(expected: str, printed: str) -> None:
    compare(expected, printed)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a\n", "b\n"),
        ("a\n", "a\nb\n"),
        ("a\nb\n", "a\n"),
        ("a.c\n", "abc\n"),
        ("a … c\n", "a b\nc\n"),
        ("a\n…\nd\n", "a\nb\n"),
        (f"run {UUIDS[0]}\n", "run 1\n"),
    ],
)
def test_output_that_does_not(expected: str, printed: str) -> None:
    with pytest.raises(PageError, match="and the block printed"):
        compare(expected, printed)

"""Run a page of documentation: every block in order, its output compared with what the page prints.

    python tests/docs/page.py walkthroughs/1-logging.md [--python]

In the working directory, which should be a fresh one. How a block is treated is told by its language:

```python     runs, in one namespace for the whole page, as if typed into one program. If its first line is a
              comment with nothing but a file name (`# train.py`), it is saved under that name instead.
```console    lines after `$ ` run in a shell, with the lines that a backslash continues; the others are what
              they print. `--python` leaves these blocks out.
```text       right after a python block: what that block prints.

Everything else is for the reader only, and so is a console block with a word behind its language:
`console serve` runs for ever, and a test of its own starts it.

In expected output, `…` stands for anything in its line, a line of nothing else for any number of lines,
and one UUID for any other. Spaces at the ends of lines do not count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(`{3,})[ \t]*([^`\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w-]+(?:\.\w+)+)\n")
_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_WILD = re.compile(rf"(?P<lines>^…\n)|(?P<any>…)|(?P<uuid>{_UUID})", re.MULTILINE)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


class PageError(Exception):
    """The page says what is not so."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: The first word behind the fence.
        words: The others.
        text: What is inside, ending in a line break.
        line: The line of the page that its text begins at.
        output: The text block right behind it, if there is one.
    """

    language: str
    words: tuple[str, ...]
    text: str
    line: int
    output: str | None = None

    def commands(self) -> Iterator[tuple[str, str]]:
        """The commands of a console block, each with what it prints."""
        for match in _COMMAND.finditer(self.text):
            yield match[1], match[2]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page. A text block right behind another one is its output."""
    source = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(source):
        language, *words = match[2].split() or [""]
        line = source.count("\n", 0, match.start(3)) + 1
        if language == "text" and found and not source[end : match.start()].strip():
            last = found[-1]
            found[-1] = Block(last.language, last.words, last.text, last.line, match[3])
        else:
            found.append(Block(language, tuple(words), match[3], line))
        end = match.end()
    return found


def compare(expected: str, printed: str) -> None:
    """Compare what a page prints with what was printed.

    Raises:
        PageError: They differ.
    """
    wanted, got = _stripped(expected), _stripped(printed)
    regex, at = "", 0
    for wild in _WILD.finditer(wanted):
        regex += re.escape(wanted[at : wild.start()])
        regex += {"lines": r"(?:.*\n)*?", "any": ".*?", "uuid": _UUID}[str(wild.lastgroup)]
        at = wild.end()
    if not re.fullmatch(regex + re.escape(wanted[at:]), got):
        raise PageError(f"the page prints\n{expected}\nand the block printed\n{printed}")


class Session:
    """One reading of a page, from its first block on."""

    def __init__(self, page: Path) -> None:
        self.page = page
        # the blocks are a program: what they define lives in `__main__`, as pickle wants it
        self.module = types.ModuleType("__main__")

    def run(self, block: Block) -> None:
        """Run a block of code.

        Raises:
            PageError: It does not print what the page says.
        """
        if block.language == "console":
            for command, expected in block.commands():
                compare(expected, _shell(command))
        elif file := _FILE.match(block.text):
            Path(file[1]).write_text(block.text, encoding="utf-8")
        else:
            printed = self._python(block)
            if block.output is not None:
                compare(block.output, printed)

    def _python(self, block: Block) -> str:
        # as many empty lines in front of it have tracebacks name the line of the page
        source = "\n" * (block.line - 1) + block.text
        code = compile(source, str(self.page), "exec", dont_inherit=True)
        before, sys.modules["__main__"] = sys.modules["__main__"], self.module
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, self.module.__dict__)
        finally:
            sys.modules["__main__"] = before
        return printed.getvalue()


def run(page: Path, languages: Sequence[str] = ("python", "console")) -> None:
    """Run a page in the working directory.

    Raises:
        PageError: It says what is not so.
    """
    session = Session(page)
    ran = 0
    for block in blocks(page):
        if block.language in languages and not block.words:
            try:
                session.run(block)
            except PageError as error:
                raise PageError(f"{page}, line {block.line}: {error}") from None
            ran += 1
    if not ran:
        raise PageError(f"{page} has no block of {' or '.join(languages)}: is it the right page?")


def _shell(command: str) -> str:
    """What a command prints. What it says on stderr is passed on, and its status has to be 0."""
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        raise PageError(f"`{command}` ended with exit status {done.returncode}; it printed\n{done.stdout}")
    return done.stdout


def _stripped(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").split("\n"))


def main() -> None:
    """Run the page that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--python", action="store_true", help="only the python blocks")
    args = parser.parse_args()
    try:
        run(args.page.resolve(), ("python",) if args.python else ("python", "console"))
    except PageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Rows as text: a table for people, CSV in a pipe, and the other formats that commands offer.

For people a value is shortened and made printable; as data (CSV, JSON, Parquet) it is left as it is, save
that CSV for a terminal is made printable, too.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from cox.cli import screen, terminal
from cox.display.fitting import natural
from cox.display.grid import Column, Grid, plain
from cox.display.text import printable

#: Suffixes of files, and what they ask for.
SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".md": "md",
    ".tex": "latex",
    ".txt": "table",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_CHUNK = 1000
_PLAIN = frozenset({str, int, float, bool, type(None)})


# --- Where to


def grid_of(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Grid:
    """Rows as a grid."""
    return Grid([Column(name, [row[i] for row in rows]) for i, name in enumerate(names)])


def emit(grid: Grid, how: str | None, output: Path | None, as_json: bool, *, whole: bool = False) -> None:
    """Print rows or save them, as the options of `options.output` say.

    Args:
        grid: The rows.
        how: One of `options.FORMATS`, or None to decide by where they go.
        output: The file; None for stdout.
        as_json: The same as how='json'.
        whole: Whether a terminal shows all rows, however many there are.
    """
    chosen = format_of(how, output, as_json)
    if output is not None:
        save(grid, chosen, output)
        terminal.note(f"{len(grid):,} rows in {output}")
    elif chosen == "table" and terminal.is_terminal():
        screen.show(grid, whole=whole)
    else:
        for piece in _PIECES[chosen](grid):
            # color: click must not take out of data what looks like colours
            click.echo(_safe(piece) if chosen == "csv" else piece, nl=False, color=True)


def format_of(how: str | None, output: Path | None, as_json: bool) -> str:
    """The format that was asked for, or else the one that fits.

    Raises:
        UsageError: There is none, or there are two.
    """
    if output is not None and not output.parent.is_dir():
        raise click.UsageError(f"-o {output}: there is no directory {output.parent}")
    if as_json and how not in (None, "json"):
        raise click.UsageError(f"--json and --format {how}: choose one of them")
    if as_json:
        return "json"
    if output is None:
        if how == "parquet":
            raise click.UsageError("--format parquet: Parquet is no text; name a file with -o FILE")
        return how or ("table" if terminal.is_terminal() else "csv")
    found = how or SUFFIXES.get(output.suffix.lower())
    if found is None:
        known = ", ".join(SUFFIXES)
        raise click.UsageError(f"-o {output}: give --format, or a name that ends in one of {known}")
    return found


def emit_text(document: str, output: Path | None) -> None:
    """Print a document, or save it."""
    if output is None:
        click.echo(document, nl=False)
        return
    from cox.storage import fs

    fs.replace_bytes(output, document.encode())
    terminal.note(f"saved {output}")


def save(grid: Grid, how: str, path: Path) -> None:
    """Write rows to a file, which appears whole or not at all."""
    from cox.storage import fs

    def write(beside: Path) -> None:
        if how == "parquet":
            _write_parquet(grid, beside)
            return
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(_PIECES[how](grid))

    fs.replace_file(path, write, durable=False)


def _write_parquet(grid: Grid, path: Path) -> None:
    from cox.extras import needed

    pa, pq = needed("pyarrow", "parquet", "Parquet"), needed("pyarrow.parquet", "parquet", "Parquet")
    try:
        if grid.frame is not None:
            made = pa.Table.from_pandas(grid.frame, preserve_index=False).replace_schema_metadata(None)
        else:
            made = pa.table({column.name: column.cells for column in grid.columns})
        pq.write_table(made, path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise click.ClickException(f"Parquet cannot hold this: {terminal.sentence(error)}") from error


def _safe(piece: str) -> str:
    if not terminal.is_terminal():
        return piece
    return "".join(char if char in "\r\n" else printable(char) for char in piece)


# --- As data


def _csv(grid: Grid) -> Iterator[str]:
    """A header and rows. A missing cell is empty, NaN is `nan`."""
    yield csv_lines([grid.names])
    columns = [
        column.cells if set(map(type, column.cells)) <= _PLAIN else list(map(_datum, column.cells))
        for column in grid.columns
    ]
    for start in range(0, len(grid), _CHUNK):
        yield csv_lines(zip(*(cells[start : start + _CHUNK] for cells in columns), strict=True))


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of plain values as lines of CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _datum(cell: Any) -> Any:
    if isinstance(cell, datetime.datetime):
        return cell.isoformat()
    if isinstance(cell, (tuple, list)) and all(isinstance(item, str) for item in cell):
        return " ".join(cell)
    return cell


def _json(grid: Grid) -> Iterator[str]:
    yield as_json(list(_objects(grid)))


def _jsonl(grid: Grid) -> Iterator[str]:
    for one in _objects(grid):
        yield json.dumps(one) + "\n"


def _objects(grid: Grid) -> Iterator[dict[str, Any]]:
    for row in grid.rows():
        yield {name: json_value(cell) for name, cell in zip(grid.names, row, strict=True)}


def as_json(value: Any) -> str:
    """A JSON document, with its line's end."""
    return json.dumps(json_value(value), indent=1) + "\n"


def json_value(value: Any) -> Any:
    """A value that JSON has. NaN is null, an infinity the text 'inf' or '-inf', a date is ISO 8601."""
    value = plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if value != value else str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(item) for item in value]
    return str(value)


# --- For people


def plain_lines(grid: Grid) -> list[str]:
    """A table without lines and colours, whatever its width."""
    return list(natural(grid).lines())


def _table(grid: Grid) -> Iterator[str]:
    for line in natural(grid).lines():
        yield f"{line}\n"


def _md(grid: Grid) -> Iterator[str]:
    yield _md_row([_md_text(column.heading) for column in grid.columns])
    yield _md_row(["---:" if column.is_number else ":---" for column in grid.columns])
    for row in zip(*(column.texts() for column in grid.columns), strict=True):
        yield _md_row(list(map(_md_text, row)))


def _md_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _md_text(shown: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", shown)


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "…": r"\ldots{}",
    **{char: f"\\{char}" for char in "{}$&#_%"},
}


def _latex(grid: Grid) -> Iterator[str]:
    """A tabular with the rules of booktabs."""
    yield "% needs \\usepackage{booktabs}\n"
    yield "\\begin{tabular}{" + "".join("r" if column.is_number else "l" for column in grid.columns) + "}\n"
    yield "\\toprule\n"
    yield _latex_row([column.heading for column in grid.columns])
    yield "\\midrule\n"
    for row in zip(*(column.texts() for column in grid.columns), strict=True):
        yield _latex_row(row)
    yield "\\bottomrule\n\\end{tabular}\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(char, char) for char in cell) for cell in cells) + " \\\\\n"


_PIECES: dict[str, Callable[[Grid], Iterator[str]]] = {
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "latex": _latex,
    "md": _md,
    "table": _table,
}

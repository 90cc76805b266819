"""A name that is not there: every face says which ones there are, and which may be meant, in one form."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import cox
from cox.cli import main
from cox.errors import CoxError, there_are, unknown
from cox.readers import CollectionReader

#: What every sentence about such a name ends with.
FORM = re.compile(r"there are \[[^]]+\](?: and [\d,]+ more)?; did you mean (?P<meant>[^?]+)\?")


def rewind(folder: Path) -> object:
    with cox.Store(folder, "baseline") as store:
        return store.rewind("results", step=1, column="stepp")


def append(folder: Path) -> object:
    with cox.Store(folder, "baseline") as store:
        return store["results"].append_row({"losss": 1.0})


def read(ask: Callable[[CollectionReader], object]) -> Callable[[Path], object]:
    def asked(folder: Path) -> object:
        with CollectionReader(folder) as reader:
            return ask(reader)

    return asked


#: Calls with a name that is not there, and the name that is meant.
CALLS: dict[str, tuple[Callable[[Path], object], str]] = {
    "table of a store": (lambda folder: cox.Store(folder, "baseline", mode="r")["result"], "results"),
    "column of a row": (append, "loss"),
    "column of a rewind": (rewind, "step"),
    "table": (read(lambda reader: reader.df("result")), "results"),
    "column": (read(lambda reader: reader.df("results", columns=["los"])), "loss"),
    "where": (read(lambda reader: reader.df("results", where="los > 1")), "loss"),
    "params": (read(lambda reader: reader.df("results", params="slop > 1")), "slope"),
    "run": (read(lambda reader: reader.run("baslime")), "baseline"),
    "layout": (read(lambda reader: reader.source.layout("baslime")), "baseline"),
    "metric": (read(lambda reader: reader.compare("results", "los")), "loss"),
    "by": (read(lambda reader: reader.compare("results", "loss", by="slop")), "slope"),
    "interval": (read(lambda reader: reader.compare("results", "loss", interval="bootstrp")), "bootstrap"),
    "reduce": (read(lambda reader: reader.compare("results", "loss", reduce="medan")), "median"),
    "reduce of wide": (read(lambda reader: reader.wide(reduce="lst")), "last"),
    "y": (read(lambda reader: reader.plot("results", y="los")), "loss"),
    "hue": (read(lambda reader: reader.plot("results", y="loss", hue="slop")), "slope"),
    "band": (read(lambda reader: reader.plot("results", y="loss", band="minmx")), "minmax"),
    "sql": (read(lambda reader: reader.sql("select * from result")), "results"),
}
COMMANDS: dict[str, tuple[list[str], str]] = {
    "command": (["sho"], "show"),
    "run": (["show", "{}/baslime"], "baseline"),
    "table of df": (["df", "result", "{}"], "results"),
    "table of tail": (["tail", "{}/baseline", "result"], "results"),
    "column of tail": (["tail", "{}/baseline", "results", "--columns", "los"], "loss"),
    "column of ls": (["ls", "{}", "--sort", "slop"], "slope"),
    "metadata": (
        ["tensorboard", "--logdir", "{}", "--metadata-table", "metdata", "--where", "a"],
        "metadata",
    ),
    "format": (["tensorboard", "--logdir", "{}", "--format-str", "{{slop}}"], "slope"),
    "tables": (["tensorboard", "--logdir", "{}", "--from-tables", "result"], "results"),
}


@pytest.fixture
def folder(out: Path) -> Path:
    with cox.Store(out, "baseline") as store:
        store.log_params({"slope": 1.0})
        store.add_table("results", {"step": int, "loss": float})
        store["results"].append_row({"step": 0, "loss": 1.0})
    return out


@pytest.mark.parametrize("face", CALLS)
def test_an_error_in_python(folder: Path, face: str) -> None:
    call, meant = CALLS[face]
    with pytest.raises(CoxError) as raised:
        call(folder)
    found = FORM.search(str(raised.value))
    assert found and found["meant"].strip("'") == meant, raised.value


@pytest.mark.parametrize("face", COMMANDS)
def test_an_error_of_a_command(folder: Path, face: str) -> None:
    command, meant = COMMANDS[face]
    result = CliRunner().invoke(main, [part.format(folder) for part in command])
    found = FORM.search(result.output)
    assert result.exit_code and found and found["meant"].strip("'") == meant, result.output


def test_a_thousand_names_and_long_ones_are_told_in_a_few_lines() -> None:
    names = [f"column{i:04}" for i in range(1000)]
    sentence = unknown("table 't' has no column", "colum0999", names)
    assert "'column0019'] and 980 more; did you mean 'column0999'?" in sentence
    assert len(unknown("no column", "x" * 10**6, [name * 1000 for name in names])) < 2500


def test_no_names() -> None:
    assert unknown("there is no parameter", "lr", []) == "there is no parameter 'lr'; there are none"
    assert there_are(["lr"], "LR") == "there are ['lr']"

"""`cox-tensorboard`, piece by piece, and the end of its server. Rows C25 to C27 are in tests/spec."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cox import tensorboard_view
from cox.errors import CollectionWarning, PredicateError
from cox.storage import snapshot
from cox.store import OBJECT, PICKLE, Store
from cox.tensorboard.view import names, server
from cox.tensorboard.view.from_tables import TableEvents
from cox.tensorboard.view.links import LinkDirectory
from cox.tensorboard.view.selection import Selection
from cox.tensorboard_view import ViewError, links, main
from tests.conftest import PATIENCE, ROOT
from tests.viewer import SIGNALS, Viewer, no_signal_ignored


def make_run(out: Path, exp_id: str, values: Mapping[str, Any], **options: Any) -> Path:
    """A run with this metadata, whose columns have the types of the values."""
    with Store(out, exp_id) as store:
        store.add_table_like_example("metadata", values, **options).append_row(values)
    return out / exp_id / "tensorboard"


# --- Which runs


def test_a_link_leads_to_the_tensorboard_directory_of_its_run(out: Path) -> None:
    events = make_run(out, "one", {"lr": 0.5})
    assert links(out, "lr-{lr}") == {"lr-0.5-one": events}


def test_a_relative_folder_gives_absolute_targets(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = make_run(out, "one", {"lr": 0.5})
    monkeypatch.chdir(out.parent)
    assert links(out.name, "{lr}") == {"0.5-one": events}


def test_each_run_keeps_its_own_types(out: Path) -> None:
    # joined into one table, the int would become a float, and `1$` would no longer find it
    make_run(out, "a", {"x": 1})
    make_run(out, "b", {"x": 1.5})
    make_run(out, "c", {"x": "text"})
    make_run(out, "d", {"x": True})
    assert list(links(out, "{x}")) == ["1-a", "1.5-b", "text-c", "True-d"]
    assert list(links(out, "{x}", filters=[("x", "1$")])) == ["1-a"]


def test_several_rows_the_first_counts(out: Path) -> None:
    with Store(out, "one") as store:
        table = store.add_table("metadata", {"lr": float})
        table.append_row({"lr": 0.1})
        table.append_row({"lr": 0.2})
    assert list(links(out, "{lr}")) == ["0.1-one"]


def test_missing_parameters_are_none(out: Path) -> None:
    with Store(out, "a") as store:
        columns = {"lr": float | None, "n": int | None, "s": str | None, "b": bool | None}
        store.add_table("metadata", columns).append_row({})
    with Store(out, "b") as store:
        store.add_table("metadata", {"other": str}).append_row({"other": "x"})
        store["metadata"].add_column("late", OBJECT)
    names = ["None-None-None-None-None-None-a", "None-None-None-None-x-None-b"]
    assert list(links(out, "{lr:.3g}-{n}-{s}-{b}-{other}-{late}")) == names
    assert list(links(out, "x", filters=[("lr", "None"), ("other", "x")])) == ["x-b"]


def test_nan_is_a_value(out: Path) -> None:
    make_run(out, "a", {"lr": float("nan")})
    assert list(links(out, "{lr}", filters=[("lr", "nan")])) == ["nan-a"]


def test_the_name_of_the_run_is_a_parameter_as_upstream(out: Path) -> None:
    for name in ("one", "two"):
        make_run(out, name, {"lr": 0.5})
    assert list(links(out, "{exp_id}", filters=[("exp_id", "t")])) == ["two-two"]


def test_objects_are_decoded_and_lists_joined_as_upstream(out: Path) -> None:
    day = datetime.date(2020, 1, 2)
    values = {"sizes": [10, 20], "t": (1, 2), "d": {"a": 1}, "none": None, "day": day}
    make_run(out, "one", values)
    assert list(links(out, "{sizes}|{t}|{d}|{none}|{day}")) == ["10.20|(1, 2)|{'a': 1}|None|2020-01-02-one"]
    assert list(links(out, "x", filters=[("sizes", r"\[10, 20\]$")])) == ["x-one"]


def test_pickles_are_decoded(out: Path) -> None:
    make_run(out, "one", {"sizes": [10, 20]}, alternative=PICKLE)
    assert list(links(out, "{sizes}")) == ["10.20-one"]


class Own:
    def __str__(self) -> str:
        return "own"


def test_only_the_objects_that_are_asked_for_are_decoded(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(out, "mine", {"lr": 0.5, "model": Own()})
    assert list(links(out, "{model}")) == ["own-mine"]
    monkeypatch.setenv("COX_CONFIG_HOME", str(tmp_path / "somebody else"))
    assert list(links(out, "{lr}")) == ["0.5-mine"]
    with (
        pytest.warns(CollectionWarning, match="run mine is left out: .*'model'.*COX_ALLOW_PICKLE"),
        pytest.raises(ViewError, match="none of the runs"),
    ):
        links(out, "{model}")


def test_an_object_whose_class_is_gone_leaves_out_its_run(
    out: Path, run: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "gone.py").write_text("class Model:\n    pass\n", encoding="utf-8")
    run(
        """
        import sys
        import gone
        from cox.store import OBJECT, Store

        with Store(sys.argv[1], "broken") as store:
            store.add_table("metadata", {"model": OBJECT}).append_row({"model": gone.Model()})
        """,
        out,
        cwd=tmp_path,
    )
    make_run(out, "fine", {"model": 1})
    with pytest.warns(CollectionWarning, match="run broken is left out"):
        assert list(links(out, "{model}")) == ["1-fine"]


def test_runs_that_cannot_be_shown_are_left_out_with_a_warning(out: Path) -> None:
    make_run(out, "fine", {"lr": 0.5})
    make_run(out, "broken", {"lr": 0.5})
    (out / "broken" / "store.h5").write_bytes(b"no HDF5 at all")
    make_run(out, "bare", {"lr": 0.5}).rmdir()
    Store(out, "empty").close()
    with Store(out, "declared") as store:
        store.add_table("metadata", {"lr": float})
    (out / "no run").mkdir()
    with pytest.warns(CollectionWarning) as caught:
        assert list(links(out, "{lr}")) == ["0.5-fine"]
    said = sorted(str(warning.message) for warning in caught)
    assert said[:2] == [
        "left out, for want of a directory 'tensorboard': bare",
        "left out, for want of a row in the table 'metadata': declared, empty",
    ]
    assert len(said) == 3
    assert said[2].startswith("run broken is left out: ")
    assert {warning.filename for warning in caught} == {__file__}


def test_parameters_that_one_column_holds_are_known(out: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        make_run(out, name, {"params": {"lr": lr, "arch": "resnet", "layers": [1, 2]}, "seed": 1})
    assert list(links(out, "{lr}-{arch}-{layers}-{seed}")) == ["0.1-resnet-1.2-1-a", "0.2-resnet-1.2-1-b"]
    assert list(links(out)) == ["lr=0.1-a", "lr=0.2-b"]
    assert list(links(out, where="lr > 0.15")) == ["lr=0.2-b"]
    assert list(links(out, "x", filters=[("lr", "0.1$")])) == ["x-a"]
    said = refusal(out, "{lrr}")
    assert "there are ['arch', 'exp_id', 'layers', 'lr', 'seed']" in said


def test_a_name_leaves_out_what_the_run_lacks(out: Path) -> None:
    make_run(out, "a", {"lr": 0.5})
    make_run(out, "b", {"lr": 0.1, "depth": 3})
    make_run(out, "c", {"other": 1})
    assert list(links(out)) == ["lr=0.5-a", "depth=3,lr=0.1-b", "other=1-c"]


@pytest.mark.parametrize("option", [{"format_str": "{lr:.2e}"}, {"where": "lr < 1"}], ids=["format", "where"])
def test_a_run_whose_value_is_of_another_kind_is_left_out(out: Path, option: dict[str, Any]) -> None:
    make_run(out, "odd", {"lr": "auto"})
    selection = Selection(out, **option)
    with pytest.raises((ViewError, PredicateError), match="lr"):  # where none can be shown
        selection.first()
    make_run(out, "one", {"lr": 0.1})
    with pytest.warns(CollectionWarning, match="(?s)run odd is left out: .*lr"):
        assert len(selection.first()) == 1
    make_run(out, "two", {"lr": 0.2})
    assert len(selection.refreshed()) == 2  # and it is told once


def test_runs_that_cannot_be_read_are_read_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(out, "fine", {"lr": 0.5})
    make_run(out, "broken", {"lr": 0.5})
    (out / "broken" / "store.h5").write_bytes(b"no HDF5 at all")
    read = []
    whole = snapshot.read
    monkeypatch.setattr(snapshot, "read", lambda run, **how: read.append(run.root.name) or whole(run, **how))
    selection = Selection(out)
    with pytest.warns(CollectionWarning, match="run broken is left out"):
        selection.first()
    assert sorted(read) == ["broken", "fine"]
    assert [one.name for one in selection.refreshed()] == ["fine"]
    assert sorted(read) == ["broken", "fine"]
    make_run(out, "broken 2", {"lr": 0.5}).parent.joinpath("store.h5").replace(out / "broken" / "store.h5")
    with pytest.warns(CollectionWarning):
        selection.refreshed()
    assert read.count("broken") == 2


# --- Errors say what there is


def refusal(
    out: Path, format_str: str = "x", *, filters: Sequence[tuple[str, str]] = (), **options: Any
) -> str:
    with pytest.raises(ViewError) as refused:
        links(out, format_str, filters=filters, **options)
    return str(refused.value)


def test_no_folder_no_runs_a_run_in_their_place(out: Path) -> None:
    assert refusal(out / "missing") == f"--logdir: {out / 'missing'} is no directory of runs"
    assert refusal(out) == f"--logdir: {out} has no runs"
    make_run(out, "one", {"lr": 0.5})
    assert refusal(out / "one") == f"--logdir: {out / 'one'} is a run: give the folder it is in"


def test_no_such_table(out: Path) -> None:
    make_run(out, "one", {"lr": 0.5})
    assert refusal(out, metadata_table="metadatum") == (
        f"--metadata-table: no run in {out} has a row in a table 'metadatum'; "
        "there are ['metadata']; did you mean 'metadata'?"
    )


def test_no_such_parameter(out: Path) -> None:
    make_run(out, "one", {"slope": 1, "f(x)": 2})
    known = "there are ['exp_id', 'f(x)', 'slope']"
    assert refusal(out, filters=[("slop", "1")]) == (
        f"--filter-param: there is no parameter 'slop'; {known}; did you mean 'slope'?"
    )
    assert refusal(out, "{slop}") == (
        f"--format-str '{{slop}}': there is no parameter 'slop'; {known}; did you mean 'slope'?"
    )


@pytest.mark.parametrize(
    "field", ["slope.__class__", "slope[0]", "0", "", "slope!r", "slope!r:>9", " slope", "Slope", "slope .3g"]
)
def test_a_field_is_the_name_of_a_parameter_and_nothing_else(out: Path, field: str) -> None:
    make_run(out, "one", {"slope": 1})
    assert f"there is no parameter {field!r}; there are ['exp_id', 'slope']" in refusal(out, f"{{{field}}}")


@pytest.mark.parametrize(
    ("text", "at"),
    [("a{", 1), ("a}", 1), ("{slope", 0), ("{slope}}", 7), ("{slope:{exp_id}}", 0), ("{{{", 2)],
)
def test_a_brace_without_its_partner_is_refused(out: Path, text: str, at: int) -> None:
    make_run(out, "one", {"slope": 1})
    assert refusal(out, text).startswith(f"--format-str {text!r}: the brace at position {at} has no partner")


@pytest.mark.parametrize("spec", [">1000", ".1000f", "x>99999999999", "١٠٠٠"])
def test_a_width_beyond_all_measure_is_refused(out: Path, spec: str) -> None:
    make_run(out, "one", {"slope": 1})
    assert "asks for more than 999 characters" in refusal(out, f"{{slope:{spec}}}")


def test_a_spec_that_does_not_fit_the_value_is_refused(out: Path) -> None:
    make_run(out, "one", {"name": "x" * 10_000})
    said = refusal(out, "{name:.3f}")
    assert said.startswith("--format-str: '.3f' cannot show name of run one, 'xxx")
    assert len(said) < 200


@pytest.mark.parametrize("regex", ["(", "[", "*", "a{99999999999999999999}", "(" * 10_000 + ")" * 10_000])
def test_an_invalid_regex_is_refused(out: Path, regex: str) -> None:
    make_run(out, "one", {"slope": 1})
    said = refusal(out, filters=[("slope", regex)])
    assert said.startswith(f"--filter-param slope {regex!r}: no regular expression: ")


def test_nothing_left_shows_the_values_there_are(out: Path) -> None:
    for number in range(25):
        make_run(out, f"{number:02}", {"n": number, "arch": "resnet18" if number % 2 else "x" * 1000})
    said = refusal(out, filters=[("n", "3$"), ("n", "4$"), ("arch", "vgg")])
    assert said.startswith(
        "none of 25 runs passes --filter-param n '3$' --filter-param n '4$' --filter-param arch 'vgg'; "
        "the values there are: n: 0, 1, 2,"
    )
    assert said.endswith(f"19 and 5 more; arch: '{'x' * 199}… (13 runs), 'resnet18' (12 runs)")


# --- Names


def test_names_of_parameters_may_be_odd(out: Path) -> None:
    values = {
        "f(x)": 1,
        "a b": 2,
        "mx^2": 3,
        "a:b": 0.5,
        "a": 7,
        "{x": 8,
        "y}": 9,
        "a.b": 10,
        "é": 11,
        "": 12,
    }
    make_run(out, "one", values)
    assert list(links(out, "{f(x)} {a b} {mx^2} {a.b} {é} {}")) == ["1 2 3 10 11 12-one"]
    assert list(links(out, "{a:b} {a:b:.2f} {a:>3}")) == ["0.5 0.50   7-one"]
    assert list(links(out, "{y}} {y}:>3}")) == ["9   9-one"]
    assert list(links(out, "{{{a}}}")) == ["{7}-one"]  # two braces are one, whatever parameters there are


def test_the_text_around_the_fields_is_taken_as_it_is(out: Path) -> None:
    make_run(out, "one", {"lr": 0.25})
    assert list(links(out, "{{lr}}=$HOME `{lr}` %s \\n")) == ["{lr}=$HOME `0.25` %s \\n-one"]
    assert list(links(out, "")) == ["-one"]


@pytest.mark.parametrize(
    ("field", "shown"),
    [("{lr:.3g}", "0.333"), ("{lr:.1%}", "33.3%"), ("{n:05d}", "00042"), ("{s:>5}", "    s")],
)
def test_format_specs(out: Path, field: str, shown: str) -> None:
    make_run(out, "one", {"lr": 1 / 3, "n": 42, "s": "s"})
    assert list(links(out, field)) == [f"{shown}-one"]


def test_a_spec_does_not_reach_the_object(out: Path) -> None:
    class Loud(Own):
        def __format__(self, spec: str) -> str:
            raise AssertionError(spec)

    make_run(out, "one", {"model": Loud()})
    assert list(links(out, "{model}|{model:>5}")) == ["own|  own-one"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a/b", "a_b"),
        ("../../etc", ".._.._etc"),
        ("..", ".."),
        ("", ""),
        ("a\0b", "a_b"),
        ("\x1b[31mred\x07\n\x85\x9b", "_[31mred____"),
        ("\u202eevil\u2066\u2028", "_evil__"),
        ("a,b:c;d=e 'f' \"g\" $(h) `i` *?~#&|<>\\", "a,b:c;d=e 'f' \"g\" $(h) `i` *?~#&|<>\\"),
        ("é漢🙂 \u00a0\u200d", "é漢🙂 \u00a0\u200d"),
    ],
)
def test_only_what_is_not_safe_is_replaced(out: Path, value: str, shown: str) -> None:
    make_run(out, "one", {"x": value})
    assert list(links(out, "x={x}")) == [f"x={shown}-one"]


@pytest.mark.parametrize("letter", ["a", "é", "漢", "🙂"])
def test_a_long_value_is_cut_and_the_name_of_the_run_is_not(out: Path, letter: str) -> None:
    make_run(out, "one", {"x": letter * 1000})
    (name,) = links(out, "{x}")
    size = len(letter.encode())
    assert name == letter * ((255 - len("…-one".encode())) // size) + "…-one"
    assert 255 - size < len(name.encode()) <= 255


def test_names_that_would_be_the_same_are_told_apart(out: Path) -> None:
    make_run(out, "a-b", {"x": "1"})
    make_run(out, "b", {"x": "1-a"})
    assert links(out, "{x}") == {"1-a-b": out / "a-b" / "tensorboard", "1-a (2)-b": out / "b" / "tensorboard"}


def test_the_longest_names_of_runs(out: Path) -> None:
    exp_ids = ["e" * 255, "f" * 254, "g" * 252, "h" * 251]
    for exp_id in exp_ids:
        make_run(out, exp_id, {"x": "value"})
    assert list(links(out, "{x}")) == [exp_ids[0], "-" + exp_ids[1], "va-" + exp_ids[2], "…-" + exp_ids[3]]


def test_a_run_whose_name_is_no_text(out: Path) -> None:
    make_run(out, "one", {"x": 1}).parent.rename(out / os.fsdecode(b"\xff"))
    assert links(out, "{x}-{exp_id}") == {"1-_-_": out / "\udcff" / "tensorboard"}


_odd = st.text(st.characters() | st.sampled_from("/\0-. ()12\x1b\ud800"), max_size=300)


@given(st.lists(st.tuples(_odd, _odd), max_size=6))
def test_any_name_is_safe_readable_and_distinct(pairs: list[tuple[str, str]]) -> None:
    taken: list[str] = []
    for prefix, exp_id in pairs:
        made = names.candidates(prefix, exp_id)
        name = next(name for name in made if name not in taken)
        assert 0 < len(name.encode()) <= 255  # encode: no lone surrogates
        assert name not in (".", "..")
        assert "/" not in name
        assert not {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}
        whole = f"{prefix}-{exp_id}"
        if name == next(names.candidates(prefix, exp_id)) and len(whole.encode("utf-8", "replace")) <= 255:
            assert len(name) == len(whole)
            assert all(made in (given, "_") for made, given in zip(name, whole, strict=True))
        taken.append(name)


# --- The command, without its server


class Served:
    """What the command would have handed to the server."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.calls: list[tuple[list[str], int, tuple[str, ...]]] = []

    def __call__(
        self, targets: Mapping[str, Path], *, port: int, options: Sequence[str], refresh: object, hold: object
    ) -> int:
        self.calls.append((list(targets), port, tuple(options)))
        return self.status


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    stand_in = Served(0)
    monkeypatch.setattr(tensorboard_view, "serve", stand_in)
    return stand_in


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_says_how_many_runs_on_stdout_and_warns_on_stderr(out: Path, served: Served) -> None:
    make_run(out, "one", {"lr": 0.5})
    Store(out, "two\x1b[31m").close()
    result = call("--logdir", out, "--format-str", "{lr}")
    assert result.stdout == (
        f"Showing 1 runs of {out}\n"
        "None of them has sent anything to TensorBoard yet; --from-tables shows their rows\n"
    )
    assert result.stderr == "Warning: left out, for want of a row in the table 'metadata': two_[31m\n"
    assert served.calls == [(["0.5-one"], 6006, ())]


def test_warnings_of_the_command_stand_whatever_the_filters_say(out: Path, served: Served) -> None:
    # this project's tests turn warnings into errors, as PYTHONWARNINGS=error does
    Store(out, "two").close()
    make_run(out, "one", {"lr": 0.5})
    assert call("--logdir", out, "--format-str", "x").exit_code == 0
    assert served.calls


@pytest.mark.parametrize("status", [0, 1, 3, 143])
def test_the_status_of_the_server_is_passed_on(out: Path, served: Served, status: int) -> None:
    make_run(out, "one", {"lr": 0.5})
    served.status = status
    assert call("--logdir", out, "--format-str", "x").exit_code == status


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format-str", "{slop}"], "Error: --format-str '{slop}': there is no parameter 'slop'"),
        (
            ["--format-str", "x", "--filter-param", "slop", "1"],
            "Error: --filter-param: there is no parameter",
        ),
        (["--format-str", "x", "--filter-param", "slope", "9"], "Error: none of 1 runs passes"),
        (["--format-str", "x", "--filter-param", "slope", "("], "no regular expression"),
        (["--format-str", "x", "--metadata-table", "t"], "Error: --metadata-table: no run in"),
        (["--format-str", "x", "--filter-param", "slope"], "--filter-param' requires 2 arguments"),
        (["--format-str", "x", "--port", "65536"], "65536 is not in the range"),
        (["--format-str", "x", "--port", "http"], "'http' is not a valid integer"),
        (["--format-str", "x", "--bogus"], "goes after two dashes: -- --bogus"),
        (["--format-stt", "x"], "Did you mean '--format-str'?"),
        (["--format-str", "a", "b"], "unexpected argument 'b'"),
        (["--format-str", "x", "--", "--logdir", "/"], "cannot be handed on"),
        (["--format-str", "x", "--", "--logdir_spec=a:/"], "cannot be handed on"),
        (["--format-str", "x", "--", "--port=1"], "cannot be handed on"),
        (["--where", "slop > 1"], "Error: --where: there is no parameter 'slop'"),
        (["--where", "slope >"], "Error: in this condition:\n    slope >\n"),
        (["--where", "slope > 1"], "Error: none of 1 runs passes --where 'slope > 1'; the values there are"),
    ],
)
def test_an_error_is_a_sentence_on_stderr_and_status_2(
    out: Path, served: Served, arguments: list[str], said: str
) -> None:
    make_run(out, "one", {"slope": 1})
    result = call("--logdir", out, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert served.calls == []


def test_an_error_cannot_garble_the_terminal(out: Path, served: Served) -> None:
    make_run(out, "one", {"x\x1b[2J": "\x1b]0;title\x07\u202e"})
    for arguments in (["{\x1b[2J}"], ["x", "--filter-param", "x\x1b[2J", "\x1b\n"]):
        result = call("--logdir", out, "--format-str", *arguments)
        assert result.exit_code == 2
        assert result.stderr.rstrip("\n").replace("\u202e", "\0").isprintable()
        assert "title" in result.stderr or "there are" in result.stderr


def test_a_directory_of_links_that_cannot_be_made_is_an_error(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(out, "one", {"x": 1})
    monkeypatch.setattr("tempfile.tempdir", str(out / "missing"))
    result = call("--logdir", out, "--format-str", "x")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: [Errno 2] No such file or directory")


def test_values_that_begin_with_a_dash(out: Path, served: Served) -> None:
    for number in (-1, -2, 3):
        make_run(out, f"run{number}", {"x": number, "-y": number})
    call(
        "--logdir",
        out,
        "--format-str",
        "-{-y}",
        "--filter-param",
        "-y",
        "-[1-3]",
        "--filter-param",
        "x",
        "-1",
    )
    assert served.calls == [(["--1-run-1"], 6006, ())]


# --- The server


def test_links_go_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").touch()
    targets = {"a": target, "b": tmp_path / "missing"}
    with contextlib.suppress(KeyError), LinkDirectory() as directory:
        directory.update(targets)
        assert {path.name: path.readlink() for path in directory.path.iterdir()} == targets
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "kept"]


def test_a_directory_of_links_that_was_cleaned_up_is_made_again(tmp_path: Path) -> None:
    (target := tmp_path / "target").mkdir()
    with LinkDirectory() as directory:
        directory.update({"a": target})
        shutil.rmtree(directory.path)
        directory.update({"a": target, "b": target})
        assert sorted(path.name for path in directory.path.iterdir()) == ["a", "b"]
        assert directory.path.stat().st_mode & 0o777 == 0o700
        shutil.rmtree(directory.path)  # and the end does not mind


def test_directories_of_processes_that_were_killed_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = start(
        """
        import sys, time
        from pathlib import Path
        from cox.tensorboard.view.links import LinkDirectory

        directory = LinkDirectory()
        directory.update({"a": Path(sys.argv[1])})
        print(directory.path)
        time.sleep(600)
        """,
        tmp_path,
    )
    path = Path(program.line())
    stranger = tmp_path / "cox-tensorboard-12345678.scratch"
    (mine := tmp_path / "cox-tensorboard-my-plots").mkdir()
    os.utime(mine, (0, 0))
    (target := tmp_path / "target").mkdir()
    (target / "kept").touch()
    stranger.symlink_to(target)

    def made() -> set[str]:
        with LinkDirectory() as directory:
            return {path.name for path in tmp_path.glob("cox-tensorboard-*.*")} - {directory.path.name}

    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    os.utime(stranger, (an_hour_ago, an_hour_ago), follow_symlinks=False)
    assert made() == {path.name, stranger.name}  # somebody uses it
    program.kill()
    assert made() == {stranger.name}
    assert (target / "kept").exists()
    assert mine.exists()
    fresh = Path(tempfile.mkdtemp(prefix="cox-tensorboard-", suffix=".scratch"))
    assert made() == {stranger.name, fresh.name}


def test_links_of_a_killed_command_go_after_its_server(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(out, "one", {"lr": 0.5})
    with Viewer(tmp_path, "--logdir", out, "--port", "0") as view:
        view.url()
        monkeypatch.setattr("tempfile.tempdir", str(view.temporary))
        (path,) = view.temporary.glob("cox-tensorboard-*")
        os.utime(path, (0, 0))
        server_process = view.server_processes()[0]
        os.kill(server_process, signal.SIGSTOP)
        view.process.kill()
        view.end()
        LinkDirectory().remove()
        assert path.exists(), "TensorBoard still shows it"
        os.kill(server_process, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE
        while path.exists() and time.monotonic() < deadline:
            LinkDirectory().remove()
            time.sleep(0.05)
        assert not path.exists()


def test_no_program_is_left_when_something_fails_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "EVERY", 0.05)
    monkeypatch.setattr(server, "GRACE", 0.5)
    seen: list[int] = []
    program = server.Server()

    def fail() -> None:
        assert program._process is not None
        seen.append(program._process.pid)
        raise ZeroDivisionError

    stubborn = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(600)"
    with pytest.raises(ZeroDivisionError):
        program.run([sys.executable, "-c", stubborn], fail)
    assert not is_there(seen[0])


def test_an_update_that_fails_is_told_once(tmp_path: Path) -> None:
    def fail() -> dict[str, Path]:
        raise ZeroDivisionError("by none")

    with LinkDirectory() as directory:
        update = server._Update(directory, fail)
        with pytest.warns(CollectionWarning, match="stays as it is: ZeroDivisionError: by none"):
            update()
        update()  # a warning would be an error here


def test_a_refresh_that_fails_in_any_way_is_told_once(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(out, "one", {"lr": 0.5})
    selection = Selection(out)
    refresh = tensorboard_view._Refresh(selection, None)

    def fail() -> None:
        raise ZeroDivisionError("by none")

    monkeypatch.setattr(selection, "refreshed", fail)
    assert [list(refresh()), list(refresh())] == [["one"], ["one"]]
    assert capsys.readouterr().err == "Warning: ZeroDivisionError: by none\n"


PROGRAM = """
import os, signal, sys, time
from cox.tensorboard.view import server

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
server.GRACE = float(sys.argv[1])
command = [sys.executable, "-u", "-c", sys.argv[2]]
with server.signals_to((program := server.Server()).stop):
    if len(sys.argv) > 3:  # before there is a process
        os.kill(os.getpid(), signal.SIGTERM)
    print(os.getpid())
    status = program.run(command)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
print("status", status)
"""
# both end when the test does, at the latest: their input ends then
PATIENT = "import sys; sys.stdin.read()"
STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("asked"))
print(os.getpid())
sys.stdin.read()
"""


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("code", "status"), [("", 0), ("raise SystemExit(7)", 7), ("import os; os.abort()", 134)]
)
def test_the_status_of_a_program(run: Callable[..., list[str]], code: str, status: int) -> None:
    assert run(PROGRAM, 10, code)[-1] == f"status {status}"


def test_a_program_that_does_not_end_is_killed(start: Callable[..., Any]) -> None:
    for grace in (0.2, 5, 60):  # where it takes longer to say that it was asked, it has more time
        program = start(PROGRAM, grace, STUBBORN)
        program.line()
        child = int(program.line())
        program.process.send_signal(signal.SIGINT)
        said = [program.line()]
        if said == ["asked"]:
            said.append(program.line())
            break
    assert said == ["asked", "status 130"]
    assert not is_there(child)


def test_a_second_signal_kills_at_once(start: Callable[..., Any]) -> None:
    program = start(PROGRAM, 1e6, STUBBORN)
    program.line()
    child = int(program.line())
    program.process.send_signal(signal.SIGTERM)
    assert program.line() == "asked"
    program.process.send_signal(signal.SIGHUP)
    assert program.line() == "status 129"
    assert not is_there(child)


def test_a_signal_before_there_is_a_program_counts(start: Callable[..., Any]) -> None:
    program = start(PROGRAM, 10, PATIENT, "early")
    program.line()
    assert program.line() == "status 143"


def test_signals_that_are_ignored_stay_so(tmp_path: Path) -> None:
    # as under nohup, or for what a shell started in the background
    code = """
import os, signal
from cox.tensorboard.view import server
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with server.signals_to(server.Server().stop):
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert callable(signal.getsignal(signal.SIGTERM))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_neither_process_nor_directory(
    out: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with Store(out, "one") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        store.writer.add_scalar("x", 1.0, 0)
    with Viewer(tmp_path, "--logdir", out, "--format-str", "{lr}", "--port", "0") as view:
        assert view.runs(1) == ["0.5-one"]
        assert len(view.server_processes()) == 2  # TensorBoard, and its fast data server
        assert [path.name for path in view.temporary.glob("cox-tensorboard-*/*")] == ["0.5-one"]
        # as a terminal does it: to the whole process group
        os.killpg(view.process.pid, number)
        assert view.end() == 128 + number
        view.nothing_is_left()
        assert "Traceback" not in view.complained


def test_a_port_that_is_taken_is_told_with_one_that_is_free(out: Path, tmp_path: Path) -> None:
    import socket

    make_run(out, "one", {"lr": 0.5})
    with socket.socket() as taken:
        for port in range(20_000 + os.getpid() % 10_000, 32_000):  # not of those that the system hands out
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                break
        taken.listen()
        with Viewer(tmp_path, "--logdir", out, "--format-str", "{lr}", "--port", str(port)) as view:
            assert view.end() == 2
            told = re.search(rf"--port: {port} is taken; (\d+) is free", view.complained)
            assert told is not None, view.complained
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("127.0.0.1", int(told[1])))
            view.nothing_is_left()


# --- While it runs


def test_runs_that_begin_are_renamed_or_go_while_it_runs(out: Path, tmp_path: Path) -> None:
    for name, lr in (("one", 0.5), ("two", 0.1)):
        with Store(out, name) as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": lr})
            store.writer.add_scalar("loss", 1.0, 0)
    with Viewer(
        tmp_path, "--logdir", out, "--where", "lr > 0.2", "--port", "0", "--", "--reload_interval", "1"
    ) as view:
        assert view.runs(1) == ["lr=0.5-one"]
        with Store(out, "three") as store:
            store.writer.add_scalar("loss", 1.0, 0)
            store.writer.flush()
            view.until(lambda: "three" in view.complained or None, "a warning of a run without metadata")
            store.add_table("metadata", {"lr": float, "depth": int}).append_row({"lr": 0.7, "depth": 3})
            with Store(out, "four") as other:
                other.add_table("metadata", {"lr": float}).append_row({"lr": 0.1})
                other.writer.add_scalar("loss", 1.0, 0)
            both = ["lr=0.5-one", "lr=0.7,depth=3-three"]
            view.until(lambda: view.runs(2) == both or None, "a run that begins, and new names")
        (out / "one").rename(tmp_path / "elsewhere")
        view.until(lambda: view.runs(1) == both[1:] or None, "a run that is gone to go")
        assert "data_server" in " ".join(view.command_lines())
        view.process.send_signal(signal.SIGINT)
        assert view.end() == 130
        view.nothing_is_left()


def test_what_cannot_be_looked_at_meanwhile_is_told_once_and_stays(out: Path, tmp_path: Path) -> None:
    make_run(out, "one", {"lr": 0.5})
    with Store(out, "one") as store:
        store.writer.add_scalar("loss", 1.0, 0)
    with Viewer(tmp_path, "--logdir", out, "--port", "0", "--", "--reload_interval", "1") as view:
        assert view.runs(1) == ["one"]
        out.rename(tmp_path / "moved")
        view.until(lambda: "Warning" in view.complained or None, "a warning")
        time.sleep(5)
        assert view.complained.count("Warning") == 1
        (tmp_path / "moved").rename(out)
        make_run(out, "two", {"lr": 0.5})
        with Store(out, "two") as store:
            store.writer.add_scalar("loss", 1.0, 0)
        assert view.runs(2) == ["one", "two"]


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_a_run_that_was_rewound_has_one_curve(out: Path, tmp_path: Path, load_fast: str) -> None:
    def log(store: Store, rows: int, value: float) -> None:
        for _ in range(rows):
            store.log_table_and_tb("results", {"loss": value})
            store["results"].flush_row()

    with Store(out, "run") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.1})
        store.add_table("results", {"loss": float})
        log(store, 10, 1.0)
    with Store(out, "run") as store:
        store.rewind("results", 6)
        log(store, 2, 2.0)
    options = ("--port", "0", "--", "--reload_interval", "1", "--load_fast", load_fast)
    with Viewer(tmp_path, "--logdir", out, *options) as view:
        expected = [*((step, 1.0) for step in range(6)), (6, 2.0), (7, 2.0)]
        # until, for a server that has read the first of the files shows what that one has
        view.until(lambda: view.scalars("run", "results/loss", 8) == expected or None, "the rewind")
        with Store(out, "run") as store:  # and so while it is looked at
            store.rewind("results", 3)
            log(store, 6, 3.0)
        expected = [(step, 1.0 if step < 3 else 3.0) for step in range(9)]
        view.until(lambda: view.scalars("run", "results/loss", 9) == expected or None, "another rewind")


def test_tables_that_were_never_sent_are_seen(out: Path, tmp_path: Path) -> None:
    with Store(out, "one") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        table = store.add_table(
            "results", {"step": int, "time": float, "loss": float | None, "ok": bool, "note": str}
        )
        for step in range(0, 50, 10):
            loss = {"loss": 1 / (step + 1)} if step != 20 else {}
            table.append_row({"step": step, "time": 1.7e9 + step, "ok": True, "note": "x", **loss})
        with Viewer(
            tmp_path,
            "--logdir",
            out,
            "--from-tables",
            "results",
            "--port",
            "0",
            "--",
            "--reload_interval",
            "1",
        ) as view:
            assert view.runs(1) == ["one"]
            curve = [(0, 1.0), (10, 1 / 11), (30, 1 / 31), (40, 1 / 41)]
            assert view.scalars("one", "results/loss", 4) == [(step, pytest.approx(y)) for step, y in curve]
            points = view.get("/data/plugin/scalars/scalars", run="one", tag="results/loss")
            assert [point[0] for point in points] == [1.7e9, 1.7e9 + 10, 1.7e9 + 30, 1.7e9 + 40]
            assert sorted(view.get("/data/plugin/scalars/tags")["one"]) == ["results/loss", "results/ok"]
            table.append_row({"step": 50, "time": 1.7e9 + 50, "loss": 7.0, "ok": False, "note": "x"})
            assert view.scalars("one", "results/loss", 5)[-1] == (50, 7.0)
            store.rewind("results", step=30)
            table.append_row({"step": 30, "time": 1.7e9 + 60, "loss": 8.0, "ok": False, "note": "x"})
            rewound = [(0, 1.0), (10, pytest.approx(1 / 11)), (30, 8.0)]
            view.until(lambda: view.scalars("one", "results/loss", 3) == rewound or None, "the rewind")
            view.process.send_signal(signal.SIGTERM)
            assert view.end() == 143
            view.nothing_is_left()


def drawn(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard reads them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_rows_without_a_step_have_no_place(out: Path) -> None:
    make_run(out, "one", {"lr": 0.5})
    with Store(out, "one") as store, TableEvents(["t", "u"]) as made:
        table = store.add_table("t", {"step": float, "time": float | None, "x": float})
        for step, x in ((0.0, 1.0), (float("nan"), 2.0), (float("inf"), 3.0), (1e300, 4.0), (7.0, 5.0)):
            table.append_row({"step": step, "time": 1.7e9 if x < 3 else None, "x": x})
        other = store.add_table("u", {"step": int | None, "x": float})
        other.append_row({"x": 1.0})
        other.append_row({"step": 3, "x": 2.0})
        shown = Selection(out).first()
        folder = made.targets(shown)["one"]
        assert drawn(folder) == {"t/x": [(0, 1.0), (7, 5.0)], "u/x": [(3, 2.0)]}
        table.append_row({"step": 8.0, "time": 1.7e9, "x": 6.0})
        made.targets(shown)
        assert drawn(folder)["t/x"] == [(0, 1.0), (7, 5.0), (8, 6.0)]
        (file,) = folder.iterdir()  # one, however often rows come
        size = file.stat().st_size
        made.targets(shown)
        assert file.stat().st_size == size  # what was drawn is not drawn again


@pytest.mark.parametrize(
    ("columns", "steps"),
    [
        ({"epoch": [0, 0, 1, 1], "step": [0, 1, 0, 1]}, [0, 1, 2, 3]),
        ({"step": [0, 1, 0, 1], "global_step": [0, 10, 20, 30]}, [0, 10, 20, 30]),
        ({"epoch": [0.0, 0.5, 1.0, 1.5]}, [0, 1, 2, 3]),
        ({"epoch": [1.0, 2.0, 4.0, 8.0]}, [1, 2, 4, 8]),
        ({"step": [3, 2, 1, 0]}, [0, 1, 2, 3]),
    ],
    ids=["begins again", "the next one grows", "no whole numbers", "whole floats", "falls"],
)
def test_only_what_grows_counts_the_steps(
    out: Path, columns: dict[str, list[float]], steps: list[int]
) -> None:
    make_run(out, "one", {"lr": 0.5})
    with Store(out, "one") as store:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        table = store.add_table("t", {**{name: type(cell) for name, cell in rows[0].items()}, "x": float})
        for number, row in enumerate(rows):
            table.append_row({**row, "x": float(number)})
    with TableEvents(["t"]) as made:
        folder = made.targets(Selection(out).first())["one"]
        assert drawn(folder)["t/x"] == [(step, float(number)) for number, step in enumerate(steps)]


def test_a_table_that_is_gone_is_not_shown_any_more(out: Path) -> None:
    make_run(out, "one", {"lr": 0.5})
    with Store(out, "one") as store:
        store.add_table("t", {"x": float}).append_row({"x": 1.0})
    shown = Selection(out).first()
    with TableEvents(["t"]) as made:
        folder = made.targets(shown)["one"]
        assert drawn(folder) == {"t/x": [(0, 1.0)]}
        with Store(out, "one", mode="w") as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        made.targets(shown)
        assert drawn(folder) == {}


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9], ids=["s", "ms", "us", "ns"])
def test_times_are_seconds_whatever_their_unit(out: Path, unit: int) -> None:
    make_run(out, "one", {"lr": 0.5})
    with Store(out, "one") as store:
        table = store.add_table("t", {"timestamp": float, "x": float})
        for x in (0.0, 1.0):
            table.append_row({"timestamp": (1.7e9 + x) * unit, "x": x})
    with TableEvents(["t"]) as made:
        folder = made.targets(Selection(out).first())["one"]
        found = EventAccumulator(str(folder)).Reload().Scalars("t/x")
    assert [point.wall_time for point in found] == pytest.approx([1.7e9, 1.7e9 + 1], abs=0.001)


def test_each_rank_has_a_curve_of_its_own(out: Path) -> None:
    with Store(out, "one", rank=0) as zero, Store(out, "one", rank=1) as one, TableEvents(["t"]) as made:
        zero.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        for rank, store in enumerate((zero, one)):
            store.add_table("t", {"x": float})
            for row in range(3):
                store["t"].append_row({"x": 10 * rank + row})
        shown = Selection(out, needs_events=False).first()
        folder = made.targets(shown)["one"]
        whole = {f"t/x (rank {rank})": [(row, 10.0 * rank + row) for row in range(3)] for rank in (0, 1)}
        assert drawn(folder) == whole
        zero["t"].append_row({"x": 3.0})
        made.targets(shown)
        whole["t/x (rank 0)"].append((3, 3.0))
        assert drawn(folder) == whole
    with Store(out, "own") as store, TableEvents(["t"]) as made:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        store.add_table("t", {"x": float, "rank": int}).append_row({"x": 1.0, "rank": 9})
        folder = made.targets(Selection(out, needs_events=False).first())["own"]
        assert drawn(folder) == {"t/x": [(0, 1.0)], "t/rank": [(0, 9.0)]}


def test_tables_of_many_runs_keep_no_files_open(out: Path) -> None:
    for number in range(5):
        make_run(out, f"{number}", {"lr": 0.5})
    shown = Selection(out).first()
    gc.collect()  # what other tests left open is none of the matter
    with TableEvents(["metadata"]) as made:
        before = len(os.listdir("/proc/self/fd"))
        assert len(made.targets(shown)) == 5
        assert len(os.listdir("/proc/self/fd")) <= before
        shutil.rmtree(made.path)
        folder = made.targets(shown)["0"]
        assert drawn(folder) == {"metadata/lr": [(0, 0.5)]}


def test_a_run_whose_tables_cannot_be_read_is_told_of_and_read_once(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(out, "one", {"lr": 0.5})
    shown = Selection(out).first()
    (out / "one" / "store.h5").write_bytes(b"no HDF5 at all")
    with TableEvents(["metadata"]) as made:
        with pytest.warns(CollectionWarning, match="run one is shown as it was, if at all: "):
            made.targets(shown)
        with monkeypatch.context() as patch:
            patch.setattr(snapshot, "read", lambda *_, **__: pytest.fail("read again"))
            made.targets(shown)


def test_a_signal_while_it_starts_leaves_nothing(
    out: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    make_run(out, "one", {"lr": 0.5})
    program = """
        import sys, tempfile, time
        from cox import tensorboard_view
        from cox.tensorboard.view.selection import Selection

        def first(self, **_):
            print(tempfile.gettempdir())
            time.sleep(600)

        Selection.first = first
        tensorboard_view.main(["--logdir", sys.argv[1], "--from-tables", "metadata"])
    """
    with pytest.MonkeyPatch.context() as patch, no_signal_ignored():
        patch.setenv("TMPDIR", str(tmp_path))
        program = start(program, out)
    assert program.line() == str(tmp_path)
    assert list(tmp_path.glob("cox-*"))
    program.process.send_signal(signal.SIGTERM)
    program.finish(status=128 + signal.SIGTERM)
    assert not list(tmp_path.glob("cox-*"))


def test_tables_that_no_run_has_are_an_error(out: Path, served: Served) -> None:
    make_run(out, "one", {"lr": 0.5})
    result = call("--logdir", out, "--from-tables", "resluts", "--from-tables", "metadata")
    assert (result.exit_code, served.calls) == (2, [])
    assert "--from-tables: no run has a table 'resluts'; there are ['metadata']" in result.stderr


def test_a_notebook_gets_a_directory_that_follows_the_runs(out: Path, tmp_path: Path) -> None:
    make_run(out, "one", {"lr": 0.5})
    program = """
        import os, sys, time
        from pathlib import Path
        from cox.store import Store
        from cox.tensorboard_view import logdir
        from cox.tensorboard.view import server

        server.EVERY = 0.05
        links = Path(logdir(sys.argv[1], "lr-{lr}"))
        assert [path.name for path in links.iterdir()] == ["lr-0.5-one"]
        assert logdir(sys.argv[1], "lr-{lr}", filters=[]) == str(links)  # a cell that is run again
        assert logdir(sys.argv[1], "lr-{lr}", filters=[["lr", "0"]]) != str(links)
        if os.fork() == 0:
            sys.exit()
        os.wait()
        assert links.exists()  # it is none of the child's
        with Store(sys.argv[1], "two") as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": 2.0})
        while len(list(links.iterdir())) < 2:
            time.sleep(0.01)
        server.EVERY = 600  # it waits as long for the look that is under way
        print(links)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), out],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_a_module_in_the_working_directory_is_none_of_the_servers(out: Path, tmp_path: Path) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("PYTHONSAFEPATH came with Python 3.11")
    make_run(out, "one", {"lr": 0.5})
    (tmp_path / "tensorboard").mkdir()
    for name in ("tensorboard/__init__.py", "markdown.py"):
        (tmp_path / name).write_text("raise SystemExit('ran a stranger')", encoding="utf-8")
    options = ("--logdir", out, "--format-str", "x", "--", "--version_tb")
    with Viewer(tmp_path, *options) as view:
        assert view.end() == 0
        assert "ran a stranger" not in view.complained


def test_options_after_two_dashes_reach_tensorboard(out: Path, tmp_path: Path) -> None:
    make_run(out, "one", {"lr": 0.5})
    with Store(out, "one") as store:
        store.writer.add_scalar("x", 1.0, 0)
    with Viewer(tmp_path, "--logdir", out, "--format-str", "x", "--", "--version_tb") as view:
        assert view.end() == 0
        assert re.fullmatch(r"Showing 1 runs of .*\n\d+\.\d+\.\d+\n", view.said)
        view.nothing_is_left()

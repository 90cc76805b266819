from __future__ import annotations

import inspect
import pickle
import re
import warnings

import pytest

import cox.errors
from cox.errors import CoxError, CoxWarning, TableNotFoundError

LINE = re.compile(r"[├└]── (\w+)(?: +\((\w+)\))?")
TOLD = dict(LINE.findall(cox.errors.__doc__ or ""))
ERRORS = {
    name: kind
    for name, kind in vars(cox.errors).items()
    if inspect.isclass(kind)
    and issubclass(kind, (CoxError, CoxWarning))
    and kind not in (CoxError, CoxWarning)
}


def test_the_tree_in_the_docstring_is_the_code() -> None:
    assert set(TOLD) == set(ERRORS)
    assert len(TOLD) > 15


@pytest.mark.parametrize("name", [name for name, builtin in TOLD.items() if builtin])
def test_each_error_is_also_the_builtin_it_says(name: str) -> None:
    kind = ERRORS[name]
    builtin = {**vars(__import__("builtins")), "UnpicklingError": pickle.UnpicklingError}[TOLD[name]]
    assert issubclass(kind, CoxError)
    assert issubclass(kind, builtin)
    assert [base for base in kind.__bases__ if base is not CoxError] == [builtin]
    with pytest.raises(builtin, match="why"):
        raise kind("why")


def test_errors_and_warnings_are_told_apart() -> None:
    for name, kind in ERRORS.items():
        assert issubclass(kind, CoxWarning) == name.endswith("Warning")
        assert issubclass(kind, Warning) == name.endswith("Warning")
        assert kind.__doc__
    assert issubclass(CoxWarning, UserWarning)


def test_errors_survive_a_process_boundary() -> None:
    for name, kind in ERRORS.items():
        made = pickle.loads(pickle.dumps(kind(f"about {name}")))
        assert type(made) is kind
        assert str(made) == f"about {name}"
    refused = pickle.loads(pickle.dumps(cox.errors.StorageError(28, "no space", "/a")))
    assert (refused.errno, refused.filename) == (28, "/a")


def test_a_missing_table_reads_as_a_sentence() -> None:
    assert str(TableNotFoundError("no table 'x'")) == "no table 'x'"
    assert str(TableNotFoundError()) == ""


def test_a_warning_of_ours_can_be_silenced_as_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoxWarning)
        warnings.warn("x", cox.errors.PendingRowWarning, stacklevel=1)

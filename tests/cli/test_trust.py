"""`cox trust --json`: what would run code to be rebuilt, for a script; trusted only with --yes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import cox
from cox.errors import UntrustedObjectError
from tests.cli.conftest import Call


class Own:
    """No plain data."""


def test_trust_as_json(out: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with cox.Store(out, "r") as store:
        store.add_table("t", {"o": cox.PICKLE}).append_row({"o": Own()})
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "stranger"))
    document = json.loads(call("trust", out / "r", "--json").stdout)
    assert (document["trusted"], len(document["objects"])) == (False, 1)
    assert "Own" in document["objects"][0]["needs"]
    with pytest.raises(UntrustedObjectError):
        cox.CollectionReader(out).df("t")

"""Objects whose code a stranger would like to have run: exchanged while they are read, or moved elsewhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crc32c
import pytest
from click.testing import CliRunner

import cox
from cox.cli import main
from cox.cli.commands import trust as command
from cox.errors import DamagedError, UntrustedObjectError
from cox.objects import codec, payloads, signing
from cox.objects.trust import Trust, vouch
from cox.readers import CollectionReader
from cox.storage import fs, layout, runinfo
from cox.store import Store

torch = pytest.importorskip("torch", reason="states are objects, too")


class Own:
    """No plain data."""

    def __init__(self, x: int = 5) -> None:
        self.x = x


class Evil:
    """Makes a directory when it is rebuilt."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (os.fspath(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Where code of a stranger would leave a trace."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


KINDS = {"object": cox.OBJECT, "pickle": cox.PICKLE, "state": cox.PYTORCH_STATE}


def store_one(
    folder: Path, name: str = "r", table: str = "t", column: str = "o", kind: str = "pickle"
) -> str:
    """A run with an own object; returns its cell."""
    with Store(folder, name) as store:
        own = store.add_table(table, {column: KINDS[kind]})
        own.append_row({column: {"own": Own()}})
        return str(own.df[column][0])


def read(folder: Path, cell: str, name: str = "r", table: str = "t", kind: str = "pickle") -> Any:
    with Store(folder, name, mode="r") as store:
        own = store[table]
        get = {"object": own.get_object, "pickle": own.get_pickle, "state": own.get_state_dict}[kind]
        return get(cell)["own"].x


def trust_all(run: Path) -> str:
    """What `cox trust --yes` says of a run."""
    done = CliRunner().invoke(main, ["trust", os.fspath(run), "--yes"])
    assert done.exit_code == 0, done.output
    return done.stdout


def evil_bytes(kind: str, mark: Path) -> bytes:
    if kind == "pickle":
        return pickle.dumps(Evil(mark))
    file = io.BytesIO()
    torch.save(Evil(mark), file)
    return file.getvalue()


# --- What is checked is what is loaded


@pytest.mark.parametrize("kind", ["pickle", "state"])
@pytest.mark.parametrize("how", ["renamed", "in place"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_bytes_that_change_after_their_check_are_not_loaded(
    out: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, kind: str, how: str, in_memory: bool
) -> None:
    """At the moment when the signature has been found good, the file becomes another."""
    if not in_memory:
        monkeypatch.setattr(codec, "_IN_MEMORY", 0)
        monkeypatch.setattr(codec, "_PRIVATE_IN_MEMORY", 0)
    cell = store_one(out, kind=kind)
    path = out / "r" / ".table_objects" / cell
    covers = Trust.covers

    def covers_and_change(self: Trust, *arguments: Any) -> bool:
        good = covers(self, *arguments)
        if how == "renamed":
            (out / "evil").write_bytes(evil_bytes(kind, mark))
            (out / "evil").replace(path)
        else:
            path.write_bytes(evil_bytes(kind, mark))
        return good

    monkeypatch.setattr(Trust, "covers", covers_and_change)
    assert read(out, cell, kind=kind) == 5


@pytest.mark.parametrize("kind", ["pickle", "state"])
@pytest.mark.parametrize("how", ["renamed", "in place"])
def test_bytes_that_change_after_their_checksum_are_those_that_are_judged(
    out: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, kind: str, how: str
) -> None:
    """A file too large for memory is judged by its own bytes, and not by its name."""
    cell = store_one(out, kind=kind)
    path = out / "r" / ".table_objects" / cell
    monkeypatch.setattr(codec, "_IN_MEMORY", 0)
    good = payloads.has_its_checksum

    def check_and_change(file: Any, name: str) -> bool:
        result = good(file, name)
        data = evil_bytes(kind, mark)
        if how == "renamed":
            (out / "evil").write_bytes(data)
            (out / "evil").replace(path)
        else:
            path.write_bytes(data)
        return result

    monkeypatch.setattr(payloads, "has_its_checksum", check_and_change)
    if how == "renamed":
        assert read(out, cell, kind=kind) == 5  # the file that was opened
    else:
        with pytest.raises(UntrustedObjectError):
            read(out, cell, kind=kind)


def test_a_file_exchanged_all_the_time_never_runs_unsigned_code(out: Path, mark: Path) -> None:
    cell = store_one(out)
    path = out / "r" / ".table_objects" / cell
    signed, evil = path.read_bytes(), pickle.dumps(Evil(mark))
    target = path.with_name(layout.payload_name(cell[:36], crc32c.crc32c(evil)))
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for data in (evil, signed):
                (out / "new").write_bytes(data)
                (out / "new").replace(target)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(300):
            with pytest.raises((UntrustedObjectError, DamagedError)):
                read(out, target.name)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("kind", ["pickle", "state"])
def test_what_is_signed_is_what_was_written(
    out: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A file that is exchanged between its writing and its signing does not get the signature."""
    sign_file = signing.sign_file

    def exchange_and_sign(file: Any, origin: signing.Origin) -> bytes:
        (path,) = (out / "r" / ".table_objects").glob(".tmp-*")
        path.unlink()
        path.write_bytes(evil_bytes(kind, mark))
        return sign_file(file, origin)

    monkeypatch.setattr(signing, "sign_file", exchange_and_sign)
    cell = store_one(out, kind=kind)
    with pytest.raises(DamagedError, match="not those that were written"):
        read(out, cell, kind=kind)


def test_nobody_else_may_write_into_a_file_that_is_to_be_signed(out: Path) -> None:
    before = os.umask(0)
    try:
        cell = store_one(out)
    finally:
        os.umask(before)
    assert (out / "r" / ".table_objects" / cell).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", ["pickle", "state"])
def test_cox_trust_vouches_for_what_it_showed(
    out: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    """Between the question and the answer the file becomes another, with the right checksum in its name."""
    cell = store_one(out, kind=kind)
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "somebody else"))
    evil = evil_bytes(kind, mark)
    other = layout.payload_name(cell[:36], crc32c.crc32c(evil))

    def vouch_later(run: layout.RunLayout, digests: Any) -> None:
        listed = list(digests)
        (run.objects_dir / cell).unlink()
        (run.objects_dir / other).write_bytes(evil)
        vouch(run, listed)

    monkeypatch.setattr(command, "vouch", vouch_later)
    assert "1 objects trusted" in trust_all(out / "r")
    with pytest.raises(UntrustedObjectError):
        read(out, other, kind=kind)


# --- A signature counts where it was made


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_object_counts_in_its_run_table_and_column_only(out: Path, kind: str) -> None:
    cell = store_one(out, kind=kind)
    assert read(out, cell, kind=kind) == 5
    for name, table, column in (("other", "t", "o"), ("r", "other", "o"), ("r", "other column", "x")):
        store_one(out, name, table, column, kind)
        if name != "r" and kind != "object":
            shutil.copy(out / "r" / ".table_objects" / cell, out / name / ".table_objects" / cell)
        with pytest.raises(UntrustedObjectError, match="Own"):
            read(out, cell, name, table, kind)
    assert read(out, cell, kind=kind) == 5


def test_a_collection_asks_for_the_signature_of_the_column(out: Path) -> None:
    """The names of a signed column may be exchanged by whoever writes in the folder."""
    from cox.objects.trust import place_of

    cell = store_one(out, kind="object")
    run = layout.RunLayout(out / "r")
    assert codec.from_text(cell, Trust(run), place_of(run, "t", "o"))["own"].x == 5
    for table, column in (("t", "p"), ("u", "o"), ("to", ""), ("", "to")):
        with pytest.raises(UntrustedObjectError, match=f"column {column!r} of table {table!r}"):
            codec.from_text(cell, Trust(run), place_of(run, table, column))


def test_a_moved_or_copied_run_decodes(out: Path, tmp_path: Path) -> None:
    cell = store_one(out)
    shutil.copytree(out / "r", tmp_path / "elsewhere" / "copy")
    (out / "r").rename(out / "renamed")
    assert read(out, cell, "renamed") == 5
    assert read(tmp_path / "elsewhere", cell, "copy") == 5
    (tmp_path / "elsewhere" / "copy" / ".cox" / "run.json").unlink()  # its id is in store.h5, too
    assert read(tmp_path / "elsewhere", cell, "copy") == 5


def test_a_rank_reads_what_another_has_stored(out: Path) -> None:
    for rank in range(2):
        with Store(out, "r", rank=rank) as store:
            store.add_table("t", {"o": cox.OBJECT}).append_row({"o": Own(rank)})
            cells = store["t"].df["o"]
            assert [store["t"].get_object(cell).x for cell in cells] == list(range(rank + 1))
    assert sorted(value.x for value in CollectionReader(out).df("t")["o"]) == [0, 1]


def test_text_of_no_run_is_no_cell(out: Path) -> None:
    from cox.utils import obj_to_string, string_to_obj

    text = obj_to_string(Own())
    assert string_to_obj(text).x == 5
    cell = store_one(out, kind="object")
    with Store(out, "r", mode="r") as store, pytest.raises(UntrustedObjectError):
        store["t"].get_object(text)
    with pytest.raises(UntrustedObjectError):
        string_to_obj(cell)


def test_a_list_of_cox_trust_counts_for_its_run_only(
    out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cell = store_one(out)
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "somebody else"))
    trust_all(out / "r")
    assert read(out, cell) == 5
    with Store(out, "mine") as store:
        store.add_table("t", {"o": cox.PICKLE}).append_row({"o": 1})
    shutil.copy(out / "r" / ".cox" / "trusted.json", out / "mine" / ".cox")
    shutil.copy(out / "r" / ".table_objects" / cell, out / "mine" / ".table_objects" / cell)
    with pytest.raises(UntrustedObjectError):
        read(out, cell, "mine")


# --- What was signed before signatures were bound to a place


def old_signature(data: bytes) -> bytes:
    """As version 1 of the format had it: HMAC of the bytes."""
    path = signing.secret_path()
    assert path is not None
    return b"COXSIGN1" + hmac.digest(path.read_bytes(), data, "sha256")


@pytest.fixture
def old_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that looks like one of version 1: without an id, its objects signed as they were then."""
    golden = Path(__file__).parents[1] / "compat" / "golden" / "own" / "v1" / "closed"
    shutil.copytree(golden, out / "old")
    info = json.loads((out / "old" / ".cox" / "run.json").read_text())
    assert info["format"] == 1
    signing.keeps_secret()  # is made
    return out / "old"


def old_cell() -> str:
    data = pickle.dumps(Own(7))
    return base64.encodebytes(data + old_signature(data)).decode()


def get(run: Path, cell: str) -> Any:
    with Store(run.parent, run.name, mode="r") as store:
        return next(store[name] for name in store.keys).get_object(cell).x


def test_an_old_signature_counts_in_a_run_without_an_id(old_run: Path) -> None:
    assert runinfo.run_id(layout.RunLayout(old_run)) is None
    assert get(old_run, old_cell()) == 7
    changed = base64.b64decode(old_cell()).replace(b"K\x07", b"K\x08")
    with pytest.raises(UntrustedObjectError):
        get(old_run, base64.encodebytes(changed).decode())


def test_an_old_signature_counts_when_its_run_goes_on(old_run: Path) -> None:
    run = layout.RunLayout(old_run)
    vouched = pickle.dumps(Own(8))
    vouch(run, [hashlib.sha256(vouched).hexdigest()])
    for _ in range(2):
        with Store(old_run.parent, "old"):
            pass
        assert runinfo.run_id(run)
        assert get(old_run, old_cell()) == 7
        assert get(old_run, base64.encodebytes(vouched).decode()) == 8


def test_an_old_signature_counts_for_nothing_in_a_new_run(out: Path, old_run: Path) -> None:
    """Otherwise whatever was signed once could be replayed there. What says so is bound to its run, too."""
    with Store(old_run.parent, "old"):
        pass
    store_one(out, "new", kind="object")
    with pytest.raises(UntrustedObjectError):
        get(out / "new", old_cell())
    shutil.copy(old_run / ".cox" / "trusted.json", out / "new" / ".cox" / "trusted.json")
    with pytest.raises(UntrustedObjectError):
        get(out / "new", old_cell())


# --- The secret


def warned(caplog: pytest.LogCaptureFixture) -> str:
    assert len(caplog.records) == 1, caplog.text
    return caplog.text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a good secret in it."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    (directory / "secret").write_bytes(os.urandom(32))
    (directory / "secret").chmod(0o600)
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(directory))
    return directory


def linked(home: Path) -> None:
    (home / "secret").rename(home / "real")
    (home / "secret").symlink_to("real")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "read": (lambda home: (home / "secret").chmod(0o644), "chmod 600"),
    "written by its group": (lambda home: (home / "secret").chmod(0o620), "chmod 600"),
    "in a directory that others write": (lambda home: home.chmod(0o777), "chmod 700"),
    "a link": (linked, "secret"),
    "a pipe": (lambda home: ((home / "secret").unlink(), os.mkfifo(home / "secret", 0o600)), "regular"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_secret_that_others_may_know_is_not_used(
    out: Path, home: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = (home / "secret").read_bytes()
    make_bad, remedy = BAD[case]
    make_bad(home)
    cell = store_one(out, kind="object")
    assert remedy in warned(caplog)
    assert read(out, cell, kind="object") == 5  # in this process
    signing._secret_in.cache_clear()
    with pytest.raises(UntrustedObjectError):
        read(out, cell, kind="object")
    origin = signing.Origin(str(runinfo.run_id(layout.RunLayout(out / "r"))), "t", "o")
    data = pickle.dumps({"own": Own()})
    (out / "good").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COX_CONFIG_HOME", os.fspath(out / "good"))
        (out / "good" / "secret").write_bytes(key)
        (out / "good" / "secret").chmod(0o600)
        forged = data + signing.sign(data, origin)  # by somebody who has read the secret
    with pytest.raises(UntrustedObjectError):
        read(out, base64.encodebytes(forged).decode(), kind="object")


def test_without_a_home_objects_are_stored_and_read_back(out: Path, start: Any) -> None:
    """A container with a random uid: no HOME, and no line in passwd."""
    program = start(
        """
        import os, pwd, sys
        del os.environ["COX_CONFIG_HOME"]
        os.environ.pop("HOME", None)
        os.environ.pop("XDG_CONFIG_HOME", None)
        def nobody(uid):
            raise KeyError(uid)
        pwd.getpwuid = nobody
        import cox
        class Own:
            x = 5
        with cox.Store(sys.argv[1], "r") as store:
            table = store.add_table("t", {"o": cox.OBJECT, "p": cox.PICKLE})
            table.append_row({"o": Own(), "p": Own()})
        print(cox.CollectionReader(sys.argv[1]).df("t")["o"][0].x)
        from cox.cli import main
        for arguments in (["df", "t", sys.argv[1]], ["trust", "--yes", sys.argv[1] + "/r"]):
            try:
                main(arguments, prog_name='cox')
            except SystemExit as end:
                print(end.code)
        """,
        out,
    )
    lines = program.rest()
    assert "Traceback" not in program.errors, program.errors
    assert lines[0] == "5"
    assert program.errors.count("no home directory") == 1
    with pytest.raises(UntrustedObjectError):
        CollectionReader(out).df("t")
    assert CollectionReader(out, allow_pickle=True).df("t")["p"][0].x == 5


def test_open_regular_takes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    with fs.open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"
    for name in ("link", "pipe", "directory", "missing"):
        with pytest.raises(OSError, match=name):
            fs.open_regular(tmp_path / name)

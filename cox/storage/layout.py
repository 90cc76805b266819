"""Every file name of a run, and the rules for names that users choose. No I/O."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cox.errors import RunNameError, SchemaError

STORE_FILE = "store.h5"
SAVE_DIR = "save"
EVENT_FILES = "events.out.tfevents.*"
TENSORBOARD_DIR = "tensorboard"
OBJECTS_DIR = ".table_objects"
META_DIR = ".cox"
JOURNAL_DIR = "journal"
CLAIMS_DIR = "claims"
RUN_FILE = "run.json"
#: Both as paths in a run.
JOURNALS, RUN_INFO = f"{META_DIR}/{JOURNAL_DIR}", f"{META_DIR}/{RUN_FILE}"
#: The sessions of each writer; those of a run of format 1 are of no writer.
SESSIONS = "sessions-*.json"
_BEFORE = "before"
TRUST_FILE = "trusted.json"
FOLD_LOCK = "fold.lock"
#: Of the file that stands for a lock with other hosts, beside the one that is locked.
HELD_SUFFIX = ".held"
CACHE_DIR = ".cox-cache"
SNAPSHOT_SUFFIX = "_snapshot"
JOURNAL_SUFFIX = ".log"
#: Of a file that says which of a writer's journals is the newest.
NEWEST_SUFFIX = ".newest"
#: Says of a copy that `cox copy` made what it is a copy of.
COPY_FILE = "copy.json"
#: A journal that could not be read whole when it was folded; a directory of what a repair replaced.
DAMAGED_SUFFIX = ".damaged"
#: A file that belongs to another life of the run, kept aside by a fold.
FOREIGN_SUFFIX = ".foreign"
DAMAGED_PREFIX = "damaged-"
#: What every file that is not finished yet begins with, so that what a kill leaves behind is known.
TEMPORARY_PREFIX = ".tmp-"

MAIN_WRITER = "main"
RANK_COLUMN = "rank"
#: The column of a collection that tells the runs apart; it names the run and is no parameter.
EXP_ID = "exp_id"
#: The table of a run's parameters.
METADATA_TABLE = "metadata"

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PAYLOAD_NAME = re.compile(rf"{_UUID}-([0-9a-f]{{8}})")
_WRITER = r"main|rank-[0-9]{1,18}"
_WRITER_NAME = re.compile(_WRITER)
_JOURNAL_NAME = re.compile(rf"({_WRITER})-([0-9a-f]{{8}})\.log")
_NEWEST_NAME = re.compile(rf"({_WRITER})-([0-9a-f]{{8}})-([0-9]{{1,18}})\.newest")
# seconds, host, process and number; those that tensorboardX and torch make are named otherwise
_OWN_EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d{10}\.\d{6}\..*\.\d+\.\d{6}(\.redrawn)*", re.DOTALL)
# PyTables keeps these names for itself; pandas puts its rows into a child called `table`.
_RESERVED_NODE = re.compile(r"_[cfgv]_|_i_|_p_")
_RESERVED_PARTS = frozenset({"", ".", "..", "table", "_cox"})


@dataclass(frozen=True, slots=True)
class RunLayout:
    """The paths of one run directory."""

    root: Path

    def inside(self, path: str) -> str:
        """The path of something in the run, as text: to make a `Path` costs as much as to open a file."""
        return f"{self.root}/{path}"

    @property
    def store_file(self) -> Path:
        """The HDF5 file that pandas opens."""
        return self.root / STORE_FILE

    @property
    def save_dir(self) -> Path:
        """What the user saves."""
        return self.root / SAVE_DIR

    @property
    def tensorboard_dir(self) -> Path:
        """TensorBoard's event files."""
        return self.root / TENSORBOARD_DIR

    def events_dir(self, rank: int | None) -> Path:
        """Where a writer's event files go: curves of two ranks under one tag would be in each other's way."""
        return self.tensorboard_dir if not rank else self.tensorboard_dir / f"rank-{rank}"

    @property
    def objects_dir(self) -> Path:
        """The payloads of PICKLE and PYTORCH_STATE cells."""
        return self.root / OBJECTS_DIR

    @property
    def meta_dir(self) -> Path:
        """What cox keeps about the run."""
        return self.root / META_DIR

    @property
    def journal_dir(self) -> Path:
        """One journal for each writer; rows newer than the store file."""
        return self.meta_dir / JOURNAL_DIR

    @property
    def claims_dir(self) -> Path:
        """One claim for each writer."""
        return self.meta_dir / CLAIMS_DIR

    @property
    def run_file(self) -> Path:
        """The run's state, as JSON."""
        return self.meta_dir / RUN_FILE

    def sessions_file(self, writer: str | None) -> Path:
        """The sessions of one writer; of None, that of format 1."""
        return self.meta_dir / SESSIONS.replace("*", writer or _BEFORE)

    @property
    def copy_file(self) -> Path:
        """Of a copy: what it is a copy of."""
        return self.meta_dir / COPY_FILE

    @property
    def trust_file(self) -> Path:
        """Digests of objects that the user vouched for, signed."""
        return self.meta_dir / TRUST_FILE

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directories that only cox writes in; `save/` is the user's."""
        return self.meta_dir, self.journal_dir, self.claims_dir, self.objects_dir, self.tensorboard_dir

    @property
    def fold_lock(self) -> Path:
        """Held while the store file is being replaced."""
        return self.meta_dir / FOLD_LOCK

    @property
    def snapshot_dir(self) -> Path:
        """Where `Store.snapshot_copy` puts its copy."""
        return self.root.with_name(self.root.name + SNAPSHOT_SUFFIX)

    def claim_file(self, writer: str) -> Path:
        """The claim of one writer."""
        return self.claims_dir / f"{writer}.json"

    def journal_file(self, writer: str, salt: int) -> Path:
        """The journal of one writer. Its salt is in its name, where damage to the file cannot reach it."""
        return self.journal_dir / journal_name(writer, salt)


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave, from the root on: `~` is the home directory, and links stay as they are."""
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - resolve() follows links


def writer_name(rank: int | None) -> str:
    """The name of a run's sole writer, or of one among several."""
    return MAIN_WRITER if rank is None else f"rank-{rank}"


def rank_of(writer: str) -> int | None:
    """The rank of a writer, None for the sole one."""
    digits = writer.removeprefix("rank-")
    return int(digits) if digits.isdecimal() else None


def is_sessions_name(name: str) -> bool:
    """Whether this is the name of a file of sessions."""
    before, _, after = SESSIONS.partition("*")
    return name.startswith(before) and name.endswith(after)


def writer_of_sessions(name: str) -> str | None:
    """The writer in the name of a file of sessions."""
    before, _, after = SESSIONS.partition("*")
    writer = name.removeprefix(before).removesuffix(after)
    return None if writer == _BEFORE else writer


def journal_name(writer: str, salt: int) -> str:
    """The name of a journal's file."""
    return f"{writer}-{salt:08x}{JOURNAL_SUFFIX}"


def parse_journal_name(name: str) -> tuple[str, int] | None:
    """Writer and salt of a journal's file name; None for a name that is no journal's."""
    match = _JOURNAL_NAME.fullmatch(name)
    return (match[1], int(match[2], 16)) if match else None


def event_file_name(when: float, host: str, pid: int, number: int) -> str:
    """The name of an event file, which sorts by the time that it was begun: so TensorBoard reads them."""
    return f"{EVENT_FILES[:-1]}{when:017.6f}.{host}.{pid}.{number:06}"


def is_own_event_file(name: str) -> bool:
    """Whether an event file is one that cox made."""
    return _OWN_EVENT_FILE.fullmatch(name) is not None


def newest_name(writer: str, salt: int, seq: int) -> str:
    """The name of the file that says that a journal is the writer's newest, and begins with record `seq`."""
    return f"{writer}-{salt:08x}-{seq}{NEWEST_SUFFIX}"


def parse_newest_name(name: str) -> tuple[str, int, int] | None:
    """Writer, salt and number of the first record in such a name; None for another name."""
    match = _NEWEST_NAME.fullmatch(name) if name.endswith(NEWEST_SUFFIX) else None
    return (match[1], int(match[2], 16), int(match[3])) if match else None


def payload_name(uid: str, checksum: int) -> str:
    """The cell, and file name, of an object. It ends with the CRC-32C of the file's bytes.

    So the row, which has a checksum of its own, tells whether the file behind it is whole.
    """
    return f"{uid}-{checksum:08x}"


def payload_checksum(name: str) -> int | None:
    """The checksum in the file name of an object; None where there is none, as in upstream's."""
    match = _PAYLOAD_NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def is_file_name(name: str) -> bool:
    """Whether this is a name of a file inside a directory, and leads nowhere else."""
    return name not in ("", ".", "..") and not any(bad in name for bad in ("/", "\\", "\0"))


def check_run_name(exp_id: str, folder: Path) -> str:
    """The directory name that `exp_id` means inside `folder`.

    Args:
        exp_id: A plain name, or the absolute path of a directory directly inside `folder`.
        folder: The absolute folder of runs.

    Raises:
        RunNameError: It would lead anywhere else.
    """
    if not isinstance(exp_id, (str, os.PathLike)):
        raise RunNameError(f"exp_id={exp_id!r} cannot name a run: give a string, the name of its directory")
    name = os.fspath(exp_id)
    if Path(name).is_absolute() and Path(os.path.normpath(name)).parent == folder:
        name = Path(os.path.normpath(name)).name
    if name == CACHE_DIR or not is_file_name(name):
        raise RunNameError(
            f"exp_id={exp_id!r} cannot name a run: give one directory name, without separators, "
            f"or an absolute path directly inside {folder}"
        )
    return name


def check_table_name(name: object) -> str:
    """A table's name, which is also its key in the HDF5 file.

    Raises:
        SchemaError: pandas and HDF5 could not keep a table under it.
    """
    if not isinstance(name, str):
        raise SchemaError(f"a table's name is a string, not {name!r}")
    for part in name.split("/"):
        if part in _RESERVED_PARTS or _RESERVED_NODE.match(part) or "\0" in part:
            raise SchemaError(
                f"table name {name!r}: {part!r} is a name that HDF5, PyTables or cox keeps for itself; "
                "use a word, optionally with single slashes between words"
            )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(f"table name {name!r} is no valid unicode") from error
    return name


def is_stored_table_name(name: object) -> bool:
    """Whether what a file gives as the name of a table stays inside a directory, where it is used as a path.

    Upstream took names that `check_table_name` does not take any more.
    """
    if not isinstance(name, str) or "\0" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not {"", ".", "..", "_cox"} & set(name.split("/"))


def is_writer_name(name: object) -> bool:
    """Whether what a file gives as the name of a writer is one."""
    return isinstance(name, str) and _WRITER_NAME.fullmatch(name) is not None


def is_plain_field(name: str) -> bool:
    """Whether PyTables takes a column name as the name of an HDF5 field.

    The others are stored in blocks, with the name in an attribute, as pandas does by default.
    """
    return (
        name not in ("", ".", "index", "table")
        and "/" not in name
        and "\0" not in name
        and not _RESERVED_NODE.match(name)
        and not name.startswith("values_block_")
    )

"""Sessions: which processes wrote a run, from when to when, and how each of them ended.

A session begins when a run is made, with the first thing that a process writes, or with the opening of a rank
beside others that are at it; who opens a run and only looks leaves no session. There is one file for each
writer, and only the holder of the writer's claim changes it: ranks that begin or end at once lose nothing and
never wait for each other. What all of them say together is written to `run.json`, for people.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cox.errors import RunInUseError
from cox.storage import claims, fs, layout, runinfo
from cox.version import __version__

RUNNING = "running"
FINISHED = "finished"
FAILED = "failed"
CRASHED = "crashed"

#: How many of a writer's sessions are kept, of the first and of the last ones each.
KEPT = 50
#: How many times in a row sessions may begin or end while they are read.
_TURNS = 20
#: No number of a run, and no second since 1970 that pandas can show: whoever says more says nothing.
_BEYOND = 2.0**33


@dataclass(frozen=True, slots=True)
class Session:
    """A process that wrote a run.

    Attributes:
        writer: As which writer, see `layout.writer_name`; None for those of format 1, which does not say.
        started: When it began, in seconds since 1970; None if its file says nonsense.
        ended: When it ended, or gave its last sign of life; None while it runs.
        how: RUNNING, FINISHED, FAILED or CRASHED.
        error: What it failed of.
        not_stored: How many rows it had to give up, under `on_error='warn'`.
        host: Where it ran …
        pid: … as which process …
        platform: … on which system …
        python: … with which Python …
        cox: … and which cox …
        command: … by which command line.
    """

    writer: str | None
    started: float | None
    ended: float | None = None
    how: str = RUNNING
    error: str | None = None
    not_stored: int = 0
    host: str | None = None
    pid: int | None = None
    platform: str | None = None
    python: str | None = None
    cox: str | None = None
    command: tuple[str, ...] = ()

    @classmethod
    def of_this_process(cls, writer: str) -> Session:
        """One that begins now."""
        return cls(
            writer,
            started=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            platform="-".join(os.uname()[::2]),  # of the module platform the same costs 14 ms
            python=sys.version.partition(" ")[0],
            cox=__version__,
            command=tuple(sys.argv),
        )

    @classmethod
    def from_json(cls, said: dict[str, Any], writer: str | None) -> Session:
        """What a file says. What of it makes no sense is left out."""
        how = said.get("how")
        command = said.get("command")
        texts = {name: said.get(name) for name in ("error", "host", "platform", "python", "cox")}
        how = how if how in (FINISHED, FAILED, CRASHED) else RUNNING
        pid = said.get("pid")
        started, ended = number(said.get("started")), number(said.get("ended"))
        return cls(
            writer,
            started=started,
            ended=None if how == RUNNING else started if ended is None else ended,
            how=how,
            not_stored=int(number(said.get("not_stored")) or 0),
            pid=pid if isinstance(pid, int) and not isinstance(pid, bool) else None,
            command=tuple(map(str, command)) if isinstance(command, list) else (),
            **{name: text for name, text in texts.items() if isinstance(text, str)},
        )

    def to_json(self) -> dict[str, Any]:
        """What its file says of it."""
        said: dict[str, Any] = {"started": self.started, "ended": self.ended}
        if self.how != RUNNING:
            said["how"] = self.how
        for name in ("error", "not_stored", "host", "pid", "platform", "python", "cox"):
            said[name] = getattr(self, name)
        said["command"] = list(self.command)
        return {name: value for name, value in said.items() if value or name == "started"}


@dataclass(slots=True)
class _Log:
    """The sessions of one writer, as its file holds them, and what was left out in their midst."""

    sessions: list[Session] = field(default_factory=list)
    left_out: int = 0
    seconds: float = 0.0

    def append(self, session: Session) -> None:
        self.sessions.append(session)
        while len(self.sessions) > 2 * KEPT:
            one = self.sessions.pop(KEPT)
            self.left_out += 1
            self.seconds += max(0.0, (one.ended or 0.0) - (one.started or 0.0))

    def to_json(self) -> bytes:
        said: dict[str, Any] = {"format": runinfo.VERSION}
        if self.left_out:
            said |= {"left_out": self.left_out, "seconds": self.seconds}
        said["sessions"] = [session.to_json() for session in self.sessions]
        return json.dumps(said, indent=1).encode()


#: Of each writer, with its file.
_Logs = list[tuple[str | None, Path, _Log]]


@dataclass(frozen=True, slots=True)
class History:
    """All sessions of a run, in the order in which they began.

    Attributes:
        sessions: Those that are kept: of each writer the first and the last ones.
        left_out: How many others there were …
        seconds: … and how long they lasted.
    """

    sessions: tuple[Session, ...]
    left_out: int = 0
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.sessions) + self.left_out

    @property
    def not_stored(self) -> int:
        """How many rows were given up."""
        return sum(session.not_stored for session in self.sessions)

    def last_attempt(self) -> list[Session]:
        """The sessions that make up the last attempt at the run: those of all ranks, where it has ranks.

        Sessions of one attempt overlap in time; a rank that fails before another begins belongs to it, too.
        The next begins when a writer begins once more, or when ranks follow a sole writer, or it them.
        """
        attempt: list[Session] = []
        for group in _overlapping(self.sessions):
            known = {session.writer for session in attempt}
            here = {session.writer for session in group}
            if known & here or _are_ranks(known) != _are_ranks(here):
                attempt = []
            attempt += group
        return attempt

    def outcome(self) -> tuple[str | None, str | None]:
        """How the last attempt is, or how it ended, and the first error; None if there was none.

        It has failed if one of the ranks did, whatever became of the others afterwards.
        """
        attempt = self.last_attempt()
        ways = {session.how for session in attempt}
        how = next((way for way in (RUNNING, FAILED, CRASHED, FINISHED) if way in ways), None)
        failed = [session for session in attempt if session.how == FAILED]
        first = min(failed, key=lambda session: session.ended or 0.0, default=None)
        return how, first.error if first is not None and how == FAILED else None

    def lasting(self, now: float) -> float | None:
        """For how many seconds at least one process of it lived; None if nobody knows."""
        spans = [
            (s.started, now if s.ended is None else s.ended) for s in self.sessions if s.started is not None
        ]
        if not spans:
            return None
        total, until = self.seconds, 0.0
        for started, ended in sorted(spans):
            total += max(0.0, ended - max(started, until))
            until = max(until, ended)
        return total


#: Of a run that says nothing of itself.
NONE = History(())


def _overlapping(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    """Sessions in groups, between which nobody was at it. They come in the order in which they began."""
    group: list[Session] = []
    until = 0.0
    for session in sessions:
        if group and (session.started or 0.0) > until:
            yield group
            group, until = [], 0.0
        group.append(session)
        until = max(until, session.ended if session.ended is not None else _BEYOND)
    if group:
        yield group


def _are_ranks(writers: Iterable[str | None]) -> bool:
    return any(writer not in (layout.MAIN_WRITER, None) for writer in writers)


class Recorder:
    """Writes down the session of one writer. For who holds its claim.

    Args:
        run: The run.
        writer: The writer's name.
        run_id: The id of the run.
    """

    def __init__(self, run: layout.RunLayout, writer: str, run_id: str) -> None:
        self.run = run
        self._writer = writer
        self.run_id = run_id
        self._session: Session | None = None

    @property
    def is_open(self) -> bool:
        """Whether the session has begun."""
        return self._session is not None

    def begin(self) -> None:
        """Begin the session; harmless if it has begun.

        Raises:
            OSError: It cannot be written down.
        """
        if self._session is None:
            self._session = Session.of_this_process(
                self._writer
            )  # first: a signal handler may come here, too
            _keep_format_1(self.run)
            self._put(self._session)

    def end(self, error: str | None, *, not_stored: int) -> None:
        """End the session, if it has begun.

        Args:
            error: What it failed of.
            not_stored: How many rows it had to give up.

        Raises:
            OSError: It cannot be written down.
        """
        if self._session is not None:
            how = FAILED if error else FINISHED
            self._put(replace(self._session, ended=time.time(), how=how, error=error, not_stored=not_stored))

    def write_anew(self) -> None:
        """Write down again what was removed while the run was written."""
        if self._session is not None and not self.run.sessions_file(self._writer).exists():
            self._put(self._session)
        elif not self.run.run_file.exists():
            tell(self.run, self.run_id)

    def _put(self, session: Session) -> None:
        path = self.run.sessions_file(self._writer)
        log = _read_log(path, self._writer)
        # by its beginning: a copy of the run that goes on elsewhere has the same file
        if log.sessions and log.sessions[-1].started == session.started:
            log.sessions[-1] = session
        else:
            log.append(session)
        fs.replace_bytes(path, log.to_json())
        tell(self.run, self.run_id)


def read(run: layout.RunLayout) -> History:
    """The sessions of a run, as of now: one whose process is gone without a word has crashed."""
    return _history(run, _read_logs(run))


def _history(run: layout.RunLayout, logs: _Logs) -> History:
    for _ in range(_TURNS):
        sessions = [
            replace(session, how=CRASHED, ended=last_sign(run, session))
            if session.how == RUNNING and not _is_live(run, session)
            else session
            for _, _, log in logs
            for session in log.sessions
        ]
        # one that was open, and whose claim was given up after that, has ended in the meantime
        if all(session.how != CRASHED for session in sessions) or (now := _read_logs(run)) == logs:
            break
        logs = now
    sessions.sort(key=lambda session: session.started or 0.0)
    left_out = sum(log.left_out for _, _, log in logs)
    return History(tuple(sessions), left_out, max(log.seconds for _, _, log in logs))


def settle(run: layout.RunLayout, own: str, signs: dict[str | None, float]) -> None:
    """Write down which sessions have crashed, before a new writer changes what tells when that was.

    Args:
        run: The run.
        own: The writer that does so; it holds its claim.
        signs: The last signs of life, as `signs_of_life` found them before that claim was taken.
    """
    for writer, path, log in _read_logs(run):
        if all(session.how != RUNNING for session in log.sessions):
            continue
        with contextlib.suppress(RunInUseError), _kept_from_others(run, writer, own):
            if writer is not None:
                log = _read_log(path, writer)
            log.sessions = [_crashed(session, signs) for session in log.sessions]
            fs.replace_bytes(path, log.to_json())


@contextlib.contextmanager
def _kept_from_others(run: layout.RunLayout, writer: str | None, own: str) -> Iterator[None]:
    """Keep a writer that is not at it from coming back while the block runs."""
    with contextlib.ExitStack() as stack:
        for path in run.claims_dir.glob("*.json") if writer is None else [run.claim_file(writer)]:
            if path.stem != own:
                stack.enter_context(claims.borrowed(path))
        yield


def _crashed(session: Session, signs: dict[str | None, float]) -> Session:
    if session.how != RUNNING:
        return session
    started = session.started or 0.0
    return replace(session, how=CRASHED, ended=max(started, signs.get(session.writer, 0.0)))


def signs_of_life(run: layout.RunLayout) -> dict[str | None, float]:
    """When each writer of a run that has not ended gave its last sign of life; of None, any of them."""
    found: dict[str | None, float] = {}
    with contextlib.suppress(OSError):
        for path in run.claims_dir.glob("*.json"):
            with contextlib.suppress(OSError):
                said = path.stat()
                if said.st_size:  # else it was given up
                    found[path.stem] = said.st_mtime
    with contextlib.suppress(OSError):
        for path in run.journal_dir.iterdir():
            name = layout.parse_journal_name(path.name)
            with contextlib.suppress(OSError):
                if name is not None:
                    found[name[0]] = max(found.get(name[0], 0.0), path.stat().st_mtime)
    if not found:
        with contextlib.suppress(OSError):
            found[None] = run.store_file.stat().st_mtime
    else:
        found[None] = max(found.values())
    return found


def last_sign(run: layout.RunLayout, session: Session) -> float:
    """When a session that did not end gave its last sign of life."""
    return max(session.started or 0.0, signs_of_life(run).get(session.writer, 0.0))


def tell(run: layout.RunLayout, run_id: str) -> None:
    """Write to `run.json` what all sessions say together.

    Several may do so at once, and no lock is taken: whoever has written it looks whether the sessions are as
    they were before, and so the last one to write it has seen all of them.
    """
    for _ in range(_TURNS):
        logs = _read_logs(run)
        history = _history(run, logs)
        before = runinfo.read(run)
        how, error = history.outcome()
        attempt = history.last_attempt()
        last = attempt[-1].to_json() if attempt else {}
        ended = [session.ended for session in attempt if session.ended is not None]
        about: dict[str, Any] = {
            "format": runinfo.VERSION,
            "id": run_id,
            "moved_from": before.get("moved_from"),
            "state": how,
            "created": before.get("created", history.sessions[0].started if history.sessions else None),
            "started": attempt[0].started if attempt else None,
            "ended": max(ended) if how != RUNNING and ended else None,
            "error": error,
            "not_stored": history.not_stored or None,
            **{name: last.get(name) for name in ("host", "pid", "platform", "python", "cox", "command")},
        }
        runinfo.write(run, {name: value for name, value in about.items() if value is not None})
        if _read_logs(run) == logs:
            return


def number(value: Any) -> float | None:
    """A number of seconds, or of rows, that somebody may have written; None if it makes no sense."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < _BEYOND:
        return None
    return float(value)


def _is_live(run: layout.RunLayout, session: Session) -> bool:
    if session.writer is not None:
        return claims.is_believed(run.claim_file(session.writer))
    # of format 1: it gave up its claim before it folded, and then wrote that it had ended
    return any(claims.is_believed(path) for path in [*run.claims_dir.glob("*.json"), run.fold_lock])


# --- Files


def _files(run: layout.RunLayout) -> list[tuple[str | None, Path]]:
    names = fs.names_in(run.inside(layout.META_DIR))
    return [
        (layout.writer_of_sessions(name), run.meta_dir / name)
        for name in sorted(names)
        if layout.is_sessions_name(name)
    ]


def _read_logs(run: layout.RunLayout) -> _Logs:
    """The sessions of each writer, with its file; those of format 1, which has no such file, as of None."""
    logs = [(writer, path, _read_log(path, writer)) for writer, path in _files(run)]
    return logs or [(None, run.sessions_file(None), _of_format_1(runinfo.read(run)))]


def _read_log(path: Path, writer: str | None) -> _Log:
    try:
        said = json.loads(fs.read_bytes(path, most=runinfo.MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return _Log()  # none yet, or cut short by a loss of power
    if not isinstance(said, dict):
        return _Log()
    sessions = said.get("sessions")
    return _Log(
        [
            Session.from_json(one, writer)
            for one in (sessions if isinstance(sessions, list) else [])[: 2 * KEPT]
            if isinstance(one, dict)
        ],
        int(number(said.get("left_out")) or 0),
        number(said.get("seconds")) or 0.0,
    )


def _of_format_1(info: dict[str, Any]) -> _Log:
    """The last session of a run of format 1, which keeps no others."""
    if info.get("state") not in (RUNNING, FINISHED, FAILED):
        return _Log()
    session = Session.from_json({**info, "how": info["state"]}, None)
    return _Log([replace(session, started=number(info.get("created")) or session.started)])


def _keep_format_1(run: layout.RunLayout) -> None:
    """Keep the last session of a run of format 1, which is written in `run.json` only."""
    ((writer, path, log), *_) = _read_logs(run)
    if writer is None and log.sessions:
        fs.create_once(path, log.to_json(), durable=False)

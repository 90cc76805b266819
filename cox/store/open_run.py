"""What a table needs of the store that it belongs to, so that neither module stands on the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cox.errors import StorageError
    from cox.objects.trust import Place, Trust
    from cox.schema import Schema
    from cox.storage.columns import TableData
    from cox.storage.layout import RunLayout
    from cox.storage.snapshot import Snapshot
    from cox.storage.writer import RunWriter


class OpenRun(Protocol):
    """An open run, as its tables see it: their store."""

    _trust: Trust
    _on_error: str
    _said_of_rank: bool

    @property
    def path(self) -> str:
        """Its directory, absolute."""

    @property
    def _run(self) -> RunLayout: ...

    def _writing(self) -> RunWriter: ...

    def _snapshot(self, **options: Any) -> Snapshot: ...

    def _refresh_if_open(self) -> None: ...

    def _read_table(self, name: str) -> TableData | None: ...

    def _count_rows(self, name: str) -> int: ...

    def _place(self, table: str, schema: Schema) -> Place: ...

    def _give_up_row(self, table: str, error: StorageError) -> None: ...

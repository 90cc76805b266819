"""Read a run without cox, by docs/FORMAT.md alone: `python independent_reader.py OUT_DIR/EXP_ID` shows it."""

import json
import struct
import sys
import zlib
from collections import defaultdict
from pathlib import Path

import h5py
import msgspec
import numpy as np

ROW, TABLE, REWIND, COLUMN = range(4)
KINDS = defaultdict(lambda: str, {"float": float, "int": int, "bool": bool})


class Table:
    """Columns are {name: (kind, nullable)}, rows (writer, number, {column: cell}), None is a missing cell."""

    def __init__(self) -> None:
        self.columns, self.rows, self.counts = {}, [], defaultdict(int)  # the next number of each writer

    def declare(self, column: str, kind: str, nullable: bool) -> None:
        before, was_nullable = self.columns.get(column, (kind, nullable))
        wider = "float" if {before, kind} <= {"float", "int", "bool"} else "str"
        self.columns[column] = kind if kind == before else wider, nullable or was_nullable

    def rewind(self, writer: str, number: int, *rows: dict) -> None:
        if number < self.counts[writer]:
            self.rows = [row for row in self.rows if row[0] != writer or row[1] < number]
        self.rows += [(writer, number, row) for row in rows]  # one that has this number, or none
        self.counts[writer] = number + len(rows)


class Journal:
    """The whole records of a journal, and what its header says: `after` is None if it says nothing."""

    def __init__(self, path: Path) -> None:
        data, (self.writer, _, salt) = path.read_bytes(), path.stem.rpartition("-")
        self.size, self.salt, i, records = len(data), int(salt, 16), 8, []
        assert data[:6] != b"COXLOG" or int.from_bytes(data[6:8], "little") <= 2, f"{path}: a newer version"
        while 0 <= (i := data.find(b"\xc0\xc5", i)) <= len(data) - 10:
            length, checksum = struct.unpack_from("<II", data, i + 2)
            payload = data[i + 10 : i + 10 + length]
            whole = len(payload) == length and zlib.crc32(payload, self.salt) == checksum
            if whole:
                records.append(msgspec.msgpack.decode(payload))
            i += 10 + length if whole else 1  # if not, the next mark may be that of a whole record
        self.run, self.after = next(((r["run"], r["after"]) for r in records if type(r) is dict), (None,) * 2)
        self.records = [record for record in records if isinstance(record, list)]
        self.first, self.end = (self.records[0][1], self.records[-1][1] + 1) if self.records else (0, 0)


def lineage(journals: list[Journal], state: dict) -> list[tuple[Journal, int, int]]:
    """Return the journals of a writer that count, each with its first record and the one after its last."""
    seq, listed = state.get("seq", 0), state.get("journals", [])
    ends = dict(listed + state.get("emptied", []))
    last, last_end = listed[-1] if listed else (None, seq)
    others = {j.salt: j for j in journals if j.end > ends.get(j.salt, seq if j.after is None else 0)}

    def place(j: Journal) -> tuple[int | None, int] | None:
        """Return what a journal continues (its salt; None: store.h5), from where on; None is another life."""
        if j.salt in ends:
            return (None, last_end) if j.salt == last else None
        if j.after is None:
            before = [(o.end, o.salt) for o in others.values() if o.end <= j.first and place(o)]
            return max(before)[::-1] if before else (None, seq) if not listed or j.first >= seq else None
        for salt, end in reversed(j.after):
            if salt in others and place(others[salt]):
                return salt, end
            if salt in ends:
                return (None, end) if salt == last and end >= last_end else None
        return (None, seq) if not listed and j.first >= seq else None

    places = {salt: found for salt, j in others.items() if (found := place(j))}
    leaves = [(others[salt].end, salt) for salt in places.keys() - {before for before, _ in places.values()}]
    (_, salt), end, chain = max(leaves, default=(0, None)), 2**63, []
    while salt is not None:
        chain.insert(0, (others[salt], places[salt][1], end))
        salt, end = places[salt]
    return chain


def replay(tables: dict[str, Table], writer: str, chain: list[tuple[Journal, int, int]]) -> None:
    for journal, start, end in chain:
        declared: dict[int, tuple[str, list[str]]] = {}  # of each table number its name and its columns
        for kind, seq, of, *rest in [record for record in journal.records if record[1] < end]:
            if kind == TABLE or (kind == COLUMN and of in declared):
                name, names = declared.setdefault(of, (rest[0], []))
                for column in rest[1] if kind == TABLE else [rest]:
                    names += column[:1] if column[0] not in names else []
                    tables[name].declare(*column)
            elif seq >= start and kind == REWIND:
                tables[of].rewind(writer, *rest)
            elif seq >= start and kind == ROW and of in declared and len(rest) <= 1 + len(declared[of][1]):
                row = dict(zip(declared[of][1], rest[1:], strict=False))
                tables[declared[of][0]].rewind(writer, rest[0], row)
            start = max(start, seq + 1)  # what is written twice counts once


def read_table(file: h5py.File, name: str, said: dict, writers: dict) -> Table:
    dataset, table, rows = file[f"{name}/table"], Table(), defaultdict(dict)
    data, n = np.empty(dataset.shape, dataset.dtype), len(dataset)
    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, data, dataset.id.get_type())  # else a NUL ends a text
    for i, (column, kind, nullable) in enumerate(said["columns"]):
        table.declare(column, kind, nullable)
        (place, j), of = said["places"][i], f"_cox/{said.get('number')}"
        missing = np.unpackbits(file[at][()], count=n) if (at := f"{of}/missing_{i}") in file else [0] * n
        exact = dict(msgspec.msgpack.decode(bytes(file[at][()]))) if (at := f"{of}/exact_{i}") in file else {}
        for k, cell in enumerate((data[place] if j < 0 else data[place][:, j]).tolist()):
            if kind == "datetime" and type(cell) is int:
                cell = f"{np.datetime64(cell // 1000, 'us')}{'Z' * (i in said.get('zoned', ()))}"
            text = cell.decode() if isinstance(cell, bytes) else cell
            rows[k][column] = None if missing[k] else exact.get(k, text)
    ranked = any(state["rows"].get(name) for writer, state in writers.items() if writer != "main")
    for row in rows.values():
        writer = f"rank-{row['rank']}" if ranked and row["rank"] is not None else "main"
        table.rewind(writer, table.counts[writer], row)
    return table


def read(run: Path) -> dict[str, Table]:
    journals = [Journal(path) for path in sorted((run / ".cox" / "journal").glob("*.log"))]
    store, tables = {"tables": {}, "writers": {}}, defaultdict(Table)
    for path in run.glob("store.h5"):  # after the journals; a loss of power may leave none
        with h5py.File(path) as file:
            store = json.loads(file.attrs["COX_RUN"])
            for name, said in store["tables"].items():
                tables[name] = read_table(file, name, said, store["writers"])
    said = json.loads(next((path.read_text() for path in run.glob(".cox/run.json")), "{}")).get("id")
    life = store.get("id") or max(((j.size, j.run) for j in journals if j.run), default=(0, None))[1]
    if said and said in {store.get("id"), *(j.run for j in journals if not j.after or "id" not in store)}:
        life = said
    if store.get("id") not in (None, life):
        store, tables = {"writers": {}}, defaultdict(Table)
    for writer in sorted({j.writer for j in journals}):
        own = [j for j in journals if j.writer == writer and j.run in (None, life)]
        replay(tables, writer, lineage(own, store["writers"].get(writer, {})))
    for table in tables.values():
        if ranked := any(writer != "main" for writer, _, _ in table.rows):
            table.columns["rank"] = table.columns.pop("rank")  # the last one
        for writer, _, row in table.rows:
            row |= {"rank": None} if ranked and writer == "main" else {}
            row |= {c: KINDS[k](row[c]) for c, (k, _) in table.columns.items() if row.get(c) is not None}
    return tables


if __name__ == "__main__":
    print(*((name, t.columns, t.rows) for name, t in read(Path(sys.argv[1])).items()), sep="\n")

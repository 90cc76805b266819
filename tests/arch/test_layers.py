"""The house: imports run downward only, and what is dangerous or heavy has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: From the ground up. A module imports from the floors below it; those of one floor know nothing of each
#: other. An entry stands for a module, or for a package with all that is in it.
FLOORS: list[set[str]] = [
    {"cox.errors"},
    {"cox.display", "cox.schema", "cox.plain", "cox.extras", "cox.steps"},
    {"cox.ending"},
    {"cox.predicates", "cox.unreadable"},
    {"cox.storage.layout"},
    {"cox.storage.fs"},
    {"cox.storage.newest"},
    {
        "cox.storage.claims",
        "cox.storage.columns",
        "cox.storage.curvefiles",
        "cox.storage.journal",
        "cox.storage.place",
    },
    {"cox.storage.bulk", "cox.storage.hdf5", "cox.storage.lineage", "cox.storage.rowcode"},
    {"cox.storage.empty"},
    {"cox.storage.runinfo"},
    {"cox.storage.sessions", "cox.storage.snapshot"},
    {"cox.storage.fold", "cox.storage.salvage"},
    {"cox.storage.writer"},
    {"cox.storage"},
    {"cox.signing", "cox.byvalue"},
    {"cox.trust"},
    {"cox.payloads"},
    {"cox.objects"},
    {
        "cox.frames",
        "cox.html",
        "cox.events",
        "cox.lifecycle",
        "cox.metadata",
        "cox.params",
        "cox.repeats",
        "cox.utils",
        "cox.savers",
        "cox.tfrecords",
    },
    {"cox.eventfile"},
    {"cox.curves"},
    {"cox.table"},
    {"cox.store", "cox.executors"},
    {
        "cox.collection.scan",
        "cox.collection.progress",
        "cox.collection.blocks",
        "cox.collection.naming",
        "cox.collection.shown",
    },
    {
        "cox.collection.cache",
        "cox.collection.status",
        "cox.collection.parameters",
        "cox.collection.ranks",
        "cox.collection.shapes",
    },
    {"cox.collection.reading", "cox.collection.assembly", "cox.collection.statistics"},
    {
        "cox.collection.dataset",
        "cox.collection.exports",
        "cox.collection.outgoing",
        "cox.collection.overview",
        "cox.collection.plotting",
    },
    {"cox.collection.exported"},
    {"cox.collection.parquet", "cox.collection.runs"},
    {"cox.collection.table", "cox.collection.listing"},
    {"cox.collection"},
    {"cox.readers"},  # beside the store as readers go, but `stores` are Stores
    {"cox.view", "cox.verify", "cox.copying"},
    {"cox.repair"},
    {"cox.redraw"},
    {"cox.tensorboard_view"},
    {"cox.experiments"},
    {"cox.plans", "cox.sweeps", "cox.manager", "cox.report"},
    {"cox.cli", "cox.testing"},
    {"cox"},  # the public names, lazily
]

#: Libraries with one door each: who else imports them has gone around it.
DOORS: dict[str, set[str]] = {
    "dill": {"cox.byvalue"},
    "torch": {"cox.objects", "cox.savers"},
    "tensorboardX": {"cox.eventfile", "cox.events"},
    "h5py": {"cox.storage.hdf5"},
    "tables": set(),
    "fcntl": {"cox.storage.claims"},
    "hmac": {"cox.signing"},
}
#: Who may unpickle, that is, have an object made by whoever wrote it.
UNPICKLERS = {"cox.objects", "cox.byvalue", "cox.plain"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "cox").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


SOURCES = dict(sources())


def entry(name: str) -> str:
    """The entry of `FLOORS` that stands for a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if any(prefix in floor for floor in FLOORS) and (prefix != "cox" or name == "cox"):
            return prefix
    return pytest.fail(f"{name} has no floor: find its place in FLOORS")


def floor(name: str) -> int:
    return next(at for at, names in enumerate(FLOORS) if entry(name) in names)


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All that runs: not what stands under `if TYPE_CHECKING`."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        yield node
        pending += ast.iter_child_nodes(node)


def imports(name: str) -> Iterator[str]:
    """The modules that a module imports, at its top or later."""
    for node in statements(SOURCES[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute, so that this test can read them"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else node.module


@pytest.mark.parametrize("name", SOURCES)
def test_imports_run_downward_only(name: str) -> None:
    for imported in imports(name):
        if imported.partition(".")[0] != "cox" or entry(imported) == entry(name):
            continue
        if imported == "cox":
            continue  # `__version__`: a name of the package itself, which imports nothing
        assert floor(imported) < floor(name), f"{name} imports {imported}, which is not below it"


def test_the_ground_floor_stands_on_nothing() -> None:
    for name in ("cox.errors", "cox.plain"):
        for module in SOURCES:
            if entry(module) == name:
                assert {entry(imported) for imported in imports(module) if imported.startswith("cox")} <= {
                    name
                }
    assert {imported for imported in imports("cox.schema") if imported.startswith("cox")} == {"cox.errors"}


def test_the_storage_knows_nothing_of_stores_and_frames() -> None:
    for name in SOURCES:
        if name.startswith("cox.storage"):
            for imported in imports(name):
                assert not imported.startswith(
                    ("cox.store.", "cox.table", "cox.readers", "cox.frames", "pandas")
                )
                assert imported != "cox.store"


def test_the_store_knows_nothing_of_readers() -> None:
    for name in ("cox.store", "cox.table"):
        assert "cox.readers" not in set(imports(name))


def test_executors_know_nothing_of_stores() -> None:
    for name in SOURCES:
        if name.startswith("cox.executors"):
            assert not [
                imported
                for imported in imports(name)
                if imported.startswith(("cox.sto", "cox.tab", "cox.rea"))
            ]


@pytest.mark.parametrize("library", DOORS)
def test_one_door_for_each_dangerous_or_heavy_library(library: str) -> None:
    users = {
        entry(name)
        for name in SOURCES
        if library in {imported.partition(".")[0] for imported in imports(name)}
    }
    assert users <= DOORS[library]


def test_one_door_for_unpickling() -> None:
    wanted = {"load", "loads", "Unpickler", "_Unpickler"}
    for name, tree in SOURCES.items():
        used = {
            f"{ast.unparse(node.value)}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in wanted
            if isinstance(node.value, ast.Name)
            and node.value.id in ("pickle", "dill", "torch", "cPickle", "cloudpickle")
        }
        taken = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "dill")
            for alias in node.names
        }
        assert entry(name) in UNPICKLERS or not used | (taken & wanted), f"{name} unpickles: {used}"


def test_upward_imports_are_seen() -> None:
    """This test can fail: the statements it reads are the ones that run."""
    assert {"h5py", "cox.storage.columns"} <= set(imports("cox.storage.hdf5.reading"))
    assert "cox.storage.snapshot" in set(imports("cox.collection.runs"))  # imported in a function
    assert "cox.store" not in set(imports("cox.table"))  # for the type checker only
    assert floor("cox.storage.hdf5.reading") < floor("cox.store") < floor("cox.readers")

"""The house: imports run downward only, and what is dangerous or heavy has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: From the ground up. A module imports from the floors below it, for types too; those of one floor know
#: nothing of each other. An entry stands for a module, or for a package with all that is in it.
FLOORS: list[set[str]] = [
    {"cox.errors", "cox.timestamps", "cox.version"},
    {"cox.extras", "cox.predicates", "cox.progress", "cox.safe_pickle", "cox.schema", "cox.steps"},
    {"cox.display", "cox.storage"},
    {"cox.frames", "cox.objects"},
    {"cox.metadata", "cox.savers", "cox.tensorboard", "cox.utils"},
    {"cox.analysis", "cox.executors", "cox.store"},
    {"cox.collection", "cox.integrity", "cox.tensorboard.view"},
    {"cox.exports", "cox.tensorboard_view"},
    {"cox.readers"},  # beside the store as readers go, but `stores` are Stores
    {"cox.experiments"},
    {"cox.integrations", "cox.manager", "cox.plans", "cox.report", "cox.sweeps"},
    {"cox.cli", "cox.testing"},
    {"cox"},  # the public names, lazily
]
#: The same inside of `cox.storage`.
STORAGE: list[set[str]] = [
    {"cox.storage.layout"},
    {"cox.storage.fs", "cox.storage.time_cells", "cox.storage.scan"},
    {
        "cox.storage.claims",
        "cox.storage.columns",
        "cox.storage.curvefiles",
        "cox.storage.newest",
        "cox.storage.place",
        "cox.storage.schemas",
    },
    {"cox.storage.journal", "cox.storage.rows"},
    {"cox.storage.hdf5", "cox.storage.lineage"},
    {"cox.storage.empty", "cox.storage.ownership"},
    {"cox.storage.replay", "cox.storage.runinfo"},
    {"cox.storage.sessions", "cox.storage.snapshot"},
    {"cox.storage.fold", "cox.storage.salvage", "cox.storage.status"},
    {"cox.storage.following", "cox.storage.leftovers"},
    {"cox.storage.hold"},
    {"cox.storage.writer"},
    {"cox.storage.open_writers"},
    {"cox.storage"},
]

#: Libraries with one door each: who else imports them has gone around it.
DOORS: dict[str, set[str]] = {
    "dill": {"cox.objects.byvalue"},
    "torch": {"cox.objects.codec", "cox.savers"},
    "tensorboardX": {"cox.tensorboard.eventfile", "cox.tensorboard.summaries"},
    "h5py": {"cox.storage.hdf5"},
    "tables": set(),
    "fcntl": {"cox.storage.claims"},
    "hmac": {"cox.objects.signing"},
}
#: Who may unpickle, that is, have an object made by whoever wrote it.
UNPICKLERS = {"cox.objects.codec", "cox.objects.byvalue", "cox.safe_pickle"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "cox").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


SOURCES = dict(sources())


def is_inside(name: str, packages: set[str]) -> bool:
    """Whether a module is one of some modules, or in one of some packages."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def entry(name: str, floors: list[set[str]] = FLOORS) -> str:
    """The entry of a list of floors that stands for a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if any(prefix in floor for floor in floors) and (prefix != "cox" or name == "cox"):
            if prefix == "cox.storage" and floors is STORAGE and name != prefix:
                break
            return prefix
    return pytest.fail(f"{name} has no floor: find its place in FLOORS, or in STORAGE")


def floor(name: str, floors: list[set[str]] = FLOORS) -> int:
    return next(i for i, names in enumerate(floors) if entry(name, floors) in names)


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


def imports(name: str, *, types: bool = False) -> Iterator[str]:
    """The modules that a module imports, at its top or later; with `types`, for the type checker too."""
    for node in ast.walk(SOURCES[name]) if types else statements(SOURCES[name]):
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
    for imported in imports(name, types=True):
        if imported.partition(".")[0] == "cox" and entry(imported) != entry(name):
            assert floor(imported) < floor(name), f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("name", [name for name in SOURCES if is_inside(name, {"cox.storage"})])
def test_imports_run_downward_only_in_the_storage(name: str) -> None:
    for imported in imports(name, types=True):
        if is_inside(imported, {"cox.storage"}) and entry(imported, STORAGE) != entry(name, STORAGE):
            assert floor(imported, STORAGE) < floor(name, STORAGE), f"{name} imports {imported}"


def test_no_circle_of_imports_not_even_for_types() -> None:
    arrows = {name: {i for i in imports(name, types=True) if i in SOURCES} for name in SOURCES}

    def reached(start: str) -> set[str]:
        seen, pending = set[str](), [start]
        while pending:
            new = arrows[pending.pop()] - seen
            seen |= new
            pending += new
        return seen

    in_circles = [name for name in SOURCES if name in reached(name)]
    assert not in_circles


def test_the_ground_floor_stands_on_nothing() -> None:
    for name in ("cox.errors", "cox.safe_pickle", "cox.progress", "cox.timestamps", "cox.version"):
        for module in SOURCES:
            if entry(module) == name:
                assert {entry(imported) for imported in imports(module) if imported.startswith("cox")} <= {
                    name
                }
    below = {imported for imported in imports("cox.schema") if imported.startswith("cox")}
    assert below == {"cox.errors", "cox.timestamps"}


def test_the_storage_knows_nothing_of_stores_and_frames() -> None:
    for name in SOURCES:
        if name.startswith("cox.storage"):
            for imported in imports(name):
                assert not is_inside(imported, {"cox.store", "cox.readers", "cox.frames", "pandas"})


def test_the_store_knows_nothing_of_readers() -> None:
    for name in SOURCES:
        if is_inside(name, {"cox.store"}):
            assert "cox.readers" not in set(imports(name))


def test_executors_know_nothing_of_stores() -> None:
    for name in SOURCES:
        if name.startswith("cox.executors"):
            assert not [imported for imported in imports(name) if imported.startswith(("cox.sto", "cox.rea"))]


def test_commands_are_imported_when_they_are_called() -> None:
    for name in SOURCES:
        if is_inside(name, {"cox.cli"}) and not is_inside(name, {"cox.cli.commands"}):
            assert not [imported for imported in imports(name) if is_inside(imported, {"cox.cli.commands"})]


@pytest.mark.parametrize("library", DOORS)
def test_one_door_for_each_dangerous_or_heavy_library(library: str) -> None:
    users = {
        name for name in SOURCES if library in {imported.partition(".")[0] for imported in imports(name)}
    }
    assert not {name for name in users if not is_inside(name, DOORS[library])}


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
        assert is_inside(name, UNPICKLERS) or not used | (taken & wanted), f"{name} unpickles: {used}"


def test_upward_imports_are_seen() -> None:
    """This test can fail: the statements it reads are the ones that run."""
    assert {"h5py", "cox.storage.columns"} <= set(imports("cox.storage.hdf5.reading"))
    assert "cox.storage.runinfo" in set(imports("cox.collection.runs"))  # imported in a function
    assert "cox.storage.writer" not in set(imports("cox.store.table"))  # for the type checker only
    assert "cox.storage.writer" in set(imports("cox.store.table", types=True))
    assert floor("cox.storage.hdf5.reading") < floor("cox.store") < floor("cox.readers")
    assert floor("cox.storage.hdf5.reading", STORAGE) < floor("cox.storage.writer", STORAGE)

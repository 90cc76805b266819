"""What is acknowledged is read back in another process, or refused; what is gone later costs its cell."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.errors import DamageWarning, RebuildError, RowError
from cox.objects.unreadable import Unreadable
from cox.readers import CollectionReader
from cox.store import Store

CLASSES = '''
import abc, argparse, collections, dataclasses, enum, functools, logging, sys, threading, types, typing

class Opt(enum.Enum):
    SGD = "sgd"
    ADAM = "adam"

class Mode(str, enum.Enum):
    TRAIN = "train"

class Number(enum.IntEnum):
    ONE = 1
    UN = 1

class Flag(enum.Flag):
    A = 1
    B = 2

class IntFlag(enum.IntFlag):
    A = 1
    B = 2

class Methods(enum.Enum):
    A = 1
    B = 2
    @property
    def double(self): return self.value * 2
    def other(self): return Methods.B if self is Methods.A else Methods.A
    @classmethod
    def _missing_(cls, value): return cls.A

class Planet(enum.Enum):
    EARTH = (6.0, 3.0)
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
    def density(self): return self.mass / self.radius

class Labelled(enum.Enum):
    X = (0, "an x")
    def __new__(cls, value, label):
        made = object.__new__(cls)
        made._value_, made.label = value, label
        return made

class Named(enum.Enum):
    def hello(self): return "hello " + self.name

class Sub(Named):
    Q = 1

class Outer:
    class Inner(enum.Enum):
        Z = 1

@dataclasses.dataclass
class Config:
    opt: Opt = Opt.SGD
    steps: list = dataclasses.field(default_factory=list)

@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    mode: Mode = Mode.TRAIN

T = typing.TypeVar("T")
Bound = typing.TypeVar("Bound", bound=Config)
Id = typing.NewType("Id", int)

class Generic(typing.Generic[T]):
    def same(self, value: T) -> T: return value

class Protocol(typing.Protocol):
    def three(self) -> int: ...

class Implemented(Protocol):
    def three(self): return 3

class Pair(typing.NamedTuple):
    a: int
    opt: Opt = Opt.SGD

class Single:
    """Refers to an instance of itself."""
    def kind(self): return Single

Single.only = Single()

class Registry:
    known = {}
    def __init_subclass__(cls): Registry.known[cls.__name__] = cls

class Registered(Registry):
    pass

class Meta(type):
    def of_class(cls): return 5

class WithMeta(metaclass=Meta):
    pass

class Abstract(abc.ABC):
    @abc.abstractmethod
    def four(self): ...

class Concrete(Abstract):
    def four(self): return 4

def local():
    class Local(enum.Enum):
        A = 1
    class Inside(typing.Generic[T]):
        pass
    class Self:
        pass
    Self.only = Self()
    return {"enum": Local.A, "generic": Inside(), "self": Self()}

made_up = types.ModuleType("made_up")
exec("""
import enum
def seven(): return 7
class InModule:
    def seven(self): return seven()
class E(enum.Enum): A = 1
""", made_up.__dict__)
sys.modules["made_up"] = made_up

VALUES = {
    "enum": Opt.SGD,
    "mixin": Mode.TRAIN,
    "int": Number.UN,
    "flags": Flag.A | Flag.B,
    "no flag": Flag(0),
    "int flags": IntFlag(9),
    "methods": Methods.A,
    "planet": Planet.EARTH,
    "labelled": Labelled.X,
    "inherited": Sub.Q,
    "inner": Outer.Inner.Z,
    "outer": Outer(),
    "functional": enum.Enum("Functional", "a b").b,
    "dataclass": Config(),
    "frozen": Frozen(),
    "generic": Generic(),
    "generic[int]": Generic[int](),
    "alias": Generic[int],
    "variable": T,
    "bound": Bound,
    "id": Id,
    "protocol": Implemented(),
    "pair": Pair(1),
    "single": Single(),
    "method": Single().kind,
    "registered": Registered(),
    "meta": WithMeta(),
    "abstract": Concrete(),
    "local": local(),
    "class": Opt,
    "list": [Opt.SGD, {Opt.ADAM: {Mode.TRAIN}}],
    "namespace": argparse.Namespace(opt=Opt.ADAM),
    "lambda": lambda: Opt.SGD,
    "generic lambda": lambda: Generic[int](),
    "partial": functools.partial(lambda opt: opt, Opt.SGD),
    "factory": collections.defaultdict(lambda: Opt.SGD),
    "in module": made_up.InModule(),
    "in module, enum": made_up.E.A,
    "function": made_up.seven,
}
'''

WRITE = """
import cox
with cox.Store(sys.argv[1], "r") as store:
    table = store.add_table("t", {"name": str, "o": cox.OBJECT, "p": cox.PICKLE})
    for name, value in VALUES.items():
        table.append_row({"name": name, "o": value, "p": value})
"""

#: What each has to answer in another process.
ASKED: dict[str, Any] = {
    "enum": lambda v: (
        (v.name, v.value, type(v)(v.value) is v, [member.name for member in type(v)])
        == ("SGD", "sgd", True, ["SGD", "ADAM"])
    ),
    "mixin": lambda v: v + "!" == "train!",
    "int": lambda v: v + 1 == 2 and type(v).UN is type(v).ONE,
    "flags": lambda v: type(v).A in v and v.value == 3,
    "no flag": lambda v: not v and (~v).value == 3,
    "int flags": lambda v: v == 9,
    "methods": lambda v: v.double == 2 and v.other().other() is v and type(v)(77) is v,
    "planet": lambda v: v.density() == 2.0,
    "labelled": lambda v: (v.value, v.label) == (0, "an x"),
    "inherited": lambda v: v.hello() == "hello Q",
    "inner": lambda v: type(v).__qualname__ == "Outer.Inner",
    "dataclass": lambda v: v == type(v)() and [field.name for field in _fields(v)] == ["opt", "steps"],
    "frozen": lambda v: v == type(v)(),
    "generic": lambda v: v.same(1) == 1 and type(v)[int],
    "variable": lambda v: v.__name__ == "T",
    "bound": lambda v: v.__bound__.__name__ == "Config",
    "id": lambda v: v.__name__ == "Id",
    "protocol": lambda v: v.three() == 3,
    "pair": lambda v: v.a == 1 and v.opt.value == "sgd",
    "single": lambda v: type(v.only) is type(v) and v.kind() is type(v),
    "registered": lambda v: list(type(v).known) == ["Registered"],
    "meta": lambda v: type(v).of_class() == 5,
    "abstract": lambda v: v.four() == 4 and type(v).__mro__[1].__abstractmethods__,
    "local": lambda v: v["enum"].value == 1 and type(v["self"].only) is type(v["self"]),
    "class": lambda v: v.ADAM.value == "adam",
    "list": lambda v: v[0].value == "sgd" and type(v[0]).ADAM in v[1],
    "namespace": lambda v: v.opt.value == "adam",
    "lambda": lambda v: v().value == "sgd",
    "generic lambda": lambda v: v().same(2) == 2,
    "partial": lambda v: v().value == "sgd",
    "factory": lambda v: v["missing"].value == "sgd",
    "in module": lambda v: v.seven() == 7,
    "function": lambda v: v() == 7,
}


def _fields(value: Any) -> Any:
    import dataclasses

    return dataclasses.fields(value)


def test_what_a_script_defines_comes_back_in_another_process(out: Path, run: Any) -> None:
    run(CLASSES + WRITE, out)
    frame = CollectionReader(out).df("t")
    assert len(frame) > len(ASKED)
    for name, *values in zip(frame["name"], frame["o"], frame["p"], strict=True):
        for value in values:
            assert ASKED.get(name, lambda value: value is not None)(value), (name, value)


def test_members_are_the_same_in_every_cell_and_in_the_script_itself(out: Path, run: Any) -> None:
    """Else no comparison of two runs' parameters would hold, and none with the script's own members."""
    source = """
        import enum, sys
        import cox
        class Opt(enum.Enum):
            SGD = "sgd"
            ADAM = "adam"
            def other(self): return Opt.ADAM if self is Opt.SGD else Opt.SGD
        own = Opt.other
        with cox.Store(sys.argv[1]) as store:
            store.add_table("metadata", {"opt": cox.OBJECT}).append_row({"opt": Opt.SGD})
        for value in cox.CollectionReader(sys.argv[1]).df("metadata")["opt"]:
            assert value is Opt.SGD
        assert Opt.other is own
    """
    for _ in range(2):
        run(source, out)
    first, second = CollectionReader(out).df("metadata")["opt"]
    assert first is second
    assert first.other().value == "adam"


def test_plain_readers_load_them(out: Path, run: Any, tmp_path: Path) -> None:
    """A pickle names nothing of this package: upstream reads it with dill."""
    run(CLASSES + WRITE, out)
    with Store(out, "r", mode="r") as store:
        cells = store["t"].df.set_index("name")["p"]
        for name in ("enum", "methods", "generic", "single"):
            data = (out / "r" / ".table_objects" / cells[name]).read_bytes()
            (tmp_path / "pickle").write_bytes(data)
            names = [module for module, _ in _references(data)]
            assert not [module for module in names if module.startswith("cox")]
            done = run("import dill, sys; print(dill.load(open(sys.argv[1], 'rb')))", tmp_path / "pickle")
            assert len(done) == 1


def _references(data: bytes) -> Iterator[tuple[str, str]]:
    import io

    from cox import safe_pickle

    return safe_pickle.references(io.BytesIO(data))


def test_a_spawned_process_stores_what_its_parents_script_defines(out: Path, run: Any) -> None:
    run(
        """
        import enum, multiprocessing, sys
        import cox
        class Own:
            x = 5
        class Opt(enum.Enum):
            SGD = 1
        def log(folder):
            with cox.Store(folder, "r") as store:
                table = store.add_table("t", {"o": cox.OBJECT, "e": cox.PICKLE})
                table.append_row({"o": Own(), "e": Opt.SGD})
        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=log, args=(sys.argv[1],))
            process.start()
            process.join()
            assert process.exitcode == 0
        """,
        out,
    )
    row = CollectionReader(out).df("t").iloc[0]
    assert (row["o"].x, row["e"].value) == (5, 1)


def test_what_lies_in_a_module_file_goes_by_reference(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train_lib.py").write_text("import enum\nclass Opt(enum.Enum): SGD = 1\nclass Own: x = 5")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("train_lib")
    with Store(out, "r") as store:
        store.add_table("t", {"o": cox.OBJECT, "e": cox.OBJECT}).append_row(
            {"o": module.Own(), "e": module.Opt.SGD}
        )
    row = CollectionReader(out).df("t").iloc[0]
    assert type(row["o"]) is module.Own
    assert row["e"] is module.Opt.SGD


def test_states_with_a_scripts_own_objects_come_back(out: Path, run: Any) -> None:
    pytest.importorskip("torch", reason="PYTORCH_STATE needs torch")
    run(
        """
        import enum, sys, torch
        import cox
        class Opt(enum.Enum):
            SGD = 1
        class Note:
            text = "tuned"
        with cox.Store(sys.argv[1], "r") as store:
            table = store.add_table("t", {"s": cox.PYTORCH_STATE})
            table.append_row({"s": {"opt": Opt.SGD, "note": Note(), "w": torch.ones(2)}})
        """,
        out,
    )
    with Store(out, "r", mode="r") as store:
        state = store["t"].get_state_dict(store["t"].df["s"][0])
    assert (state["opt"].value, state["note"].text, state["w"].tolist()) == (1, "tuned", [1.0, 1.0])


# --- Refused at once


class Sentinel:
    """Its pickle is a name."""

    def __reduce__(self) -> str:
        return "MISSING"


def test_what_only_this_process_could_find_is_refused_at_once(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here")
    made = types.new_class("Sentinel", (Sentinel,))
    made.__module__ = "only_here"
    module.Sentinel, module.MISSING = made, made()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", module)
    with Store(out, "r") as store:
        for kind in (cox.OBJECT, cox.PICKLE):
            table = store.add_table(f"t {kind}", {"o": kind, "step": int})
            with pytest.raises(
                RowError, match=r"column 'o'.*MISSING.*another process.*module that can be imported"
            ):
                table.append_row({"o": module.MISSING, "step": 1})  # type: ignore[attr-defined]
            table.append_row({"o": 1, "step": 1})
            assert table.nrows == 1
        assert len(list((out / "r" / ".table_objects").iterdir())) == 1


ODD = '''
class OwnArguments(Exception):
    """As many are: pickle calls the class with what `super().__init__` was given."""
    def __init__(self, a, *, code=0):
        super().__init__()
        self.a, self.code = a, code

class TwoTexts(str):
    """Made of two texts, and pickled as one."""
    def __new__(cls, first, second): return super().__new__(cls, first + second)

class Refusing:
    """Takes no attribute, and so not its own state."""
    __slots__ = ("x",)
    def __init__(self, x): object.__setattr__(self, "x", x)
    def __setattr__(self, *_): raise AttributeError("frozen")

class Repaired(OwnArguments):
    """Says how it is made."""
    def __reduce__(self): return Repaired, (self.a,)
'''


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "odd_things.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("odd_things")
    del sys.modules["odd_things"]


@pytest.mark.parametrize("kind", [cox.OBJECT, cox.PICKLE, cox.PYTORCH_STATE])
@pytest.mark.parametrize(
    ("name", "arguments"), [("OwnArguments", (1,)), ("TwoTexts", ("a", "b")), ("Refusing", (3,))]
)
def test_what_pickle_takes_and_cannot_give_back_is_refused_at_once(
    out: Path, odd: Any, kind: str, name: str, arguments: tuple[Any, ...]
) -> None:
    thing = getattr(odd, name)(*arguments)
    with cox.Store(out, "run") as store:
        store.add_table("t", {"x": int, "thing": kind})
        for given in (thing, {"deep": [thing]}):
            with pytest.raises(RowError, match=r"column 'thing'.*cannot rebuild it.*__reduce__"):
                store["t"].append_row({"x": 0, "thing": given})
        store["t"].append_row({"x": 1, "thing": {"deep": [odd.Repaired(7)]}})
    with CollectionReader(out) as reader:
        (row,) = reader.df("t").to_dict("records")
    assert row["x"] == 1 and (kind == cox.PYTORCH_STATE or row["thing"]["deep"][0].a == 7)
    assert len(list((out / "run" / ".table_objects").iterdir())) == (kind != cox.OBJECT)


def test_what_a_script_defines_is_tried_out_too(out: Path, run: Any) -> None:
    printed = run(
        """
        import sys
        from cox.errors import RowError
        from cox.store import OBJECT, Store

        class Stop(Exception):
            def __init__(self, *, epoch): super().__init__("stopped"); self.epoch = epoch

        with Store(sys.argv[1], "tried") as store:
            store.add_table("t", {"thing": OBJECT})
            try:
                store["t"].append_row({"thing": [Stop(epoch=3)]})
            except RowError as error:
                print("cannot rebuild it" in str(error), store["t"].nrows)
        """,
        out,
    )
    assert printed == ["True 0"]


def test_an_enum_that_cannot_be_made_again_is_refused_at_once(out: Path, run: Any) -> None:
    lines = run(
        """
        import enum, sys
        import cox
        class Odd(bytes, enum.Enum):
            X = (7, "label")
            def __new__(cls, value, label):
                made = bytes.__new__(cls, [value])
                made._value_, made.label = value, label
                return made
        with cox.Store(sys.argv[1], "r") as store:
            table = store.add_table("t", {"o": cox.OBJECT})
            try:
                table.append_row({"o": Odd.X})
            except ValueError as error:
                print(error)
        """,
        out,
    )
    assert "module that can be imported" in lines[0]
    assert ".value" in lines[0]


# --- Gone later


@pytest.fixture
def gone(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs: the class of one's object is gone."""
    (tmp_path / "was_there.py").write_text("class Gone: pass")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        values = {"a": {"plain": 1}, "b": importlib.import_module("was_there").Gone(), "c": [2]}
        for name, value in values.items():
            with Store(out, name) as store:
                table = store.add_table("metadata", {"lr": float, "o": cox.OBJECT, "p": cox.PICKLE})
                table.append_row({"lr": 0.1, "o": value, "p": value})
    monkeypatch.delitem(sys.modules, "was_there")
    (tmp_path / "was_there.py").unlink()
    importlib.invalidate_caches()
    return out


def test_an_object_whose_class_is_gone_costs_its_cell(gone: Path) -> None:
    with pytest.warns(
        DamageWarning, match=r"column '[op]' .*was_there\.Gone.*No module named.*run b"
    ) as warnings:
        frame = CollectionReader(gone).df("metadata")
    assert len(warnings) == 2  # one for each column
    assert frame["lr"].tolist() == [0.1, 0.1, 0.1]
    assert frame["o"].tolist()[::2] == [{"plain": 1}, [2]]
    for cell in (frame["o"].iloc[1], frame["p"].iloc[1]):
        assert isinstance(cell, Unreadable)
        assert "Gone" in str(cell)
        assert "No module named 'was_there'" in cell.reason
    with Store(gone, "b", mode="r") as store, pytest.raises(RebuildError, match="is the code"):
        store["metadata"].get_object(store["metadata"].df["o"][0])


def test_untrusted_objects_are_still_refused(
    gone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "somebody else"))
    with pytest.raises(pickle.UnpicklingError, match="cox trust"):
        CollectionReader(gone).df("metadata")


def test_the_command_prints_the_rest(gone: Path) -> None:
    from click.testing import CliRunner

    from cox.cli import main

    done = CliRunner().invoke(main, ["df", "metadata", os.fspath(gone), "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) == 3

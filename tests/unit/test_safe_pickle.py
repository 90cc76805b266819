"""The unpickler that runs nobody's code."""

from __future__ import annotations

import base64
import collections
import contextlib
import copyreg
import datetime
import enum
import fractions
import functools
import io
import os
import pathlib
import pickle
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cox import safe_pickle
from cox.safe_pickle import allowlist, opcodes

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.just(datetime.timezone.utc)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.just(...),
    st.just(NotImplemented),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-2, 1, 3])),
    st.just(pathlib.PurePosixPath("a/b")),
    st.builds(np.float32, st.floats(width=32, allow_nan=False)),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.builds(bytearray, st.binary()),
)
hashable = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.tuples(st.integers(), st.text())
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(hashable, inner),
        st.sets(hashable),
        st.frozensets(hashable),
        st.builds(collections.OrderedDict, st.dictionaries(hashable, inner)),
        st.builds(collections.deque, st.lists(inner)),
        st.builds(collections.Counter, st.lists(hashable)),
        st.builds(lambda d: collections.defaultdict(list, d), st.dictionaries(hashable, inner)),
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (canonical(one) == canonical(other)) and one == other


def canonical(value: Any) -> Any:
    """Something to compare that tells 1 from True and 1.0, and does not know the order of sets."""
    if isinstance(value, (set, frozenset)):
        return sorted(repr(item) for item in value)
    if isinstance(value, dict):
        return [(canonical(key), canonical(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, collections.deque)):
        return [canonical(item) for item in value]
    return type(value).__name__, repr(value)


@settings(max_examples=60, deadline=None)
@given(values)
def test_plain_data_round_trips(value: Any) -> None:
    data, is_plain = safe_pickle.dumps(value)
    assert is_plain
    assert same(safe_pickle.loads(data), value)


@settings(max_examples=40, deadline=None)
@given(values, st.integers(0, 5))
def test_what_other_picklers_made_of_plain_data_reads_too(value: Any, protocol: int) -> None:
    """Upstream's stores were pickled by dill, PyTables' attributes with protocol 0."""
    for data in (pickle.dumps(value, protocol), dill.dumps(value, protocol=protocol)):
        assert same(safe_pickle.loads(data), pickle.loads(data))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype",
    [
        "f8",
        "f2",
        "i1",
        ">i4",
        "?",
        "c16",
        "U3",
        "S3",
        "V4",
        "M8[ns]",
        "m8[s]",
        "O",
        "i4,f8",
        [("a", "O"), ("b", "2i4")],
        "g",
    ],
)
def test_arrays_round_trip(dtype: Any, order: Any) -> None:
    array = np.zeros((2, 3), dtype=dtype, order=order)
    for value in (array, array[:0], array[0, 0], array[:, ::2], array.dtype, np.array(array[0, 0])):
        data, is_plain = safe_pickle.dumps(value)
        assert is_plain
        for pickled in (data, *(pickle.dumps(value, protocol) for protocol in range(6)), dill.dumps(value)):
            read, expected = safe_pickle.loads(pickled), pickle.loads(pickled)
            assert type(read) is type(expected)
            if isinstance(value, np.dtype):
                assert read == value
                assert (read.flags, read.itemsize, read.alignment) == (
                    value.flags,
                    value.itemsize,
                    value.alignment,
                )
            elif isinstance(expected, (np.ndarray, np.generic)):
                assert read.dtype in (value.dtype, expected.dtype)  # pickle turns big-endian into native
                assert np.array_equal(read, value)
                assert np.isfortran(read) == np.isfortran(expected)
            else:
                assert read == expected


def test_arrays_of_objects_and_shared_arrays() -> None:
    array = np.array([None, "x", {"a": [1]}, 2.5], dtype=object)
    value = {"a": array, "b": array, "c": [array.dtype, np.dtype("f8"), np.dtype("f8")]}
    read = safe_pickle.loads(safe_pickle.dumps(value)[0])
    assert read["a"].tolist() == array.tolist()
    assert read["a"] is read["b"]
    assert read["c"][1] == np.dtype("f8")


@pytest.mark.parametrize(
    "value", [pathlib.PurePosixPath("a/é"), Path("/a"), pathlib.PureWindowsPath("c:\\a")]
)
def test_paths_round_trip(value: Any) -> None:
    data, is_plain = safe_pickle.dumps(value)
    assert is_plain
    assert same(safe_pickle.loads(data), value)


class Own:
    pass


class Level(enum.Enum):
    HIGH = 1


def function() -> None:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Own(),
        Own,
        Level.HIGH,
        function,
        len,
        os.system,
        re.compile("a"),
        uuid.UUID(int=1),
        Exception("x"),
        type,
        print,
        functools.partial(len),
        np.mean,
        np.random.default_rng(0),
        np.ma.array([1]),
        np.zeros(2).view(np.recarray),
        collections.UserDict(),
        pathlib.Path,
        slice,
        {"deep": [(Own(),)]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_is_known_and_refused(value: Any) -> None:
    data, is_plain = safe_pickle.dumps(value)
    if is_plain:  # a class that is on the list: a class is no instance, and nothing runs
        assert safe_pickle.loads(data) is value
        return
    with pytest.raises(safe_pickle.NotPlainError) as refused:
        safe_pickle.loads(data)
    assert refused.value.name in str(refused.value)
    assert isinstance(refused.value, pickle.UnpicklingError)


def test_what_only_dill_can_store_is_left_to_it() -> None:
    class Local:
        pass

    for value in (Local(), Local, lambda: 1, [lambda: 1]):
        with pytest.raises(Exception, match="."):
            safe_pickle.dumps(value)


def test_load_leaves_what_follows_the_pickle_unread() -> None:
    file = io.BytesIO(safe_pickle.dumps([1, np.arange(3)])[0] + b"signature")
    read = safe_pickle.load(file)
    assert read[0] == 1
    assert safe_pickle.loads(safe_pickle.dumps({"a": 1})[0] + b"signature") == {"a": 1}


def test_loading_runs_none_of_the_pickles_code(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (os.fspath(mark),)

    for protocol in range(6):
        data = pickle.dumps({"innocent": 1, "x": Hostile()}, protocol)
        with pytest.raises(safe_pickle.NotPlainError, match="mkdir"):
            safe_pickle.loads(data)
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists()  # it was a live one


def text(*lines: str) -> bytes:
    """A pickle of protocol 0."""
    return "\n".join(lines).encode()


HOSTILE: dict[str, bytes] = {
    "os.system": text("cos", "system", "(S'true'", "tR."),
    "eval": text("cbuiltins", "eval", "(S'1'", "tR."),
    "eval of Python 2": text("c__builtin__", "eval", "(S'1'", "tR."),
    "getattr": text("cbuiltins", "getattr", "(cbuiltins", "dict", "S'fromkeys'", "tR."),
    "__import__": text("cbuiltins", "__import__", "(S'os'", "tR."),
    "type": text("cbuiltins", "type", "(S'x'", "tR."),
    "open": text("cbuiltins", "open", "(S'/etc/passwd'", "tR."),
    "copyreg of a type": text(
        "ccopyreg", "_reconstructor", "(cnumpy", "ndarray", "cbuiltins", "object", "NtR."
    ),
    "copyreg extension": b"\x82\x01.",
    "persistent id": text("Px", "."),
    "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x0ddict.fromkeys\x93.",
    "dotted module": b"\x80\x04\x8c\x02os\x8c\x0bpath.exists\x93.",
    "numpy's loader": text("cnumpy", "load", "(S'x'", "tR."),
    "numpy's ctypes": text("cnumpy.ctypeslib", "load_library", "(S'x'", "S'.'", "tR."),
    "numpy's test runner": text("cnumpy.testing._private.utils", "runstring", "(S'1'", "(dtR."),
    "a module of numpy": text("cnumpy", "ctypeslib", "."),
    "codecs": text("c_codecs", "encode", "(S'abc'", "S'zlib'", "tR."),
    "dill type": text("cdill._dill", "_load_type", "(S'CodeType'", "tR."),
    "dill function": text("cdill._dill", "_create_function", "(tR."),
    "dill expression": text("cdill._dill", "_eval_repr", "(S'__import__(\"os\")'", "tR."),
    "dill module": text("cdill._dill", "_import_module", "(S'os'", "tR."),
    "dill attribute": text(
        "cdill._dill",
        "_get_attr",
        "(cdill._dill",
        "_import_module",
        "(S'numpy._core.multiarray'",
        "tRS'scalar.__class__'",
        "tR.",
    ),
    "numpy attribute by dill": text(
        "cdill._dill",
        "_get_attr",
        "(cdill._dill",
        "_import_module",
        "(S'numpy.core.multiarray'",
        "tRS'fromfile'",
        "tR.",
    ),
    "a class changed": text("cfractions", "Fraction", "(N(dS'numerator'", "I1", "stb."),
    "a class changed again": text("ccollections", "Counter", "(N(dS'update'", "Nstb."),
    "a stand-in changed": text("c_codecs", "encode", "(N(dS'_call'", "Nstb."),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name: str) -> None:
    before = (dict(vars(fractions.Fraction)), dict(vars(collections.Counter)), allowlist._encode)
    with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError, ValueError)):
        safe_pickle.loads(HOSTILE[name])
    assert (dict(vars(fractions.Fraction)), dict(vars(collections.Counter)), allowlist._encode) == before


def test_an_extension_code_that_a_program_registered_gives_nothing_away() -> None:
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(safe_pickle.NotPlainError):
            safe_pickle.loads(b"\x82\xf0.")
    finally:
        copyreg.remove_extension("os", "system", 240)


# numpy believes what it is told of memory: told that bytes are objects, it makes pointers of them.
POINTERS: dict[str, str] = {
    "an array over bytes": "Call(np.ndarray, (1,), np.dtype('O'), b'A' * 8)",
    "an array of records over bytes": "Call(np.ndarray, (1,), np.dtype([('a', 'O')]), b'A' * 8)",
    "an array of a lying dtype": "Call(*empty, state=(1, (1,), Lying, False, b'A' * 8))",
    "a scalar of a lying dtype": "Call(scalar, Lying, b'A' * 8)",
    "a void of a lying dtype": "Call(np.void, b'A' * 8, Lying)",
    "a dtype changed after its array": (
        "[Call(*empty, state=(1, (1,), Void, False, b'A' * 8)), Call(np.dtype, Void, False, False,"
        " state=(3, '|', None, ('a',), {'a': (np.dtype('O'), 0)}, 8, 1, 63))]"
    ),
    "an array changed under its view": (
        "[View := Call(*empty, state=(1, (1,), np.dtype('O'), False, [1])),"
        " Call(np.ndarray, (1,), np.dtype('O'), View)]"
    ),
}
PROGRAM = """
    import pickle, sys
    import numpy as np
    from cox import safe_pickle as plain

    class Call:
        def __init__(self, function, *args, state=None):
            self.reduced = (function, args) if state is None else (function, args, state)
        def __reduce__(self):
            return self.reduced

    core = np._core if hasattr(np, "_core") else np.core  # before numpy 2
    empty = (core.multiarray._reconstruct, np.ndarray, (0,), b"b")
    scalar = core.multiarray.scalar
    Lying = Call(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    Void = Call(np.dtype, "V8", False, True)
    data = pickle.dumps({expression}, 2)
    try:
        value = plain.loads(data)
    except Exception as error:
        print("refused", type(error).__name__)
    else:
        print(repr(value)[:0] + "harmless")
"""


@pytest.mark.parametrize("name", POINTERS)
def test_no_pickle_makes_numpy_take_bytes_for_pointers(name: str, start: Callable[..., Any]) -> None:
    program = start(PROGRAM.replace("{expression}", POINTERS[name]))
    printed = program.rest()
    assert program.process.returncode == 0, f"ended with {program.process.returncode}: {program.errors}"
    assert printed[0].startswith(("refused", "harmless"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_never_runs_and_never_hangs(data: bytes) -> None:
    with contextlib.suppress(Exception):  # which one is up to pickle
        safe_pickle.loads(data)


BOMBS = {
    "a number to remember": base64.b64decode("iXIKYyou"),  # found by scripts/fuzz: it took 4 GB
    "a number as text": b"Np999999999999\n.",
    "bytes": b"\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a bytearray": b"\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a short text": b"T\xff\xff\xff\x7fx.",
    "bytes of old": b"B\xff\xff\xff\xffx.",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("way", ["bytes", "file"])
def test_a_pickle_that_asks_for_more_than_there_is_gets_nothing(tmp_path: Path, name: str, way: str) -> None:
    data = BOMBS[name]
    with pytest.raises(pickle.UnpicklingError, match="asks for .* where there are"):
        if way == "bytes":
            safe_pickle.loads(data)
        else:
            (tmp_path / "bomb").write_bytes(b"12" + data)
            with (tmp_path / "bomb").open("rb") as file:
                file.seek(2)
                safe_pickle.load(file)


@pytest.mark.parametrize("protocol", range(6))
def test_sizes_of_sound_pickles_are_sound(protocol: int) -> None:
    """Of every opcode that Python itself writes."""
    value: list[Any] = [
        None,
        True,
        1,
        300,
        70_000,
        2**40,
        -(2**2100),
        1.5,
        "é" * 300,
        "x",
        (),
        (1,),
        (1, 2, 3),
    ]
    value += [[i] for i in range(400)]
    value += [b"", b"x" * 300, bytearray(b"y" * 300), {"a": {1, 2}}, frozenset([3]), "z" * 70_000, value[12]]
    value.append(value)
    data = pickle.dumps(value, protocol)
    opcodes.check_sizes(data, 0)
    opcodes.check_sizes(b"??" + data, 2)

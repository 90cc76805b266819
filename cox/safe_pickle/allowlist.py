"""The allow-list: what a pickle may name, and what is done when it does.

Nothing here imports what a pickle names: a name is looked up in the tables below, or refused.
"""

from __future__ import annotations

import collections
import contextlib
import copyreg
import io
import mmap
import pickle
import pickletools
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from cox.safe_pickle import modules, opcodes
from cox.safe_pickle.refusal import NotPlainError

PROTOCOL = 5

#: Classes that nobody can change, handed out as they are.
_PLAIN_CLASSES = {
    "builtins": [
        *["bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"],
        *["object", "range", "set", "slice", "str", "tuple"],
    ],
    "collections": ["OrderedDict", "defaultdict", "deque"],
    "datetime": ["date", "datetime", "time", "timedelta", "timezone"],
    "decimal": ["Decimal"],
    "numpy": [
        *["bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
        *["longlong", "ulonglong", "float16", "float32", "float64", "longdouble", "complex64"],
        *["complex128", "str_", "bytes_", "datetime64", "timedelta64"],
    ],
}
#: Classes written in Python: a pickle may make instances, and is kept from changing the class.
_OPEN_CLASSES = {
    "collections": ["Counter"],
    "fractions": ["Fraction"],
    "pathlib": ["PosixPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath"],
    "pathlib._local": ["PosixPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath"],
}
#: What numpy's pickles call; `cox.safe_pickle.arrays` does it in numpy's place.
_NUMPY_CALLS = {
    "numpy": ["ndarray", "dtype"],
    "numpy.core.multiarray": ["_reconstruct", "scalar"],
    "numpy._core.multiarray": ["_reconstruct", "scalar"],
    "numpy.core.numeric": ["_frombuffer"],
    "numpy._core.numeric": ["_frombuffer"],
}


def _pairs(names: dict[str, list[str]]) -> frozenset[tuple[str, str]]:
    return frozenset((module, name) for module, listed in names.items() for name in listed)


_CLASS_NAMES, _OPEN_NAMES, _CALL_NAMES = _pairs(_PLAIN_CLASSES), _pairs(_OPEN_CLASSES), _pairs(_NUMPY_CALLS)
_DUMPED_NAMES = _CLASS_NAMES | _OPEN_NAMES | _CALL_NAMES
_SINGLETONS = (type(...), type(NotImplemented))
_INSTANCES_ONLY = frozenset({("numpy", "void")})
#: Where Python 2's names, which pickles up to protocol 2 use, are now.
_MODULES_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_NAMES_2 = {"unicode": "str", "long": "int", "xrange": "range"}


#: Their pickle is their name, in the module where they were made. Some are newer than the oldest Python.
_NAMED_BY_THEIR_MODULE = tuple(
    getattr(typing, name, typing.TypeVar) for name in ("TypeVar", "ParamSpec", "TypeVarTuple", "NewType")
)


def _is_importable(module: object) -> bool:
    return not isinstance(module, str) or modules.is_importable(module)


class Writable(Protocol):
    """What a pickle can be written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`, any contiguous buffer."""


class Pickler(pickle.Pickler):
    """A fast pickler that notices what is not plain data.

    Attributes:
        plain: Whether `loads` can read what was dumped so far.

    It refuses what lives in a script, in a module without a file or in a function, where another process
    would look for it in vain; `cox.objects.byvalue` stores that.
    """

    def __init__(self, file: Writable) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self.plain = True

    def reducer_override(self, obj: Any) -> Any:
        """Called for everything but the builtin containers and scalars; pickles it as ever."""
        named = obj if isinstance(obj, type) or callable(obj) and hasattr(obj, "__qualname__") else type(obj)
        module = getattr(named, "__module__", None)
        if "<locals>" in getattr(named, "__qualname__", "") or not _is_importable(module):
            raise pickle.PicklingError(f"{named!r} lives in a script or a function")
        if isinstance(obj, _NAMED_BY_THEIR_MODULE) and not _is_importable(obj.__module__):
            raise pickle.PicklingError(f"{obj!r} lives in a script")
        if self.plain:
            key = (module, getattr(named, "__qualname__", ""))
            is_instance = named is not obj
            self.plain = (
                key in _DUMPED_NAMES
                or named in _SINGLETONS
                # of these only the instances, which pickle through functions of numpy's
                or (is_instance and (module == "numpy.dtypes" or key in _INSTANCES_ONLY))
            )
        return NotImplemented


def dumps(obj: Any) -> tuple[bytes, bool]:
    """Pickle an object.

    Returns:
        The pickle, and whether it is plain data.

    Raises:
        Exception: Whatever its `__reduce__` raises; pickle.PicklingError for what only dill can store.
    """
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(obj)
    return file.getvalue(), pickler.plain


def loads(data: bytes | memoryview) -> Any:
    """Read a pickle of plain data.

    Raises:
        NotPlainError: It names something else.
        Exception: Whatever a damaged pickle makes the unpickler raise.
    """
    return load(io.BytesIO(data))


def load(file: BinaryIO) -> Any:
    """As `loads`, from an open file; what follows the pickle is left unread."""
    if copyreg._extension_registry:  # type: ignore[attr-defined]
        _refuse_extensions(file)
    _refuse_bombs(file)
    unpickler = _Unpickler(file)
    try:
        made = unpickler.load()
    finally:
        unpickler.check_classes()
    return _finish(made, {}) if unpickler.has_stand_ins else made


def _refuse_bombs(file: BinaryIO) -> None:
    """Refuse sizes and places that a pickle of this length cannot have.

    The unpickler makes room for them before it looks whether there is anything to fill it: for the object
    that is to be remembered under number 2**31, or for a text of 2**40 bytes.

    Raises:
        UnpicklingError: It has one.
    """
    start = file.tell()
    with contextlib.ExitStack() as opened:
        data: Any
        try:
            data = opened.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # it is in memory, or empty
            data = file.read()
            file.seek(start)
            start = 0
        opcodes.check_sizes(data, start)


def _refuse_extensions(file: BinaryIO) -> None:
    """Refuse codes that a program registered for its own classes: pickle resolves those by itself."""
    start = file.tell()
    if any(opcode.name.startswith("EXT") for opcode, _, _ in pickletools.genops(file)):
        raise NotPlainError("an extension code")
    file.seek(start)


def _finish(value: Any, done: dict[int, Any]) -> Any:
    """The value with everything that stands for something of numpy's made into that.

    Args:
        value: What the unpickler gave.
        done: What was finished before, by identity; it also keeps it alive.
    """
    from cox.safe_pickle import arrays

    if id(value) in done:
        return done[id(value)][1]
    made = value
    done[id(value)] = (value, value)  # a container may hold itself
    if isinstance(value, arrays.Dtype):
        made = value.make()
    elif isinstance(value, arrays.Array):
        made = value.make(lambda cell: _finish(cell, done))
    elif isinstance(value, _Sealed):
        made = value.stands_for()
    elif type(value) is tuple or type(value) is frozenset:
        inner = [_finish(item, done) for item in value]
        if any(new is not old for new, old in zip(inner, value, strict=True)):
            made = type(value)(inner)
    elif type(value) is list or isinstance(value, collections.deque):
        for at, item in enumerate(value):
            value[at] = _finish(item, done)
    elif type(value) is set:
        inner = [_finish(item, done) for item in value]
        value.clear()
        value.update(inner)
    elif isinstance(value, dict):
        pairs = [(_finish(key, done), _finish(item, done)) for key, item in value.items()]
        value.clear()
        for key, item in pairs:  # one by one: Counter.update would count them
            value[key] = item
    done[id(value)] = (value, made)
    return made


def names_in(file: BinaryIO, limit: int = 3) -> list[str]:
    """What a pickle needs beyond plain data, for a message. Reads its opcodes and builds nothing.

    Classes and functions that dill stored by value are called by their own names.
    """
    found: dict[str, None] = {}
    by_value = ""
    for module, name in _globals_and_strings(file):
        if not module:  # a string: the name of what dill is about to make is the first that could be one
            if by_value and name.isidentifier() and name not in _DILL_TYPES | {"type", "_load_type"}:
                found[f"{by_value} {name}"] = None
                by_value = ""
        elif module.startswith("dill"):
            by_value = by_value or _BY_VALUE.get(name, "")
        elif (module, name) not in _DUMPED_NAMES:
            found[f"{module}.{name}"] = None
        if len(found) >= limit:
            break
    return list(found)


def references(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The names that a pickle looks up when it is loaded, as (module, name), in order. Builds nothing."""
    return (pair for pair in _globals_and_strings(file) if pair[0])


def _globals_and_strings(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The globals of a pickle as (module, name), and its strings as ('', string), in order."""
    memo: list[str] = []
    last: list[str] = ["", ""]  # the two newest strings: what STACK_GLOBAL takes, memoized or not
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            yield module, name
        elif opcode.name == "STACK_GLOBAL":
            yield last[0] or "?", last[1]
        elif opcode.name == "MEMOIZE":
            memo.append(last[1])
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            index = int(argument or 0)
            last = [last[1], memo[index] if index < len(memo) else ""]
        elif isinstance(argument, str):
            last = [last[1], argument]
            yield "", argument


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._open: dict[type, dict[str, Any]] = {}
        self.has_stand_ins = False

    def check_classes(self) -> None:
        """Undo and refuse what a pickle did to a class: its BUILD can set attributes on anything."""
        for cls, before in self._open.items():
            after = dict(vars(cls))
            if after == before:
                continue
            for name in after.keys() - before.keys():
                delattr(cls, name)
            for name, value in before.items():
                if after.get(name) is not value:
                    setattr(cls, name, value)
            raise NotPlainError(f"a change of {cls!r}")

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES_2:
            module, name = _MODULES_2[module], _NAMES_2.get(name, name)
        if (module, name) in _STAND_INS:
            self.has_stand_ins = True
            return _Sealed(_STAND_INS[module, name])
        if (module, name) in _CLASS_NAMES:
            return _resolve(module, name)
        if (module, name) in _OPEN_NAMES:
            cls = _resolve(module, name)
            self._open.setdefault(cls, dict(vars(cls)))
            return cls
        if (module, name) in _CALL_NAMES:
            self.has_stand_ins = True
            return _numpy_stand_in(name)
        if module == "builtins" and name in ("Ellipsis", "NotImplemented"):
            return ... if name == "Ellipsis" else NotImplemented
        raise NotPlainError(f"{module}.{name}")


class _Sealed:
    """Something to call that a pickle cannot set attributes on."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        raise NotPlainError(f"a change of {self._call!r}")

    def stands_for(self) -> Any:
        """What it is when nobody calls it: one of numpy's two classes, or nothing that is plain data."""
        import numpy as np

        from cox.safe_pickle import arrays

        found = {arrays.Dtype: np.dtype, _array_itself: np.ndarray}.get(self._call)
        if found is None:
            raise NotPlainError(f"the function {self._call!r}")
        return found


def _numpy_stand_in(name: str) -> _Sealed:
    from cox.safe_pickle import arrays

    calls: dict[str, Callable[..., Any]] = {
        "dtype": arrays.Dtype,
        "ndarray": _array_itself,
        "_reconstruct": _reconstruct,
        "scalar": arrays.scalar,
        "_frombuffer": arrays.from_buffer,
    }
    return _Sealed(calls[name])


def _array_itself(*args: Any, **kwargs: Any) -> Any:
    raise NotPlainError("a call of numpy.ndarray")


def _reconstruct(subtype: Any, shape: Any = None, kind: Any = None) -> Any:
    from cox.safe_pickle import arrays

    if not isinstance(subtype, _Sealed) or subtype._call is not _array_itself:
        raise NotPlainError(f"an array of class {subtype!r}")
    return arrays.Array()


def _resolve(module: str, name: str) -> Any:
    if module == "numpy":
        import numpy as np

        return getattr(np, "bool_" if name == "bool" else name)
    import importlib

    if module == "pathlib._local":
        module = "pathlib"
    return getattr(importlib.import_module(module), name)


# --- What old pickles and dill's call by names that could do anything, done for plain data only.

_BY_VALUE = {"_create_type": "the script's class", "_create_function": "the script's function"}
_DILL_TYPES = frozenset(_PLAIN_CLASSES["builtins"])
_RANGE = re.compile(r"range\((-?\d{1,18}), (-?\d{1,18})(?:, (-?\d{1,18}))?\)")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise NotPlainError(f"the codec {encoding!r}")
    return text.encode(encoding)


def _reconstructor(cls: type, base: type, state: Any) -> Any:
    if cls not in (complex, frozenset, set, list, dict, tuple, bytearray):
        raise NotPlainError(f"copyreg._reconstructor of {cls!r}")
    return cls() if state is None else cls(state)


def _dill_type(name: str) -> Any:
    if name not in _DILL_TYPES:
        raise NotPlainError(f"dill's type {name!r}")
    return _resolve("builtins", name)


def _dill_repr(text: str) -> Any:
    if text in ("Ellipsis", "NotImplemented"):
        return ... if text == "Ellipsis" else NotImplemented
    match = _RANGE.fullmatch(text)
    if match is None:
        raise NotPlainError(f"the expression {text[:80]!r}")
    return range(*(int(part) for part in match.groups() if part is not None))


class _Module:
    """What dill's import of a module gives: a name, out of which only `_dill_attribute` makes something."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not name.startswith(("numpy.core.", "numpy._core.")):
            raise NotPlainError(f"an import of {name!r}")
        self.name = name


def _dill_attribute(module: Any, name: str) -> Any:
    if not isinstance(module, _Module) or (module.name, name) not in _CALL_NAMES:
        raise NotPlainError(f"an attribute {name!r}")
    return _numpy_stand_in(name)


def _dill_array(make: Any, args: Any, state: Any, attributes: Any = None) -> Any:
    from cox.safe_pickle import arrays

    made = make(*args)
    if attributes or not isinstance(made, arrays.Array):
        raise NotPlainError("an array with attributes of its own")
    made.__setstate__(state)
    return made


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _reconstructor,
}
for _module in ("dill._dill", "dill.dill"):
    _STAND_INS[_module, "_load_type"] = _dill_type
    _STAND_INS[_module, "_eval_repr"] = _dill_repr
    _STAND_INS[_module, "_create_array"] = _dill_array
    _STAND_INS[_module, "_import_module"] = _Module
    _STAND_INS[_module, "_get_attr"] = _dill_attribute

"""Pickling by value: objects of a script's own classes and functions, which no other process can import.

dill does it. What dill stores in a way that only the same script could read is taught to it here: Enum and
Flag classes, type variables (and so Generic classes), and classes that refer to themselves. Whatever it is,
no pickle leaves this module that looks for a name where another process has none.

Whoever has dill can load these pickles: they name nothing of this package.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import io
import pickle
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dill
from dill._dill import _setitems

from cox import safe_pickle

#: What EnumMeta makes of a class by itself, so that a copy has it again.
_MADE_BY_ENUM = frozenset(
    [
        *["_generate_next_value_", "_member_names_", "_member_map_", "_value2member_map_", "_member_type_"],
        *[
            "_unhashable_values_",
            "_unhashable_values_map_",
            "_hashable_values_",
            "_value_repr_",
            "_use_args_",
        ],
        *["_new_member_", "__new_member__", "__new__", "_flag_mask_", "_singles_mask_", "_all_bits_"],
        *["_boundary_", "_inverted_", "__dict__", "__weakref__", "__module__", "__qualname__"],
    ]
)
_MADE_BY_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})
#: What a class gets by being made.
_MADE_BY_TYPE = frozenset({"__dict__", "__weakref__", "__module__", "__qualname__", "__slots__", "_abc_impl"})
#: Marks a class that lacks its methods yet, and says which.
_UNFINISHED = "__unfinished__"
#: Members of such types are compared by what they are besides members.
_BUILTIN_MEMBERS = (int, float, complex, str, bytes, tuple)
_TYPE_VARIABLES = ("TypeVar", "ParamSpec", "TypeVarTuple")


def dumps(obj: Any) -> bytes:
    """Pickle an object so that another process can load it, which has dill and the same imports.

    Raises:
        PicklingError: It needs a name that only this process has; says which, and what to do.
        Exception: What dill raises for what nothing can store.
    """
    data: bytes = dump(lambda module: _with_pickler(module, obj), _references)
    return data


def dump(save: Callable[[Any], Any], references: Callable[[Any], Iterator[tuple[str, str]]]) -> Any:
    """Save something by the first way of pickling by value that gives what another process can load.

    Args:
        save: Saves it by what it is given, which has a `Pickler` as the module pickle has.
        references: The names that the result looks up, as (module, name).

    Returns:
        What `save` returned.
    """
    failures: list[Exception] = []
    for module in _WAYS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", dill.PicklingWarning)  # strays says the same, as an error
                result = save(module)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - dill's tracing itself fails on some objects that it can store
            failures.append(error)
            continue
        if not (lost := strays(references(result))):
            return result
        failures.append(
            pickle.PicklingError(
                f"{', '.join(lost)} would not be found by another process: define it in a module that can be "
                "imported, or store plain data in its place, as an Enum's .value or vars(obj)"
            )
        )
    raise failures[0]


def strays(references: Iterator[tuple[str, str]]) -> list[str]:
    """Those of some names that another process will not find, as 'module.name'."""
    return list(
        dict.fromkeys(
            f"{module}.{name}"
            for module, name in references
            if module != "__builtin__"
            and not safe_pickle.is_importable(module)  # dill's name for what it knows
        )
    )


class _Pickler(dill.Pickler):  # type: ignore[misc]  # dill has no types
    """dill's, and what it cannot do."""

    recurse = True
    #: Whether classes are made empty first and filled later, so that they can refer to themselves.
    in_two_steps = False

    def __init__(self, file: Any, protocol: int = safe_pickle.PROTOCOL, **options: Any) -> None:
        # recurse: of a function's globals only those it uses, so that a lambda does not drag the script along
        super().__init__(file, protocol=protocol, recurse=self.recurse, **options)
        self._renamed: list[tuple[Any, str]] = []

    def dump(self, obj: Any) -> None:
        try:
            super().dump(obj)
        finally:
            for renamed, module in self._renamed:
                renamed.__module__ = module

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)):
            self._bring_home(obj)
        if isinstance(obj, enum.EnumMeta):
            return NotImplemented if _is_importable(obj) else _reduced_enum(obj)
        if type(obj).__name__ in _TYPE_VARIABLES and type(obj).__module__ == "typing":
            return NotImplemented if _is_importable(obj) else _reduced_variable(obj)
        if isinstance(obj, typing.NewType) and not _is_importable(obj):
            return typing.NewType, (obj.__name__, obj.__supertype__), {"__module__": obj.__module__}
        if (
            self.in_two_steps
            and isinstance(obj, type)
            and not (_is_importable(obj) or hasattr(obj, "_fields"))
        ):
            return _reduced_class(obj)
        return NotImplemented

    def _bring_home(self, obj: Any) -> None:
        """Have dill take what lives in a module without a file as a part of the script: it goes by value."""
        module = obj.__module__
        if isinstance(module, str) and module != "__main__" and not safe_pickle.is_importable(module):
            try:
                obj.__module__ = "__main__"
            except (AttributeError, TypeError):
                return  # then it is found to be a stray
            self._renamed.append((obj, module))


def _way(**options: bool) -> types.SimpleNamespace:
    return types.SimpleNamespace(__name__=__name__, Pickler=type("Pickler", (_Pickler,), options))


_WAYS = (_way(), _way(in_two_steps=True), _way(recurse=False))


def _with_pickler(module: Any, obj: Any) -> bytes:
    file = io.BytesIO()
    module.Pickler(file).dump(obj)
    return file.getvalue()


def _references(data: bytes) -> Iterator[tuple[str, str]]:
    return safe_pickle.references(io.BytesIO(data))


def _is_importable(obj: Any) -> bool:
    """Whether another process finds an object under its module and name."""
    module, name = obj.__module__, getattr(obj, "__qualname__", obj.__name__)
    return isinstance(module, str) and safe_pickle.is_importable(module) and "<locals>" not in name


# --- Classes and type variables


def _reduced_variable(variable: Any) -> Any:
    options = {
        name: getattr(variable, f"__{name}__")
        for name in ("bound", "covariant", "contravariant")
        if getattr(variable, f"__{name}__", None)
    }
    constraints = getattr(variable, "__constraints__", ())
    kind: Callable[..., Any] = type(variable)
    make = functools.partial(kind, variable.__name__, *constraints, **options)
    return make, ()


def _reduced_class(cls: type) -> Any:
    """A class made empty, under its names, and then given all that is in it."""
    slots = vars(cls).get("__slots__", ())
    slots = (slots,) if isinstance(slots, str) else tuple(slots)
    own = {
        name: value for name, value in vars(cls).items() if name not in _MADE_BY_TYPE and name not in slots
    }
    body = {**_names(cls), **({"__slots__": slots} if "__slots__" in vars(cls) else {})}
    options = {} if type(cls) is type else {"metaclass": type(cls)}
    return _reduced(cls, body, options, own, {})


def _reduced_enum(cls: enum.EnumMeta) -> Any:
    """An Enum class made with its members, and then given its methods.

    Raises:
        PicklingError: A class that is made so has other members.
    """
    own = {name: value for name, value in vars(cls).items() if _is_of_enums_own(cls, name, value)}
    members: Mapping[str, Any] = cls.__members__
    values = {name: member._value_ for name, member in members.items()}
    boundary = getattr(cls, "_boundary_", None)
    options = {} if boundary is getattr(cls.__base__, "_boundary_", None) else {"boundary": boundary}
    creators: dict[str, Any] = {name: own[name] for name in ("__init__",) if name in own}
    if "__new_member__" in vars(cls):
        creators["__new__"] = vars(cls)["__new_member__"]
    extras = {
        name: {key: value for key, value in vars(member).items() if key not in _MADE_BY_MEMBER}
        for name, member in members.items()
    }
    for body, state in (({**creators, **values}, {}), (values, extras)):
        made = _reduced(cls, {**_names(cls), **body}, options, own, state)
        if _makes_the_same(made, cls, extras if not state else {}):
            return made
    raise pickle.PicklingError(
        f"the members of {cls!r} cannot be made again from their values: define it in a module that can be "
        "imported, or store the .value"
    )


def _is_of_enums_own(cls: enum.EnumMeta, name: str, value: Any) -> bool:
    """Whether a class has an attribute by its own definition, and not as a member or by being an Enum."""
    if name in _MADE_BY_ENUM or name in cls.__members__:
        return False
    return not any(vars(base).get(name) is value for base in (*cls.__mro__[1:], enum.Enum))


def _reduced(
    cls: type, body: dict[str, Any], options: dict[str, Any], own: dict[str, Any], members: dict[str, Any]
) -> Any:
    """What pickle makes a class of: a class of these names, which gets all else once it is there."""
    bases = vars(cls).get("__orig_bases__", cls.__bases__)
    arguments = (cls.__name__, bases, options, functools.partial(_setitems, source=body))
    if not own and not any(members.values()):
        return types.new_class, arguments
    body[_UNFINISHED] = _print_of(own)
    return types.new_class, arguments, (own, members), None, None, _setter()


def _setter() -> Callable[[Any, Any], None]:
    """A function that is stored by value, because it stands in another one."""

    def set_state(cls: Any, state: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
        if not vars(cls).get("__unfinished__"):
            return  # it was here already: see `_new_class`
        del cls.__unfinished__
        for name, value in state[0].items():
            setattr(cls, name, value)
        for name, values in state[1].items():
            cls.__members__[name].__dict__.update(values)

    return set_state


def _print_of(own: Mapping[str, Any]) -> str:
    """What tells the methods of a class from others of the same names, as far as their code does."""
    running = hashlib.sha256()
    for name, value in sorted(own.items()):
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        code = getattr(function, "__code__", None)
        constants = [each for each in getattr(code, "co_consts", ()) if not isinstance(each, types.CodeType)]
        running.update(f"{name} {getattr(code, 'co_code', b'').hex()} {constants}\n".encode())
    return running.hexdigest()


def _names(cls: type) -> dict[str, str]:
    return {"__module__": cls.__module__, "__qualname__": cls.__qualname__}


def _makes_the_same(reduced: Any, cls: enum.EnumMeta, extras: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an Enum class comes out of what pickle would call."""
    try:
        copy: Any = reduced[0](*reduced[1])
        return _has_the_members(copy, cls) and all(
            set(values) <= set(vars(copy.__members__[name])) for name, values in extras.items()
        )
    except Exception:  # noqa: BLE001 - its own __new__ and __init__ may raise anything
        return False


def _has_the_members(cls: enum.EnumMeta, other: enum.EnumMeta) -> bool:
    """Whether two Enum classes have the same names for the same values."""
    kind: type = vars(other).get("_member_type_", object)
    ours: Mapping[str, Any] = cls.__members__
    theirs: Mapping[str, Any] = other.__members__
    return list(ours) == list(theirs) and all(_is_same(theirs[name], ours[name], kind) for name in ours)


def _is_same(member: Any, other: Any, kind: type) -> bool:
    value = other._value_
    same = member._name_ == other._name_ and (member._value_ is value or bool(member._value_ == value))
    if not same or type(member._value_) is not type(value):
        return False
    return not issubclass(kind, _BUILTIN_MEMBERS) or bool(kind.__eq__(member, other))


# --- Loading


class Unpickler(dill.Unpickler):  # type: ignore[misc]  # dill has no types
    """dill's. An Enum class of a script is the same one in every cell, and the script's own in that script.

    So members compare as they did: `row["opt"] is Opt.SGD`, and SGD of one run is SGD of another.
    """

    def find_class(self, module: str, name: str) -> Any:
        """As every unpickler's."""
        if (module, name) == ("types", "new_class"):
            return _new_class
        return super().find_class(module, name)


def load(file: Any, **options: Any) -> Any:
    """As `dill.load`."""
    return Unpickler(file, **options).load()


#: The Enum classes that came out of pickles, by module, name and methods.
_known_enums: dict[tuple[str, str, str], list[enum.EnumMeta]] = {}


def _new_class(*arguments: Any) -> Any:
    """As `types.new_class`, and for an Enum the class that is here already, if it has the same members."""
    cls = types.new_class(*arguments)
    if not isinstance(cls, enum.EnumMeta) or not cls.__members__:
        return cls
    methods = vars(cls).get(_UNFINISHED, "")
    known = _known_enums.setdefault((cls.__module__, cls.__qualname__, methods), [])
    for other in (*_in_script(cls), *known):
        try:
            if other.__bases__[-1].__name__ == cls.__bases__[-1].__name__ and _has_the_members(other, cls):
                return other
        except Exception:  # noqa: BLE001 - values compare by code of their own
            continue
    known.append(cls)
    return cls


def _in_script(cls: enum.EnumMeta) -> Iterator[enum.EnumMeta]:
    """The class of that name in the module that this process has under the same name."""
    place: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        place = getattr(place, part, None)
    if isinstance(place, enum.EnumMeta):
        yield place

"""`dataclass` for modules that every process loads: compiles nothing; the standard library takes 1 ms per class."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar, dataclass_transform

T = TypeVar("T")

_MISSING: Final = dataclasses.MISSING


class _Field:
    __slots__ = ("compare", "factory", "hash", "repr")

    def __init__(self, factory: Any, repr: bool, compare: bool, hash: bool) -> None:
        self.factory, self.repr, self.compare, self.hash = factory, repr, compare, hash


class _Default(_Field):
    """The result of `field()` until the class is created."""

    __slots__ = ("default",)

    def __init__(self, default: Any, *settings: Any) -> None:
        super().__init__(*settings)
        self.default = default


def field(
    *,
    default: Any = _MISSING,
    default_factory: Any = _MISSING,
    repr: bool = True,
    compare: bool = True,
    hash: bool | None = None,
) -> Any:
    """Describe a field, like `dataclasses.field`."""
    return _Default(default, default_factory, repr, compare, compare if hash is None else hash)


_PLAIN: Final = _Field(_MISSING, True, True, True)


@dataclass_transform(field_specifiers=(field,))
def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """The subset of `dataclasses.dataclass` that is used here."""
    return lambda cls: _made(cls, frozen, slots, eq)


def replace(value: T, /, **changes: Any) -> T:
    """Return a copy with other values, as `dataclasses.replace` does."""
    made: Any = value
    for name in made.__light_fields__:
        if name not in changes:
            changes[name] = getattr(value, name)
    return type(value)(**changes)


def _made(cls: Any, frozen: bool, slots: bool, eq: bool) -> Any:
    fields: dict[str, _Field] = dict(getattr(cls, "__light_fields__", {}))
    defaults: dict[str, Any] = dict(getattr(cls, "__light_defaults__", {}))
    own = [name for name, kind in inspect.get_annotations(cls).items() if "ClassVar[" not in str(kind)]
    for name in own:
        default = cls.__dict__.get(name, _MISSING)
        fields[name] = default if isinstance(default, _Default) else _PLAIN
        if isinstance(default, _Default):
            default = default.default
        if default is not _MISSING:
            defaults[name] = default
    if slots:
        cls = _slotted(cls, own)
    else:
        for name in own:
            if name in defaults:
                setattr(cls, name, defaults[name])
            elif name in cls.__dict__:
                delattr(cls, name)
    cls.__light_fields__, cls.__light_defaults__ = fields, defaults
    cls.__init__ = _init(cls, fields, defaults)
    methods: dict[str, Any] = {"__repr__": _repr(fields), "__match_args__": tuple(fields)}
    if eq:
        methods |= {"__eq__": _eq(fields), "__hash__": _hash(fields) if frozen else None}
    if frozen:
        methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
    if frozen and slots:  # pickle would set the attributes one by one
        methods |= {"__getstate__": _state, "__setstate__": _set_state}
    for name, method in methods.items():
        if name not in cls.__dict__ or (name == "__hash__" and cls.__dict__[name] is None):
            setattr(cls, name, method)
    return cls


def _slotted(cls: Any, own: list[str]) -> Any:
    """Return the same class with slots, which must exist when a class is created."""
    namespace = {name: value for name, value in cls.__dict__.items() if name not in (*own, "__dict__", "__weakref__")}
    return type(cls)(
        cls.__name__, cls.__bases__, {**namespace, "__slots__": tuple(own), "__qualname__": cls.__qualname__}
    )


def _init(cls: Any, fields: dict[str, _Field], defaults: dict[str, Any]) -> Any:
    names, write = tuple(fields), object.__setattr__
    after: Any = getattr(cls, "__post_init__", None)

    def __init__(self: Any, *values: Any, **named: Any) -> None:
        given = len(values)
        if given > len(names):
            raise TypeError(f"{cls.__name__}() takes {len(names)} arguments, and {given} were given")
        for name, value in zip(names, values, strict=False):
            write(self, name, value)
        for name in names[given:]:
            if name in named:
                value = named.pop(name)
            elif name in defaults:
                value = defaults[name]
            elif fields[name].factory is not _MISSING:
                value = fields[name].factory()
            else:
                raise TypeError(f"{cls.__name__}() lacks the argument {name!r}")
            write(self, name, value)
        if named:
            raise TypeError(f"{cls.__name__}() has no argument {next(iter(named))!r}, or it was given twice")
        if after is not None:
            after(self)

    return __init__


def _repr(fields: dict[str, _Field]) -> Any:
    shown = [name for name, each in fields.items() if each.repr]

    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    return __repr__


def _eq(fields: dict[str, _Field]) -> Any:
    compared = [name for name, each in fields.items() if each.compare]

    def __eq__(self: Any, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in compared)

    return __eq__


def _hash(fields: dict[str, _Field]) -> Any:
    hashed = [name for name, each in fields.items() if each.hash]

    def __hash__(self: Any) -> int:
        return hash(tuple([getattr(self, name) for name in hashed]))

    return __hash__


def _refuse_to_set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__light_fields__]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__light_fields__, state, strict=True):
        object.__setattr__(self, name, value)


class StandardFields:
    """The fields of a public class, for `dataclasses.fields`, `asdict`, and `replace`; created on demand."""

    def __get__(self, instance: object, owner: Any) -> dict[str, dataclasses.Field[Any]]:
        made = []
        for name, each in owner.__light_fields__.items():
            found: Any = dataclasses.field(
                repr=each.repr,
                compare=each.compare,
                hash=each.hash,
                **({"default": owner.__light_defaults__[name]} if name in owner.__light_defaults__ else {}),
                **({"default_factory": each.factory} if each.factory is not _MISSING else {}),
            )
            made.append((name, Any, found))
        return {each.name: each for each in dataclasses.fields(dataclasses.make_dataclass("_", made))}

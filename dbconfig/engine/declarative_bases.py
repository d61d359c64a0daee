"""The declarative bases of an application, and the metadata that they represent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase, DeclarativeBaseNoMeta, DeclarativeMeta
from sqlmodel import SQLModel

_SHOWN: Final = 3  # maximum tables per base in an error


def metadata_of(named: Any) -> MetaData | None:
    """Return the metadata that an argument represents: itself, or that of a base class; None for a single table."""
    if isinstance(named, MetaData):
        return named
    if not isinstance(named, type) or getattr(named, "__table__", None) is not None:
        return None
    metadata = getattr(named, "metadata", None)
    # A mixin of fields has the metadata of its base, and is not a base itself.
    is_base = named is SQLModel or "metadata" in vars(named) or DeclarativeBase in named.__bases__
    return metadata if is_base and isinstance(metadata, MetaData) else None


def with_tables() -> list[str]:
    """Return the bases that have tables, and which, for an error: `shop.models.Base (hero, team)`."""
    found = {id(base.metadata): base for base in _bases() if isinstance(getattr(base, "metadata", None), MetaData)}
    return [
        f"{base.__module__}.{base.__qualname__} ({', '.join([*names][:_SHOWN])}{', …' * (len(names) > _SHOWN)})"
        for base in found.values()
        if (names := sorted(base.metadata.tables))
    ]


def _bases() -> Iterator[Any]:
    yield from DeclarativeBase.__subclasses__()
    yield from DeclarativeBaseNoMeta.__subclasses__()
    # Those returned by `declarative_base()`.
    yield from (each for each in object.__subclasses__() if isinstance(each, DeclarativeMeta))
    yield from (each for each in SQLModel.__subclasses__() if "metadata" in vars(each))

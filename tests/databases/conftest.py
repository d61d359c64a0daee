"""Every kind of database, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dbconfig import Registry
from tests.groups import group as group
from tests.groups import pair as pair
from tests.groups import servers_of_group as servers_of_group
from tests.pooled import KINDS as POOLED
from tests.pooled import Kind
from tests.registries import Base, registry

# Marked here, since the servers' fixtures are asked for by name only when a test runs.
SERVERS = tuple(pytest.param(kind, marks=pytest.mark.server) for kind in ("postgresql", "mariadb"))
SHARED = ("file", *SERVERS)  # by several processes
KINDS = ("memory", *SHARED)


@pytest.fixture(params=POOLED, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    pytest.importorskip(chosen.driver)
    return chosen


@dataclass(frozen=True)
class Place:
    """A fresh database, and how to open it."""

    kind: str
    url: str
    open: Callable[..., Registry]

    @property
    def sqlite(self) -> bool:
        return self.kind in ("memory", "file")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of database in turn, empty; what `open` returns is disposed of."""
    if request.param == "memory":
        url = "sqlite://"
    elif request.param == "file":
        url = f"sqlite:///{tmp_path}/data/places.db"
    else:
        url = request.getfixturevalue(request.param).url()
    with ExitStack() as stack:

        def open_registry(**settings: Any) -> Registry:
            return stack.enter_context(registry(url, **settings))

        yield Place(request.param, url, open_registry)


@pytest.fixture
def db(place: Place) -> Registry:
    """The same, opened, with the tables of the tests' models."""
    opened = place.open()
    opened.create_tables(*tables())
    return opened


def tables() -> list[Any]:
    return [mapper.class_ for mapper in Base._sa_registry.mappers]

"""The drivers that dbconfig is tested with: the one table from which tests take theirs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Driver:
    """A driver, and how it is used; psycopg serves threads and tasks."""

    name: str  # of the tests' parameter
    server: str  # the fixture of its server; empty for SQLite
    scheme: str  # of its URLs
    asynchronous: bool = False

    @property
    def module(self) -> str:
        return self.name.partition("-")[0]

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        return [pytest.mark.server] if self.server else []

    def url(self, request: pytest.FixtureRequest, **parts: Any) -> str:
        """Return the URL of an empty database: the server's of this test, or a file. Without the driver skip."""
        pytest.importorskip(self.module)
        if not self.server:
            return f"{self.scheme}:///{request.getfixturevalue('tmp_path')}/app.db"
        return str(request.getfixturevalue(self.server).url(self.scheme, **parts))


DRIVERS = (
    Driver("psycopg2", "postgresql", "postgresql+psycopg2"),
    Driver("psycopg", "postgresql", "postgresql+psycopg"),
    Driver("pymysql", "mariadb", "mysql+pymysql"),
    Driver("sqlite3", "", "sqlite"),
    Driver("asyncpg", "postgresql", "postgresql+asyncpg", asynchronous=True),
    Driver("psycopg-async", "postgresql", "postgresql+psycopg", asynchronous=True),
    Driver("asyncmy", "mariadb", "mysql+asyncmy", asynchronous=True),
    Driver("aiomysql", "mariadb", "mysql+aiomysql", asynchronous=True),
    Driver("aiosqlite", "", "sqlite+aiosqlite", asynchronous=True),
)
BY_NAME = {each.name: each for each in DRIVERS}
SYNCHRONOUS = [each for each in DRIVERS if not each.asynchronous]
ASYNCHRONOUS = [each for each in DRIVERS if each.asynchronous]
SERVED = [each for each in DRIVERS if each.server]


def of(server: str) -> list[Driver]:
    """Return the drivers of a kind of server: "postgresql", "mariadb", or "" for SQLite."""
    return [each for each in DRIVERS if each.server == server]


def schemes(drivers: Iterable[Driver]) -> list[Driver]:
    """Return one of each scheme, for what takes a URL and decides itself: psycopg has one for threads and for tasks."""
    return [each for each in drivers if each.name != "psycopg-async"]


def plain(server: str) -> Driver:
    """Return the driver with which a test looks at what another one has done."""
    return next(each for each in SYNCHRONOUS if each.server == server)


def params(drivers: Iterable[Driver]) -> list[Any]:
    """Return the drivers as parameters, marked where they need a server."""
    return [pytest.param(each, id=each.name, marks=each.marks) for each in drivers]

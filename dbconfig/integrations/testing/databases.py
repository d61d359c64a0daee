"""The databases for tests: next to the profile's own, on the same server or in the same folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, text

from dbconfig.engine import any_driver
from dbconfig.errors import ConfigError
from dbconfig.errors.light_dataclass import dataclass, replace
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem
from dbconfig.settings.database import DatabaseSettings

_LOCK: Final = 0x6462636F6E7465  # "dbconte": the advisory lock for creating the template


@dataclass(frozen=True, slots=True)
class Options:
    """How the databases for tests are created.

    Attributes:
        worker: this process among several, such as "gw0", or "".
        run: an ID shared by the processes of one run, or "".
        reuse: keep the databases, and use those of the last run unchanged.
        create: recreate them anyway.
        in_place: use the profile's own databases instead of separate ones.
        chosen: the profile was chosen for tests by name.
    """

    worker: str = ""
    run: str = ""
    reuse: bool = False
    create: bool = False
    in_place: bool = False
    chosen: bool = False


def _with_database(settings: DatabaseSettings, name: str | None) -> DatabaseSettings:
    if settings.url is not None and settings.url.database is not None:
        return settings.model_copy(update={"url": replace(settings.url, database=name)})
    return settings.model_copy(update={"database": name})


@dataclass(frozen=True, slots=True)
class Place:
    """The test counterpart of a database, on the same server or in the same folder."""

    original: DatabaseSettings
    settings: DatabaseSettings
    name: str
    options: Options

    @classmethod
    def of(cls, settings: DatabaseSettings, options: Options) -> Place:
        if options.in_place or settings.in_memory:
            return cls(settings, settings, "", options)
        if settings.path is not None:
            stem = f"test_{settings.path.stem}" + (f"_{options.worker}" if options.worker else "")
            name = str(settings.path.with_name(stem + settings.path.suffix))
        else:
            base = settings.address.database or settings.address.username or "app"
            name = f"test_{base}" + (f"_{options.worker}" if options.worker else "")
        return cls(settings, _with_database(settings, name), name, options)

    def make(self, setup: Callable[[], None]) -> bool:
        """Create the database and its tables; return whether to drop it at the end."""
        if not self.name:
            setup()
            return False
        if self.settings.path is not None:
            self._make_file(self.settings.path, setup)
        else:
            self._make_on_server(setup)
        return True

    def drop(self) -> None:
        if self.settings.path is not None:
            _remove(self.settings.path)
            return
        with self._administration() as run:
            self._drop(run, self.name)
            if self._from_template:
                with self._locked(run):
                    copies = (
                        "SELECT count(*) FROM pg_database "
                        "WHERE starts_with(datname, :name) AND NOT starts_with(datname, :template)"
                    )
                    every = self.name.removesuffix(self.options.worker)
                    if not run(copies, name=every, template=self._template_prefix):
                        self._drop_templates(run)  # ours was the last

    def _make_file(self, path: Path, setup: Callable[[], None]) -> None:
        if not (self.options.reuse and not self.options.create and path.exists()):
            _remove(path)
            setup()

    def _make_on_server(self, setup: Callable[[], None]) -> None:
        name = _quoted(self.settings, self.name)
        with self._administration() as run:
            if self._exists(run, self.name):
                if self.options.reuse and not self.options.create:
                    return
                self._drop(run, self.name)
            if not self._from_template:
                run(f"CREATE DATABASE {name}")
                setup()
                return
            template = _quoted(self.settings, self._template)
            with self._locked(run):
                if self._exists(run, self._template):
                    run(f"CREATE DATABASE {name} TEMPLATE {template}")
                    return
                self._drop_templates(run)  # of runs that were interrupted
                run(f"CREATE DATABASE {name}")
                setup()
                run(f"CREATE DATABASE {template} TEMPLATE {name}")

    @property
    def _from_template(self) -> bool:
        """Whether the workers' databases are copies of one that the first worker sets up."""
        return bool(self.options.worker and self.options.run and self.settings.backend == "postgresql")

    @property
    def _template_prefix(self) -> str:
        return f"{self.name.removesuffix('_' + self.options.worker)}_template_"

    @property
    def _template(self) -> str:
        return self._template_prefix + self.options.run[:8]

    @contextmanager
    def _locked(self, run: Any) -> Iterator[None]:
        run(f"SELECT pg_advisory_lock({_LOCK})")
        try:
            yield
        finally:
            run(f"SELECT pg_advisory_unlock({_LOCK})")

    def _drop_templates(self, run: Any) -> None:
        one = "SELECT min(datname) FROM pg_database WHERE starts_with(datname, :name)"
        while name := run(one, name=self._template_prefix):
            self._drop(run, name)

    def _drop(self, run: Any, name: str) -> None:
        # The server may not have noticed yet that a connection was closed.
        force = " WITH (FORCE)" if self.settings.backend == "postgresql" else ""
        run(f"DROP DATABASE IF EXISTS {_quoted(self.settings, name)}{force}")

    def _exists(self, run: Any, name: str) -> bool:
        look = (
            "SELECT count(*) FROM pg_database WHERE datname = :name"
            if self.settings.backend == "postgresql"
            else "SELECT count(*) FROM information_schema.schemata WHERE schema_name = :name"
        )
        return bool(run(look, name=name))

    @contextmanager
    def _administration(self) -> Iterator[Callable[..., Any]]:
        """Yield a function that executes one statement outside the databases, in autocommit."""
        postgresql = self.settings.backend == "postgresql"
        beside = _with_database(self.original, "postgres" if postgresql else None)
        in_autocommit = beside.model_copy(update={"isolation_level": "AUTOCOMMIT"})
        try:
            with any_driver.connected(in_autocommit, "tests") as database:
                connection = database.call(lambda engine: engine.connect())

                def run(statement: str, **parameters: Any) -> Any:
                    def execute(_: Engine) -> Any:
                        result = connection.execute(text(statement), parameters)
                        return result.scalar() if result.returns_rows else None

                    return database.call(execute)

                try:
                    yield run
                finally:
                    database.call(lambda _: connection.close())
        except Exception as error:
            if not _is_denied(error):
                raise
            message = f"cannot create the test database {quoted(self.name)}: {_first_line(error)}"
            help = "allow the user to create databases, or let tests use the profile's own: db_in_place = true"
            raise ConfigError([Problem("test-database", message, help=help)]) from error


def _is_denied(error: Exception) -> bool:
    words = str(error).lower()
    return "permission denied" in words or "access denied" in words


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).splitlines()[0]


def _quoted(settings: DatabaseSettings, name: str) -> str:
    mark = '"' if settings.backend == "postgresql" else "`"
    return mark + name.replace(mark, mark * 2) + mark


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").unlink()

"""Flask: an extension for application factories, a session for each request, commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import click
from flask import Flask, Response, appcontext_pushed, current_app, g, request
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, SQLModel

from dbconfig.engine import query_tags
from dbconfig.engine.pool.deadline import Deadline, DeadlineExceeded
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import harmless, printable
from dbconfig.integrations.request_deadlines import HEADER, TOO_LATE, BadDeadline, RequestDeadline
from dbconfig.integrations.request_sessions import RequestSession, follow_statements
from dbconfig.registry.registry import Registry
from dbconfig.settings.loaded_profile import DEFAULT

_KEY: Final = "dbconfig"
_DEADLINE: Final = "dbconfig.deadline"


class DBConfig:
    """The databases of Flask applications. Each application has its own registry.

    >>> db = DBConfig()
    >>> def create_app():
    ...     app = Flask("shop")
    ...     db.init_app(app)
    ...     return app

    In a request, `db.session` is a session that opens at first use and closes at the end of the request. Call
    `db.session.commit()` to commit. Outside of a request, use `with db.registry.session() as session:`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, registry: Registry | None = None) -> None:
        """Configure the databases of an application; nothing is read or opened yet.

        Args:
            app: its `DBCONFIG_PROFILE` and `DBCONFIG_PATH` override ENVIRONMENT and `config/`;
                `DBCONFIG_DEADLINE` limits each request, `DBCONFIG_DEADLINE_HEADER` lets clients ask for less.
            registry: an existing registry, such as `dbconfig.db`.
        """
        if _KEY in app.extensions:
            raise RuntimeError("init_app was called twice for this application")
        made = registry or Registry(app.config.get("DBCONFIG_PATH"), profile=app.config.get("DBCONFIG_PROFILE"))
        app.extensions[_KEY] = made
        follow_statements(made)
        app.after_request(_keep)
        app.teardown_appcontext(_close)
        query_tags.ask(_route)
        limit = app.config.get("DBCONFIG_DEADLINE")
        if limit is not None:
            _limit_requests(app, RequestDeadline(limit, header=bool(app.config.get("DBCONFIG_DEADLINE_HEADER"))))
        appcontext_pushed.connect(_go_on, app)

    @property
    def registry(self) -> Registry:
        """The registry of the current application."""
        return _registry()

    @property
    def session(self) -> Session:
        """The request's session of the profile's own database."""
        return self.get_session()

    def get_session(self, database: str = DEFAULT) -> Session:
        """Return the request's session for a named database, always the same one within a request."""
        found: _RequestSessions | None = g.get(_KEY)
        if found is None:
            found = g.setdefault(_KEY, _RequestSessions())
        return found.get(database)


class _RequestSessions:
    """The sessions of one request.

    Flask tears its context down before a response is streamed, and pushes it once more for a generator with
    `stream_with_context`: the sessions end, are reopened in such a generator, and end again with it. Where a view has
    begun to read what the response streams, they end with the response.
    """

    def __init__(self) -> None:
        self._route = f"{request.method} {request.url_rule or request.path}" if request else "an application context"
        self._sessions: dict[str, Session] = {}
        self._watched: list[RequestSession] = []
        self._ended = self._lost = self._kept = False

    def get(self, database: str) -> Session:
        if database not in self._sessions:
            session = self._sessions[database] = _registry().session(database)
            watched = RequestSession(session)
            watched.why_not = self._why_not
            self._watched.append(watched)
        return self._sessions[database]

    def keep(self, response: Response) -> None:
        """Let the sessions end with a response that streams what a view has begun to read."""
        if response.is_streamed and any(each.reads for each in self._watched):
            self._kept = True
            response.response = self._followed(response.response)
            response.call_on_close(self.end)

    def _followed(self, body: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from body
        finally:
            self.end()

    def end(self) -> None:
        self._ended = True
        if self._kept:
            self._kept = False
            return
        self._lost = any(each.would_lose for each in self._watched)
        with ExitStack() as stack:
            for session in self._sessions.values():
                stack.callback(session.close)

    def go_on(self) -> None:
        """Reopen: the context is pushed again, and will be torn down again."""
        self._ended = False

    def _why_not(self) -> str:
        if self._ended:
            return (
                f"the session of {self._route} has ended: the generator of a response needs stream_with_context; "
                "what outlives the request needs a session of its own: with db.registry.session() as session"
            )
        if self._lost:
            return f"{self._route} was rolled back before its response is streamed: commit before the view returns"
        return ""


def _registry() -> Registry:
    found: Registry | None = current_app.extensions.get(_KEY)
    if found is None:
        raise RuntimeError(f"the application {current_app.name!r} has no databases: call DBConfig().init_app(app)")
    return found


def _route() -> dict[str, str]:
    """Supply the route of the request, for query tags."""
    rule = request.url_rule if request else None
    return {} if rule is None else {"route": rule.rule}


def _keep(response: Response) -> Response:
    found: _RequestSessions | None = g.get(_KEY)
    if found is not None:
        found.keep(response)
    return response


def _close(error: BaseException | None) -> None:
    """Close the request's sessions; what was not committed is rolled back."""
    found: _RequestSessions | None = g.get(_KEY)
    if found is not None:
        found.end()


def _go_on(app: Flask, **_: object) -> None:
    """Keep the request's sessions usable in the generator of its response."""
    found: _RequestSessions | None = g.get(_KEY)
    if found is not None:
        found.go_on()


def _limit_requests(app: Flask, limit: RequestDeadline) -> None:
    """Give each request a deadline, until its view has returned; answer 504 after it."""

    @app.before_request
    def begin() -> tuple[dict[str, str], int] | None:
        try:
            seconds = limit.seconds(request.headers.get(HEADER))
        except BadDeadline as error:
            return {"detail": str(error)}, 400
        g.setdefault(_DEADLINE, Deadline(seconds)).__enter__()
        return None

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        found: Deadline | None = g.pop(_DEADLINE, None)
        if found is not None:
            found.__exit__()

    if DeadlineExceeded not in app.error_handler_spec[None][None]:
        app.register_error_handler(DeadlineExceeded, lambda error: ({"detail": TOO_LATE}, 504))


commands: AppGroup = AppGroup("dbconfig", help="Manage the databases of the application.")


@contextmanager
def _told() -> Iterator[None]:
    """Report what a command cannot do as its error, without a traceback."""
    try:
        yield
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        raise click.ClickException("\n".join(map(harmless, f"{error}\n{notes}".strip().splitlines()))) from error


def _only_asynchronous(registry: Registry, database: str) -> bool:
    first = registry.parts.profiles.every_shard(database)[0]  # the shards of a database have one driver
    return registry.parts.profiles.resolve(first).settings.only_asynchronous()


@commands.command()
@_told()
def show() -> None:
    """Print the profile and its databases, without secrets."""
    registry = _of_command()
    click.echo(f"profile {printable(registry.profile.name)} ({printable(registry.profile.reason)})")
    for name, settings in registry.profile.databases.items():
        click.echo(f"{printable(name)}: {settings.address}")


@commands.command()
@click.option("--database", default=DEFAULT)
@_told()
def ping(database: str) -> None:
    """Connect to each database and print the result."""
    registry = _of_command()
    if _only_asynchronous(registry, database):
        asyncio.run(_async_ping(registry, database))
    else:
        with registry.engine(database).connect() as connection:
            connection.exec_driver_sql("SELECT 1")
    click.echo(f"{database}: ok")


async def _async_ping(registry: Registry, database: str) -> None:
    async with registry.async_engine(database).connect() as connection:
        await connection.exec_driver_sql("SELECT 1")


@commands.command("create-tables")
@click.option("--database", default=DEFAULT)
@click.argument("tables", nargs=-1)
@_told()
def create_tables(database: str, tables: tuple[str, ...]) -> None:
    """Create the tables of the models, or the named ones."""
    registry = _of_command()
    if _only_asynchronous(registry, database):
        made = asyncio.run(registry.async_create_tables(*tables, database=database))
    else:
        made = registry.create_tables(*tables, database=database)
    _refuse_no_models(registry, made)
    click.echo("created: " + (", ".join(made) or "none (all exist)"))


@commands.command("drop-tables")
@click.option("--database", default=DEFAULT)
@click.argument("tables", nargs=-1)
@click.confirmation_option(prompt="Drop the tables and their rows?")
@_told()
def drop_tables(database: str, tables: tuple[str, ...]) -> None:
    """Drop the tables of the models, or the named ones; rejected if the profile is protected."""
    registry = _of_command()
    if _only_asynchronous(registry, database):
        dropped = asyncio.run(registry.async_drop_tables(*tables, database=database))
    else:
        dropped = registry.drop_tables(*tables, database=database)
    _refuse_no_models(registry, dropped)
    click.echo("dropped: " + (", ".join(dropped) or "none"))


def _refuse_no_models(registry: Registry, names: list[str]) -> None:
    if not names and not SQLModel.metadata.tables and not registry.parts.homes:
        raise click.ClickException("no tables are defined: import your models in the application's module")


def _of_command() -> Registry:
    try:
        return _registry()
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None

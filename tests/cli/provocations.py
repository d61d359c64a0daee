"""For each kind of problem what leads to it, for real."""

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy.exc import OperationalError, TimeoutError

from dbconfig import DeadlineExceeded, Registry, load
from dbconfig.errors import ConfigError, render
from dbconfig.errors.printable import Palette
from dbconfig.integrations.testing.databases import Options, Place
from dbconfig.integrations.testing.testbed import refuse_unless_for_tests
from tests.cli.conftest import Project, Result
from tests.support import servers
from tests.support.pgbouncer import pgbouncer
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.servers import MariaDBServer, PostgreSQLServer

Fixture = Callable[[str], object]
Provocation = Callable[[Project, tuple[str, ...], Fixture], Result]
PROVOCATIONS: dict[str, Provocation] = {}


def provokes(slug: str) -> Callable[[Provocation], Provocation]:
    def note(function: Provocation) -> Provocation:
        PROVOCATIONS[slug] = function
        return function

    return note


def _profile(
    slug: str, text: str, *arguments: str, name: str = "development", env: dict[str, str] | None = None
) -> None:
    """Note that a profile's text is enough."""

    def run(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
        project.profile(text, name)
        return project.run(*(arguments or ("show",)), *options, env={"ENVIRONMENT": name, **(env or {})})

    PROVOCATIONS[slug] = run


_DB = "url: sqlite:///data/app.db\n"
_PRODUCTION = {"name": "production"}

_profile(
    "alias-bomb",
    "".join(
        f"{name}: &{name} [{', '.join([inner] * 10)}]\n"
        for name, inner in zip("abcdefg", ("x", *(f"*{one}" for one in "abcdef")), strict=True)
    ),
)
_profile("ambiguous-value", f"{_DB}pool_size: 010\n")
_profile("bad-reference", f"{_DB}logging_name: $APP_NAME\n")
_profile("dotenv-syntax", _DB)
_profile("duplicate-key", f"{_DB}pool_size: 5\necho: true\nhide_parameters: true\npool_size: 20\n")
_profile("empty-value", f"{_DB}pool_size:\n")
_profile("empty-variable", f"{_DB}logging_name: ${{APP_NAME}}\n", env={"APP_NAME": ""})
_profile("given-twice", "# two hosts\nurl: postgresql://app@db/shop\nhost: other-db\n")
_profile("invalid-url", "url: postgresql://app:p@ss@db/shop\n")
_profile("invalid-value", f"{_DB}poolclass: QueePool\n")
_profile("missing-driver", "url: mysql+mysqldb://app@127.0.0.1/shop\n", "ping")
_profile("missing-value", "pool_size: 20\n")
_profile("not-applicable", f"{_DB}idle_in_transaction_timeout: 5s\n")
_profile("out-of-range", f"{_DB}pool_size: -3\n")
_profile("profile-name", _DB, "show", "--profile", "../production")
_profile("secret-unreadable", "url: postgresql://app@127.0.0.1/shop\npassword: {file: missing}\n", "ping")
_profile("unknown-provider", "url: postgresql://app@127.0.0.1/shop\npassword: {provider: rds-iam}\n", "ping")
_profile("too-large", f"{_DB}# {'x' * 300_000}\n")
_profile(
    "unknown-database", f"{_DB}databases: {{analytics: {{url: 'sqlite://'}}}}\n", "ping", "--database", "analitics"
)
_SHARDS = "databases: {orders: {url: 'sqlite://', shards: {eu: {}, us: {}}}}\n"
_profile("no-shard", f"{_DB}{_SHARDS}", "shell", "--database", "orders")
_profile("unknown-dialect", "url: mongodb://app@db/shop\n")
_profile("unknown-key", f"{_DB}日本: 1\nlogging_name: 名前\nmax_overflw: 40\n")
_profile("unknown-profile", _DB, "show", "--profile", "prod", name="production")
_profile("unset-variable", "url: ${DATABASE_URL}\n")
_profile("wrong-type", f"{_DB}pool_size: five\n")
_profile("yaml-syntax", f"{_DB}\tpool_size: 5\n")
_profile("yaml-tag", f"{_DB}pool_size: !!python/name:os.system 5\n")

_profile("echo-in-production", f"{_DB}echo: true\n", "validate", **_PRODUCTION)
_profile(
    "guessable-password",
    "url: postgresql://app@db/shop?sslmode=verify-full\npassword: ${PW}\n",
    "validate",
    env={"PW": "postgres"},
)
_profile("memory-in-production", "url: 'sqlite:///:memory:'\n", "validate", **_PRODUCTION)
_profile("option-hole", "url: mysql://app@127.0.0.1/shop\nconnect_args: {local_infile: true}\n", "validate")
_profile("comment-after-secret", "url: postgresql://app@127.0.0.1/shop\npassword: abc #1\n", "validate")
_profile("secret-in-file", "url: postgresql://app:hunter2@db.internal/shop\n", "validate")
_profile("superuser", "url: postgresql://postgres@127.0.0.1/shop\n", "validate", **_PRODUCTION)
_profile("tls-not-verified", "url: postgresql://app@db.internal/shop?sslmode=require\n", "validate", **_PRODUCTION)
_profile("unlimited-pool", f"{_DB}max_overflow: -1\n", "validate")


@provokes("secret-file-readable")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile("url: postgresql://app@127.0.0.1/shop\npassword: {file: secret}\n")
    project.write("secret", "geheim\n").chmod(0o644)
    return project.run("validate", *options)


@provokes("file-writable")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile("url: postgresql://app@127.0.0.1/shop\n").chmod(0o666)
    return project.run("validate", *options)


@provokes("dotenv-syntax")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile(_DB)
    project.write(".env", "DB_USER=app\nDB_PASSWORD my secret\n")
    return project.run("show", *options)


@provokes("extends-cycle")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile("extends: production\n", "staging")
    project.profile("extends: staging\n", "production")
    return project.run("show", "staging", *options)


@provokes("file-unreadable")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    (project.folder / "config" / "development.yaml").mkdir(parents=True, exist_ok=True)
    return project.run("show", *options)


@provokes("no-config")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return project.run("show", "--config", "config", *options)


@provokes("protected")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # No command drops tables; a program does.
    project.profile(f"{_DB}protected: true\n", "production")
    with (
        Registry(project.folder / "config", profile="production", environ={}) as db,
        pytest.raises(ConfigError) as refused,
    ):
        db.drop_tables()
    return _raised(refused.value, options)


def _raised(error: ConfigError, options: tuple[str, ...]) -> Result:
    """Return what no command writes, as a command would."""
    text = "\n".join(render(problem, Palette("always" in options)) for problem in error.problems)
    return Result(2, "", f"{text}\n")


@provokes("async-driver")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # The commands take either kind; a program says which of the two it wants.
    project.profile("url: postgresql+asyncpg://app@127.0.0.1/shop\n")
    with Registry(project.folder / "config", environ={}) as db, pytest.raises(ConfigError) as refused:
        db.engine()
    return _raised(refused.value, options)


@provokes("sync-driver")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # No command makes an asynchronous engine.
    project.profile("url: postgresql+psycopg2://app@127.0.0.1/shop\n")

    async def engine() -> None:
        db.async_engine()

    with Registry(project.folder / "config", environ={}) as db, pytest.raises(ConfigError) as refused:
        asyncio.run(engine())
    return _raised(refused.value, options)


@provokes("provider-failed")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # A provider of the command's own process would have to be installed.
    project.profile("url: postgresql://app@127.0.0.1/shop\npassword: {provider: rds-iam}\n")
    with Registry(project.folder / "config", environ={}) as db:
        db.password_provider("rds-iam", lambda settings: "")
        with pytest.raises(ConfigError) as refused:
            db.engine().connect()
    return _raised(refused.value, options)


@provokes("not-for-tests")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # The pytest plugin asks this before it makes anything.
    project.profile(f"{_DB}protected: true\n", "production")
    with (
        Registry(project.folder / "config", profile="production", environ={}) as db,
        pytest.raises(ConfigError) as refused,
    ):
        refuse_unless_for_tests(db, Options())
    return _raised(refused.value, options)


@provokes("test-database")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # As the pytest plugin does.
    server = _postgresql(fixture)
    if not server.sql("SELECT 1 FROM pg_roles WHERE rolname = 'guest'"):
        server.create_user("guest", "app-secret")
    project.profile(f"url: {server.url(user='guest', database='shop')}\n", "testing")
    profile = load("testing", path=project.folder / "config", environ={})
    with pytest.raises(ConfigError) as refused:
        Place.of(profile.databases["default"], Options()).make(lambda: None)
    return _raised(refused.value, options)


@provokes("database-elsewhere")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile(f"{_DB}protected: true\n", "production")
    project.profile(_DB, "testing")
    return project.run("create-tables", _models(project), "--profile", "testing", *options)


@provokes("unknown-table")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile(_DB)
    return project.run("create-tables", _models(project), "ordes", *options)


def _models(project: Project) -> str:
    name = f"models_of_{project.folder.name.replace('-', '_')}"
    project.write(
        f"{name}.py",
        "from sqlalchemy import Column, Integer, MetaData, Table\n"
        "metadata = MetaData()\n"
        "orders = Table('orders', metadata, Column('id', Integer, primary_key=True))\n",
    )
    return f"{name}:metadata"


# On the way to a database.


def _check(project: Project, url: str, options: tuple[str, ...], *more: str, text: str = "") -> Result:
    project.profile(f"url: {url}\n{text}")
    return project.run("check", *more, *options)


def _postgresql(fixture: Fixture) -> PostgreSQLServer:
    server = fixture("postgresql")
    assert isinstance(server, PostgreSQLServer)
    return server


def _mariadb(fixture: Fixture) -> MariaDBServer:
    server = fixture("mariadb")
    assert isinstance(server, MariaDBServer)
    return server


@provokes("host-unknown")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, "postgresql://app@no-such-host.invalid/shop", options)


@provokes("refused")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, f"postgresql://app@127.0.0.1:{free_port()}/shop", options)


@provokes("unreachable")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    prefix = fixture("without_network")
    assert isinstance(prefix, tuple)
    project.profile("url: postgresql://app@127.0.0.1:5432/shop\n")
    return project.spawn("check", *options, prefix=prefix)


@provokes("timed-out")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = _postgresql(fixture)
    server.pause()
    try:
        return _check(project, server.url(), options, "--timeout", "600ms")
    finally:
        server.resume()


@provokes("connection-lost")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def hang_up() -> None:
            for _ in range(2):
                try:
                    connection = listener.accept()[0]
                    connection.recv(64)  # all of it: closing with something unread would be a reset
                    connection.close()
                except OSError:
                    return  # the test is over

        thread = Thread(target=hang_up, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        result = _check(project, f"postgresql://app@127.0.0.1:{port}/shop", options)
        thread.join(60)
    return result


@provokes("not-a-database")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, f"mysql://app@127.0.0.1:{fixture('web_server')}/shop", options)


@provokes("tls-refused")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, f"{_postgresql(fixture).url()}?sslmode=require", options)


@provokes("tls-required")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = fixture("tls_postgresql")
    assert isinstance(server, PostgreSQLServer)
    return _check(project, f"{server.url()}?sslmode=disable", options)


@provokes("tls-untrusted")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = fixture("tls_postgresql")
    assert isinstance(server, PostgreSQLServer)
    authority = project.folder / "authority.pem"
    request = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=other"]
    subprocess.run([*request, "-keyout", os.devnull, "-out", authority], check=True, capture_output=True)
    return _check(
        project,
        server.url(),
        options,
        text=f"query: {{sslmode: verify-full, sslrootcert: {authority}}}\n",
    )


@provokes("client-setting")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, _postgresql(fixture).url(), options, text="query: {service: nowhere}\n")


@provokes("login-rejected")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, _postgresql(fixture).url(password="wrong"), options)


@provokes("database-missing")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, _postgresql(fixture).url(database="shopp"), options)


@provokes("variable-refused")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, _postgresql(fixture).url(), options, text="variables: {serach_path: shop}\n")


@provokes("database-denied")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, _mariadb(fixture).url(database="shopp"), options)


@provokes("too-many-connections")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = _postgresql(fixture)
    if not server.sql("SELECT 1 FROM pg_roles WHERE rolname = 'crowd'"):
        server.create_user("crowd", "app-secret")
        server.sql("ALTER ROLE crowd CONNECTION LIMIT 0")
    return _check(project, server.url(user="crowd"), options)


@provokes("starting-up")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    fixture("postgresql")  # skips where there is no server
    with servers.postgresql() as server, closing(server._connect("postgres")):
        os.kill(server.pid, signal.SIGTERM)  # "smart": it waits for the connection above, and takes no other
        wait_until(lambda: "shutdown request" in server.log_tail(), "the beginning of the shutdown")
        return _check(project, server.url(), options)


@provokes("database-file")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, "sqlite:////proc/nowhere/app.db", options)


@provokes("connection-failed")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(project, _postgresql(fixture).url(), options, text="connect_args: {options: -Z}\n")


@provokes("read-only")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = _postgresql(fixture)
    if server.sql("SHOW default_transaction_read_only") == [("off",)]:
        server.sql(f'ALTER DATABASE "{server.database}" SET default_transaction_read_only = on')
    return _check(project, server.url(), options)


@provokes("no-primary")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = _postgresql(fixture)
    _configure(server, "SET default_transaction_read_only = on", "on")
    try:
        return _check(project, _twice(server), options)
    finally:
        _configure(server, "RESET default_transaction_read_only", "off")


@provokes("read-only-by-default")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = _postgresql(fixture)
    if server.sql("SHOW default_transaction_read_only") == [("off",)]:
        server.sql(f"ALTER ROLE {server.user} SET default_transaction_read_only = on")
    try:
        return _check(project, _twice(server), options)
    finally:
        server.sql(f"BEGIN READ WRITE; ALTER ROLE {server.user} RESET default_transaction_read_only; COMMIT")


def _configure(server: PostgreSQLServer, change: str, value: str) -> None:
    server.sql(f"ALTER SYSTEM {change}")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: server.sql("SHOW default_transaction_read_only") == [(value,)], "the server's configuration")


def _twice(server: PostgreSQLServer) -> str:
    """Return the URL of a server that is listed as two hosts."""
    url = f"postgresql://{server.user}:{server.password}@/{server.database}"
    return f"{url}?host=127.0.0.1:{server.port}&host=localhost:{server.port}"


@provokes("busy")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    path = Path(project.folder / "app.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE IF NOT EXISTS t (x)")
        other.execute("BEGIN EXCLUSIVE")
        return _check(project, "sqlite:///app.db", options, text="lock_timeout: 10ms\n")


@provokes("clock-skew")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # The session's own clock stands still in the past; the server then says so to everybody who asks.
    return _check(project, _mariadb(fixture).url(), options, text="variables: {timestamp: 1000000000}\n")


@provokes("pool-over-budget")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    server = _postgresql(fixture)
    return _check(project, server.url(), options, "--workers", "8", text="pool_size: 20\nmax_overflow: 40\n")


@provokes("pooler-undeclared")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    with pgbouncer(_postgresql(fixture)) as pooler:
        return _check(project, pooler.url(), options)


@provokes("recycle-too-late")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    return _check(
        project,
        _mariadb(fixture).url(),
        options,
        text="pool_recycle: 8h\npool_pre_ping: false\nvariables: {wait_timeout: 600}\n",
    )


@provokes("missing-table")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # No command reads a table; a program does, and finds it in the notes of the exception.
    project.profile("url: sqlite:///app.db\n")
    with (
        Registry(project.folder / "config", environ={}) as db,
        db.engine().connect() as connection,
        pytest.raises(OperationalError) as missed,
    ):
        connection.exec_driver_sql("SELECT * FROM hero")
    return Result(1, "", "\n".join(missed.value.__notes__) + "\n")


@provokes("unknown-shard")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # A command names a shard as a database; a program names it beside the database.
    project.profile("url: sqlite://\nshards: {eu: {}, us: {}}\n")
    with Registry(project.folder / "config", environ={}) as db, pytest.raises(ConfigError) as told:
        db.session(shard="ue")
    return Result(1, "", f"{told.value}\n")


@provokes("pool-overloaded")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile("url: sqlite:///app.db\npool_size: 1\nmax_overflow: 0\npool_queue_target: 10ms\n")
    with (
        Registry(project.folder / "config", environ={}) as db,
        ThreadPoolExecutor(2) as callers,
        db.engine().connect(),
    ):
        waiting = [callers.submit(lambda: db.engine().connect().close()) for _ in range(2)]  # the last one stays
        dropped, _rest = wait(waiting, return_when=FIRST_EXCEPTION)
    error = next(iter(dropped)).exception()
    assert error is not None
    notes = [note for note in error.__notes__ if "held longest" not in note]
    return Result(1, "", "\n".join(notes) + "\n")


@provokes("deadline-exceeded")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    project.profile("url: sqlite:///app.db\npool_size: 1\nmax_overflow: 0\n")
    with (
        Registry(project.folder / "config", environ={}) as db,
        db.engine().connect(),
        db.deadline(0.01),
        pytest.raises(DeadlineExceeded) as exceeded,
    ):
        db.engine().connect()
    return Result(1, "", f"{exceeded.value.__notes__[0]}\n")


@provokes("pool-timeout")
def _(project: Project, options: tuple[str, ...], fixture: Fixture) -> Result:
    # No command holds a pool; a program does, and finds it in the notes of the exception.
    project.profile("url: sqlite:///app.db\npool_size: 1\nmax_overflow: 0\npool_timeout: 10ms\n")
    with (
        Registry(project.folder / "config", environ={}) as db,
        db.engine().connect(),
        pytest.raises(TimeoutError) as waited,
    ):
        db.engine().connect()
    notes = [note for note in waited.value.__notes__ if "held longest" not in note]
    return Result(1, "", "\n".join(notes[1:]) + "\n")

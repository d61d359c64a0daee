"""Which driver an asynchronous engine takes, and what a profile's keys become in it."""

import asyncio
import subprocess
import sys
from importlib.util import find_spec

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from dbconfig import ConfigError, Profile, Registry
from dbconfig.settings.known_drivers import choose
from tests.asynchronous.conftest import DRIVERS


def query(registry, statement):
    async def main():
        async with registry.async_engine().connect() as connection:
            return (await connection.execute(text(statement))).all()

    return asyncio.run(asyncio.wait_for(main(), 30))


def registry_of(url, **keys):
    return Registry.from_profile(Profile(name="tests", url=url, **keys))


@pytest.mark.parametrize(
    ("drivername", "chosen"),
    [
        ("postgresql", "postgresql+asyncpg"),
        ("postgres", "postgresql+asyncpg"),
        ("postgresql+psycopg", "postgresql+psycopg_async"),
        ("mysql", "mysql+asyncmy"),
        ("mariadb+aiomysql", "mariadb+aiomysql"),
        ("sqlite", "sqlite+aiosqlite"),
    ],
)
def test_the_installed_driver_is_taken_and_an_explicit_one_kept(drivername, chosen):
    pytest.importorskip(chosen.partition("+")[2].removesuffix("_async"))
    assert choose(drivername, None, "url", asynchronous=True) == chosen


@pytest.mark.parametrize(
    ("installed", "chosen"), [({"psycopg"}, "postgresql+psycopg_async"), ({"aiomysql"}, "mysql+aiomysql")]
)
def test_the_second_choice_serves_where_the_first_is_not_installed(monkeypatch, installed, chosen):
    monkeypatch.setattr("dbconfig.settings.known_drivers.find_spec", lambda name: name in installed or None)
    assert choose(chosen.partition("+")[0], None, "url", asynchronous=True) == chosen


def test_no_driver_is_an_error_with_the_line_that_installs_one(monkeypatch):
    monkeypatch.setattr("dbconfig.settings.known_drivers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install asyncpg") as caught:
        choose("postgresql", None, "url", asynchronous=True)
    assert "asynchronous driver of postgresql is not installed" in str(caught.value)


@pytest.mark.parametrize(
    ("drivername", "words"),
    [
        ("postgresql+psycopg2", ["psycopg2 is a synchronous driver", "asyncpg", "+psycopg`, which is both"]),
        ("mysql+pymysql", ["pymysql is a synchronous driver", "asyncmy"]),
        ("sqlite+pysqlite", ["pysqlite is a synchronous driver", "aiosqlite"]),
    ],
)
def test_a_synchronous_driver_by_name_is_refused_with_what_to_write(drivername, words):
    with pytest.raises(ConfigError) as caught:
        choose(drivername, None, "url", asynchronous=True)
    assert all(word in str(caught.value) for word in words)


def test_an_asynchronous_driver_by_name_serves_asynchronous_engines_only():
    with pytest.raises(ConfigError, match="asyncpg is an asynchronous driver"):
        choose("postgresql+asyncpg", None, "url")


def test_without_greenlet_the_error_says_what_to_install():
    program = """
import sys
sys.modules["greenlet"] = None
import asyncio
from dbconfig import Profile, Registry, ConfigError
registry = Registry.from_profile(Profile(name="tests", url="sqlite://"))
with registry.session() as session:
    pass
async def main():
    registry.async_session()
try:
    asyncio.run(main())
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "pip install greenlet" in done.stdout, done.stderr


def test_nothing_asynchronous_is_imported_before_it_is_asked_for():
    program = """
import sys
from dbconfig import Profile, Registry
registry = Registry.from_profile(Profile(name="tests", url="sqlite://"))
with registry.transaction() as session:
    session.connection()
names = ("greenlet", "aiosqlite", "asyncpg", "sqlalchemy.ext.asyncio", "dbconfig.registry.event_loops")
print([name for name in names if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    # SQLAlchemy itself imports greenlet where it is installed.
    assert [name for name in eval(done.stdout) if name != "greenlet"] == [], done.stderr


# What the keys of a profile become at the server.


@pytest.mark.parametrize("drivername", ["postgresql", "postgresql+psycopg"])
def test_timeouts_and_variables_reach_postgresql(postgresql, drivername):
    registry = registry_of(
        postgresql.url(drivername),
        statement_timeout="2s",
        lock_timeout="300ms",
        idle_in_transaction_timeout="1m",
        variables={"search_path": "app, public", "enable_seqscan": False},
        query={"application_name": "our app"},
    )
    names = "statement_timeout lock_timeout idle_in_transaction_session_timeout search_path enable_seqscan"
    shown = [query(registry, f"SHOW {name}")[0][0] for name in (*names.split(), "application_name")]
    assert shown == ["2s", "300ms", "1min", "app, public", "off", "our app"]
    with pytest.raises(DBAPIError, match="statement timeout"):
        query(registry, "SELECT pg_sleep(20)")


def test_libpqs_parameters_of_a_providers_url_are_understood_by_asyncpg(postgresql):
    url = postgresql.url() + "?sslmode=prefer&application_name=shop&connect_timeout=3&options=-c%20work_mem%3D3MB"
    registry = registry_of(url + "&target_session_attrs=read-write")
    assert query(registry, "SHOW application_name") == [("shop",)]
    assert query(registry, "SHOW work_mem") == [("3MB",)]


def test_what_asyncpg_cannot_do_is_told_before_connecting():
    registry = registry_of(
        "postgresql://h/d?channel_binding=require&prepared_statement_cache_size=3", connect_args={"keepalives": 1}
    )
    with pytest.raises(ConfigError) as caught:
        query(registry, "SELECT 1")
    told = str(caught.value)
    assert all(f"'{name}' is not an argument of asyncpg" in told for name in ("channel_binding", "keepalives"))
    assert "prepared_statement_cache_size" not in told
    assert "postgresql+psycopg://" in told


def test_asyncpg_verifies_the_certificate_as_sslmode_says(tmp_path):
    from tests.support import servers

    try:
        server = servers.postgresql(tls=True)
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        cipher = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        for tail, encrypted in (
            ("sslmode=require", True),
            (f"sslmode=verify-full&sslrootcert={server.certificate}", True),
            ("sslmode=disable", False),
        ):
            assert query(registry_of(f"{server.url()}?{tail}"), cipher) == [(encrypted,)]
        other = tmp_path / "other.pem"
        subprocess.run(
            f"openssl req -x509 -nodes -newkey rsa:2048 -subj /CN=other -keyout /dev/null -out {other}".split(),
            check=True,
            capture_output=True,
        )
        with pytest.raises(Exception, match="certificate"):
            query(registry_of(f"{server.url()}?sslmode=verify-ca&sslrootcert={other}"), cipher)
        with pytest.raises(ConfigError, match="sslrootcert"):
            query(registry_of(f"{server.url()}?sslmode=verify-ca&sslrootcert={tmp_path}/none.pem"), cipher)


@pytest.mark.parametrize("drivername", ["mysql+asyncmy", "mysql+aiomysql"])
def test_timeouts_and_variables_reach_mariadb(mariadb, drivername):
    registry = registry_of(
        mariadb.url(drivername), statement_timeout="1s", lock_timeout="3s", variables={"sql_mode": "TRADITIONAL"}
    )
    names = ("max_statement_time", "innodb_lock_wait_timeout", "sql_mode", "character_set_client")
    rows = query(registry, "SELECT " + ", ".join(f"@@{name}" for name in names))
    assert (float(rows[0][0]), rows[0][1]) == (1.0, 3)
    assert "TRADITIONAL" in rows[0][2]
    assert rows[0][3] == "utf8mb4"
    with pytest.raises(DBAPIError, match="max_statement_time"):
        query(registry, "SELECT count(*) FROM seq_1_to_100000000 a, seq_1_to_1000 b")


@pytest.mark.parametrize("drivername", ["mysql+asyncmy", "mysql+aiomysql"])
def test_tls_to_mariadb_is_what_pymysqls_parameters_mean(drivername):
    from tests.support import servers

    try:
        server = servers.mariadb(tls=True)
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        cipher = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
        url = server.url(drivername)
        # Not asked for: where the server offers it, as by PyMySQL; asyncmy can only insist on it, or do without.
        assert bool(query(registry_of(url), cipher)[0][1]) is (drivername == "mysql+aiomysql")
        assert query(registry_of(f"{url}?ssl_ca={server.certificate}"), cipher)[0][1]
        assert query(registry_of(url, connect_args={"ssl_ca": str(server.certificate)}), cipher)[0][1]


@pytest.mark.parametrize("drivername", ["mysql+asyncmy", "mysql+aiomysql"])
def test_a_server_without_tls_is_refused_where_tls_is_asked_for(mariadb, drivername, tmp_path):
    ca = tmp_path / "ca.pem"
    subprocess.run(
        f"openssl req -x509 -nodes -newkey rsa:2048 -subj /CN=ca -keyout /dev/null -out {ca}".split(),
        check=True,
        capture_output=True,
    )
    with pytest.raises(Exception) as caught:
        query(registry_of(f"{mariadb.url(drivername)}?ssl_ca={ca}"), "SELECT 1")
    assert isinstance(caught.value, (OperationalError, OSError, DBAPIError))


def test_aiomysql_has_no_read_timeout_and_says_what_to_do(mariadb):
    with pytest.raises(ConfigError, match="statement_timeout"):
        registry_of(mariadb.url("mysql+aiomysql"), connect_args={"read_timeout": 3})


@pytest.mark.parametrize("driver", [name for name in DRIVERS if not name.startswith("sqlite")])
def test_a_password_beyond_latin_1_logs_in(driver, request):
    system, drivername, module = DRIVERS[driver]
    pytest.importorskip(module)
    server = request.getfixturevalue(system)
    password = "pä€ss:w/o%r#d?🦊"
    server.create_user("guest", password)
    registry = registry_of(server.url(drivername, user="guest", password=password))
    assert query(registry, "SELECT 1") == [(1,)]
    assert password not in repr(registry.profile)


@pytest.mark.parametrize("driver", [name for name in DRIVERS if not name.startswith("sqlite")])
def test_a_rotated_password_is_read_at_the_next_connect(driver, request, tmp_path):
    system, drivername, module = DRIVERS[driver]
    pytest.importorskip(module)
    server = request.getfixturevalue(system)
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    secret.chmod(0o600)
    server.create_user("rotating", "first")
    registry = registry_of(
        f"{drivername}://rotating@{server.host}:{server.port}/{server.database}", password={"file": str(secret)}
    )

    async def main():
        async with registry.async_session() as session:
            await session.connection()
        server.set_password("rotating", "second")
        secret.write_text("second\n")
        server.terminate()
        await registry.async_engine().dispose()
        async with registry.async_session() as session:
            await session.connection()
        assert "second" not in repr(registry.async_engine())

    asyncio.run(asyncio.wait_for(main(), 30))


def test_sqlite_has_its_pragmas_its_busy_timeout_and_its_statement_timeout(tmp_path):
    registry = registry_of(f"sqlite:///{tmp_path / 'app.db'}", statement_timeout="200ms", lock_timeout="700ms")
    names = ("foreign_keys", "journal_mode", "synchronous", "busy_timeout")
    assert [query(registry, f"PRAGMA {name}")[0][0] for name in names] == [1, "wal", 1, 700]
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(OperationalError, match="interrupted"):
        query(registry, endless)


def test_sqlite_writers_wait_for_each_other_and_count_right(tmp_path):
    registry = registry_of(f"sqlite:///{tmp_path / 'app.db'}")

    async def add():
        async with registry.async_transaction() as session:
            connection = await session.connection()
            number = (await connection.execute(text("SELECT n FROM counter"))).scalar()
            await asyncio.sleep(0)
            await connection.execute(text("UPDATE counter SET n = :n"), {"n": number + 1})

    async def main():
        async with registry.async_engine().begin() as connection:
            await connection.execute(text("CREATE TABLE counter (n INTEGER)"))
            await connection.execute(text("INSERT INTO counter VALUES (0)"))
        await asyncio.gather(*(add() for _ in range(40)))
        async with registry.async_engine().connect() as connection:
            return (await connection.execute(text("SELECT n FROM counter"))).scalar()

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 40


def test_a_pool_of_threads_is_refused():
    registry = registry_of("sqlite:///x.db", poolclass="SingletonThreadPool")
    with pytest.raises(ConfigError, match="one thread"):
        query(registry, "SELECT 1")


def test_autocommit_stays_autocommit(tmp_path):
    registry = registry_of(f"sqlite:///{tmp_path / 'app.db'}", isolation_level="AUTOCOMMIT")

    async def main():
        async with registry.async_engine().connect() as connection:
            await connection.execute(text("CREATE TABLE kept (n INTEGER)"))

    asyncio.run(main())
    assert query(registry, "SELECT count(*) FROM kept") == [(0,)]


@pytest.mark.skipif(not find_spec("asyncpg"), reason="asyncpg is not installed")
def test_a_forked_child_has_engines_of_its_own(postgresql):
    import os

    registry = registry_of(postgresql.url())

    async def main():
        async with registry.async_engine().connect() as connection:
            before = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
            await connection.rollback()
            child = os.fork()
            if child == 0:
                os._exit(0 if _answers_in_child(registry) else 1)
            _, status = os.waitpid(child, 0)
            assert status == 0
            assert (await connection.execute(text("SELECT pg_backend_pid()"))).scalar() == before

    asyncio.run(main())


def _answers_in_child(registry):
    asyncio._set_running_loop(None)  # the fork happened in the middle of the parent's loop
    try:
        return query(registry, "SELECT 1") == [(1,)]
    except BaseException as error:
        print("child:", error, file=sys.stderr)
        return False

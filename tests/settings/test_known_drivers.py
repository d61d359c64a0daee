"""Which driver a database gets."""

import pytest

from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Location
from dbconfig.settings import known_drivers

PLACE = Location("config/a.yaml", 1, 1)


@pytest.fixture
def installed(monkeypatch):
    """Say which modules are installed."""

    def only(*modules):
        monkeypatch.setattr(known_drivers, "find_spec", lambda name: object() if name in modules else None)

    return only


@pytest.mark.parametrize(
    ("modules", "drivername", "chosen"),
    [
        (("psycopg2", "psycopg"), "postgresql", "postgresql+psycopg2"),
        (("psycopg",), "postgresql", "postgresql+psycopg"),
        (("psycopg2", "psycopg"), "postgres", "postgresql+psycopg2"),
        (("psycopg2", "psycopg"), "postgresql+psycopg", "postgresql+psycopg"),
        (("pymysql", "MySQLdb"), "mysql", "mysql+pymysql"),
        (("MySQLdb",), "mariadb", "mariadb+mysqldb"),
        (("sqlite3",), "sqlite", "sqlite+pysqlite"),
        (("psycopg2",), "POSTGRES", "postgresql+psycopg2"),
    ],
)
def test_the_first_installed_driver_is_taken_and_a_named_one_is_kept(installed, modules, drivername, chosen):
    installed(*modules)
    assert known_drivers.choose(drivername, PLACE, "url") == chosen


@pytest.mark.parametrize(
    ("drivername", "slug", "message", "help"),
    [
        ("postgresql", "missing-driver", "the driver of postgresql is not installed: psycopg2",
         "pip install psycopg2-binary"),
        ("postgresql+psycopg", "missing-driver", "the driver of postgresql is not installed: psycopg",
         "pip install 'psycopg[binary]'"),
        ("mysql", "missing-driver", "the driver of mysql is not installed: pymysql", "pip install pymysql"),
        ("mysql+mysqldb", "missing-driver", "the driver of mysql is not installed: mysqldb", "pip install mysqlclient"),
        ("postgresql+asyncpg", "async-driver", "asyncpg is an asynchronous driver, and this is a synchronous engine",
         "use `db.async_session()` and its siblings, or `asyncio.to_thread(command.upgrade, …)` to migrate; "
         "or remove `+asyncpg` from the URL: synchronous engines then use psycopg2 (pip install psycopg2-binary)"),
        ("sqlite+aiosqlite", "async-driver", "aiosqlite is an asynchronous driver, and this is a synchronous engine",
         "use `db.async_session()` and its siblings, or `asyncio.to_thread(command.upgrade, …)` to migrate; "
         "or remove `+aiosqlite` from the URL: synchronous engines then use pysqlite"),
    ],
)  # fmt: skip
def test_a_driver_that_cannot_be_taken_is_told_with_what_to_install(installed, drivername, slug, message, help):
    installed()
    with pytest.raises(ConfigError) as caught:
        known_drivers.choose(drivername, PLACE, "url")
    (problem,) = caught.value.problems
    assert (problem.slug, problem.message, problem.help) == (slug, message, help)
    assert (problem.location, problem.key) == (PLACE, "url")


@pytest.mark.parametrize(
    ("drivername", "hint"),
    [
        ("postgress", "; did you mean 'postgresql'?"),
        ("pgsql", "; did you mean 'postgresql'?"),
        ("mysql2", "; did you mean 'mysql'?"),
        ("psycopg2", "; did you mean 'postgresql+psycopg2'?"),
        ("pymysql", "; did you mean 'mysql+pymysql'?"),
        ("mongodb", ""),
        ("redis", ""),
        ("oracle", "; did you mean 'oracle+oracledb'?"),
    ],
)
def test_a_system_that_is_not_supported_is_told_with_the_one_that_was_meant(drivername, hint):
    with pytest.raises(ValueError) as caught:
        known_drivers.backend_of(drivername)
    assert str(caught.value) == (
        f"unsupported database '{drivername}' (supported: sqlite, postgresql, mysql, mariadb){hint}"
    )


def test_a_driver_that_is_not_supported_is_told_with_those_that_are():
    with pytest.raises(ValueError) as caught:
        known_drivers.backend_of("postgresql+psycopg2x")
    assert str(caught.value) == (
        "unsupported driver 'psycopg2x' of postgresql (supported: psycopg2, psycopg, asyncpg); did you mean 'psycopg2'?"
    )


def test_an_address_in_the_place_of_a_driver_is_not_repeated():
    with pytest.raises(ValueError) as caught:
        known_drivers.backend_of("postgresql://app:hunter@db")
    assert "hunter" not in str(caught.value)

"""The supported database systems and drivers, and which driver is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from dbconfig.errors import ConfigError
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import shown_name
from dbconfig.settings import driver_parameters, generic_systems


@dataclass(frozen=True, slots=True)
class Driver:
    """A DBAPI driver: its name in SQLAlchemy, its module, and its package."""

    name: str
    module: str
    package: str
    synchronous: bool = True
    asynchronous: bool = False
    paramstyles: tuple[str, ...] = ("format", "pyformat")  # its own is among them
    ssl_is_sslmode: bool = False  # `?ssl=` in its URLs is libpq's `sslmode`
    arguments: frozenset[str] = frozenset()  # of its connect()
    in_url: frozenset[str] = frozenset()  # parameters of its URLs
    tells_arguments: bool = True  # else it is written in C, and accepts more than its documentation lists
    fast_begin: bool = False  # it can send BEGIN together with the first statement

    @property
    def installed(self) -> bool:
        try:
            # Imports nothing; a broken installation still fails in create_engine, with its own cause.
            return find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False


_POSTGRESQL = (
    Driver(
        *("psycopg2", "psycopg2", "psycopg2-binary"),
        arguments=driver_parameters.PSYCOPG2,
        in_url=driver_parameters.LIBPQ_URL,
        fast_begin=True,
    ),
    Driver(
        *("psycopg", "psycopg", "'psycopg[binary]'"),
        asynchronous=True,  # one driver for both
        arguments=driver_parameters.PSYCOPG,
        in_url=driver_parameters.LIBPQ_URL,
    ),
    Driver(
        *("asyncpg", "asyncpg", "asyncpg", False, True),
        paramstyles=("numeric_dollar",),
        ssl_is_sslmode=True,
        arguments=driver_parameters.ASYNCPG,
        in_url=driver_parameters.ASYNCPG_URL,
    ),
)
_OF_MYSQL_URL = driver_parameters.MYSQL_URL
_MYSQL = (
    Driver("pymysql", "pymysql", "pymysql", arguments=driver_parameters.PYMYSQL, in_url=_OF_MYSQL_URL),
    Driver(
        *("mysqldb", "MySQLdb", "mysqlclient"),
        arguments=driver_parameters.MYSQLCLIENT,
        in_url=_OF_MYSQL_URL,
        tells_arguments=False,
    ),
    Driver(
        *("asyncmy", "asyncmy", "asyncmy", False, True),
        arguments=driver_parameters.ASYNCMY,
        in_url=_OF_MYSQL_URL,
    ),
    Driver(
        *("aiomysql", "aiomysql", "aiomysql", False, True),
        arguments=driver_parameters.AIOMYSQL,
        in_url=_OF_MYSQL_URL,
    ),
)
# It accepts `:1` too, but numbers parameters differently from SQLAlchemy: values are silently misplaced.
_OF_SQLITE = ("qmark", "named")
_SQLITE_ARGUMENTS = driver_parameters.SQLITE_OR_REFUSED
_SQLITE_URL = driver_parameters.SQLITE_URL | driver_parameters.SQLITE_FILE_URL
_SQLITE = (
    Driver(*("pysqlite", "sqlite3", ""), paramstyles=_OF_SQLITE, arguments=_SQLITE_ARGUMENTS, in_url=_SQLITE_URL),
    Driver(
        *("aiosqlite", "aiosqlite", "aiosqlite", False, True),
        paramstyles=_OF_SQLITE,
        arguments=_SQLITE_ARGUMENTS,
        in_url=_SQLITE_URL,
    ),
)

# In the order of choice, which is fixed: SQLAlchemy's own default for postgresql changed from 2.0 (psycopg2) to 2.1
# (psycopg), and its default for mysql (mysqlclient) is not among our dependencies.
DRIVERS: dict[str, tuple[Driver, ...]] = {
    "sqlite": _SQLITE,
    "postgresql": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}
PORTS: Mapping[str, int] = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}  # where a server listens by default
_ALIASES = {"postgres": "postgresql", "sqlite3": "sqlite"}
# Names of systems and drivers in other tools, which neither SQLAlchemy nor we accept.
_ELSEWHERE = {
    **dict.fromkeys(("pgsql", "psql", "pg", "postgis", "timescaledb"), "postgresql"),
    "sqlserver": "mssql+pyodbc",
    "oracle": "oracle+oracledb",
    **dict.fromkeys(("mysql2", "mysqli", "mysqlx"), "mysql"),
    **{driver.name: f"{system}+{driver.name}" for system in ("mysql", "postgresql") for driver in DRIVERS[system]},
}
_UNSUPPORTED = frozenset({"mongodb", "redis"})


def backend_of(drivername: str) -> str:
    """Return the database system of a `drivername`: sqlite, postgresql, mysql or mariadb.

    For a generic dialect, it is the whole `drivername`, such as duckdb or postgresql+pg8000.

    Raises:
        ValueError: it names an unsupported system or driver; the text lists the supported ones.
    """
    system, plus, driver = drivername.lower().partition("+")
    backend = _ALIASES.get(system, system)
    known = [candidate.name for candidate in DRIVERS.get(backend, ())]
    if (driver not in known if plus else not known) and generic_systems.is_known(named := f"{backend}{plus}{driver}"):
        return named
    if backend not in DRIVERS:
        near = suggest(system, [*DRIVERS, *_ALIASES], 0.7) if system not in _UNSUPPORTED else ""
        meant = did_you_mean(_ELSEWHERE.get(system) or _ALIASES.get(near, near))
        hint = f"; {meant}" if meant else ""
        shown = quoted(shown_name(system))
        raise ValueError(f"unsupported database {shown} (supported: sqlite, postgresql, mysql, mariadb){hint}")
    if plus and driver not in known:
        meant = did_you_mean(suggest(driver, known))
        hint = f"; {meant}" if meant else ""
        raise ValueError(
            f"unsupported driver {quoted(shown_name(driver))} of {backend} (supported: {', '.join(known)}){hint}"
        )
    return backend


def is_generic(backend: str) -> bool:
    """Return whether a database system, or its driver, is supported only through SQLAlchemy's dialect."""
    return backend not in DRIVERS


def family(backend: str) -> str:
    """Return the family whose drivers, SQL, and errors a backend shares: MariaDB belongs to MySQL's."""
    return "mysql" if backend == "mariadb" else backend


def choose(drivername: str, at: Location | None, key: str, *, asynchronous: bool = False) -> str:
    """Return the drivername with an installed driver of the requested kind; an explicit one is kept.

    Raises:
        ConfigError: no driver is installed, or the named one is not, or is of the other kind.
    """
    backend, _, named = drivername.lower().partition("+")
    backend = _ALIASES.get(backend, backend)
    if is_generic(backend_of(drivername)):
        return _choose_generic(backend_of(drivername), at, key, asynchronous)
    fitting = [driver for driver in DRIVERS[backend] if (driver.asynchronous if asynchronous else driver.synchronous)]
    if asynchronous:
        fitting.sort(key=lambda driver: driver.synchronous)  # what is made for it first
    candidates = [driver for driver in DRIVERS[backend] if driver.name == named] if named else fitting
    if candidates[0] not in fitting:
        raise ConfigError([_other_kind(named, fitting, at, key, asynchronous)])
    installed = next((driver for driver in candidates if driver.installed), None)
    if installed is None:
        kind = "asynchronous driver" if asynchronous else "driver"
        message = f"the {kind} of {backend} is not installed: {candidates[0].name}"
        raise ConfigError([Problem("missing-driver", message, at, key, f"pip install {candidates[0].package}")])
    # SQLAlchemy's name of a driver's asynchronous side, if one driver supports both.
    return f"{backend}+{installed.name}{'_async' if asynchronous and installed.synchronous else ''}"


def _choose_generic(name: str, at: Location | None, key: str, asynchronous: bool) -> str:
    found = generic_systems.find(name)
    assert found is not None  # it has passed `backend_of`
    if found.asynchronous != asynchronous:
        kinds = ("a synchronous", "an asynchronous")
        message = f"{name} is {kinds[found.asynchronous]} driver, and this is {kinds[asynchronous]} engine"
        raise ConfigError([Problem("sync-driver" if asynchronous else "async-driver", message, at, key)])
    if not found.installed:
        help = f"pip install {found.package}" if found.package else "install the package that provides it"
        raise ConfigError([Problem("missing-driver", f"the dialect {name} is not installed", at, key, help)])
    return name


def ssl_is_sslmode(drivername: str) -> bool:
    """Return whether `?ssl=` in URLs of the named driver is its name for libpq's `sslmode`."""
    backend, _, named = drivername.lower().partition("+")
    known = DRIVERS.get(_ALIASES.get(backend, backend), ())
    return any(driver.ssl_is_sslmode for driver in known if driver.name == named)


def not_its_paramstyle(style: str, drivername: str) -> str:
    """Return why a driver, or each of a system's if none is named, rejects a parameter style; "" if it does not."""
    backend, _, named = drivername.lower().removesuffix("_async").partition("+")
    known = DRIVERS[_ALIASES.get(backend, backend)]
    taken = dict.fromkeys(each for driver in known if named in ("", driver.name) for each in driver.paramstyles)
    return (
        ""
        if style in taken
        else f"`paramstyle: {style}` has no effect here: {named or backend} takes {', '.join(taken)}"
    )


def _other_kind(named: str, fitting: list[Driver], at: Location | None, key: str, asynchronous: bool) -> Problem:
    usual = fitting[0]
    install = f" (pip install {usual.package})" if usual.package else ""
    both = next((f", or write `+{driver.name}`, which is both" for driver in fitting if driver.synchronous), "")
    if asynchronous:
        message = f"{named} is a synchronous driver, and this is an asynchronous engine"
        help = f"remove `+{named}`: each kind of engine has its own driver, this one {usual.name}{install}{both}"
        return Problem("sync-driver", message, at, key, help)
    message = f"{named} is an asynchronous driver, and this is a synchronous engine"
    other = f"or remove `+{named}` from the URL: synchronous engines then use {usual.name}{install}"
    help = f"use `db.async_session()` and its siblings, or `asyncio.to_thread(command.upgrade, …)` to migrate; {other}"
    return Problem("async-driver", message, at, key, help)


_REMOVE = "remove it: no driver knows it"
_IN_CODE = "pass an argument of a newer driver in code: Registry(engine_options={'connect_args': …})"


def instead_of_parameter(name: str, backend: str, named: str) -> str:
    """Return the remedy for a parameter of a URL that no driver accepts; "" if one accepts it.

    Args:
        name: of the parameter.
        backend: the database system.
        named: the driver of the profile; "" if each kind of engine uses its own.
    """
    chosen = [driver for driver in DRIVERS[backend] if named in ("", driver.name)]
    known = frozenset[str]().union(*(driver.in_url for driver in chosen))
    if name in known:
        return ""
    if any(name in driver.arguments for driver in chosen):
        return "write it into `connect_args`, where values have types"
    others = [driver.name for driver in DRIVERS[backend] if name in driver.in_url]
    return did_you_mean(suggest(name, known)) or _accepted_by(others) or _REMOVE


def unknown_argument(name: str, backend: str, named: str) -> tuple[str, str] | None:
    """Return the problem of an argument of connect(), and the remedy; None if a driver accepts it, or may.

    Args:
        name: of the argument.
        backend: the database system.
        named: the driver of the profile; "" if each kind of engine uses its own.
    """
    chosen = [driver for driver in DRIVERS[backend] if named in ("", driver.name)]
    known = frozenset[str]().union(*(driver.arguments for driver in chosen))
    if name in known or not all(driver.tells_arguments or not named for driver in chosen):
        return None
    others = [driver.name for driver in DRIVERS[backend] if name in driver.arguments]
    if name in driver_parameters.TIMEOUTS and others:
        help = driver_parameters.NO_TIMEOUT
    else:
        near = did_you_mean(suggest(name, known))
        help = near or _accepted_by(others) or _IN_CODE
    owner = "sqlite3" if backend == "sqlite" else named or f"any {backend} driver"
    return f"{quoted(name)} is not an argument of {owner}", help


def _accepted_by(drivers: list[str]) -> str:
    return f"{' and '.join(drivers)} {'accepts' if len(drivers) == 1 else 'accept'} it" if drivers else ""

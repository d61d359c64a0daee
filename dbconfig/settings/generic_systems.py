"""Dialects that are supported only through SQLAlchemy: their names and packages."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Final

from dbconfig.errors.light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Generic:
    """A dialect, by its name in a URL.

    Attributes:
        module: the driver's, for a dialect that comes with SQLAlchemy; "" for one of another package.
        package: the package to install; "" if unknown.
    """

    name: str
    module: str = ""
    package: str = ""
    asynchronous: bool = False

    @property
    def installed(self) -> bool:
        if not self.module:
            return self.name in _entry_points()
        try:
            return find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False


def _of_mysql(system: str) -> tuple[Generic, ...]:
    return (
        Generic(f"{system}+mysqlconnector", "mysql.connector", "mysql-connector-python"),
        Generic(f"{system}+mariadbconnector", "mariadb", "mariadb"),
        Generic(f"{system}+cymysql", "cymysql", "cymysql"),
        Generic(f"{system}+pyodbc", "pyodbc", "pyodbc"),
    )


# https://docs.sqlalchemy.org/en/20/dialects/
_WITH_SQLALCHEMY: Final = (
    Generic("postgresql+pg8000", "pg8000", "pg8000"),
    Generic("postgresql+psycopg2cffi", "psycopg2cffi", "psycopg2cffi"),
    *_of_mysql("mysql"),
    *_of_mysql("mariadb"),
    Generic("sqlite+pysqlcipher", "sqlcipher3", "sqlcipher3"),
    Generic("mssql", "pyodbc", "pyodbc"),
    Generic("mssql+pyodbc", "pyodbc", "pyodbc"),
    Generic("mssql+pymssql", "pymssql", "pymssql"),
    Generic("mssql+aioodbc", "aioodbc", "aioodbc", asynchronous=True),
    Generic("oracle+oracledb", "oracledb", "oracledb"),
    Generic("oracle+oracledb_async", "oracledb", "oracledb", asynchronous=True),
    Generic("oracle+cx_oracle", "cx_Oracle", "cx_Oracle"),
)
# https://docs.sqlalchemy.org/en/20/dialects/#external-dialects
_PACKAGES: Final = {
    "awsathena": "'PyAthena[SQLAlchemy]'",
    "bigquery": "sqlalchemy-bigquery",
    "clickhouse": "clickhouse-sqlalchemy",
    "clickhousedb": "clickhouse-connect",
    "cockroachdb": "sqlalchemy-cockroachdb psycopg2-binary",
    "crate": "sqlalchemy-cratedb",
    "databricks": "databricks-sqlalchemy",
    "db2": "ibm_db_sa",
    "duckdb": "duckdb-engine",
    "exa": "sqlalchemy-exasol",
    "firebird": "sqlalchemy-firebird",
    "hana": "sqlalchemy-hana",
    "redshift": "sqlalchemy-redshift",
    "snowflake": "snowflake-sqlalchemy",
    "spanner": "sqlalchemy-spanner",
    "sqlite+libsql": "sqlalchemy-libsql",
    "teradatasql": "teradatasqlalchemy",
    "trino": "'trino[sqlalchemy]'",
}
_KNOWN: Final = {each.name: each for each in _WITH_SQLALCHEMY}


@cache
def _entry_points() -> frozenset[str]:
    """Return the dialects of installed packages, by their names in a URL."""
    from importlib.metadata import entry_points  # only if a profile names an otherwise unknown dialect

    return frozenset(point.name.replace(".", "+") for point in entry_points(group="sqlalchemy.dialects"))


def find(drivername: str) -> Generic | None:
    """Return the dialect of a `drivername`; None if it is unknown."""
    name = drivername.lower()
    known = _KNOWN.get(name)
    if known is not None:
        return known
    system = name.partition("+")[0]
    package = _PACKAGES.get(name) or _PACKAGES.get(system)
    if package is None and name not in _entry_points():
        return None
    end = name.rpartition("+")[2]
    return Generic(name, "", package or "", asynchronous=end.startswith(("aio", "async")) or end.endswith("_async"))


def is_known(drivername: str) -> bool:
    return find(drivername) is not None

"""A parameter of a URL that no driver accepts is reported when the profile is loaded, wherever it was written."""

from __future__ import annotations

from typing import Any

import pytest

from dbconfig import ConfigError, DatabaseSettings


@pytest.mark.parametrize(
    ("address", "name", "message", "help"),
    [
        ("postgresql://h/d", "sslmod", "'sslmod' is not a parameter of postgresql's URLs", "did you mean 'sslmode'?"),
        ("postgresql+psycopg://h/d", "foo", "'foo' is not a parameter of psycopg's URLs", "remove it"),
        ("postgresql+psycopg://h/d", "autocommit", "not a parameter of psycopg's URLs", "write it into `connect_args`"),
        ("postgresql+asyncpg://h/d", "keepalives", "of asyncpg's URLs", "psycopg2 and psycopg accept it"),
        ("postgresql+psycopg2://h/d", "prepared_statement_cache_size", "of psycopg2's URLs", "asyncpg accepts it"),
        ("postgresql+psycopg://h/d", "timezone", "of psycopg's URLs", "write it into `variables`"),
        ("postgresql+psycopg://h/d", "requiressl", "of psycopg's URLs", "write the key `sslmode: require`"),
        ("postgresql://h/d", "ssl", "of postgresql's URLs", "write the key `sslmode: require`"),
        ("mysql://h/d", "conect_timeout", "of mysql's URLs", "did you mean 'connect_timeout'?"),
        ("mariadb+asyncmy://h/d", "ssl_caa", "of asyncmy's URLs", "did you mean 'ssl_ca'?"),
        ("mysql://h/d", "sql_mode", "of mysql's URLs", "write it into `connect_args`"),
        ("sqlite:///x.db", "timeot", "of sqlite's URLs", "did you mean 'timeout'?"),
        ("sqlite:///x.db", "mode", "is a parameter of SQLite's `file:` URLs", "write `file:` before the path"),
        ("sqlite+aiosqlite:///file:x.db", "foo", "of aiosqlite's URLs", "remove it"),
    ],
)
@pytest.mark.parametrize("where", ["url", "query"])
def test_a_parameter_that_no_driver_accepts(
    project: Any, address: str, name: str, message: str, help: str, where: str
) -> None:
    text = f"url: {address}?{name}=1" if where == "url" else f"url: {address}\nquery: {{{name}: x}}"
    with pytest.raises(ConfigError) as found:
        project.settings(text)
    problem = found.value.problems[0]
    assert (problem.slug, message in problem.message, help in problem.help) == ("unknown-key", True, True), problem
    assert (problem.key, problem.location.line) == (("url", 1) if where == "url" else (f"query.{name}", 2))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/d?keepalives=1&target_session_attrs=primary&hostaddr=127.0.0.1&prepared_statement_cache_size=1",
        "postgresql+asyncpg://h/d?sslmode=require&options=-c%20geqo%3Doff&service=s",
        "mysql+pymysql://h/d?charset=utf8mb4&unix_socket=/x&ssl_check_hostname=false",
        "mysql://?host=one&host=two",
        "sqlite:///x.db?timeout=3&uri=true",
        "sqlite:///file:x.db?mode=ro&uri=true",
        "duckdb:///x.db?anything=1",
    ],
)
def test_a_parameter_that_a_driver_accepts(url: str) -> None:
    assert DatabaseSettings(url=url).address.query

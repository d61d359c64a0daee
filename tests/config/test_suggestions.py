"""What was meant by a key that is no setting."""

import pytest

from dbconfig import DatabaseSettings
from dbconfig.config.suggestions import stands_for_address, unknown_key
from dbconfig.errors.problem import Location

PLACE = Location("config/a.yaml", 1, 1)


def help_for(key: str, **more) -> str:
    return unknown_key((key,), PLACE, DatabaseSettings.model_fields, **more).help


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *(("pool_sise", "pool_size"), ("poolSize", "pool_size"), ("pool-size", "pool_size"), ("PoolSize", "pool_size")),
        *(("max_overflw", "max_overflow"), ("pool_pre_pings", "pool_pre_ping"), ("URL", "url"), ("exends", "extends")),
        *(("databses", "databases"), ("usrname", "username"), ("DB_HOST", "host"), ("pg_port", "port")),
    ],
)
def test_a_near_miss_is_recognised(written, meant):
    expected = f"write `{meant}: ${{{written}}}`" if written == "DB_HOST" else f"did you mean {meant!r}?"
    assert help_for(written) == expected


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        *(("user", "username"), ("dbname", "database"), ("db", "database"), ("adapter", "drivername")),
        *(("driver", "drivername"), ("type", "drivername"), ("dialect", "drivername"), ("ENGINE", "drivername")),
        *(("pool", "pool_size"), ("maximum-pool-size", "pool_size"), ("maximumPoolSize", "pool_size")),
        *(("max_connections", "pool_size"), ("connection-timeout", "pool_timeout"), ("max-lifetime", "pool_recycle")),
        *(
            ("CONN_MAX_AGE", "pool_recycle"),
            ("pre_ping", "pool_pre_ping"),
            ("dsn", "url"),
            ("SQLALCHEMY_DATABASE_URI", "url"),
        ),
        *(("DATABASE_URL", "url"), ("pw", "password"), ("hostname", "host"), ("show-sql", "echo")),
    ],
)
def test_a_name_from_elsewhere_is_no_second_spelling_but_names_ours(written, ours):
    assert ours in help_for(written)


@pytest.mark.parametrize(
    ("written", "help"),
    [
        ("POSTGRES_USER", "write `username: ${POSTGRES_USER}`"),
        ("POSTGRES_PASSWORD", "write `password: ${POSTGRES_PASSWORD}`"),
        ("POSTGRES_DB", "write `database: ${POSTGRES_DB}`"),
        ("MYSQL_DATABASE", "write `database: ${MYSQL_DATABASE}`"),
        ("timeout", "write `pool_timeout` (waiting for a connection), `connect_timeout` or `statement_timeout`"),
        ("encoding", "remove it: UTF-8 is always set; put another character set into `connect_args`"),
        ("ssl", "write `sslmode: verify-full`"),
        ("ssl_mode", "write `sslmode: verify-full`"),
        ("ssl_ca", "it is called 'sslrootcert' here"),
        ("connection_timeout", "write `connect_timeout` (opening a connection) or `pool_timeout` (waiting for one)"),
        ("timezone", "write `variables: {timezone: …}`, on MySQL `{time_zone: …}`"),
        ("read_only", "sessions are read-only, not databases: db.session(read_only=True)"),
        ("reconnect", "remove it: each connection is checked before it is handed out, and replaced if it is dead"),
        ("password_file", "write `password: {file: PATH}`"),
        ("search_path", "write `variables: {search_path: …}`"),
        ("json_serializer", "it is code, which YAML cannot name: pass it in code, as Registry(engine_options={…})"),
        ("future", "remove it: SQLAlchemy 2 no longer has it"),
        ("executemany_mode", "write it into `dialect_options`"),
        ("x-shared", "extension keys are not supported: put what profiles share into default.yaml"),
        ("xyz", ""),
    ],
)
def test_what_needs_another_form_is_told_with_that_form(written, help):
    assert help_for(written) == help


@pytest.mark.parametrize("written", ["production", "connection", "Database", "pool"])
def test_settings_in_a_group_are_told_to_stand_at_the_top(written):
    assert help_for(written, profiles=["production"], nested=True) == (
        "do not indent settings: they go to the top of the file, and each profile has its own file"
    )


@pytest.mark.parametrize(
    ("written", "note"),
    [
        ("pооl_size", "it contains non-ASCII letters, some of which look like ASCII letters"),
        ("${KEY}", "variables are not replaced in keys"),
    ],
)
def test_a_key_that_only_looks_right_is_explained(written, note):
    assert unknown_key((written,), PLACE, DatabaseSettings.model_fields).notes == (note,)


def test_an_address_as_a_key_is_not_repeated():
    problem = unknown_key(("databases", "a", "postgresql://u:hunter@h"), PLACE, DatabaseSettings.model_fields)
    assert problem.message == "unknown key ***"
    assert problem.key == "databases.a.***"


@pytest.mark.parametrize(
    ("key", "stands"), [("driver", True), ("urll", True), ("DATABASE_URL", True), ("user", False), ("x", False)]
)
def test_a_key_that_stands_for_the_address_explains_why_it_is_missing(key, stands):
    assert stands_for_address(key) is stands

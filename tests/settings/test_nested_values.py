"""What stands inside the nested mappings, checked when the profile is loaded."""

from inspect import signature
from operator import attrgetter

import pytest
from sqlalchemy import URL
from sqlalchemy.util import get_cls_kwargs

from dbconfig import ConfigError, Profile
from dbconfig.settings import nested_values
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import unknown_argument

POSTGRESQL, MYSQL, SQLITE = "postgresql://u@h/d", "mysql://u@h/d", "sqlite:///a.db"


@pytest.mark.parametrize(
    ("url", "key", "name", "value", "slug", "message"),
    [
        (POSTGRESQL, "execution_options", "yield_pr", 5, "unknown-key", "is not an execution option"),
        (POSTGRESQL, "execution_options", "yield_per", "many", "wrong-type", "must be a whole number greater than 0"),
        (POSTGRESQL, "execution_options", "yield_per", True, "wrong-type", "must be a whole number greater than 0"),
        (POSTGRESQL, "execution_options", "stream_results", "yes", "wrong-type", "must be true or false"),
        (POSTGRESQL, "execution_options", "logging_token", 5, "wrong-type", "must be text"),
        (POSTGRESQL, "execution_options", "schema_translate_map", "x", "wrong-type", "must be a mapping of names"),
        (POSTGRESQL, "execution_options", "schema_translate_map", {"a": 1}, "wrong-type", "must be a mapping of names"),
        (
            POSTGRESQL,
            "execution_options",
            "isolation_level",
            "serialisable",
            "invalid-value",
            "must be one of AUTOCOMMIT",
        ),
        (
            SQLITE,
            "execution_options",
            "isolation_level",
            "READ COMMITTED",
            "invalid-value",
            "must be one of AUTOCOMMIT",
        ),
        (POSTGRESQL, "execution_options", "compiled_cache", {"a": 1}, "not-applicable", "is code"),
        (MYSQL, "execution_options", "postgresql_readonly", True, "not-applicable", "has no effect on mysql"),
        (POSTGRESQL, "dialect_options", "use_native_hstor", True, "unknown-key", "did you mean 'use_native_hstore'"),
        (MYSQL, "dialect_options", "server_side_cursor", True, "unknown-key", "did you mean 'server_side_cursors'"),
        (SQLITE, "dialect_options", "native_datetimes", True, "unknown-key", "did you mean 'native_datetime'"),
        (MYSQL, "dialect_options", "use_native_hstore", True, "unknown-key", "not an argument of mysql's dialects"),
        (SQLITE, "dialect_options", "executemany_mode", "values_only", "unknown-key", "not an argument of sqlite's"),
        (POSTGRESQL, "dialect_options", "is_mariadb", True, "unknown-key", "not an argument of postgresql's dialects"),
        (POSTGRESQL, "dialect_options", "use_native_hstore", "false", "wrong-type", "must be true or false"),
        (POSTGRESQL, "dialect_options", "executemany_mode", "batch", "wrong-type", "must be values_only or"),
        (POSTGRESQL, "dialect_options", "executemany_batch_page_size", 0, "wrong-type", "must be a whole number"),
        (POSTGRESQL, "dialect_options", "json_serializer", "orjson.dumps", "not-applicable", "is code"),
        (POSTGRESQL, "dialect_options", "isolation_level", "SERIALIZABLE", "given-twice", "is a key of its own"),
        (POSTGRESQL, "connect_args", "cursor_factory", "RealDictCursor", "not-applicable", "is code"),
        (MYSQL, "connect_args", "cursorclass", "DictCursor", "not-applicable", "is code"),
        (SQLITE, "connect_args", "factory", "x", "not-applicable", "is code"),
        (POSTGRESQL, "connect_args", "keepalives", True, "wrong-type", "must be a number"),
        (POSTGRESQL, "connect_args", "application_name", True, "wrong-type", "must be text or a number"),
        (POSTGRESQL, "connect_args", "sslcompression", True, "wrong-type", "must be text or a number"),
        (POSTGRESQL, "connect_args", "options", ["-c x=1"], "wrong-type", "must be text or a number"),
        (POSTGRESQL, "connect_args", "server_settings", "jit=off", "wrong-type", "must be a mapping of names"),
        (MYSQL, "connect_args", "charset", 5, "wrong-type", "must be text"),
        (MYSQL, "connect_args", "autocommit", "no", "wrong-type", "must be true or false"),
        (SQLITE, "connect_args", "detect_types", "PARSE", "wrong-type", "must be a number"),
        (POSTGRESQL, "variables", "a; DROP TABLE t", 1, "invalid-value", "is not the name of a session variable"),
        (POSTGRESQL, "variables", "search_path", ["a", "b"], "wrong-type", "has one value, not a list"),
        (MYSQL, "variables", "sql_mode", {"a": 1}, "wrong-type", "has one value, not a mapping"),
    ],
)
def test_a_name_a_type_or_code_is_refused_at_its_place(url, key, name, value, slug, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Profile(name="p", url=url, **{key: {name: value}})
    assert [(problem.slug, problem.key) for problem in caught.value.problems] == [(slug, f"{key}.{name}")]


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        (
            POSTGRESQL,
            {"execution_options": {"yield_per": 100, "schema_translate_map": {"a": None}, "logging_token": "x"}},
        ),
        (POSTGRESQL, {"execution_options": {"isolation_level": "AUTOCOMMIT", "compiled_cache": None}}),
        (POSTGRESQL, {"connect_args": {"keepalives": 1, "options": "-c x=1", "ssl": True, "row_factory": None}}),
        (POSTGRESQL, {"connect_args": {"server_settings": {"jit": False}, "prepare_threshold": None}}),
        (MYSQL, {"connect_args": {"ssl": {"ca": "/ca.pem"}, "client_flag": 2, "init_command": None}}),
        (SQLITE, {"connect_args": {"factory": object}}),
        (SQLITE, {"connect_args": {"detect_types": 1, "check_same_thread": False}}),
        (POSTGRESQL, {"dialect_options": {"use_native_hstore": False, "executemany_mode": "values_only"}}),
        (POSTGRESQL, {"dialect_options": {"of_a_newer_version": 1, "compiler_linting": 0}}),
        (MYSQL, {"dialect_options": {"is_mariadb": True, "compiler_linting": 0}}),
        (POSTGRESQL, {"variables": {"app.tenant": 5, "jit": False, "search_path": "a, b"}}),
    ],
)
def test_what_is_right_is_taken(url, settings):
    Profile(name="p", url=url, **settings)


@pytest.mark.parametrize(
    ("parameters", "help"),
    [
        ("postgresql+asyncpg://u@h/d?ssl=true", "write the key `sslmode: require`"),
        ("postgresql://u@h/d?ssl=disable", "write the key `sslmode: disable`"),
        ("mysql://u@h/d?ssl-mode=REQUIRED", "write the key `sslmode: require`"),
        ("mysql://u@h/d?ssl_mode=VERIFY_IDENTITY", "write the key `sslmode: verify-full`, and `sslrootcert: system`"),
        ("mysql://u@h/d?sslmode=verify-ca", "write the key `sslmode: verify-ca`"),
        ("mysql://u@h/d?ssl=true", "write the key `sslmode: require`"),
        ("mysql://u@h/d?sslaccept=strict", "write the key `sslmode: verify-full`"),
        ("mysql://u@h/d?sslaccept=accept_invalid_certs", "write the key `sslmode: require`"),
        ("mysql+pymysql://u@h/d?ssl_disabled=true", "write the key `sslmode: disable`"),
        ("mysql+aiomysql://u@h/d?ssl_disabled=false", "write the key `sslmode: prefer`"),
        ("postgresql://u@h/d?pgbouncer=true", "write `pgbouncer: true`"),
        ("postgresql://u@h/d?schema=shop", "write `variables: {search_path: …}`"),
        ("postgresql://u@h/d?currentSchema=shop", "write `variables: {search_path: …}`"),
        ("mysql://u@h/d?connection_limit=5", "write it as `pool_size`"),
        ("mysql://u@h/d?serverTimezone=UTC", "write it into `variables`"),
        ("postgresql://u@h/d?connectTimeout=5", "write it as `connect_timeout`"),
        ("postgresql://u@h/d?pool_timeout=5", "write it as `pool_timeout`"),
    ],
)
def test_a_parameter_of_another_tool_names_the_key_that_means_the_same(parameters, help):
    for settings in ({"url": parameters}, {"url": parameters.partition("?")[0], "query": _query(parameters)}):
        with pytest.raises(ConfigError) as caught:
            Profile(name="p", **settings)
        (problem,) = caught.value.problems
        assert problem.slug == "unknown-key"
        assert problem.help.startswith(help)


def _query(url):
    return dict(pair.split("=") for pair in url.partition("?")[2].split("&"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h/d?sslmode=require&application_name=x&connect_timeout=5&channel_binding=require",
        "postgresql://u@h/d?options=endpoint%3Dx&target_session_attrs=any",
        "mysql://u@h/d?charset=utf8mb4&ssl_ca=/ca.pem&connect_timeout=5",
    ],
)
def test_a_parameter_of_the_driver_is_taken(url):
    Profile(name="p", url=url)


@pytest.mark.parametrize(
    ("url", "name", "words", "help"),
    [
        ("postgresql://h/d", "aplication_name", "of any postgresql driver", "did you mean 'application_name'?"),
        ("postgresql+psycopg2://h/d", "statement_cache_size", "of psycopg2", "asyncpg accepts it"),
        ("postgresql+psycopg://h/d", "keepalive", "of psycopg", "did you mean 'keepalives'?"),
        ("postgresql+asyncpg://h/d", "comand_timeout", "of asyncpg", "did you mean 'command_timeout'?"),
        ("mysql://h/d", "read_timout", "of any mysql driver", "did you mean 'read_timeout'?"),
        ("mariadb+pymysql://h/d", "zorg", "of pymysql", "engine_options"),
        ("mysql+asyncmy://h/d", "write_timeout", "of asyncmy", "`statement_timeout`"),
        ("mysql+aiomysql://h/d", "read_timeout", "of aiomysql", "`statement_timeout`"),
        ("sqlite:///a.db", "chek_same_thread", "of sqlite3", "did you mean 'check_same_thread'?"),
        ("sqlite+aiosqlite:///a.db", "charset", "of sqlite3", "engine_options"),
    ],
)
def test_an_argument_that_the_driver_does_not_take_is_named_at_its_place(project, url, name, words, help):
    with pytest.raises(ConfigError) as caught:
        project.load(f"url: {url}\nconnect_args:\n  {name}: 5\n")
    (problem,) = caught.value.problems
    assert (problem.slug, problem.key, problem.location.line) == ("unknown-key", f"connect_args.{name}", 3)
    assert words in problem.message
    assert help in problem.help


def test_the_tables_of_arguments_have_all_that_the_installed_drivers_take():
    """Else a profile that works would be refused."""

    def parameters(module, what):
        return set(signature(attrgetter(what)(pytest.importorskip(module))).parameters) - {"self"}

    libpq = {each.keyword.decode() for each in pytest.importorskip("psycopg").pq.Conninfo.get_defaults()}
    taken = {
        "postgresql+psycopg2": libpq,
        "postgresql+psycopg": libpq,
        "postgresql+asyncpg": parameters("asyncpg", "connect") - {"servicefile"},
        "mysql+pymysql": parameters("pymysql.connections", "Connection.__init__"),
        "mysql+asyncmy": parameters("asyncmy.connection", "Connection.__init__"),
        "mysql+aiomysql": parameters("aiomysql.connection", "Connection.__init__"),
        "mysql+mysqldb": {"anything"},  # it is written in C and does not say
    }
    for drivername, names in taken.items():
        system, _, driver = drivername.partition("+")
        assert [name for name in names if unknown_argument(name, system, driver)] == [], drivername
        assert [name for name in names - {"anything"} if unknown_argument(name, system, "")] == [], drivername


@pytest.mark.parametrize("drivername", ["postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql", "sqlite"])
def test_each_argument_of_a_dialect_is_known_or_a_key(drivername):
    """Or a right name could be taken for a misspelled one."""
    names = set(get_cls_kwargs(URL.create(drivername).get_dialect()))
    known = {*nested_values._DIALECT, *nested_values._DIALECT_OTHERS, *nested_values._CODE["dialect_options"]}
    known |= {"_json_serializer", "_json_deserializer"}  # of SQLAlchemy 2.0's SQLite, which warns of them
    assert names - known - DatabaseSettings.model_fields.keys() == set()

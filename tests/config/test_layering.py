"""What stands above what."""

import pytest

from tests.configs import told

SHARED = "url: postgresql://app:hunter@prod/shop?sslmode=require\n"


@pytest.mark.parametrize(
    ("default", "profile", "address"),
    [
        (SHARED, "echo: true", "postgresql://app:***@prod/shop?sslmode=require"),
        (SHARED, "host: other", "postgresql://app:***@other/shop?sslmode=require"),
        (SHARED, "url: postgresql://other/d", "postgresql://other/d"),
        (SHARED, "drivername: postgresql\nhost: other", "postgresql://other"),  # no password of production's reaches it
        (SHARED, "drivername: postgresql+psycopg", "postgresql+psycopg://app:***@prod/shop?sslmode=require"),
        (SHARED, "drivername: sqlite\ndatabase: a.db", "sqlite:///a.db"),
        (SHARED, "drivername: sqlite", "sqlite://"),
        (SHARED, "query: {sslmode: disable}", "postgresql://app:***@prod/shop?sslmode=disable"),
        ("drivername: postgresql\nhost: h\npassword: x", "url: postgresql://h2/d", "postgresql://h2/d"),
        ("username: app\npassword: x", "url: postgresql://h/d", "postgresql://app:***@h/d"),
        ("username: app\nport: 1", "url: postgresql://me@h:2/d", "postgresql://me@h:2/d"),
        (
            "query: {sslmode: require, service: b}",
            "url: postgresql://h/d?sslmode=disable",
            "postgresql://h/d?sslmode=disable&service=b",
        ),
    ],
)
def test_a_profile_wins_over_what_all_share_and_never_mixes_two_connections(project, default, profile, address):
    settings = project.settings({"default.yaml": default, "development.yaml": profile})
    assert str(settings.address) == address


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"DBCONFIG_HOST": "other", "DBCONFIG_PASSWORD": "x"}, "postgresql://app:***@other/shop?sslmode=require"),
        ({"DBCONFIG_URL": "postgresql://h/d"}, "postgresql://h/d"),
        ({"DBCONFIG_URL": "postgresql://h/d", "DBCONFIG_PORT": "1"}, "postgresql://h:1/d"),
        (
            {"DBCONFIG_DRIVERNAME": "postgresql+psycopg", "DBCONFIG_HOST": "h"},
            "postgresql+psycopg://app:***@h/shop?sslmode=require",
        ),
        ({"DBCONFIG_DRIVERNAME": "sqlite"}, "sqlite://"),
        ({"DBCONFIG_QUERY__SSLMODE": "disable"}, "postgresql://app:***@prod/shop?sslmode=disable"),
    ],
)
def test_a_variable_wins_over_the_files(project, environ, address):
    assert str(project.settings(SHARED, environ).address) == address


def test_a_variable_reaches_into_mappings_and_databases_as_the_files_spell_them(project):
    text = (
        "url: postgresql://h/d\nconnect_args: {server_settings: {Rest: 1}}\n"
        "databases:\n  Reports: {url: postgresql://h/r, echo: true}\n"
    )
    environ = {
        "DBCONFIG_DATABASES__REPORTS__ECHO": "false",
        "DBCONFIG_DATABASES__NEW__URL": "sqlite:///new.db",
        "DBCONFIG_CONNECT_ARGS__KEEPALIVES": "0",
        "DBCONFIG_CONNECT_ARGS__SERVER_SETTINGS__REST": "2",
        "DBCONFIG_PASSWORD__FILE": "/run/secrets/db",
        "DBCONFIGURATION": "is somebody else's",
        "DBCONFIG_": "names nothing",
    }
    profile = project.load(text, environ)
    assert profile.databases["default"].connect_args == {"server_settings": {"Rest": 2}, "keepalives": 0}
    assert profile.databases["default"].model_dump()["password"] == {"file": "/run/secrets/db"}
    assert profile.databases["Reports"].echo is False
    assert profile.databases["new"].path.name == "new.db"


@pytest.mark.parametrize(
    ("environ", "expected", "help"),
    [
        ({"DBCONFIG_POOL_SISE": "5"}, ("unknown-key", "pool_sise"), "did you mean DBCONFIG_POOL_SIZE?"),
        ({"DBCONFIG_POOL__SIZE": "5"}, ("unknown-key", "pool"), "did you mean DBCONFIG_POOL_SIZE?"),
        ({"DBCONFIG_USER": "me"}, ("unknown-key", "user"), "did you mean DBCONFIG_USERNAME?"),
        ({"DBCONFIG_DATABASES__A__POOL_SISE": "5"}, ("unknown-key", "databases.a.pool_sise"),
         "did you mean DBCONFIG_DATABASES__A__POOL_SIZE?"),
        ({"DBCONFIG_POOL_SIZE": ""}, ("empty-variable", "pool_size"), "unset it, or give it a value"),
        ({"DBCONFIG_PASSWORD": ""}, ("empty-variable", "password"), "unset it, or give it a value"),
        ({"DBCONFIG_POOL_SIZE": "many"}, ("wrong-type", "pool_size"), "write it in digits, without a unit"),
        ({"DBCONFIG_PORT": "70000"}, ("out-of-range", "port"), ""),
        ({"DBCONFIG_CONNECT_ARGS": '{"sslmode": "require"}'}, ("wrong-type", "connect_args"),
         "each name has a variable of its own, with two underscores before it: …__NAME=value"),
        ({"DBCONFIG_DATABASES": "{}"}, ("wrong-type", "databases"), "write DBCONFIG_DATABASES__NAME__URL"),
        ({"DBCONFIG_DATABASES__B__ECHO": "true"}, ("unknown-database", "databases.b"),
         "DBCONFIG_DATABASES__B__URL gives it one"),
        ({"DBCONFIG_DATABASES__ANALYTIC__ECHO": "true"}, ("unknown-database", "databases.analytic"),
         "did you mean 'analytics'?"),
        ({"DBCONFIG_DATABASES__": "x"}, ("unknown-key", "databases."),
         "two underscores enter a mapping, as in DBCONFIG_CONNECT_ARGS__NAME"),
        ({"DBCONFIG_EXTENDS": "x"}, ("unknown-key", "extends"), "`extends` is allowed in files only"),
    ],
)  # fmt: skip
def test_a_variable_that_is_wrong_is_told_by_its_name(project, environ, expected, help):
    text = "url: postgresql://h/d\ndatabases:\n  a: {url: 'sqlite:///a.db'}\n  analytics: {url: 'sqlite:///b.db'}\n"
    problem = project.problem(text, environ)
    assert (problem.slug, problem.key) == expected
    assert str(problem.location) == f"{next(iter(environ))}, environment"
    assert problem.help == help


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"DBCONFIG_POOL_SIZE": "1", "DBCONFIG_pool_size": "2"},
            "DBCONFIG_pool_size and DBCONFIG_POOL_SIZE set the same key",
        ),
        (
            {"DBCONFIG_PASSWORD": "a", "DBCONFIG_PASSWORD__FILE": "b"},
            "DBCONFIG_PASSWORD__FILE and DBCONFIG_PASSWORD set the same key",
        ),
    ],
)
def test_two_variables_that_say_the_same_thing_are_told(project, environ, message):
    problem = project.problem("url: postgresql://h/d\n", environ)
    assert (problem.slug, problem.message) == ("given-twice", message)


def test_null_takes_back_what_a_lower_layer_says(project):
    files = {
        "default.yaml": "statement_timeout: 5s\nconnect_args: {a: 1}\ndatabases:\n  a: {url: 'sqlite://'}\n  b: {url: 'sqlite://'}\n",
        "development.yaml": "url: sqlite:///a.db\nstatement_timeout: null\nconnect_args: null\ndatabases: {a: ~}\n",
    }
    profile = project.load(files)
    assert list(profile.databases) == ["default", "b"]
    assert (profile.databases["default"].statement_timeout, profile.databases["default"].connect_args) == (None, {})


def test_null_with_nothing_to_take_back_was_forgotten(project):
    error = project.refuse("url: sqlite://\npool_size:\ndatabases: {a: {url: }}\n")
    assert told(error) == [
        ("empty-value", "config/development.yaml:2:1", "pool_size"),
        ("empty-value", "config/development.yaml:3:17", "databases.a.url"),
    ]


@pytest.mark.parametrize("null", ["~", "null", "NULL"])
@pytest.mark.parametrize("key", ["connect_args", "dialect_options", "execution_options"])
def test_a_null_that_is_written_among_arguments_is_none_also_over_a_lower_layer(project, key, null):
    name = {"execution_options": "schema_translate_map"}.get(key, "prepare_threshold")
    text = f"url: postgresql://h/d\n{key}: {{{name}: {null}}}\ndatabases: {{a: {{url: 'mysql://h/d'}}}}\n"
    assert getattr(project.settings(text), key) == {name: None}
    assert getattr(project.settings({"default.yaml": f"{key}: {{{name}: 5}}\n", "development.yaml": text}), key) == {
        name: None
    }
    environ = {f"DBCONFIG_{key}__{name}".upper(): null}
    assert getattr(project.settings(f"url: postgresql://h/d\n{key}: {{{name}: 5}}\n", environ), key) == {name: None}


def test_a_name_with_nothing_behind_it_was_forgotten_among_arguments_too(project):
    files = {
        "default.yaml": "connect_args: {prepare_threshold: 5}\n",
        "development.yaml": "url: postgresql://h/d\nconnect_args:\n  prepare_threshold:\n  other: {deep: }\n"
        "replicas:\n  - host: db2\n    connect_args: {here: }\n",
    }
    assert told(project.refuse(files)) == [
        ("empty-value", "config/development.yaml:3:3", "connect_args.prepare_threshold"),
        ("empty-value", "config/development.yaml:4:11", "connect_args.other.deep"),
        ("empty-value", "config/development.yaml:7:20", "replicas.0.connect_args.here"),
    ]


def test_null_is_a_value_of_one_key(project):
    assert project.settings("url: sqlite://\npool_reset_on_return: null\n").pool_reset_on_return is None


def test_one_secret_replaces_another_whole(project):
    files = {"default.yaml": "password: {file: a}\n", "development.yaml": "url: mysql://h/d\npassword: {env: B}\n"}
    assert project.settings(files).model_dump()["password"] == {"env": "B"}


def test_a_named_database_never_mixes_two_connections_either(project):
    lower = f"{SHARED}databases:\n  reports: {{url: 'postgresql://app:hunter@prod/reports', echo: true}}\n"
    upper = "databases:\n  reports: {drivername: postgresql, host: other}\n"
    profile = project.load({"default.yaml": lower, "development.yaml": upper})
    reports = profile.databases["reports"]
    assert (str(reports.address), reports.echo) == ("postgresql://other", True)
    upper = "databases:\n  reports: {host: other}\n"
    profile = project.load({"default.yaml": lower, "development.yaml": upper})
    assert str(profile.databases["reports"].address) == "postgresql://app:***@other/reports"


def test_a_mapping_that_is_no_database_keeps_what_it_has(project):
    lower = f"{SHARED}variables: {{url: a, host: b}}\n"
    settings = project.settings({"default.yaml": lower, "development.yaml": "variables: {url: c}"})
    assert settings.variables == {"url": "c", "host": "b"}

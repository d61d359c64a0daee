"""Which settings can act together."""

import pytest

POSTGRESQL, MYSQL, FILE, MEMORY = (
    "url: postgresql://u@h/d",
    "url: mysql://u@h/d",
    "url: sqlite:///a.db",
    "url: sqlite://",
)


@pytest.mark.parametrize(
    ("text", "slug", "message", "key"),
    [
        ("pool_size: 5", "missing-value", "no database: set `url` or `drivername`", ""),
        (f"{POSTGRESQL}\nhost: other", "given-twice", "`host` is given both by `url` and by `host`", "host"),
        (
            f"{POSTGRESQL}?service=b\nquery: {{service: c}}",
            "given-twice",
            "'service' is given both by `url` and by `query`",
            "query.service",
        ),
        (f"{POSTGRESQL}\npoolclass: NullPool\npool_size: 5", "not-applicable",
         "`pool_size` has no effect with `poolclass: NullPool`", "pool_size"),
        (f"{FILE}\npoolclass: StaticPool\nmax_overflow: 5", "not-applicable",
         "`max_overflow` has no effect with `poolclass: StaticPool`", "max_overflow"),
        (f"{FILE}\npoolclass: SingletonThreadPool\npool_timeout: 5", "not-applicable",
         "`pool_timeout` has no effect with `poolclass: SingletonThreadPool`", "pool_timeout"),
        (f"{MEMORY}\npool_size: 5", "not-applicable", "`pool_size` has no effect here: an in-memory SQLite database "
         "lives as long as its engine, whatever the pool", "pool_size"),
        (f"{FILE}\nusername: me", "not-applicable", "`username` has no effect on SQLite: it is a file", "username"),
        (f"{FILE}\nconnect_timeout: 5s", "not-applicable",
         "`connect_timeout` has no effect on SQLite: it does not connect to a server", "connect_timeout"),
        (f"{FILE}\nidle_in_transaction_timeout: 5s", "not-applicable", "`idle_in_transaction_timeout` has no effect on "
         "SQLite: nothing ends an idle SQLite transaction", "idle_in_transaction_timeout"),
        ("url: sqlite:///~/a.db", "invalid-value", "`~` is not expanded in the path of a database", "url"),
        ("drivername: sqlite\ndatabase: ~/a.db", "invalid-value", "`~` is not expanded in the path of a database",
         "database"),
        (f"{FILE}\nisolation_level: read committed", "invalid-value",
         "`isolation_level` must be one of AUTOCOMMIT, READ UNCOMMITTED, SERIALIZABLE on sqlite", "isolation_level"),
        ("url: postgresql://u@/d?host=a,b,c&port=1,2", "invalid-value", "url: it names 2 ports for 3 hosts",
         "url"),
        ("url: mysql://u@/d?host=a,b,c&port=1,2", "invalid-value", "url: it names 2 ports for 3 hosts",
         "url"),
        (f"{POSTGRESQL}?port=1,2", "invalid-value", "url: it names 2 ports for 1 host", "url"),
        ("url: postgresql://u@/d?host=a:1,b:two", "invalid-value",
         "'two' is not a port between 1 and 65535", "url"),
        ("url: postgresql://u@/d?host=a:1&host=b:99999", "invalid-value",
         "'99999' is not a port between 1 and 65535", "url"),
        ("url: postgresql://u@/d\nquery: {host: 'a,b', port: 'x'}", "invalid-value",
         "'x' is not a port between 1 and 65535", "query.port"),
        (f"{POSTGRESQL}\npool_recycle: 0", "out-of-range", "`pool_recycle` must be greater than 0, or -1 for never",
         "pool_recycle"),
        (f"{POSTGRESQL}\nconnect_args: {{dbname: x}}", "given-twice",
         "'dbname' in connect_args would override what `url` and its parts say", "connect_args.dbname"),
        (f"{POSTGRESQL}\nconnect_args: {{keepalives: often}}", "wrong-type",
         "'keepalives' in connect_args must be a number", "connect_args.keepalives"),
        (f"{MYSQL}\nconnect_args: {{ssl_disabled: 'false'}}", "wrong-type",
         "'ssl_disabled' in connect_args must be true or false, without quotes", "connect_args.ssl_disabled"),
        (f"{POSTGRESQL}\nconnect_timeout: 3\nconnect_args: {{connect_timeout: 3}}", "given-twice",
         "`connect_timeout` is given twice: as a key and in connect_args", "connect_args.connect_timeout"),
        (f"{POSTGRESQL}\nconnect_args: {{connect_timeout: ~}}", "wrong-type",
         "'connect_timeout' in connect_args must be a number", "connect_args.connect_timeout"),
        (f"{FILE}\nlock_timeout: 3\nconnect_args: {{timeout: 3}}", "given-twice",
         "`lock_timeout` is given twice: as a key and as 'timeout' in connect_args", "connect_args.timeout"),
        (f"{POSTGRESQL}\nstatement_timeout: 5s\nvariables: {{statement_timeout: 5}}", "given-twice",
         "`statement_timeout` is given twice: as a key and by the variable 'statement_timeout'",
         "variables.statement_timeout"),
        (f"{MYSQL}\nlock_timeout: 5s\nvariables: {{innodb_lock_wait_timeout: 5}}", "given-twice",
         "`lock_timeout` is given twice: as a key and by the variable 'innodb_lock_wait_timeout'",
         "variables.innodb_lock_wait_timeout"),
        (f"{FILE}\nlock_timeout: 5s\nvariables: {{busy_timeout: 5}}", "given-twice",
         "`lock_timeout` is given twice: as a key and by the variable 'busy_timeout'", "variables.busy_timeout"),
        (f"{POSTGRESQL}\nexecution_options: {{stream_result: true}}", "unknown-key",
         "'stream_result' is not an execution option of SQLAlchemy", "execution_options.stream_result"),
        (f"{POSTGRESQL}\nparamstyle: qmark", "not-applicable",
         "`paramstyle: qmark` has no effect here: postgresql takes format, pyformat, numeric_dollar", "paramstyle"),
        ("url: postgresql+asyncpg://u@h/d\nparamstyle: format", "not-applicable",
         "`paramstyle: format` has no effect here: asyncpg takes numeric_dollar", "paramstyle"),
        (f"{MYSQL}\nparamstyle: named", "not-applicable",
         "`paramstyle: named` has no effect here: mysql takes format, pyformat", "paramstyle"),
        (f"{FILE}\nparamstyle: numeric_dollar", "not-applicable",
         "`paramstyle: numeric_dollar` has no effect here: sqlite takes qmark, named", "paramstyle"),
    ],
)  # fmt: skip
def test_settings_that_cannot_act_together_are_refused(project, text, slug, message, key):
    problem = project.problem(text + "\n")
    assert (problem.slug, problem.message, problem.key) == (slug, message, key)


@pytest.mark.parametrize(
    "text",
    [
        f"{POSTGRESQL}\npassword: x\nport: 5433",
        f"{POSTGRESQL}\nvariables: {{statement_timeout: 5, search_path: x}}",
        f"{FILE}\nvariables: {{statement_timeout: 5}}\nstatement_timeout: 5s",  # SQLite has no such variable
        f"{FILE}\npool_size: 3\npool_recycle: -1",
        f"{MEMORY}\npoolclass: StaticPool\npool_recycle: 5m",
        f"{FILE}\npoolclass: SingletonThreadPool\npool_size: 3",
        f"{POSTGRESQL}\nparamstyle: numeric_dollar",  # asyncpg's, if that is the driver
        f"{MYSQL}\nconnect_args: {{ssl_disabled: true, read_timeout: '5'}}",
        f"{MYSQL}\nconnect_args: {{autocommit: ~, read_timeout: ~}}",
        f"{POSTGRESQL}\nexecution_options: {{logging_token: main}}",
    ],
)
def test_settings_that_act_together_are_taken(project, text):
    assert project.settings(text + "\n").url is not None


def test_the_name_of_a_logging_token_reaches_the_engine_as_text(project):
    options = project.settings(f"{FILE}\nexecution_options: {{logging_token: main}}\n").execution_options
    assert options == {"logging_token": "main"}


@pytest.mark.parametrize(
    ("files", "dropped"),
    [
        (
            {"default.yaml": "pool_size: 5\nconnect_timeout: 3s\n", "development.yaml": MEMORY},
            {"pool_size", "connect_timeout"},
        ),
        ({"default.yaml": "pool_size: 5\n", "development.yaml": f"{POSTGRESQL}\npoolclass: NullPool"}, {"pool_size"}),
        ({"default.yaml": "paramstyle: named\n", "development.yaml": POSTGRESQL}, {"paramstyle"}),
        ({"default.yaml": "username: u\npassword: p\n", "development.yaml": FILE}, {"username", "password"}),
        (
            {"production.yaml": f"{POSTGRESQL}\npool_size: 5\n", "development.yaml": f"extends: production\n{MEMORY}"},
            {"pool_size"},
        ),
    ],
)
def test_what_a_lower_layer_says_for_others_need_not_fit(project, files, dropped):
    assert not dropped & project.settings(files).model_fields_set


def test_a_profiles_options_need_not_fit_each_of_its_named_databases(project):
    text = f"{POSTGRESQL}\npool_size: 5\nconnect_timeout: 3s\ndatabases:\n  memory: {{url: 'sqlite://'}}\n"
    assert not {"pool_size", "connect_timeout"} & project.settings(text, database="memory").model_fields_set


@pytest.mark.parametrize(
    ("files", "environ", "place"),
    [
        (
            {"default.yaml": f"{MEMORY}\npool_size: 5\n", "development.yaml": "echo: true\n"},
            {},
            "config/default.yaml:2:1",
        ),
        ({"default.yaml": f"{MEMORY}\n", "development.yaml": "pool_size: 5\n"}, {}, "config/development.yaml:1:1"),
        (
            {"default.yaml": "poolclass: NullPool\npool_size: 5\n", "development.yaml": POSTGRESQL},
            {},
            "config/default.yaml:2:1",
        ),
        (MEMORY, {"DBCONFIG_POOL_SIZE": "5"}, "DBCONFIG_POOL_SIZE, environment"),
        (f"{POSTGRESQL}\ndatabases:\n  m: {{url: 'sqlite://', pool_size: 5}}\n", {}, "config/development.yaml:3:25"),
    ],
)
def test_what_the_same_or_a_higher_layer_says_must_fit(project, files, environ, place):
    problem = project.problem(files, environ)
    assert (problem.slug, str(problem.location)) == ("not-applicable", place)

"""Wrong configurations: each is reported in full, at its place, with help, and without a secret."""

import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dbconfig import ConfigError, DatabaseSettings, Registry, load
from dbconfig.errors.catalogue import CATALOGUE
from tests.configs import Project, told

SECRET = "hunter2-PLANTED"
LITE = "url: sqlite:///a.db\n"
PG = "url: postgresql://app@db/shop\n"


@dataclass(frozen=True)
class Case:
    """A configuration, what is reported, and the words that a person needs to read."""

    files: str | bytes | Mapping[str, str | bytes]
    expected: list[tuple[str, str, str]]
    words: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


def one(files, slug, place, key="", *words, **environ) -> Case:
    """Return a case with one problem in config/development.yaml; `place` is "line:column"."""
    where = f"config/development.yaml{':' if place else ''}{place}"
    return Case(files, [(slug, where, key)], words, environ)


def elsewhere(files, slug, place, key="", *words, **environ) -> Case:
    return Case(files, [(slug, place, key)], words, environ)


BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]\n" for i in range(12))

CASES = {
    # the file
    "tab": one(f"{LITE}connect_args:\n\ttimeout: 3\n", "yaml-syntax", "3:1", "", "a tab cannot indent YAML", "spaces"),
    "no colon": one(f"{LITE}pool_size 4\necho: true\n", "yaml-syntax", "2:1", "", "needs a colon", "`key: value`"),
    "open quote": one(f"{PG}password: '{SECRET}\necho: true\n", "yaml-syntax", "2:11", "", "never closed"),
    "open bracket": one(f"{PG}password: [{SECRET}\necho: true\n", "yaml-syntax", "2:11", "", "not closed"),
    "bare at sign": one(f"{PG}password: @{SECRET}\n", "yaml-syntax", "2:11", "", "put the value in quotes"),
    "bare percent": one(f"{PG}password: %{SECRET}\n", "yaml-syntax", "2:11", "", "put the value in quotes"),
    "bare asterisk": one(f"{PG}password: *{SECRET}\n", "yaml-syntax", "2:11", "", "in quotes"),
    "bare exclamation mark": one(f"{PG}password: !{SECRET}\n", "yaml-tag", "2:11", "password", "in quotes"),
    "bare braces": one(f"{PG}password: {{{SECRET}}}\n", "invalid-value", "2:12", "password", "put it in quotes"),
    "bare memory": one("url: sqlite:///:memory:\n", "yaml-syntax", "1:23", "", "put the value in quotes"),
    "two documents": one(f"{LITE}---\n{LITE}", "yaml-syntax", "2:1", "", "a second document"),
    "a list": one(f"- {LITE}", "wrong-type", "1:1", "", "must be a mapping", "not a list"),
    "empty": one("", "missing-value", "", "", "the file is empty", "write at least `url:`"),
    "comments only": one("# url: sqlite://\n", "missing-value", "", "", "the file is empty"),
    "latin-1": one("url: sqlite:///ü.db\n".encode("latin-1"), "yaml-syntax", "1", "", "UTF-8"),
    "utf-16": one(LITE.encode("utf-16"), "yaml-syntax", "", "", "UTF-16", "save the file as UTF-8"),
    "control character": one(f"{LITE}host: a\x07b\n", "yaml-syntax", "2:8", "", "control character #x0007"),
    "python object": one(f"{LITE}connect_args: !!python/object/apply:os.system ['touch /tmp/x']\n", "yaml-tag", "2:15",
                         "connect_args", "YAML is data here"),
    "python name": one(f"{LITE}poolclass: !!python/name:os.system\n", "yaml-tag", "2:12", "poolclass", "YAML is data"),
    "include": one(f"{LITE}databases: !include other.yaml\n", "yaml-tag", "2:12", "databases", "'!include'"),
    "alias bomb": one(BOMB, "alias-bomb", "5:35", "", "an alias bomb"),
    "alias of itself": one(f"{LITE}databases: &d {{a: *d}}\n", "yaml-syntax", "2:19", "", "inside its own anchor"),
    "anchor for a password": one(f"{PG}password: &abc def\n", "invalid-value", "2:11", "password",
                                 "`&` begins an anchor that is not used", "in quotes"),
    "default as a parent": one(f"{LITE}extends: default\n", "unknown-profile", "2:1", "extends",
                               "remove it: every profile builds on default.yaml"),
    "a near level": one(f"{PG}isolation_level: serialisable\n", "invalid-value", "2:1", "isolation_level",
                        "did you mean 'SERIALIZABLE'?"),
    "a near level of statements": one(f"{PG}execution_options: {{isolation_level: REPEATABLE REED}}\n", "invalid-value",
                                       "2:21", "execution_options.isolation_level", "mean 'REPEATABLE READ'?"),
    "too deep": one(LITE + "connect_args: " + "[" * 60 + "]" * 60, "too-large", "2:47", "", "more than 32 levels"),
    "too large": one(b"#" * 300_000, "too-large", "", "", "larger than 256 KiB", "is the right file"),
    # keys
    "near miss": one(f"{LITE}pool_sise: 5\n", "unknown-key", "2:1", "pool_sise", "did you mean 'pool_size'?"),
    "windows line ends": one(f"{LITE}pool_sise: 5\n".replace("\n", "\r\n"), "unknown-key", "2:1", "pool_sise"),
    "byte order mark": one(f"\ufeff{LITE}pool_sise: 5\n", "unknown-key", "2:1", "pool_sise", "'pool_size'"),
    "key twice": one(f"{LITE}echo: true\npool_size: 3\necho: false\n", "duplicate-key", "4:1", "echo",
                     "also on line 2"),
    "key twice inside": one(f"{LITE}databases:\n  a:\n    url: sqlite://\n    url: y\n", "duplicate-key", "5:5",
                            "databases.a.url"),
    "database twice": one(f"{LITE}databases:\n  a: {{url: 'sqlite://'}}\n  a: {{url: 'sqlite://'}}\n",
                          "duplicate-key", "4:3",
                          "databases.a", "also on line 3"),
    "number as a key": one(f"{LITE}databases: {{1: {{url: 'sqlite://'}}}}\n", "wrong-type", "2:13", "", "must be text"),
    "no value": one(f"{LITE}pool_size:\n", "empty-value", "2:1", "pool_size", "give it a value, or remove the line"),
    "profile as a group": one("development:\n  url: sqlite://\n", "unknown-key", "1:1", "development", "do not indent"),
    "database as a group": one(f"database:\n  {LITE}", "wrong-type", "1:1", "database", "go to the top of the file"),
    "cyrillic letter": one(f"{LITE}pооl_size: 3\n", "unknown-key", "2:1", "pооl_size", "non-ASCII"),
    "url as a key": one(f"{LITE}'postgresql://app:{SECRET}@db/shop': 1\n", "unknown-key", "2:1", "***"),
    # values
    "word for a number": one(f"{LITE}pool_size: five\n", "wrong-type", "2:1", "pool_size", "a whole number, not text"),
    "list for a number": one(f"{LITE}pool_size: [5]\n", "wrong-type", "2:1", "pool_size", "not a list"),
    "octal": one(f"{LITE}pool_size: 010\n", "ambiguous-value", "2:1", "pool_size", "an octal number", "in digits"),
    "below": one(f"{LITE}pool_size: -3\n", "out-of-range", "2:1", "pool_size", "must be at least 0"),
    "above": one(f"{PG}port: 70000\n", "out-of-range", "2:1", "port", "must be at most 65535"),
    "zero": one(f"{PG}connect_timeout: 0\n", "out-of-range", "2:1", "connect_timeout", "must be greater than 0"),
    "infinity": one(f"{LITE}pool_timeout: .inf\n", "wrong-type", "2:1", "pool_timeout", "a finite number"),
    "unit": one(f"{LITE}pool_timeout: 5 minutes\n", "wrong-type", "2:1", "pool_timeout", "500ms, 5s, 30m, 1h"),
    "neither true nor false": one(f"{LITE}pool_pre_ping: maybe\n", "wrong-type", "2:1", "pool_pre_ping",
                                  "true or false"),
    "number as password": one(f"{PG}password: 12345678\n", "wrong-type", "2:1", "password", "put it in quotes"),
    "date as text": one(f"{LITE}logging_name: 2024-01-01\n", "ambiguous-value", "2:1", "logging_name", "a date"),
    "norway": one("drivername: postgresql\nhost: no\n", "ambiguous-value", "2:1", "host", "a boolean", "quotes"),
    "pool class": one(f"{LITE}poolclass: NullPol\n", "invalid-value", "2:1", "poolclass", "did you mean 'NullPool'?"),
    "port in the host": one("drivername: mysql\nhost: db:3306\n", "invalid-value", "2:1", "host", "`port`"),
    # addresses
    "nothing": one("pool_size: 5\n", "missing-value", "", "", "set `url` or `drivername`", "sqlite:///data/app.db"),
    "raw at sign": one(f"url: postgresql://app:{SECRET}@x@db/shop\n", "invalid-url", "1:1", "url", "percent-encode"),
    "raw hash": one(f"url: 'postgresql://app:{SECRET}#@db/shop'\n", "invalid-url", "1:1", "url", "percent-encode"),
    "raw percent": one(f"url: postgresql://app:{SECRET}%@db/shop\n", "invalid-url", "1:1", "url", "percent-encode"),
    "no host": one(f"url: postgresql://app:{SECRET}/shop\n", "invalid-url", "1:1", "url", "not `host:port`"),
    "port of a url": one(f"url: postgresql://app:{SECRET}@db:0/shop\n", "out-of-range", "1:1", "url", "65535"),
    "other system": one(f"url: sybase+pyodbc://app:{SECRET}@db/shop\n", "unknown-dialect", "1:1", "url", "'sybase'"),
    "misspelt system": one(f"url: postgress://app:{SECRET}@db/shop\n", "unknown-dialect", "1:1", "url", "'postgresql'"),
    "password in the query": one(f"{PG[:-1]}?password={SECRET}\n", "invalid-url", "1:1", "url", "a key of its own"),
    "console command": one(f"url: psql 'postgresql://app:{SECRET}@db/shop'\n", "invalid-url", "1:1", "url",
                           "a command"),
    "keywords": one(f"url: host=db user=app password={SECRET}\n", "invalid-url", "1:1", "url", "a list of keywords"),
    "placeholder": one("url: postgresql://app:[YOUR-PASSWORD]@db/shop\n", "invalid-url", "1:1", "url", "a placeholder"),
    "url and host": one(f"{PG}host: other\n", "given-twice", "2:1", "host", "remove one of the two"),
    "url and password": one(f"url: postgresql://app:{SECRET}@db/shop\npassword: {SECRET}\n", "given-twice", "2:1",
                            "password"),
    "url as a driver": one(f"drivername: postgresql://app:{SECRET}@db\n", "invalid-value", "1:1", "drivername",
                           "`url:`"),
    "url as a host": one(f"drivername: mysql\nhost: mysql://app:{SECRET}@db\n", "invalid-value", "2:1", "host",
                         "`url:`"),
    "two slashes": one("url: sqlite://a.db\n", "invalid-url", "1:1", "url", "three slashes"),
    "home": one("url: sqlite:///~/a.db\n", "invalid-value", "1:1", "url", "`~` is not expanded"),
    "identity again": one(f"{PG}connect_args: {{password: {SECRET}}}\n", "given-twice", "2:16",
                          "connect_args.password"),
    # without effect
    "memory and a pool": one("url: sqlite://\npool_size: 5\n", "not-applicable", "2:1", "pool_size", "in-memory",
                             "remove it"),
    "no pool and its size": one(f"{PG}poolclass: NullPool\npool_size: 5\n", "not-applicable", "3:1", "pool_size",
                                "NullPool"),
    "file and a user": one(f"{LITE}username: app\n", "not-applicable", "2:1", "username", "it is a file"),
    "timeout twice": one(f"{PG}lock_timeout: 5s\nvariables: {{lock_timeout: 5}}\n", "given-twice", "3:13",
                         "variables.lock_timeout", "remove one of the two"),
    # variables
    "unset": one("url: ${DATABASE_URL}\n", "unset-variable", "1:1", "url", "DATABASE_URL is not set",
                 "${DATABASE_URL:-…}"),
    "required": one("url: ${DATABASE_URL:?ask the team}\n", "unset-variable", "1:1", "url", "ask the team",
                    "set DATABASE_URL"),
    "set, but empty": one("url: ${DATABASE_URL}\n", "empty-variable", "1:1", "url", "is empty", DATABASE_URL=""),
    "dollar": one(f"{PG}password: pa$word\n", "bad-reference", "2:1", "password", "$$ for a dollar sign"),
    "not closed": one(f"{PG}password: '${{PW'\n", "bad-reference", "2:1", "password", "its `}` is missing"),
    "wrong text in a variable": one(f"{LITE}pool_size: ${{N}}\n", "wrong-type", "2:1", "pool_size",
                                    "the value comes from the environment: N", N=SECRET),
    "no url in a variable": one("url: ${U}\n", "invalid-url", "1:1", "url", "with a scheme", U=SECRET),
    "override misspelt": elsewhere(LITE, "unknown-key", "DBCONFIG_POOL_SISE, environment", "pool_sise",
                                   "did you mean DBCONFIG_POOL_SIZE?", DBCONFIG_POOL_SISE="5"),
    "override empty": elsewhere(LITE, "empty-variable", "DBCONFIG_POOL_SIZE, environment", "pool_size", "unset it",
                                DBCONFIG_POOL_SIZE=""),
    "override as json": elsewhere(LITE, "wrong-type", "DBCONFIG_CONNECT_ARGS, environment", "connect_args",
                                  "__NAME=value",
                                  DBCONFIG_CONNECT_ARGS=f'{{"sslpassword": "{SECRET}"}}'),
    "override of no database": elsewhere(LITE, "unknown-database", "DBCONFIG_DATABASES__X__ECHO, environment",
                                         "databases.x",
                                         "no file has a database 'x'", DBCONFIG_DATABASES__X__ECHO="true"),
    "line of a dotenv file": elsewhere({"development.yaml": LITE, "../.env": f"A=1\n{SECRET}\n"}, "dotenv-syntax",
                                       ".env:2"),
    # profiles
    "unknown profile": elsewhere({"staging.yaml": LITE, "production.yaml": LITE}, "unknown-profile",
                                 "ENVIRONMENT, environment",
                                 "ENVIRONMENT", "the name comes from ENVIRONMENT",
                                  "profiles in config: production, staging",
                                 "did you mean 'production'?", ENVIRONMENT="prod"),
    "path as a profile": elsewhere(LITE, "profile-name", "ENVIRONMENT, environment", "ENVIRONMENT",
                                   "profiles in config: "
                                   "development", ENVIRONMENT="../../etc/passwd"),
    "empty profile": elsewhere(LITE, "profile-name", "ENVIRONMENT, environment", "ENVIRONMENT",
                               "unset it for development",
                               ENVIRONMENT=""),
    "default as a profile": elsewhere({"default.yaml": LITE}, "profile-name", "ENVIRONMENT, environment", "ENVIRONMENT",
                                      ENVIRONMENT="default"),
    "circle": elsewhere({"development.yaml": f"{LITE}extends: a\n", "a.yaml": "extends: development\n"},
                        "extends-cycle",
                        "config/a.yaml:1:1", "extends", "development → a → development"),
    "extends nothing": one(f"{LITE}extends: prod\n", "unknown-profile", "2:1", "extends", "'prod'",
                           "profiles: development"),
    "extends a path": one(f"{LITE}extends: ../other\n", "wrong-type", "2:1", "extends", "not a path"),
    "mistake in what is extended": elsewhere({"development.yaml": "extends: a\n", "a.yaml": f"{LITE}echoo: 1\n"},
                                             "unknown-key",
                                             "config/a.yaml:2:1", "echoo", "did you mean 'echo'?"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_configuration_is_told_at_its_place_with_help_and_without_a_secret(project, name):
    case = CASES[name]
    error = project.refuse(case.files, {"UNUSED": "x", **case.environ})
    assert told(error) == case.expected
    text = str(error)
    for word in case.words:
        assert word in text
    (problem,) = error.problems
    assert problem.slug in CATALOGUE
    if problem.location.column is not None:
        shown = next(line for line in text.splitlines() if line.startswith(f"{problem.location.line} |"))
        caret = text.splitlines()[text.splitlines().index(shown) + 1]
        if "***" not in shown:
            assert caret.index("^") - caret.index("|") == problem.location.column + 1
    assert SECRET not in text + repr(error.args) + "".join(traceback.format_exception(error)) + repr(error.problems)


FOREIGN = {
    "user": "it is called 'username' here",
    "dbname": "it is called 'database' here",
    "adapter": "it is called 'drivername' here",
    "driver": "it is called 'drivername' here",
    "type": "it is called 'drivername' here",
    "pool": "it is called 'pool_size' here",
    "maximum-pool-size": "it is called 'pool_size' here",
    "encoding": "remove it: UTF-8 is always set",
    "timeout": "write `pool_timeout`",
    "POSTGRES_USER": "write `username: ${POSTGRES_USER}`",
    "POSTGRES_PASSWORD": "write `password: ${POSTGRES_PASSWORD}`",
    "POSTGRES_DB": "write `database: ${POSTGRES_DB}`",
    "POSTGRES_HOST": "write `host: ${POSTGRES_HOST}`",
}


def test_names_from_elsewhere_are_all_told_with_ours(project):
    text = "".join(f"{name}: {SECRET}\n" for name in FOREIGN)
    error = project.refuse(text)
    assert told(error) == [
        ("unknown-key", f"config/development.yaml:{line}:1", name) for line, name in enumerate(FOREIGN, start=1)
    ]
    assert [problem.help.startswith(FOREIGN[problem.key]) for problem in error.problems] == [True] * len(FOREIGN)
    assert SECRET not in str(error)


def test_every_problem_of_one_file_is_told_together_in_its_order(project):
    text = (
        "url: postgresql://app:${DB_PASSWORD}@db/shop\nhost: other\npool_sise: 5\nmax_overflow: -7\nport: many\n"
        "echo: maybe\necho: true\npool_timeout:\npoolclass: NullPol\nconnect_args: {a: !!python/name:os.system x}\n"
        f"password: '{SECRET}$x'\nuser: me\n"
    )
    assert told(project.refuse(text)) == [
        ("unset-variable", "config/development.yaml:1:1", "url"),
        ("unknown-key", "config/development.yaml:3:1", "pool_sise"),
        ("out-of-range", "config/development.yaml:4:1", "max_overflow"),
        ("wrong-type", "config/development.yaml:5:1", "port"),
        ("invalid-value", "config/development.yaml:6:1", "echo"),
        ("duplicate-key", "config/development.yaml:7:1", "echo"),
        ("empty-value", "config/development.yaml:8:1", "pool_timeout"),
        ("invalid-value", "config/development.yaml:9:1", "poolclass"),
        ("yaml-tag", "config/development.yaml:10:19", "connect_args.a"),
        ("bad-reference", "config/development.yaml:11:1", "password"),
        ("unknown-key", "config/development.yaml:12:1", "user"),
    ]


def test_no_folder_of_profiles_is_told_with_the_places_that_were_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(ConfigError) as caught:
        load(environ={})
    (problem,) = caught.value.problems
    assert problem.slug == "no-config"
    assert f"looked for {tmp_path / 'config'}" in problem.notes


def test_a_missing_driver_is_told_with_the_line_that_installs_it(project, monkeypatch):
    monkeypatch.setattr("dbconfig.settings.known_drivers.find_spec", lambda name: None)
    project.write(PG)
    with Registry(project.config, environ={}) as registry, pytest.raises(ConfigError) as caught:
        registry.engine()
    assert str(caught.value) == (
        "error[missing-driver]: the driver of postgresql is not installed: psycopg2\n"
        "  --> config/development.yaml:1:1  (url)\n"
        "  |\n"
        "1 | url: postgresql://***\n"
        "  | ^^^\n"
        "  |\n"
        "  = help: pip install psycopg2-binary"
    )


def test_a_missing_secret_file_is_told_when_the_engine_is_made(project):
    project.write({"testing.yaml": f"{PG}password: {{file: secrets/db}}\n"})
    with Registry(project.config, environ={"ENVIRONMENT": "testing"}) as registry, pytest.raises(ConfigError) as caught:
        registry.engine()
    assert str(caught.value) == (
        "error[secret-unreadable]: the secret file 'secrets/db': it does not exist\n"
        "  --> config/testing.yaml:2:11  (password)\n"
        "  |\n"
        "1 | url: postgresql://***\n"
        "2 | password: {file: secrets/db}\n"
        "  |           ^\n"
        "  |\n"
        "  = help: it holds the password and nothing else, as for POSTGRES_PASSWORD_FILE and MYSQL_PASSWORD_FILE"
        " in compose"
    )


# Whatever is written, the answer is a profile or a ConfigError, soon, and a secret is not in it.

keys = st.sampled_from(
    [*DatabaseSettings.model_fields, "databases", "extends", "name", "<<", "user", "a.b", ""]
) | st.text(max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["sqlite://", "postgresql://u:p@h/d", "mysql", "${A}", "${A:-${B}}", "$", "010", "5s", "NullPool", "h", "1"]
    )
)
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
documents = st.dictionaries(keys, nested, max_size=6)
variable_names = st.sampled_from(
    ["A", "B", "ENVIRONMENT", "DBCONFIG_", "DBCONFIG_URL", "DBCONFIG_PASSWORD"]
) | st.builds(
    lambda parts: "DBCONFIG_" + "__".join(parts).upper(),
    st.lists(keys.filter(lambda key: "\0" not in key), min_size=1, max_size=3),
)
environments = st.dictionaries(
    variable_names, st.text(max_size=12) | st.sampled_from(["\udcff", "sqlite://", "development"]), max_size=3
)
PATIENT = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def answer(project: Project, content: bytes, environ: Mapping[str, str]) -> str:
    """Load a profile; return what is reported, if anything is wrong."""
    (project.config / "development.yaml").write_bytes(content)
    start = time.thread_time()  # of the processor, of which others may take their share
    try:
        profile = load(path=project.config, environ=environ)
    except ConfigError as error:
        problems, text = error.problems, str(error) + repr(error) + "".join(traceback.format_exception(error))
    else:
        problems, text = (), repr(profile) + profile.model_dump_json()
    assert {problem.slug for problem in problems} <= CATALOGUE.keys()
    assert time.thread_time() - start < 2
    return text


@PATIENT
@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"a: &a [*a]")
@example(b"? ? ? ?")
def test_any_bytes_are_a_profile_or_a_configuration_error(project, content):
    answer(project, content, {})


@PATIENT
@given(st.text("aAurl:${}[]<&*!|>'\"#%@-?, \n\t0123456789\\é\u2028~", max_size=60), environments)
@example("url: ${ENVIRONMENT}", {"A": "\udcff"})
@example("url: postgresql://${A}@h/d", {"A": "\udcff"})
@example("<<: [<<, {}]", {})
def test_any_text_is_a_profile_or_a_configuration_error(project, content, environ):
    answer(project, content.encode(), environ)


@PATIENT
@given(documents, environments)
def test_any_data_is_a_profile_or_a_configuration_error(project, document, environ):
    import yaml

    answer(project, yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace"), environ)


SPOTS = [
    *("password: {}", "password: '{}'", "password: [{}]", "password: {{{}: x}}", "password: !{} x", "password: {{{}}}"),
    *("url: postgresql://u:{}@h/d", "url: postgresql://u:{}/d", "url: mysql://u:{}@h:x/d", "url: postgresql://u:{}@@h/d"),
    *("url: postgresql://u@h/d?sslpassword={}", "url: sqlite://\npassword: {}", "connect_args: {{sslpassword: {}}}"),
    *("connect_args: {{ssl: {{password: {}}}}}", "query: {{passphrase: {}}}", "pwd: {}", "passwrod: {}",
     "databases: {{a: {{password: {}}}}}"),
    *("password: ${{NONE:-{}}}", "password: ${{NONE:?x}}{}", "password: ${{S}}$x", "url: ${{S}}", "pool_size: ${{S}}",
     "echo: ${{S}}"),
    *("drivername: postgresql://u:{}@h", "host: postgresql://u:{}@h", "password: |\n  {}\n  x",
     'password: "{}', "password: `{}"),
    *("password: !{} {{file: x}}", "password: &{} {{file: x}}", "password: !{} [x]", "password: !{}\n  file: x", "? {}@x://y"),
]  # fmt: skip


@PATIENT
@given(
    st.lists(st.sampled_from(SPOTS), min_size=1, max_size=4),
    st.sampled_from(["", "pool_sise: 3\n", "- x\n", "\tx\n", "pool_size: x\n", "url: postgresql://h/d\n"]),
    st.sampled_from(
        [
            {},
            {"DBCONFIG_PASSWORD": SECRET},
            {"DBCONFIG_POOL_SIZE": SECRET},
            {"DBCONFIG_URL": f"postgresql://u:{SECRET}@h:x"},
        ]
    ),
)
def test_a_secret_is_in_no_answer_wherever_it_was_written(project, spots, rest, environ):
    content = "".join(spot.format(SECRET) + "\n" for spot in spots)
    for text in (content + rest, rest + content):
        assert SECRET not in answer(project, text.encode(), {"S": SECRET, **environ})


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="a device of POSIX")
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "/proc/self/environ"])
def test_a_link_to_what_never_ends_or_is_no_configuration_is_refused_at_once(project, target):
    if not os.path.exists(target):
        pytest.skip("not on this system")
    (project.config / "development.yaml").symlink_to(target)
    start = time.thread_time()
    with pytest.raises(ConfigError):
        load(path=project.config, environ={})
    assert time.thread_time() - start < 2

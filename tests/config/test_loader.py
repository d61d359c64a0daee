"""From a profile's name to its settings."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dbconfig import ConfigError, load
from dbconfig.settings.database import DatabaseSettings
from tests.configs import told


def test_a_profile_is_loaded_from_its_files_and_the_environment(project):
    files = {
        "default.yaml": "pool_size: 1\npool_recycle: 5m\n",
        "production.yaml": "url: ${DATABASE_URL}\npool_size: 20\nprotected: true\n",
    }
    environ = {"ENVIRONMENT": "production", "DATABASE_URL": "postgres://u:p@h/d", "DBCONFIG_ECHO": "yes"}
    profile = project.load(files, environ)
    settings = profile.databases["default"]
    assert (profile.name, profile.folder) == ("production", project.root)
    assert str(settings.address) == "postgres://u:***@h/d"
    assert (settings.pool_size, settings.pool_recycle, settings.echo, settings.protected) == (20, 300.0, True, True)


@pytest.mark.parametrize("profile", ["development", "testing", "production"])
def test_the_shipped_configuration_loads(profile):
    folder = Path(__file__).parents[2] / "config"
    assert load(profile, path=folder, environ={"DATABASE_URL": "postgresql://u:p@h/d"}).name == profile


def test_only_the_chosen_profile_needs_its_variables(project):
    files = {"development.yaml": "url: sqlite://\n", "production.yaml": "url: ${DATABASE_URL}\n"}
    assert project.load(files).name == "development"


def test_a_mistake_is_shown_as_a_person_needs_it(project):
    text = "url: postgresql://app:${DB_PASSWORD}@db/shop\npool_size: 20\nmax_overflw: 40  # a comment\n"
    assert str(project.refuse(text, {"DB_PASSWORD": "hunter"})) == (
        "error[unknown-key]: unknown key 'max_overflw'\n"
        "  --> config/development.yaml:3:1  (max_overflw)\n"
        "  |\n"
        "2 | pool_size: 20\n"
        "3 | max_overflw: 40\n"
        "  | ^^^^^^^^^^^ not a setting of a database\n"
        "  |\n"
        "  = help: did you mean 'max_overflow'?"
    )


def test_a_value_from_a_variable_says_so(project):
    problem = project.problem("url: postgresql://h/d\nport: ${DB_PORT}\n", {"DB_PORT": "70000"})
    assert (problem.message, problem.notes) == (
        "port: must be at most 65535",
        ("the value comes from the environment: DB_PORT",),
    )


def test_the_variable_that_kubernetes_sets_for_a_service_is_recognised(project):
    problem = project.problem("url: postgresql://h/d\nport: ${DB_PORT}\n", {"DB_PORT": "tcp://10.0.0.1:5432"})
    assert problem.help == "use a variable with another name: Kubernetes sets one like this for each service"


def test_all_problems_of_all_files_are_told_together(project):
    files = {
        "default.yaml": "pool_sizes: 5\npool_timeout: soon\nisolation_level: sometimes\n",
        "development.yaml": (
            "url: postgresql://${USER_}:${PASS_}@h/d\necho: maybe\necho: true\nport: 70000\n"
            "databases:\n  a:\n    drivername: postgresql\n    url: postgresql://h/d\n  b: {echo: !x 3}\n  c: 3\n"
        ),
    }
    assert told(project.refuse(files, {"DBCONFIG_POOL_SISE": "3"})) == [
        ("unknown-key", "config/default.yaml:1:1", "pool_sizes"),
        ("wrong-type", "config/default.yaml:2:1", "pool_timeout"),
        ("invalid-value", "config/default.yaml:3:1", "isolation_level"),
        ("unset-variable", "config/development.yaml:1:1", "url"),
        ("unset-variable", "config/development.yaml:1:1", "url"),
        ("invalid-value", "config/development.yaml:2:1", "echo"),
        ("duplicate-key", "config/development.yaml:3:1", "echo"),
        ("out-of-range", "config/development.yaml:4:1", "port"),
        ("given-twice", "config/development.yaml:7:5", "databases.a.drivername"),
        ("missing-value", "config/development.yaml:9:3", "databases.b"),
        ("yaml-tag", "config/development.yaml:9:13", "databases.b.echo"),
        ("wrong-type", "config/development.yaml:10:3", "databases.c"),
        ("unknown-key", "DBCONFIG_POOL_SISE, environment", "pool_sise"),
    ]


@pytest.mark.parametrize(
    "key", ["driver: postgresql", "urll: sqlite://", "adapter: sqlite3", "DATABASE_URL: x", "uri: x"]
)
def test_an_address_under_another_name_is_not_also_missing(project, key):
    assert project.problem(f"{key}\npool_size: 3\n").slug == "unknown-key"


def test_the_same_mistake_at_one_place_is_told_once(project):
    text = "url: sqlite:///a.db\npool_sise: 3\ndatabases:\n  a: &a {url: 'sqlite:///b.db', echoo: 1}\n  b: *a\n"
    assert told(project.refuse(text)) == [
        ("unknown-key", "config/development.yaml:2:1", "pool_sise"),
        ("unknown-key", "config/development.yaml:4:33", "databases.a.echoo"),
    ]


def test_a_missing_address_of_one_database_is_told_though_another_has_it_under_a_wrong_name(project):
    text = "databases:\n  a: {driver: sqlite}\n  b: {echo: true}\n"
    assert told(project.refuse(text)) == [
        ("unknown-key", "config/development.yaml:2:7", "databases.a.driver"),
        ("missing-value", "config/development.yaml:3:3", "databases.b"),
    ]


@pytest.mark.parametrize(
    ("text", "slug", "message"),
    [
        ("url: sqlite://\nname: x\n", "unknown-key", "unknown key 'name'"),
        ("url: sqlite://\ndatabases: [a]\n", "wrong-type", "`databases` must be a mapping of names to settings"),
        ("url: sqlite://\ndatabases: {a.b: {url: 'sqlite://'}}\n", "invalid-value",
         "'a.b' is not a valid database name: use letters, digits, `_`, and `-`"),
        ("url: sqlite://\ndatabases: {a: sqlite://}\n", "wrong-type", "`databases.a` must be a mapping of settings"),
    ],
)  # fmt: skip
def test_databases_that_are_none_are_told(project, text, slug, message):
    problem = project.problem(text)
    assert (problem.slug, problem.message) == (slug, message)


@pytest.mark.parametrize("key", sorted(DatabaseSettings.model_fields))
def test_every_setting_refuses_what_it_cannot_take_at_its_place(project, key):
    base = "" if key in ("url", "drivername") else "drivername: postgresql\n"
    error = project.refuse(f"{base}{key}: [[x]]\n")
    assert (
        "wrong-type" if key not in CHOICES else "invalid-value",
        f"config/development.yaml:{1 + bool(base)}:1",
        key,
    ) in told(error)


CHOICES = {"echo", "echo_pool", "poolclass", "paramstyle", "pool_reset", "pool_reset_on_return", "sslmode"}


def test_loading_needs_no_sqlalchemy_and_no_driver():
    code = (
        "import sys; from dbconfig import load; load('testing', path='config', environ={});"
        "loaded = {name.partition('.')[0] for name in sys.modules};"
        "print(sorted(loaded & {'sqlalchemy', 'sqlmodel', 'psycopg2', 'pymysql'}))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"


def test_a_profile_of_three_files_loads_in_milliseconds(project):
    files = {
        "default.yaml": "pool_size: 5\nmax_overflow: 10\n",
        "production.yaml": "url: ${DATABASE_URL}\npool_size: 20\n",
        "staging.yaml": "extends: production\nhost: staging\n",
    }
    environ = {"DATABASE_URL": "postgresql://u:p@h/d"}
    project.load(files, environ, "staging")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        load("staging", path=project.config, environ=environ)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03  # 1 to 2 ms on an idle machine


def test_the_process_environment_is_taken_unless_another_is_given(project, monkeypatch):
    monkeypatch.setenv("ENVIRONMENT", "testing")
    project.write({"testing.yaml": "url: sqlite://\n"})
    assert load().name == "testing"
    with pytest.raises(ConfigError, match="profile 'development' does not exist"):
        load(path=project.config, environ={})

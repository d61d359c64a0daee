"""A profile and its databases."""

import pytest

from dbconfig import ConfigError, Profile


def test_a_profile_is_made_in_code_as_in_a_file():
    profile = Profile(name="tests", url="sqlite://", echo=True, databases={"other": {"url": "sqlite:///a.db"}})
    assert list(profile.databases) == ["default", "other"]
    assert profile.databases["other"].echo is True
    assert (profile.reason, profile.folder, str(profile.origin("echo"))) == ("", None, "default")


def test_a_profile_made_in_code_takes_nothing_from_the_environment(monkeypatch):
    monkeypatch.setenv("NAME", "env")
    monkeypatch.setenv("DATABASES", "{}")
    monkeypatch.setenv("ECHO", "true")
    assert Profile(name="tests", url="sqlite://").databases["default"].echo is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "t"}, "no database: set"),
        ({"name": "t", "url": "sqlite://", "databases": 3}, "databases: "),
        ({"name": "t", "url": "sqlite://", "databases": {"a": 3}}, "databases"),
        ({"url": "sqlite://"}, "name: "),
    ],
)
def test_a_profile_that_is_none_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Profile(**values)


@pytest.mark.parametrize(("name", "protected"), [("production", True), ("staging", False)])
def test_production_is_protected_unless_it_says_otherwise(name, protected):
    assert Profile(name=name, url="sqlite://").databases["default"].protected is protected
    assert Profile(name=name, url="sqlite://", protected=False).databases["default"].protected is False


def test_a_named_database_inherits_options_but_no_part_of_the_connection(project):
    text = "url: postgresql://u:p@h/d\nport: 5433\nquery: {service: b}\npool_size: 7\nprotected: true\ndatabases:\n"
    named = project.settings(text + "  a: {drivername: postgresql, host: other}\n", database="a")
    assert str(named.address) == "postgresql://other"
    assert (named.pool_size, named.protected) == (7, True)


@pytest.mark.parametrize(
    ("own", "named", "inherited"),
    [
        ("url: postgresql://h/d", "postgresql://h/e", True),
        ("url: postgresql://h/d", "postgres+psycopg://h/e", True),
        ("url: mysql://h/d", "mariadb://h/e", True),
        ("url: postgresql://h/d", "mysql://h/e", False),
        ("echo: false", "postgresql://h/e", True),  # the profile has no database of its own
    ],
)
def test_what_is_meant_for_one_system_is_inherited_by_databases_of_the_same(project, own, named, inherited):
    name = "max_allowed_packet" if own.startswith("url: mysql") else "keepalives"
    text = f"{own}\nconnect_args: {{{name}: 1}}\nisolation_level: SERIALIZABLE\ndatabases:\n  a: {{url: '{named}'}}\n"
    settings = project.settings(text, database="a")
    assert (settings.connect_args, settings.isolation_level) == (
        ({name: 1}, "SERIALIZABLE") if inherited else ({}, None)
    )


def test_a_profile_of_named_databases_has_no_default(project):
    profile = project.load("pool_size: 7\ndatabases:\n  a: {url: 'sqlite:///a.db'}\n")
    assert list(profile.databases) == ["a"]
    assert profile.databases["a"].pool_size == 7
    assert profile.layers("pool_size") == ()


def test_a_profile_that_says_default_among_its_databases_is_told_where_it_belongs(project):
    problem = project.problem("databases:\n  default: {url: 'sqlite://'}\n  a: {url: 'sqlite://'}\n")
    assert (problem.slug, problem.help) == ("invalid-value", "write them at the top of the file")

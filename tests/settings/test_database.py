"""The settings of a database."""

import copy
import pickle
from pathlib import Path

import pytest

from dbconfig import ConfigError, DatabaseSettings, Profile

SECRET = "hunter2-planted"
FULL = f"""
url: postgresql://u@h/d?sslpassword={SECRET}&sslmode=require
password: {SECRET}
connect_args: {{sslpassword: {SECRET}, server_settings: {{token: {SECRET}}}, ssl: [{{secret: {SECRET}}}]}}
query: {{scram_client_key: {SECRET}}}
variables: {{my.token: {SECRET}}}
"""


def test_every_setting_has_a_group_and_a_description():
    for name, field in DatabaseSettings.model_fields.items():
        groups = {"connection", "tls", "engine", "pool", "timeout", "replica", "session", "observability"}
        assert field.json_schema_extra["group"] in groups, name
        assert field.description, name


def test_settings_are_frozen():
    settings = DatabaseSettings(url="sqlite://")
    with pytest.raises(ValueError, match="frozen"):
        settings.pool_size = 3


@pytest.mark.parametrize(
    ("values", "address", "backend"),
    [
        ({"url": "postgresql://u:p@h:1/d"}, "postgresql://u:***@h:1/d", "postgresql"),
        ({"url": "mariadb://h", "username": "u", "port": 2, "database": "d"}, "mariadb://u@h:2/d", "mariadb"),
        ({"drivername": "mysql", "host": "h", "query": {"charset": "b"}}, "mysql://h?charset=b", "mysql"),
        (
            {"url": "postgres://h/d?service=b", "query": {"options": "d"}},
            "postgres://h/d?service=b&options=d",
            "postgresql",
        ),
    ],
)
def test_an_address_is_made_of_the_url_and_the_keys_that_complete_it(values, address, backend):
    settings = DatabaseSettings(**values)
    assert (str(settings.address), settings.backend) == (address, backend)


@pytest.mark.parametrize(
    ("url", "in_memory", "path"),
    [
        ("sqlite://", True, None),
        ("sqlite:///:memory:", True, None),
        ("sqlite:///data/a.db", False, "/project/data/a.db"),
        ("sqlite:////srv/a.db", False, "/srv/a.db"),
        ("sqlite:///file:a.db?uri=true", False, None),
        ("postgresql://h/d", False, None),
    ],
)
def test_a_sqlite_file_is_relative_to_the_project(url, in_memory, path):
    settings = DatabaseSettings(url=url)
    settings.settle({}, (), Path("/project"))
    assert (settings.in_memory, settings.path) == (in_memory, Path(path) if path else None)


def test_a_url_for_sqlalchemy_has_the_driver_and_the_secret(tmp_path):
    (tmp_path / "pw").write_text("p@ss:w/rd%#?\n")
    settings = DatabaseSettings(url="postgresql://u@h/d?sslmode=require", password={"file": str(tmp_path / "pw")})
    url = settings.sqlalchemy_url()
    assert (url.drivername, url.password, url.query["sslmode"]) == ("postgresql+psycopg2", "p@ss:w/rd%#?", "require")
    assert settings.read_password() == "p@ss:w/rd%#?"
    assert DatabaseSettings(url="sqlite://").read_password() is None


def test_a_secret_that_cannot_be_read_is_told_when_it_is_needed():
    settings = DatabaseSettings(url="postgresql://u@h/d", password={"file": "/nonexistent/pw"})
    with pytest.raises(ConfigError, match="it does not exist"):
        settings.sqlalchemy_url()


def test_a_setting_knows_every_place_where_it_was_written(project):
    files = {
        "default.yaml": "pool_size: 1\nconnect_timeout: 3s\n",
        "development.yaml": "url: postgresql://h/d\npool_size: 2\ndatabases:\n  a:\n    url: postgresql://h/a\n",
    }
    profile = project.load(files, {"DBCONFIG_POOL_SIZE": "3"})
    own, named = profile.databases["default"], profile.databases["a"]
    assert [str(place) for place in own.layers("pool_size")] == [
        "DBCONFIG_POOL_SIZE, environment",
        "config/development.yaml:2:1",
        "config/default.yaml:1:1",
    ]
    assert str(named.origin("pool_size")) == "DBCONFIG_POOL_SIZE, environment"
    assert str(named.origin("url")) == "config/development.yaml:5:5"
    assert str(own.origin("echo")) == str(named.origin("host")) == "default"
    assert str(profile.origin("databases.a.url")) == "config/development.yaml:5:5"


SHOWINGS = {
    "repr": repr,
    "str": str,
    "vars": lambda value: repr(vars(value)),
    "private": lambda value: repr(value.__pydantic_private__),
    "dump": lambda value: repr(value.model_dump()),
    "json": lambda value: value.model_dump_json(),
    "pickle": lambda value: repr(pickle.dumps(value)),
    "deepcopy": lambda value: repr(copy.deepcopy(value)),
    "copy": lambda value: repr(value.model_copy()),
    "items": lambda value: repr(dict(value)),
    "pickled": lambda value: repr(pickle.loads(pickle.dumps(value)).model_dump()),
}


@pytest.mark.parametrize("how", SHOWINGS)
def test_no_secret_is_shown(project, how):
    profile = project.load(FULL)
    for value in (profile, profile.databases["default"]):
        assert SECRET not in SHOWINGS[how](value)


def test_a_secret_is_there_for_those_who_read_it(project):
    settings = copy.deepcopy(project.load(FULL)).databases["default"]
    assert settings.read_password() == SECRET
    assert settings.connect_args["server_settings"].read() == {"token": SECRET}
    assert settings.sqlalchemy_url().query["sslpassword"] == SECRET


def test_a_pickled_profile_says_why_it_has_no_password(project):
    settings = pickle.loads(pickle.dumps(project.load(FULL))).databases["default"]
    assert settings.address.host == "h"
    with pytest.raises(ConfigError, match="a pickle does not contain"):
        settings.read_password()


def test_a_secret_by_name_is_read_from_the_environment_that_was_given(project):
    environ = {"PW": "one"}
    settings = project.settings("url: postgresql://u@h/d\npassword: {env: PW}\n", environ)
    environ["PW"] = "two"
    assert settings.read_password() == "two"


def test_pydantics_debugging_shows_nothing(project, monkeypatch, caplog):
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    caplog.set_level(0)
    project.load(FULL, {"DBCONFIG_LOGGING_NAME": SECRET})
    with pytest.raises(ConfigError):
        project.load(FULL + "pool_size: five\n")
    assert SECRET not in caplog.text


def test_a_profile_made_in_code_is_validated_like_a_file():
    with pytest.raises(ConfigError) as caught:
        Profile(
            name="t", url=f"postgresql://u:{SECRET}@h:99999/d", pool_size=-1, pool_sise=3, databases={"a": {"echo": 5}}
        )
    assert [(problem.slug, problem.key) for problem in caught.value.problems] == [
        ("out-of-range", "url"),
        ("out-of-range", "pool_size"),
        ("unknown-key", "pool_sise"),
        *(("out-of-range", "databases.a.pool_size"), ("invalid-value", "databases.a.echo")),
        ("unknown-key", "databases.a.pool_sise"),
    ]
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None

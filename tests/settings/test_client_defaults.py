"""What client libraries add to an address: the environment, service files, MySQL's option files."""

import pytest

from dbconfig import Profile
from dbconfig.settings import client_defaults, small_files

SERVICE = """# of the shop
[other]
host=no
[shop]
host=db.internal
port = 5433
dbname=d
user=app
password=hunter
options=-c x=1
"""


def settings(url, **more):
    return Profile(name="p", url=url, **more).databases["default"]


def test_the_environment_of_libpq_completes_an_address():
    environ = {"PGHOST": "db.internal", "PGPORT": "5433", "PGUSER": "app", "PGDATABASE": "d", "PGPASSWORD": "hunter"}
    found = client_defaults.completed(settings("postgresql://"), environ)
    assert (found.username, found.database, dict(found.query)) == (
        "app",
        "d",
        {"host": ("db.internal",), "port": ("5433",)},
    )
    assert str(client_defaults.defaults(settings("postgresql://"), environ)["host"].location) == "PGHOST, environment"
    assert "hunter" not in repr(client_defaults.defaults(settings("postgresql://"), environ))


@pytest.mark.parametrize("url", ["postgresql://u@h:1/e", "postgresql://u@/e?host=h&port=1"])
def test_what_the_profile_says_is_not_overridden(url):
    environ = {"PGHOST": "db.internal", "PGPORT": "5433", "PGUSER": "app", "PGDATABASE": "d"}
    found = client_defaults.completed(settings(url), environ)
    assert found == settings(url).address


@pytest.mark.parametrize(
    ("url", "more", "environ"),
    [
        ("postgresql:///?service=shop", {}, {}),
        ("postgresql://", {"connect_args": {"service": "shop"}}, {}),
        ("postgresql://", {}, {"PGSERVICE": "shop", "PGHOST": "no"}),
    ],
)
@pytest.mark.parametrize("where", ["PGSERVICEFILE", "HOME", "PGSYSCONFDIR"])
def test_a_service_file_completes_an_address(tmp_path, url, more, environ, where):
    name = {"PGSERVICEFILE": "services", "HOME": ".pg_service.conf", "PGSYSCONFDIR": "pg_service.conf"}[where]
    (tmp_path / name).write_text(SERVICE)
    place = str(tmp_path / name) if where == "PGSERVICEFILE" else str(tmp_path)
    environ = {"HOME": str(tmp_path / "none"), **environ, where: place}
    found = client_defaults.completed(settings(url, **more), environ)
    assert (found.username, found.database) == ("app", "d")
    assert (found.query["host"], found.query["port"]) == (("db.internal",), ("5433",))
    assert client_defaults.defaults(settings(url, **more), environ)["options"].value == "-c x=1"


def test_an_option_file_of_mysql_completes_an_address(tmp_path):
    file = tmp_path / "my.cnf"
    file.write_text(
        "[mysqld]\nuser=root\n[client]\nuser = app\npassword=hunter\nhost='db.internal'\n[batch]\nuser=night\n"
    )
    url = f"mysql+pymysql:///?read_default_file={file}"
    assert client_defaults.completed(settings(url), {}).username == "app"
    assert client_defaults.completed(settings(url), {}).query["host"] == ("db.internal",)
    night = settings(f"{url}&read_default_group=batch")
    assert client_defaults.completed(night, {}).username == "night"


def test_a_file_that_is_none_or_too_large_adds_nothing(tmp_path):
    file = tmp_path / "my.cnf"
    file.write_text("[client]\nuser=app\n" + "#" * small_files.LIMIT)
    assert client_defaults.defaults(settings(f"mysql:///?read_default_file={file}"), {}) == {}
    assert client_defaults.defaults(settings("mysql:///?read_default_file=/none"), {}) == {}
    assert client_defaults.defaults(settings("postgresql:///?service=none"), {"HOME": "/none"}) == {}
    assert client_defaults.defaults(settings("sqlite://"), {"PGHOST": "h"}) == {}

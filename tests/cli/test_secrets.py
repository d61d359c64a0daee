"""A canary in a password and one in a URL's query: they occur in no output of any command, any format, any error."""

from collections.abc import Iterator
from itertools import product

import pytest

from tests.cli.conftest import Project, Result
from tests.support.ports import free_port
from tests.support.servers import PostgreSQLServer, Server

PASSWORD = "CANARY-of-the-password"
QUERY = "CANARY-of-the-query"
COMMANDS = (
    ("list",),
    ("show",),
    ("show", "--all"),
    ("show", "--engine"),
    ("show", "--diff", "testing"),
    ("validate", "--all"),
    ("validate", "--all", "--strict"),
    ("check", "--timeout", "LIMIT"),
    ("ping", "--timeout", "LIMIT"),
    ("wait", "--timeout", "LIMIT"),
    ("create-tables", "canary_models:metadata"),
)
FORMATS = ("text", "json")


def outputs(project: Project, env: dict[str, str] | None, limit: str) -> Iterator[Result]:
    project.write("canary_models.py", "from sqlalchemy import MetaData\nmetadata = MetaData()\n")
    for command, format in product(COMMANDS, FORMATS):
        arguments = [part.replace("LIMIT", limit) for part in command]
        yield project.run(*arguments, "--format", format, env=env)
    yield project.run("validate", "--all", "--format", "github", env=env)


def assert_silent(project: Project, env: dict[str, str] | None = None, codes: set[int] | None = None) -> None:
    seen = set()
    for result in outputs(project, env, "500ms" if codes is None else "60s"):
        for canary in (PASSWORD, QUERY, PASSWORD[7:], QUERY[7:]):
            assert canary not in result.text, result.text
        seen.add(result.code)
    assert codes is None or seen <= codes, seen


@pytest.fixture(autouse=True)
def testing(project: Project) -> None:
    project.profile("url: 'sqlite:///:memory:'\n", "testing")


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "no-such-host.invalid"])
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    "profile",
    [
        "url: {scheme}://app:{password}@{host}/shop?application_name={query}\n",
        "url: {scheme}://app:{password}@{host}/shop?sslpassword={query}\n",
        "url: {scheme}://app:{password}@{host}/shop?no_such_option={query}\n",
        "url: {scheme}://app:${{PW}}@{host}/shop?options={query}\n",
        "url: {scheme}://app@{host}/shop\npassword: {password}\nconnect_args: {{sslpassword: {query}}}\n",
        "url: {scheme}://app@{host}/shop\npassword: ${{PW}}\nquery: {{init_command: {query}}}\n",
        "url: {scheme}://app@{host}/shop\npassword: {{env: PW}}\nquery: {{unknown: {query}}}\n",
        "url: {scheme}://app:{password}@{host}/shop\nhost: twice\nquery: {{options: {query}}}\n",
        "url: {scheme}://app:{password}@x@{host}/shop?{query}\n",
        "url: {scheme}://app:{password}@{host}/shop?x={query}\npasswrd: {password}\npool_size: five\n",
        "url: ${{URL}}\nmax_overflw: 1\n",
        "url: ${{URL}}\n",
        "{{url: '{scheme}://app:{password}@{host}/shop', pasword: {password}, max_overflw: 3}}\n",
        "url: {scheme}://app:{password}@{host}/shop\nurl: {scheme}://app:{password}@{host}/other\n",
        "url: {scheme}://app:{password}@{host}/shop\n\tpassword: {password}\n",
    ],
)
def test_nothing_is_told_of_a_server_that_is_not_there(project: Project, scheme: str, host: str, profile: str) -> None:
    parts = {"scheme": scheme, "host": host.format(port=free_port()), "password": PASSWORD, "query": QUERY}
    project.profile(profile.format(**parts))
    url = "{scheme}://app:{password}@{host}/shop?application_name={query}".format(**parts)
    assert_silent(project, {"PW": PASSWORD, "URL": url})


def test_nothing_is_told_of_a_server_that_answers(project: Project, server: Server) -> None:
    server.create_user("canary", PASSWORD)
    name = "application_name" if server.kind == "postgresql" else "read_timeout"
    value = QUERY if server.kind == "postgresql" else "30"
    project.profile(f"url: {server.url(user='canary', password=PASSWORD)}?{name}={value}\n")
    assert_silent(project, codes={0})


def test_nothing_is_told_of_a_login_that_is_rejected(project: Project, server: Server) -> None:
    project.profile(f"url: {server.url(password=PASSWORD)}\n")
    assert_silent(project)


def test_nothing_is_told_of_a_server_that_stays_silent(project: Project, postgresql: PostgreSQLServer) -> None:
    project.profile(f"url: {postgresql.url(password=PASSWORD)}?application_name={QUERY}\n")
    postgresql.pause()
    try:
        assert_silent(project)
    finally:
        postgresql.resume()


def test_init_does_not_repeat_what_a_dotenv_says(project: Project) -> None:
    project.write(".env", f"DATABASE_URL=postgresql://app:{PASSWORD}@db/shop?x={QUERY}\n")
    for name in ("development", "testing"):
        (project.folder / f"config/{name}.yaml").unlink(missing_ok=True)
    result = project.run("init")
    assert result.code == 0
    written = "".join(path.read_text() for path in (project.folder / "config").iterdir())
    assert "CANARY" not in result.text + written
    assert project.run("init").code == 2

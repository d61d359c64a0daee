"""`dbconfig top`: what servers say of their clients, and what an application says of its pools."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from tests.cli.conftest import Project


def write(project: Project, url: str) -> None:
    project.write("config/development.yaml", f"url: {url}\n")


def test_it_shows_applications_transactions_and_slots(project: Project, server: Any) -> None:
    write(project, server.url())
    profile = Profile(name="shop", url=server.url(), application_name="checkout")
    with Registry.from_profile(profile) as db, db.engine().begin() as connection:
        connection.execute(text("CREATE TABLE held (x INT)"))
        connection.execute(text("INSERT INTO held VALUES (4711)"))
        found = project.run("top", "--once")
        document = json.loads(project.run("top", "--format", "json").out)
    assert found.code == 0
    assert "checkout" in found.out
    if server.kind == "postgresql":  # elsewhere it takes a privilege
        assert "oldest open transactions" in found.out
    assert "4711" not in found.out
    seen = document["databases"]["default"]["server"]
    assert 0 < seen["used"] <= seen["slots"]
    assert any(name == "checkout" for name, *_ in seen["applications"])
    assert document["pools"] is None


def test_sqlite_is_no_server(project: Project) -> None:
    write(project, "sqlite://")
    found = project.run("top", "--once")
    assert (found.code, found.err) == (0, "")


def test_a_server_that_is_away_is_a_problem(project: Project, server: Any) -> None:
    write(project, "postgresql://app@127.0.0.1:1/shop")
    found = project.run("top", "--once")
    assert found.code == 1
    assert "error[refused]" in found.err


@contextmanager
def serving(body: str, *, guarded: str = "", elsewhere: str = "") -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if elsewhere:
                self.send_response(302)
                self.send_header("Location", elsewhere)
            else:
                self.send_response(200 if self.headers["Authorization"] == (guarded or None) else 401)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/health/db/details"
        running.shutdown()
        thread.join()


def test_the_pools_of_an_application_are_shown_by_its_address(project: Project) -> None:
    write(project, "sqlite://")
    pools = {"shop": {"used": 3, "idle": 1, "waiting": 2, "max": None}}
    with serving(json.dumps({"pools": pools, "advice": ["shop: too small"]})) as url:
        found = project.run("top", "--once", "--url", url)
    assert found.code == 0
    assert found.out.split("pools\n")[1].split()[8:16] == ["shop", "3", "1", "2", "-", "-", "-", "-"]
    assert "shop: too small" in found.out


@pytest.mark.parametrize("body", ["[]", "not json", '{"pools": 1}'])
def test_an_address_without_pools_is_refused(project: Project, body: str) -> None:
    write(project, "sqlite://")
    with serving(body) as url:
        found = project.run("top", "--once", "--url", url)
    assert found.code == 2
    assert "--url shows no pools" in found.err


def test_the_display_is_drawn_by_rich() -> None:
    console = pytest.importorskip("rich.console")
    from types import SimpleNamespace

    from dbconfig.cli.commands.top import _drawn

    context: Any = SimpleNamespace(selection=SimpleNamespace(name="shop"), arguments=SimpleNamespace(interval=2.0))
    screen = console.Console(width=80, record=True, file=None)
    with screen.capture() as captured:
        screen.print(
            _drawn(context, [], [("default: 3 of 100 connections", ("application", "state"), [("[b]x", "idle")])])
        )
    assert "[b]x" in captured.get()
    assert "every 2 s" in captured.get()


def test_a_guard_gets_a_header_that_a_variable_holds(project: Project) -> None:
    write(project, "sqlite://")
    with serving('{"pools": {}}', guarded="Bearer planted-91af") as url:
        options = ("top", "--once", "--url", url)
        assert project.run(*options, "--header", "KEY", env={"KEY": "Authorization: Bearer planted-91af"}).code == 0
        project.write(".env", "KEY='Authorization: Bearer planted-91af'\n")
        assert project.run(*options, "--header", "KEY").code == 0
        refused = project.run(*options)
        wrong = project.run(*options, "--header", "KEY", env={"KEY": "Authorization: Bearer wrong-91af"})
    for found in (refused, wrong):
        assert found.code == 2
        assert "--url shows no pools: the application answers 401" in found.err
        assert "--header VARIABLE" in found.err
        assert "91af" not in found.text


@pytest.mark.parametrize(
    "value",
    [None, "", "Bearer planted-91af", "Authorization:", "A: planted-91af\r\nB: c", "A b: c", "A: plänted-91af€"],
)
def test_a_variable_without_a_header_is_refused(project: Project, value: str | None) -> None:
    write(project, "sqlite://")
    env = {} if value is None else {"KEY": value}
    found = project.run("top", "--once", "--url", "http://127.0.0.1:1/", "--header", "KEY", env=env)
    assert found.code == 2
    assert ("'KEY' is not set" if value is None else "'KEY' is not an HTTP header") in found.err
    assert "91af" not in found.text


def test_a_header_is_refused_where_no_address_is_given(project: Project) -> None:
    write(project, "sqlite://")
    found = project.run("top", "--once", "--header", "KEY", env={"KEY": "A: b"})
    assert (found.code, "`--header` is sent to the address of `--url`" in found.err) == (2, True)


@pytest.mark.parametrize("path", ["", "/a b?token=planted-91af"])
def test_an_address_that_does_not_speak_http_is_refused_in_words(project: Project, path: str) -> None:
    write(project, "sqlite://")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                client, _ = server.accept()
                with client:
                    client.recv(4096)
                    client.sendall(b"garbage\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        found = project.run("top", "--once", "--url", f"http://127.0.0.1:{server.getsockname()[1]}{path}")
        server.close()
    assert found.code == 2
    assert "--url shows no pools: the address or its answer is not HTTP" in found.err
    assert "91af" not in found.text


def test_a_header_is_sent_to_no_other_server(project: Project) -> None:
    write(project, "sqlite://")
    with serving('{"pools": {}}', guarded="Bearer x") as other, serving("", elsewhere=other) as url:
        found = project.run("top", "--once", "--url", url, "--header", "KEY", env={"KEY": "Authorization: Bearer x"})
    assert found.code == 2
    assert "it redirects elsewhere" in found.err


def test_a_password_in_the_address_is_refused(project: Project) -> None:
    write(project, "sqlite://")
    found = project.run("top", "--once", "--url", "http://me:planted-91af@127.0.0.1:1/health/db/details")
    assert found.code == 2
    assert "--url has a user or a password" in found.err
    assert "91af" not in found.text

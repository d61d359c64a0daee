"""The recipes of docs/secrets.md, run with stand-ins for the three libraries, against a real server."""

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

import dbconfig
from dbconfig import Profile, Registry
from tests.support.postgresql import PostgreSQLServer
from tests.support.processes import wait_until

PAGE = (Path(__file__).parents[1] / "docs" / "secrets.md").read_text(encoding="utf-8")
RECIPES = {match[1]: match[2] for match in re.finditer(r"```python\n# ([\w-]+)\n(.*?)```", PAGE, re.S)}


class Issuer:
    """Hands out passwords that are good for a moment: each new one makes the one before worthless."""

    def __init__(self, server: PostgreSQLServer) -> None:
        self.server = server
        self.issued: list[str] = []
        self.asked: list[dict[str, Any]] = []

    def issue(self, **asked: Any) -> str:
        token = f"token-{len(self.issued)}-{time.monotonic_ns()}"
        self.server.set_password(self.server.user, token)
        self.issued.append(token)
        self.asked.append(asked)
        return token


def boto3(issuer: Issuer) -> dict[str, ModuleType]:
    module: Any = ModuleType("boto3")
    module.client = lambda service: SimpleNamespace(generate_db_auth_token=issuer.issue)
    return {"boto3": module}


def hvac(issuer: Issuer) -> dict[str, ModuleType]:
    def get_static_credentials(*, name: str) -> dict[str, Any]:
        return {"data": {"username": name, "password": issuer.issue(name=name), "ttl": 1, "rotation_period": 1}}

    module: Any = ModuleType("hvac")
    database = SimpleNamespace(get_static_credentials=get_static_credentials)
    module.Client = lambda: SimpleNamespace(secrets=SimpleNamespace(database=database))
    return {"hvac": module}


class Credentials:
    """As google-auth's: valid until shortly before the token expires."""

    token: str | None = None

    def __init__(self, issuer: Issuer) -> None:
        self._issuer, self._until = issuer, 0.0

    @property
    def valid(self) -> bool:
        return self.token is not None and time.monotonic() < self._until

    def refresh(self, request: object) -> None:
        self.token = self._issuer.issue(request=type(request).__name__)
        self._until = time.monotonic() + 0.3


def google(issuer: Issuer) -> dict[str, ModuleType]:
    found: dict[str, Any] = {
        name: ModuleType(name)
        for name in ("google", "google.auth", "google.auth.transport", "google.auth.transport.requests")
    }
    found["google"].auth = found["google.auth"]
    found["google.auth"].transport = found["google.auth.transport"]
    found["google.auth.transport"].requests = found["google.auth.transport.requests"]
    found["google.auth"].default = lambda scopes: (Credentials(issuer), "project")
    found["google.auth.transport.requests"].Request = type("Request", (), {})
    return found


LIBRARIES: dict[str, Callable[[Issuer], dict[str, ModuleType]]] = {"rds-iam": boto3, "vault": hvac, "cloud-sql": google}


def test_each_recipe_of_the_page_is_run_here() -> None:
    assert RECIPES.keys() == LIBRARIES.keys()


@pytest.mark.server
@pytest.mark.parametrize("name", list(LIBRARIES))
def test_a_token_that_expires_in_mid_run_is_renewed_before(
    name: str, postgresql: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer(postgresql)
    for module, stand_in in LIBRARIES[name](issuer).items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    url = f"postgresql://{postgresql.user}@{postgresql.host}:{postgresql.port}/{postgresql.database}"
    profile = Profile(name="cloud", url=url, password={"provider": name}, pool_recycle="150ms", pool_size=1)
    with Registry.from_profile(profile) as db:
        monkeypatch.setattr(dbconfig, "db", db, raising=False)
        exec(compile(RECIPES[name], f"docs/secrets.md: {name}", "exec"), {})

        def renewed() -> bool:
            with db.session() as session:
                assert session.execute(text("SELECT 1")).scalar_one() == 1
            return db.stats().created > 4 and len(issuer.issued) > 2

        wait_until(renewed, "further tokens")
    if name == "rds-iam":
        asked = {"DBHostname": postgresql.host, "Port": postgresql.port, "DBUsername": postgresql.user}
        assert issuer.asked == [asked] * len(issuer.asked)
    assert not [thread for thread in threading.enumerate() if thread.name == "dbconfig-password"]

"""The application in its own process, on a database that the plugin makes and every test finds empty."""

from collections.abc import Callable

import pytest
from app.main import ALEMBIC_INI, app
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from dbconfig.integrations.alembic import upgrade

PASSWORD = "correct horse"


@pytest.fixture(scope="session")
def db_setup() -> Callable[[Engine], object]:
    """Make the tables by the migrations, as in production."""
    return lambda engine: upgrade(engine, ini=str(ALEMBIC_INI))


@pytest.fixture
def client(db_override: object) -> TestClient:
    """A client of the application, whose sessions are on the test's connection: nothing is left behind."""
    return TestClient(app)  # without `with`: the lifespan belongs to servers


@pytest.fixture
def ada(client: TestClient) -> dict[str, str]:
    """The headers of a user who is logged in."""
    return log_in(client, "ada@example.org")


def log_in(client: TestClient, email: str) -> dict[str, str]:
    account = {"email": email, "password": PASSWORD}
    assert client.post("/users", json=account).status_code == 201
    token = client.post("/login", json=account).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}

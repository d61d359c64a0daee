"""Run with `pytest`: every test finds an empty database."""

import pytest
from flask.testing import FlaskClient
from shop import create_app, db

from dbconfig import Registry

app = create_app(DBCONFIG_PROFILE="testing")


@pytest.fixture(scope="session")
def db_registry() -> Registry:
    with app.app_context():
        return db.registry


@pytest.fixture
def client(db_override: Registry) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize("round", range(2))
def test_products(client: FlaskClient, round: int) -> None:
    assert client.get("/products").json == []
    assert client.post("/products", json={"name": "lamp"}).status_code == 201
    assert client.get("/products").json == ["lamp"]

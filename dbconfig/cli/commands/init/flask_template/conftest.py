"""A client whose requests are rolled back after each test."""

import pytest
from dbconfig import Registry
from flask import Flask
from flask.testing import FlaskClient

from app import create_app, db


@pytest.fixture(scope="session")
def app() -> Flask:
    return create_app(DBCONFIG_PROFILE="testing")


@pytest.fixture(scope="session")
def db_registry(app: Flask) -> Registry:
    with app.app_context():
        return db.registry


@pytest.fixture
def client(app: Flask, db_override: Registry) -> FlaskClient:
    return app.test_client()

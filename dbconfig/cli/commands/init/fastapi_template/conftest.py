"""A client whose requests are rolled back after each test."""

from collections.abc import Iterator

import pytest
from dbconfig import Registry
from fastapi.testclient import TestClient

from app.main import app


@pytest.fixture
def client(db_override: Registry) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client

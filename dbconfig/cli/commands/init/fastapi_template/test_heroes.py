"""Run with `pytest`: every test starts with empty tables."""

from fastapi.testclient import TestClient


def test_a_new_hero_is_listed(client: TestClient) -> None:
    assert client.post("/heroes", json={"name": "Deadpond"}).status_code == 201
    assert [hero["name"] for hero in client.get("/heroes").json()] == ["Deadpond"]


def test_an_unknown_hero_is_not_found(client: TestClient) -> None:
    assert client.get("/heroes").json() == []
    assert client.get("/heroes/1").status_code == 404

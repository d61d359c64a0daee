"""Run with `pytest`: every test starts with empty tables."""

from flask.testing import FlaskClient


def test_a_new_hero_is_listed(client: FlaskClient) -> None:
    created = client.post("/heroes", json={"name": "Deadpond"})
    assert (created.status_code, created.json["name"]) == (201, "Deadpond")
    assert [hero["name"] for hero in client.get("/heroes").json] == ["Deadpond"]


def test_an_unknown_hero_is_not_found(client: FlaskClient) -> None:
    assert client.get("/heroes").json == []
    assert client.get("/heroes/1").status_code == 404

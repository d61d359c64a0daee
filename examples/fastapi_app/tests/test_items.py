from collections.abc import Callable

from fastapi.testclient import TestClient

from tests.conftest import log_in


def test_items_are_created_read_changed_and_deleted(client: TestClient, ada: dict[str, str]) -> None:
    item = client.post("/items", json={"title": "engine"}, headers=ada).json()
    place = f"/items/{item['id']}"
    assert client.get(place, headers=ada).json() == item
    changed = client.put(place, json={"title": "difference engine"}, headers=ada).json()
    assert changed["title"] == "difference engine"
    assert client.delete(place, headers=ada).status_code == 204
    assert client.get(place, headers=ada).status_code == 404


def test_pages(client: TestClient, ada: dict[str, str], db_count_queries: Callable) -> None:
    for number in range(5):
        client.post("/items", json={"title": f"item {number}"}, headers=ada)
    with db_count_queries(4):  # the token, the user, the count, the page
        page = client.get("/items", params={"skip": 1, "limit": 2}, headers=ada).json()
    assert (page["count"], [item["title"] for item in page["data"]]) == (5, ["item 1", "item 2"])


def test_nobody_sees_the_items_of_others(client: TestClient, ada: dict[str, str]) -> None:
    item = client.post("/items", json={"title": "engine"}, headers=ada).json()
    bob = log_in(client, "bob@example.org")
    assert client.get(f"/items/{item['id']}", headers=bob).status_code == 404
    assert client.get("/items", headers=bob).json() == {"data": [], "count": 0}

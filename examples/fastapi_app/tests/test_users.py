from app.models import Token, User
from fastapi.testclient import TestClient
from sqlmodel import Session, select


def test_a_user_signs_up_once(client: TestClient, db_session: Session) -> None:
    account = {"email": "Ada@example.org", "password": "correct horse"}
    assert client.post("/users", json=account).json()["email"] == "ada@example.org"
    assert client.post("/users", json=account).status_code == 409
    assert [user.email for user in db_session.exec(select(User))] == ["ada@example.org"]


def test_a_wrong_password_and_a_wrong_token_are_refused(client: TestClient, ada: dict[str, str]) -> None:
    wrong = {"email": "ada@example.org", "password": "wrong horse"}
    assert client.post("/login", json=wrong).status_code == 400
    assert client.get("/users/me", headers={"Authorization": "Bearer nothing"}).status_code == 401
    assert client.get("/users/me", headers=ada).json()["email"] == "ada@example.org"


def test_who_leaves_takes_everything_along(client: TestClient, ada: dict[str, str], db_session: Session) -> None:
    client.post("/items", json={"title": "engine"}, headers=ada)
    assert client.delete("/users/me", headers=ada).status_code == 204
    assert client.get("/users/me", headers=ada).status_code == 401
    assert db_session.exec(select(Token)).all() == []

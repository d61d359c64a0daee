"""A password that changes: which connections are retired, and when somebody looks whether its file was written."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.util import greenlet_spawn

from dbconfig import DatabaseSettings, Profile
from dbconfig.engine import password_rotation as rotation


class Pool:
    """The pool's part in it: which connections there are, and what becomes of them."""

    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.retired: list[list[Any]] = []
        self.tried = 0
        self.trouble: Exception | None = None

    def ledger(self, engine: Engine) -> Pool:
        return self

    def live(self) -> list[Any]:
        return list(self.connections)

    def retire(self, engine: Engine, connections: list[Any]) -> None:
        self.retired.append(connections)

    def connect_beside(self, engine: Engine) -> None:
        self.tried += 1
        if self.trouble is not None:
            raise self.trouble


class Keeper:
    def __init__(self) -> None:
        self.added: list[tuple[Any, float]] = []

    def add(self, key: object, job: Any, delay: float = 0.0) -> None:
        self.added.append((job, delay))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    found = Pool()
    monkeypatch.setattr(rotation, "pool", found)
    return found


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    found = Keeper()
    monkeypatch.setattr(rotation, "caretaker", found)
    return found


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://")
    yield made
    made.dispose()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("first")
    path.chmod(0o600)
    return path


def settings_with(password: Any, **more: Any) -> DatabaseSettings:
    written = {} if password is None else {"password": password}
    return Profile(name="x", url="postgresql://app@main/shop", **written, **more).databases["default"]


class Connected:
    """Connections of an engine, as its listeners are told of them."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self.engine = engine
        self.pool = pool

    def begin(self, password: object = None, *, known: bool = True) -> Any:
        """Read the password and begin to connect."""
        record = SimpleNamespace(info={})
        parameters = {} if password is None else {"password": password}
        for listener in self.engine.dialect.dispatch.do_connect:  # type: ignore[attr-defined]  # made of the events
            listener(self.engine.dialect, record if known else None, [], parameters)
        return record

    def end(self, record: Any) -> Any:
        """Be connected."""
        self.pool.connections.append(record)
        listener = next(
            each
            for each in self.engine.pool.dispatch.connect
            if each.__name__ == "retire_older"  # type: ignore[attr-defined]
        )
        listener(object(), record)
        return record


@pytest.mark.parametrize("kind", ["file", "env"])
def test_the_first_connection_with_a_new_password_retires_those_with_the_old_one(
    engine: Engine,
    pool: Pool,
    keeper: Keeper,
    secret: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SECRET", "first")
    rotation.attach(engine, settings_with({kind: str(secret) if kind == "file" else "SECRET"}), "shop")
    connected = Connected(engine, pool)
    one, two = connected.end(connected.begin("first")), connected.end(connected.begin("first"))
    foreign = SimpleNamespace(info={})  # of before anybody looked after it
    pool.connections.append(foreign)
    assert pool.retired == []
    with caplog.at_level(logging.INFO):
        three = connected.end(connected.begin(b"second"))
    assert pool.retired == [[one, two]]
    assert caplog.messages == ["shop: the password has changed; replacing 2 older connections"]
    pool.connections[:] = [three]
    connected.end(connected.begin("second"))
    assert len(pool.retired) == 1


def test_of_two_connects_at_the_same_time_the_one_that_has_read_the_old_password_retires_nobody(
    engine: Engine, pool: Pool, keeper: Keeper, secret: Path
) -> None:
    rotation.attach(engine, settings_with({"file": str(secret)}), "shop")
    connected = Connected(engine, pool)
    old = connected.begin("first")
    new = connected.begin("second")
    connected.end(new)
    connected.end(old)
    assert pool.retired == []
    connected.begin("third", known=False)  # a connect beside the pool, whose connection is nobody's to retire
    assert pool.retired == []


@pytest.mark.parametrize("password", [None, "literal"])
def test_what_cannot_change_is_not_watched(engine: Engine, pool: Pool, password: Any) -> None:
    rotation.attach(engine, settings_with(password), "shop")
    assert not engine.dialect.dispatch.do_connect  # type: ignore[attr-defined]  # made of the events
    assert "retire_older" not in [each.__name__ for each in engine.pool.dispatch.connect]  # type: ignore[attr-defined]


def test_a_file_is_looked_at_from_the_first_connection_on(
    engine: Engine, pool: Pool, keeper: Keeper, secret: Path
) -> None:
    rotation.attach(engine, settings_with({"file": str(secret)}), "shop")
    connected = Connected(engine, pool)
    connected.end(connected.begin("first"))
    connected.end(connected.begin("first"))
    ((job, delay),) = keeper.added
    assert delay == rotation.ROUND
    assert job() == rotation.ROUND
    assert pool.tried == 0
    secret.write_text("the second")
    pool.trouble = PermissionError("the server was not told yet")
    assert [job(), job()] == [rotation.ROUND] * 2
    assert pool.tried == 2
    pool.trouble = None
    assert [job(), job()] == [rotation.ROUND] * 2
    assert pool.tried == 3  # once it has connected, that is what it has seen
    secret.unlink()  # it is being replaced
    assert job() == rotation.ROUND
    assert pool.tried == 3
    secret.write_text("the third")
    job()
    assert pool.tried == 4


def test_what_the_log_says_of_a_password_that_opens_nothing_yet(
    engine: Engine, pool: Pool, keeper: Keeper, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rotation.attach(engine, settings_with({"file": str(secret)}), "shop")
    connected = Connected(engine, pool)
    connected.end(connected.begin("first"))
    secret.write_text("the second")
    pool.trouble = PermissionError("the second")
    with caplog.at_level(logging.INFO):
        keeper.added[0][0]()
    assert caplog.messages == [f"cannot connect with the new content of {secret} yet: PermissionError"]


def test_nobody_looks_at_the_file_while_nobody_is_connected(
    engine: Engine, pool: Pool, keeper: Keeper, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation.attach(engine, settings_with({"file": str(secret)}), "shop")
    connected = Connected(engine, pool)
    record = connected.begin("first")
    connected.end(record)
    pool.connections.clear()
    assert keeper.added[0][0]() is None
    connected.end(connected.begin("first"))
    assert len(keeper.added) == 2
    monkeypatch.setattr(os, "getpid", lambda: 0)  # in a child that was forked
    connected.end(connected.begin("first"))
    assert len(keeper.added) == 3


def test_an_engine_that_nobody_has_any_more_is_not_kept_by_its_watch(pool: Pool, keeper: Keeper, secret: Path) -> None:
    engine = create_engine("sqlite://")
    watch = rotation._Watch(engine, secret)
    pool.connections.append(object())
    assert watch() == rotation.ROUND
    engine.dispose()
    del engine
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize("is_async", [False, True])
def test_in_an_event_loop_no_thread_looks_at_the_file(
    engine: Engine, pool: Pool, keeper: Keeper, secret: Path, is_async: bool
) -> None:
    engine.dialect.is_async = is_async
    rotation.attach(engine, settings_with({"file": str(secret)}), "shop")
    connected = Connected(engine, pool)
    connected.end(connected.begin("first"))
    assert len(keeper.added) == (not is_async)


# Where it comes from


@pytest.mark.parametrize(
    ("mode", "told"),
    [(0o600, []), (0o644, ["is readable by other users: set its permissions to 600"])],
)
def test_a_secret_file_that_others_may_read_is_told(
    secret: Path, mode: int, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    secret.chmod(mode)
    rotation._prove_secrets(settings_with({"file": str(secret)}))
    assert [message.partition(f"{secret} ")[2] for message in caplog.messages] == told


def test_a_secret_file_that_others_may_write_is_told(secret: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret.chmod(0o602)
    rotation._prove_secrets(settings_with({"file": str(secret)}))
    assert caplog.messages == [f"secret file {secret} can be written or replaced by other users"]


@pytest.mark.parametrize("password", [None, "literal"])
def test_what_is_no_file_has_no_permissions(password: Any, caplog: pytest.LogCaptureFixture) -> None:
    rotation._prove_secrets(settings_with(password))
    assert caplog.messages == []


def test_secrets_are_read_at_each_connect(engine: Engine, secret: Path) -> None:
    rotation._supply_secrets(engine, settings_with({"file": str(secret)}, connect_args={"sslpassword": "hidden"}))
    (listener,) = engine.dialect.dispatch.do_connect  # type: ignore[attr-defined]  # made of the events
    found: list[dict[str, Any]] = []
    for content in ("first", "second"):
        secret.write_text(content)
        parameters: dict[str, Any] = {"port": 1}
        listener(engine.dialect, None, [], parameters)
        found.append(parameters)
    assert found == [
        {"port": 1, "password": "first", "sslpassword": "hidden"},
        {"port": 1, "password": "second", "sslpassword": "hidden"},
    ]


def test_an_engine_without_secrets_asks_for_none(engine: Engine) -> None:
    rotation._supply_secrets(engine, settings_with(None, connect_args={"application_name": "shop"}))
    assert not engine.dialect.dispatch.do_connect  # type: ignore[attr-defined]  # made of the events


@pytest.mark.parametrize(
    ("is_async", "kind", "aside"), [(True, "provider", True), (True, "file", False), (False, "provider", False)]
)
def test_a_provider_does_not_hold_up_an_event_loop(engine: Engine, is_async: bool, kind: str, aside: bool) -> None:
    pytest.importorskip("greenlet")
    threads: list[threading.Thread] = []

    def read() -> str:
        threads.append(threading.current_thread())
        return "token"

    engine.dialect.is_async = is_async
    address = SimpleNamespace(password=SimpleNamespace(kind=kind), query={})
    settings: Any = SimpleNamespace(address=address, connect_args={}, read_password=read)
    rotation._supply_secrets(engine, settings)
    (listener,) = engine.dialect.dispatch.do_connect  # type: ignore[attr-defined]  # made of the events
    parameters: dict[str, Any] = {}
    if aside:
        asyncio.run(greenlet_spawn(listener, engine.dialect, None, [], parameters))
    else:
        listener(engine.dialect, None, [], parameters)
    assert parameters == {"password": "token"}
    assert (threads[0] is threading.current_thread()) is not aside

"""The time that a connect may take is the one that was written, by whichever name."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from dbconfig import ConfigError, Profile, Registry
from tests.registries import registry

POSTGRESQL, MYSQL = "postgresql://u@h/d", "mysql://u@h/d"


class Stop(Exception):
    """Ends a connect before the driver is called."""


def given_to_the_driver(db: Registry) -> dict[str, Any]:
    got: dict[str, Any] = {}
    engine = db.engine()

    @event.listens_for(engine, "do_connect")
    def stop(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> None:
        got.update(cparams)
        raise Stop

    with pytest.raises(Stop):
        engine.connect()
    return got


@pytest.mark.parametrize("driver", ["postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql"])
@pytest.mark.parametrize(
    ("tail", "settings"),
    [
        ("?connect_timeout=20", {}),
        ("", {"connect_args": {"connect_timeout": 20}}),
        ("", {"query": {"connect_timeout": 20}}),
        ("", {"connect_timeout": 20}),
    ],
)
def test_a_longer_limit_is_not_cut_to_the_default(driver: str, tail: str, settings: dict[str, Any]) -> None:
    pytest.importorskip(driver.partition("+")[2])
    with registry(f"{driver}://u@h/d{tail}", **settings) as db:
        assert round(given_to_the_driver(db)["connect_timeout"]) == 20


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("postgresql+asyncpg://u@127.0.0.1:1/d?connect_timeout=20", {}),
        ("postgresql+asyncpg://u@127.0.0.1:1/d", {"connect_args": {"timeout": 20}}),
        ("mysql+asyncmy://u@127.0.0.1:1/d?connect_timeout=20", {}),
        ("mysql+aiomysql://u@127.0.0.1:1/d", {"connect_args": {"connect_timeout": 20}}),
    ],
)
def test_an_asynchronous_connect_is_not_cut_either(
    url: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(url.partition("://")[0].partition("+")[2])
    bounds: list[float] = []

    def stop(seconds: float) -> Any:
        bounds.append(seconds)
        raise Stop("Stop")

    async def main() -> None:
        async with registry(url, **settings).async_engine().connect():
            pass

    monkeypatch.setattr(asyncio, "timeout", stop)
    with pytest.raises(OperationalError, match="Stop"):
        asyncio.run(main())
    assert bounds == [20.0]


def test_the_limit_is_shown_with_the_place_where_it_was_written(project):
    settings = project.settings(f"pool_size: 3\nurl: {POSTGRESQL}?connect_timeout=20\n")
    assert (settings.connect_timeout, str(settings.origin("connect_timeout"))) == (20, "config/development.yaml:2:1")
    settings = project.settings(f"url: {POSTGRESQL}\nconnect_args: {{timeout: 20}}\n")
    assert (settings.connect_timeout, str(settings.origin("connect_timeout"))) == (20, "config/development.yaml:2:16")


@pytest.mark.parametrize(
    ("text", "slug", "message", "key"),
    [
        (f"url: {POSTGRESQL}?connect_timeout=20\nconnect_timeout: 20", "given-twice",
         "`connect_timeout` is given twice: as a key and in the URL", "connect_timeout"),
        (f"url: {MYSQL}\nquery: {{connect_timeout: 20}}\nconnect_timeout: 3", "given-twice",
         "`connect_timeout` is given twice: as a key and in `query`", "connect_timeout"),
        (f"url: {POSTGRESQL}\nconnect_args: {{timeout: 20}}\nconnect_timeout: 3", "given-twice",
         "`connect_timeout` is given twice: as a key and as 'timeout' in connect_args", "connect_args.timeout"),
        (f"url: {POSTGRESQL}?connect_timeout=2\nconnect_args: {{connect_timeout: 3}}", "given-twice",
         "`connect_timeout` is given twice: in the URL, and in connect_args", "connect_args.connect_timeout"),
        (f"url: {POSTGRESQL}\nconnect_args: {{connect_timeout: 3, timeout: 3}}", "given-twice",
         "`connect_timeout` is given twice: in connect_args, and as 'timeout' in connect_args", "connect_args.timeout"),
        (f"url: {POSTGRESQL}?connect_timeout=0", "out-of-range",
         "'connect_timeout' in the URL must be greater than 0 and at most 3600 seconds", "url"),
        (f"url: {POSTGRESQL}\nconnect_args: {{connect_timeout: 0}}", "out-of-range",
         "'connect_timeout' in connect_args must be greater than 0 and at most 3600 seconds",
         "connect_args.connect_timeout"),
        (f"url: {MYSQL}?connect_timeout=5s", "wrong-type",
         "'connect_timeout' in the URL must be a whole number of seconds", "url"),
    ],
)  # fmt: skip
def test_a_limit_that_is_written_twice_or_is_none_is_refused(project, text, slug, message, key):
    problem = project.problem(text + "\n")
    assert (problem.slug, problem.message, problem.key) == (slug, message, key)


def test_the_limit_in_a_url_goes_before_a_lower_layers_key_and_behind_a_higher_ones(project):
    url = f"url: {POSTGRESQL}?connect_timeout=20\n"
    lower = {"default.yaml": "connect_timeout: 5s\n", "development.yaml": url}
    higher = {"default.yaml": url, "development.yaml": "connect_timeout: 7s\n"}
    assert project.settings(lower).connect_timeout == 20
    settings = project.settings(higher)
    assert (settings.connect_timeout, dict(settings.address.query)) == (7, {})
    assert project.settings(lower, {"DBCONFIG_CONNECT_TIMEOUT": "2"}).connect_timeout == 2
    named = f"url: {POSTGRESQL}\nconnect_timeout: 3s\ndatabases: {{facts: {{url: '{MYSQL}?connect_timeout=20'}}}}\n"
    assert project.settings({"default.yaml": "echo: false\n", "development.yaml": named}).connect_timeout == 3
    assert project.settings(named, database="facts").connect_timeout == 20


def test_a_replica_has_its_primarys_limit_or_its_own_by_whichever_name() -> None:
    replicas = [{"host": "b"}, {"host": "c", "connect_timeout": 3}, {"url": "postgresql://d?connect_timeout=9"}]
    for url, limit in ((f"{POSTGRESQL}?connect_timeout=20", {}), (POSTGRESQL, {"connect_timeout": 20})):
        settings = Profile(name="tests", url=url, replicas=replicas, **limit).databases["default"]
        assert [each.connect_timeout for each in settings.replicas] == [20, 3, 9]


def test_sqlites_timeout_is_for_locks() -> None:
    made = Profile(name="tests", url="sqlite:///a.db", connect_args={"timeout": 20})
    assert made.databases["default"].connect_args == {"timeout": 20}
    with pytest.raises(ConfigError, match="it does not connect to a server"):
        Profile(name="tests", url="sqlite:///a.db", connect_timeout=20)

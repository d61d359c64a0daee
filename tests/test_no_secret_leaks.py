"""A planted password is in nothing that the library hands out, raises or logs, wherever it was written."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.log
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from dbconfig import ConfigError, Registry
from tests.registries import Account, from_yaml
from tests.support.servers import Server

CANARY = "Zq7-canary-Kx9"

# How a configuration is written that has the canary at one place: its YAML, and the environment of the process.
Written = tuple[str, dict[str, str]]
PLACES: dict[str, Callable[[Server, Path], Written]] = {
    "password:": lambda server, root: (f"{address(server)}\npassword: {CANARY}", {}),
    "the URL": lambda server, root: (f"url: {server.url(user='canary', password=CANARY)}", {}),
    "a variable that is the URL": lambda server, root: (
        "url: ${DATABASE_URL}",
        {"DATABASE_URL": server.url(user="canary", password=CANARY)},
    ),
    "a variable in the URL": lambda server, root: (
        address(server).replace("canary@", "canary:${DB_PASSWORD}@"),
        {"DB_PASSWORD": CANARY},
    ),
    "a default in the URL": lambda server, root: (address(server).replace("canary@", f"canary:${{PW:-{CANARY}}}@"), {}),
    "a file": lambda server, root: (f"{address(server)}\npassword: {{file: {secret_file(root)}}}", {}),
    "a variable that is read at each connect": lambda server, root: (
        f"{address(server)}\npassword: {{env: DB_PASSWORD}}",
        {"DB_PASSWORD": CANARY},
    ),
    "an override": lambda server, root: (address(server), {"DBCONFIG_PASSWORD": CANARY}),
    "an override of the URL": lambda server, root: (
        "url: sqlite://",
        {"DBCONFIG_URL": server.url(user="canary", password=CANARY)},
    ),
}
# Secrets beside the password, which a server without TLS ignores.
BESIDE: dict[str, Callable[[Server], str]] = {
    "connect_args": lambda server: (
        f"{good(server)}\nconnect_args: {{{beside(server)}: {CANARY}}}"
        if server.kind == "postgresql"
        else f"{good(server)}\nconnect_args: {{ssl_disabled: true, {beside(server)}: {CANARY}}}"
    ),
    "query": lambda server: f"{good(server)}\nquery: {{sslpassword: {CANARY}}}",
    "URL query": lambda server: f"{good(server)}?sslpassword={CANARY}",
    "variables": lambda server: f"{good(server)}\nvariables: {{my.token: {CANARY}}}",
}


MISTAKES = (
    "pol_size: 3",
    "pool_size: five",
    "connect_args: {nonsense: 1}",
    "query: {nonsense: x}",
    "host: elsewhere",
    "url: x",
)
VALUES = (
    "dbconfig.errors.problem",
    "dbconfig.settings.profile",
    "dbconfig.settings.secret_sources",
    "dbconfig.settings.database",
    "dbconfig.settings.url_parsing",
)


def address(server: Server) -> str:
    return f"url: {server.driver}://canary@{server.host}:{server.port}/{server.database}"


def good(server: Server) -> str:
    return f"url: {server.url()}"


def beside(server: Server) -> str:
    return "sslpassword" if server.kind == "postgresql" else "ssl_key_password"


def secret_file(root: Path) -> Path:
    path = root / "secret"
    path.write_text(CANARY)
    path.chmod(0o600)
    return path


@pytest.fixture
def heard(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], str]]:
    """Return what was logged, printed and warned of so far, at the most talkative of all levels."""
    # SQLAlchemy's handler for `echo` would keep the standard output of this test for ever.
    monkeypatch.setattr(sqlalchemy.log, "_add_default_handler", lambda logger: None)
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy", "dbconfig"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def said() -> str:
            records = [f"{vars(record)} {record.getMessage()}" for record in caplog.records]
            return "\n".join([*records, *(f"{vars(each)}" for each in caught), *capfd.readouterr()])

        yield said
    for name in ("sqlalchemy", "dbconfig"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def everything_of(*objects: Any) -> Iterator[tuple[str, str]]:
    """Yield each way in which objects can be shown, and what it shows."""
    for each in objects:
        name = type(each).__name__
        yield f"repr of {name}", repr(each)
        yield f"str of {name}", str(each)
        yield f"format of {name}", f"{each}"
        yield f"attributes of {name}", repr(getattr(each, "__dict__", ""))
        slots = [getattr(each, slot, "") for slot in getattr(type(each), "__slots__", ())]
        yield f"slots of {name}", repr(slots)
        if hasattr(each, "model_dump"):
            yield f"dump of {name}", repr(each.model_dump())
            yield f"JSON of {name}", each.model_dump_json()
            yield f"JSON dump of {name}", repr(each.model_dump(mode="json"))
        if type(each).__module__ in VALUES:
            yield f"copy of {name}", repr(copy.deepcopy(each))
            yield f"pickle of {name}", repr(pickle.dumps(each))


def everything_raised(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield what an error and all that led to it show, with its notes and its traceback."""
    yield "traceback", "".join(traceback.format_exception(error))
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        for way, shown in (
            ("repr", repr(each)),
            ("str", str(each)),
            ("args", repr(each.args)),
            ("dict", repr(vars(each))),
        ):
            yield f"{way} of {type(each).__name__}", shown
        pending += [each.__cause__, each.__context__, getattr(each, "orig", None)]
    if isinstance(error, ConfigError):
        yield "pickle", repr(pickle.dumps(error))


def shown_by(db: Registry) -> Iterator[tuple[str, str]]:
    profile = db.profile
    settings = profile.databases["default"]
    engine = db.engine()
    parts = [settings.url, settings.address, settings.password, *profile.databases.values()]
    yield from everything_of(db, profile, settings, *(part for part in parts if part is not None))
    yield from everything_of(engine, engine.url, engine.pool, engine.dialect, settings.public_url())
    yield "URL in full", engine.url.render_as_string(hide_password=False)
    yield "URL as a tuple", repr(tuple(engine.url))
    yield "URL of SQLAlchemy", repr(settings.sqlalchemy_url().set(query={}))
    yield "pool", engine.pool.status()
    yield "statistics", repr(db.stats())
    yield "origins", repr({key: str(profile.origin(key)) for key in type(settings).model_fields})
    yield "pickled and back", repr(pickle.loads(pickle.dumps(profile)))


def free_of(canary: str, found: Iterator[tuple[str, str]]) -> None:
    leaks = [way for way, shown in found if canary in shown]
    assert leaks == []


def used(db: Registry) -> None:
    """Use the database in all ways, the failing ones too."""
    db.create_tables(Account)
    with db.transaction() as session:
        session.add(Account(id=1, balance=1))
    with db.session() as session:
        assert session.exec(select(Account.balance)).all() == [1]
        free_of(CANARY, everything_of(session, session.connection()))
        with pytest.raises(Exception) as caught:
            session.execute(text("SELECT nonsense FROM nowhere"))
    free_of(CANARY, everything_raised(caught.value))
    db.drop_tables(Account)


@pytest.mark.parametrize("place", PLACES)
def test_a_password_that_is_right_is_shown_nowhere(
    place: str, server: Server, tmp_path: Path, heard: Callable[[], str]
) -> None:
    server.create_user("canary", CANARY)
    yaml, environ = PLACES[place](server, tmp_path)
    with from_yaml(tmp_path, f"{yaml}\necho: debug\necho_pool: debug", environ) as db:
        used(db)
        free_of(CANARY, shown_by(db))
    gc.collect()
    said = heard()
    assert "SELECT" in said
    assert CANARY not in said


@pytest.mark.parametrize("place", PLACES)
def test_a_password_that_is_wrong_or_a_server_that_is_away_shows_nothing(
    place: str, server: Server, tmp_path: Path, heard: Callable[[], str]
) -> None:
    server.create_user("canary", "another one")
    yaml, environ = PLACES[place](server, tmp_path)
    away = {name: value.replace(f":{server.port}", ":1") for name, value in environ.items()}
    for content, variables in ((yaml, environ), (yaml.replace(f":{server.port}", ":1"), away)):
        with from_yaml(tmp_path, f"{content}\necho_pool: debug", variables) as db:
            for use in (lambda db=db: db.engine().connect(), lambda db=db: db.create_tables(Account)):
                with pytest.raises(Exception) as caught:
                    use()
                free_of(CANARY, everything_raised(caught.value))
            free_of(CANARY, shown_by(db))
    assert CANARY not in heard()


@pytest.mark.parametrize(
    ("place", "mistake"),
    [
        (place, mistake)
        for place in PLACES
        for mistake in MISTAKES
        # The variable replaces the whole address of the file, and with it these.
        if place != "an override of the URL" or not mistake.startswith(("query", "host"))
    ],
)
def test_another_mistake_in_the_same_file_does_not_show_it(
    place: str, mistake: str, server: Server, tmp_path: Path, heard: Callable[[], str]
) -> None:
    yaml, environ = PLACES[place](server, tmp_path)
    with from_yaml(tmp_path, f"{yaml}\n{mistake}", environ) as db:
        with pytest.raises(ConfigError) as caught:
            db.engine()
        free_of(CANARY, everything_raised(caught.value))
        free_of(CANARY, everything_of(*caught.value.problems, db))
    assert CANARY not in heard()


@pytest.mark.parametrize("place", BESIDE)
def test_a_secret_beside_the_password_is_shown_nowhere(
    place: str, server: Server, tmp_path: Path, heard: Callable[[], str]
) -> None:
    with from_yaml(tmp_path, BESIDE[place](server)) as db:
        if server.kind == "postgresql" or place == "connect_args":
            used(db)
            free_of(CANARY, shown_by(db))
        else:  # MariaDB has no such parameter and no such variable
            with pytest.raises((ConfigError, DBAPIError)) as caught:
                used(db)
            free_of(CANARY, everything_raised(caught.value))
            if place == "variables":  # else no profile could be loaded
                free_of(CANARY, everything_of(db.profile, db.profile.databases["default"]))
    assert CANARY not in heard()


def test_a_password_for_sqlite_is_refused_without_being_shown(tmp_path: Path) -> None:
    for yaml, environ in (
        (f"url: sqlite:///x.db\npassword: {CANARY}", {}),
        ("url: sqlite:///x.db", {"DBCONFIG_PASSWORD": CANARY}),
        (f"url: sqlite:///x.db\nconnect_args: {{password: {CANARY}}}", {}),
        (f"url: sqlite:///x.db?password={CANARY}", {}),
        (f"url: sqlite:///x.db\nvariables: {{key: {CANARY}}}", {}),
    ):
        with from_yaml(tmp_path, yaml, environ) as db:
            with pytest.raises(ConfigError) as caught:
                db.engine()
            free_of(CANARY, everything_raised(caught.value))


def test_a_password_of_a_url_that_is_not_encoded_is_not_repeated(server: Server, tmp_path: Path) -> None:
    for password in (f"{CANARY}@x", f"{CANARY}/x", f"x:{CANARY}#", f"%{CANARY}"):
        raw = f"{server.driver}://canary:{password}@{server.host}:{server.port}/{server.database}"
        for yaml, environ in ((f"url: '{raw}'", {}), ("url: ${DATABASE_URL}", {"DATABASE_URL": raw})):
            with from_yaml(tmp_path, yaml, environ) as db:
                with pytest.raises(ConfigError) as caught:
                    db.engine()
                free_of(CANARY, everything_raised(caught.value))


def test_values_of_statements_are_hidden_where_the_profile_says_so(
    server: Server, tmp_path: Path, heard: Callable[[], str]
) -> None:
    """In logs and in SQLAlchemy's part of an error; what a server quotes of a statement is the server's."""
    with from_yaml(tmp_path, f"{good(server)}\necho: true\nhide_parameters: true") as db, db.session() as session:
        assert session.execute(text("SELECT :value"), {"value": CANARY}).scalar_one() == CANARY
    said = heard()
    assert "parameters hidden" in said
    assert CANARY not in said

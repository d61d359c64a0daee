"""The status page of FastAPI and Flask: numbers behind a guard, and nothing that an attacker could use."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import ConfigError, Profile, Registry
from dbconfig.engine.pool import Histogram, PoolStats, caretaker
from dbconfig.integrations.figures import nothing
from dbconfig.integrations.status_page import Page, quantile, timeline

Get = Callable[[str], tuple[int, str]]
SECRET = "planted-91af"


@pytest.fixture
def db(tmp_path: Any) -> Iterator[Registry]:
    with Registry.from_profile(
        Profile(name="production", url=f"sqlite:///{tmp_path}/{SECRET}.db", pool_size=3)
    ) as made:
        yield made


@pytest.fixture(params=["fastapi", "flask"])
def mount(request: pytest.FixtureRequest) -> Callable[..., Get]:
    """Mount the page in an application of each framework; `refuses`: the guard lets nobody in."""
    pytest.importorskip(request.param)
    return _in_fastapi if request.param == "fastapi" else _in_flask


def _in_fastapi(db: Registry, *, guarded: bool = True, refuses: bool = False) -> Get:
    from fastapi import FastAPI, HTTPException
    from fastapi.testclient import TestClient

    from dbconfig.integrations.fastapi_status import status

    def guard() -> None:
        if refuses:
            raise HTTPException(403)

    app = FastAPI()
    app.include_router(status(guard if guarded else None, registry=db))
    client = TestClient(app)

    def get(path: str) -> tuple[int, str]:
        answer = client.get(path)
        assert refuses or answer.headers["cache-control"] == "no-store"
        return answer.status_code, answer.text

    return get


def _in_flask(db: Registry, *, guarded: bool = True, refuses: bool = False) -> Get:
    from flask import Flask, abort

    from dbconfig.integrations.flask_status import status

    def guard() -> None:
        if refuses:
            abort(403)

    app = Flask("shop")
    app.register_blueprint(status(guard if guarded else None, registry=db))
    client = app.test_client()

    def get(path: str) -> tuple[int, str]:
        answer = client.get(path)
        assert refuses or answer.headers["cache-control"] == "no-store"
        return answer.status_code, answer.text

    return get


def test_the_page_shows_each_pool_without_scripts_and_without_secrets(db: Registry, mount: Callable[..., Get]) -> None:
    get = mount(db)
    with db.session() as session:
        session.execute(text("SELECT 'planted'"))
        code, page = get("/status/db")
    assert code == 200
    assert "<h2>production</h2>" in page
    assert "<td>1, 0, 0</td>" in page
    assert "<svg" in page
    HTMLParser().feed(page)
    for word in ("<script", "onload", "http://", "https://", SECRET, "planted", "SELECT", ".db"):
        assert word not in page, word


def test_the_details_are_json(db: Registry, mount: Callable[..., Get]) -> None:
    import json

    code, found = mount(db)("/health/db/details")
    assert code == 200
    pool = json.loads(found)["pools"]["production"]
    assert (pool["size"], pool["max"], pool["used"], pool["role"], pool["in_rotation"]) == (3, 13, 0, "primary", True)
    assert SECRET not in found


@pytest.mark.parametrize("path", ["/status/db", "/health/db/details"])
def test_the_guard_decides(db: Registry, mount: Callable[..., Get], path: str) -> None:
    code, page = mount(db, refuses=True)(path)
    assert code == 403
    assert "production" not in page


def test_without_a_guard_it_is_refused_outside_of_development(mount: Callable[..., Get], db: Registry) -> None:
    with pytest.raises(ConfigError, match="the status page needs a guard in the profile 'production'"):
        mount(db, guarded=False)
    with Registry.from_profile(Profile(name="development", url="sqlite://")) as own:
        assert mount(own, guarded=False)("/status/db")[0] == 200


def test_why_a_replica_is_out_is_not_shown(monkeypatch: pytest.MonkeyPatch, db: Registry) -> None:
    replica = replace(nothing("production/replica1"), role="replica", number=1, out=f"no way to {SECRET}", lag=4.25)
    monkeypatch.setattr(db, "all_stats", lambda: [replica])
    page = Page(db)
    assert "out of rotation" in page.html()
    assert "lags by 4.2 s" in page.html()
    assert SECRET not in page.html() + str(page.details())


def test_names_are_escaped(monkeypatch: pytest.MonkeyPatch, db: Registry) -> None:
    monkeypatch.setattr(db, "all_stats", lambda: [replace(nothing("<b>&"), number=1)])
    assert "<h2>&lt;b&gt;&amp;</h2>" in Page(db).html()


def test_samples_are_taken_until_the_page_is_gone(db: Registry) -> None:
    page = Page(db)
    page.watch()
    key = ("dbconfig.status", id(page))
    assert key in caretaker._jobs
    page.sample()
    assert len(page._samples) == 1
    job = caretaker._jobs[key]
    del page
    assert job() is None


def pool(used: int, waiting: int = 0, limit: int | None = 4) -> PoolStats:
    return replace(nothing("shop"), used=used, idle=4 - used, waiting=waiting, max=limit)


@pytest.mark.parametrize("limit", [4, None])
def test_the_timeline_is_well_formed_and_within_its_frame(limit: int | None) -> None:
    past = [(100.0 + number, pool(number % 5, waiting=number, limit=limit)) for number in range(60)]
    drawn = ElementTree.fromstring(timeline(past))
    lines = drawn.findall("polyline")
    assert len(lines) == 3
    assert len(drawn.findall("line")) == (limit is not None)
    for line in lines:
        points = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
        assert len(points) == 60
        assert all(0 <= x <= 640 and 0 <= y <= 120 for x, y in points)
    assert drawn.findtext("title") == "Connections in the last 59 s"
    assert timeline([]) == ""
    ElementTree.fromstring(timeline(past[:1]))


def test_quantiles_are_bounds() -> None:
    counts = (50, 45, 4, 0, 0, 0, 0, 0, 0, 1)
    assert [quantile(Histogram(counts=counts), share) for share in (0.5, 0.95, 0.99, 1.0)] == [0.001, 0.005, 0.01, None]
    assert quantile(Histogram(), 0.5) is None

"""The status page in a browser: everything on it is visible, in wide and narrow windows, and nothing else is loaded."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from dbconfig.integrations import status_page
from tests.support import browser
from tests.support.processes import wait_until

pytestmark = pytest.mark.skipif(browser.program() is None, reason="Chromium is not installed: apt-get install chromium")
SECRET = "planted-91af"

# Shows the page in a frame, and writes into the document what the browser made of it.
MEASURE = """<!doctype html><title>measure</title>
<iframe id="page" src="/status/db" style="width:WIDTHpx;height:900px;border:0"></iframe><pre id="found"></pre>
<script>
document.getElementById("page").addEventListener("load", event => {
  const inside = event.target.contentWindow, doc = inside.document
  const box = each => { const at = each.getBoundingClientRect(); return [at.left, at.top, at.right, at.bottom] }
  const all = chosen => [...doc.querySelectorAll(chosen)]
  document.getElementById("found").textContent = JSON.stringify({
    title: doc.title,
    headings: all("h1, h2").map(each => each.textContent),
    rows: all("tr").map(each => each.innerText.trim()),
    drawings: all("svg").map(box),
    lines: all("polyline").map(each => [inside.getComputedStyle(each).stroke, ...box(each)]),
    limit: all("svg line").map(box),
    legend: all("svg text").map(each => each.textContent),
    seen: doc.body.innerText,
    scripts: doc.scripts.length,
    loaded: inside.performance.getEntriesByType("resource").map(each => each.name),
    refresh: doc.querySelector("meta[http-equiv=refresh]").content,
    width: inside.innerWidth, needed: doc.documentElement.scrollWidth,
  })
})
</script>"""


@contextmanager
def fastapi_application(db: Registry) -> Iterator[int]:
    uvicorn = pytest.importorskip("uvicorn")
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

    from dbconfig.integrations.fastapi_status import status

    app = FastAPI()
    app.include_router(status(lambda: None, registry=db))

    @app.get("/measure/{width}", response_class=HTMLResponse)
    def measure(width: int) -> str:
        return MEASURE.replace("WIDTH", str(width))

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "uvicorn")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def flask_application(db: Registry) -> Iterator[int]:
    flask = pytest.importorskip("flask")
    from werkzeug.serving import make_server

    from dbconfig.integrations.flask_status import status

    app = flask.Flask("shop")
    app.register_blueprint(status(lambda: None, registry=db))
    app.add_url_rule("/measure/<int:width>", "measure", lambda width: MEASURE.replace("WIDTH", str(width)))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def seen_by_browser(port: int, width: int) -> dict[str, Any]:
    found = re.search(r'<pre id="found">(.+?)</pre>', browser.dom(f"http://127.0.0.1:{port}/measure/{width}"), re.S)
    assert found is not None
    return dict(json.loads(unescape(found[1])))


@pytest.mark.parametrize("application", [fastapi_application, flask_application])
def test_a_browser_shows_the_page(application: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_page, "PERIOD", 0.05)
    profile = Profile(name="production", url=f"sqlite:///{tmp_path}/{SECRET}.db", pool_size=3, max_overflow=1)
    with Registry.from_profile(profile) as db, application(db) as port:
        held = [db.engine().connect() for _ in range(2)]
        for each in held:
            each.execute(text(f"SELECT '{SECRET}'"))
        seen_by_browser(port, 800)  # from the first look on it takes samples
        held.pop().close()
        wide, narrow = seen_by_browser(port, 800), seen_by_browser(port, 360)
        for each in held:
            each.close()
    for found in (wide, narrow):
        assert found["title"] == "Database pools"
        assert found["headings"] == ["Database pools", "production"]
        assert "used, idle, waiting\t1, 1, 0" in found["rows"]
        assert found["legend"][:4] == ["4", "used", "idle", "waiting"]
        assert re.fullmatch(r"last \d+ s", found["legend"][4])
        assert found["scripts"] == 0
        assert found["loaded"] == []
        assert found["refresh"] == "5"
        assert SECRET not in json.dumps(found)
        assert "SELECT" not in found["seen"]
        assert found["needed"] <= found["width"], "it must be scrolled sideways"
        ((left, top, right, bottom),) = found["drawings"]
        assert right - left > 300
        strokes = {line[0] for line in found["lines"]}
        assert len(strokes) == 3
        for _, *box in found["lines"]:
            assert left <= box[0] <= box[2] <= right
            assert top <= box[1] <= box[3] <= bottom
        ((*_, limit_bottom),) = found["limit"]
        assert all(limit_bottom <= line[4] for line in found["lines"]), "four connections are the most"
    used = next(line for line in wide["lines"] if line[0] == "rgb(11, 98, 164)")
    assert used[4] - used[2] > 10  # from two connections to one: the line goes down
    assert used[3] - used[1] > 300  # over the whole of the drawing

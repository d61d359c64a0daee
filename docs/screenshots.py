"""Take the pictures of docs/observability.md: the status page in Chromium, and `dbconfig top` in a terminal.

    python docs/screenshots.py      # a minute and a half; needs PostgreSQL, chromium, and tmux

An application with a pool of 3 + 3 serves a load that comes in waves. The pictures are what its page and the command
show.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.text import Text
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as NoConnection

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from dbconfig import Profile, Registry  # noqa: E402
from dbconfig.integrations.fastapi_status import status  # noqa: E402
from tests.support import browser, servers  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SECONDS = 80.0
WAVE, CREST = 16.0, 5.0  # seconds from one to the next, and of its height
COLUMNS, ROWS = 88, 40


def client(db: Registry, number: int, end: float) -> None:
    """Two clients are always there, ten more come with each wave."""
    while time.monotonic() < end:
        if number >= 2 and (end - time.monotonic()) % WAVE > CREST:
            time.sleep(0.1)
            continue
        try:
            with db.transaction() as session:
                session.execute(
                    text("UPDATE stock SET pieces = pieces - 1 WHERE id = :id"), {"id": random.randrange(3)}
                )
                time.sleep(random.uniform(0.01, 0.15))
        except NoConnection:
            time.sleep(0.1)
        time.sleep(0.02)


def top(folder: Path, address: str) -> str:
    """Return what `dbconfig top` shows in a terminal, with its colors."""
    name = folder.name.replace(".", "-")
    command = f"{Path(sys.executable).parent / 'dbconfig'} top --url {address}; read"
    size = ("-x", str(COLUMNS), "-y", str(ROWS))
    subprocess.run(["tmux", "-L", name, "new-session", "-d", *size, "-c", str(folder), command], check=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            shown = subprocess.run(
                ["tmux", "-L", name, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True
            ).stdout
            if all(part in shown for part in ("pools", "advice", "blocked")):
                return shown
            if time.monotonic() > deadline:
                raise TimeoutError(shown)
            time.sleep(0.2)
    finally:
        subprocess.run(["tmux", "-L", name, "kill-server"], check=True)


def terminal_as_svg(shown: str) -> str:
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(shown.rstrip()))
        drawn = console.export_svg(title="dbconfig top", unique_id="top")
    # Fonts of another site: the documentation loads nothing from elsewhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.S)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="shop.") as name, servers.postgresql() as server:
        folder = Path(name)
        (folder / "config").mkdir()
        (folder / "config" / "development.yaml").write_text(f"url: {server.url()}\n")
        profile = Profile(name="development", url=server.url(), application_name="shop", pool_size=3, max_overflow=3)
        with Registry.from_profile(profile) as db:
            with db.transaction() as session:
                session.execute(text("CREATE TABLE stock (id int PRIMARY KEY, pieces int)"))
                session.execute(text("INSERT INTO stock VALUES (0, 0), (1, 0), (2, 0)"))
            app = FastAPI()
            app.include_router(status(registry=db))
            web = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
            serving = threading.Thread(target=web.run)
            serving.start()
            end = time.monotonic() + SECONDS
            clients = [threading.Thread(target=client, args=(db, number, end)) for number in range(12)]
            for each in clients:
                each.start()
            while not web.started:
                time.sleep(0.05)
            address = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
            (IMAGES / "top.svg").write_text(terminal_as_svg(top(folder, f"{address}/health/db/details")))
            time.sleep(max(0.0, end - time.monotonic() - 10))
            browser.screenshot(f"{address}/status/db", IMAGES / "status_page.png", width=720, height=620)
            for each in clients:
                each.join()
            web.should_exit = True
            serving.join()


if __name__ == "__main__":
    main()

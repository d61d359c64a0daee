"""Write units of work to a cluster while something happens to it, and count what became of each.

python -m tests.clusters PROFILE.yaml --style threads --fault 'kill -STOP 123; sleep 20; kill -CONT 123' --audit URL

Every unit writes a row with a name of its own. Afterwards each acknowledged row must exist once, no failed one may,
and of the uncertain ones each at most once. With --reads, a reading session looks for the row after each unit. The
outage is the longest time without an acknowledged unit; beside it stands that of a bare client, which connects anew
each time. With --naive, plain SQLAlchemy with pre-ping and a retry after every error writes beside it. --cut is a fault
of its own: nothing goes through between all of these and the server that is the primary, which nobody else notices.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from dbconfig import CommitUncertain, Registry

INSERT = text("INSERT INTO ledger_entry (name) VALUES (:name)")
FIND = text("SELECT count(*) FROM ledger_entry WHERE name = :name")
TABLE = "CREATE TABLE IF NOT EXISTS ledger_entry (number BIGINT {serial} PRIMARY KEY, name VARCHAR(40) NOT NULL)"
PAUSE = 0.2  # seconds between the attempts of a naive retry
LIMIT = 60.0  # seconds that a unit has, and no cluster here is away for longer


@dataclass
class Ledger:
    """What the clients know."""

    acknowledged: list[tuple[float, str]] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    stale: int = 0
    unread: Counter[str] = field(default_factory=Counter)

    def note(self, name: str, error: Exception | None) -> None:
        if error is None:
            self.acknowledged.append((time.monotonic(), name))
        elif isinstance(error, CommitUncertain):
            self.uncertain.append(name)
        else:
            self.failed.append(name)
            self.errors[f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"] += 1

    def note_unread(self, error: Exception) -> None:
        at = "a statement" if getattr(error, "statement", None) else "a connect"
        self.unread[f"{type(error).__name__}, at {at}: {str(error).splitlines()[0][:120]}"] += 1
        print("a read failed:", *traceback.format_exception(error), file=sys.stderr)

    def outage(self) -> float:
        times = sorted(at for at, _ in self.acknowledged)
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


def work(name: str, session: Session) -> None:
    session.execute(INSERT, {"name": name})


def threads(db: Registry, ledger: Ledger, stop: threading.Event, number: int, *, reads: bool) -> list[threading.Thread]:
    def run() -> None:
        while not stop.is_set():
            name = str(uuid.uuid4())
            try:
                db.run_in_transaction(partial(work, name), timeout=LIMIT)
            except Exception as error:
                ledger.note(name, error)
                continue
            ledger.note(name, None)
            if reads:
                try:
                    with db.session(read_only=True) as session:
                        found = session.scalar(FIND, {"name": name})
                    ledger.reads += 1
                    ledger.stale += not found
                except Exception as error:
                    ledger.note_unread(error)

    found = [threading.Thread(target=run, name=f"ledger-{each}") for each in range(number)]
    for each in found:
        each.start()
    return found


def tasks(db: Registry, ledger: Ledger, stop: threading.Event, number: int, *, reads: bool) -> list[threading.Thread]:
    async def unit() -> None:
        while not stop.is_set():
            name = str(uuid.uuid4())

            async def inner(session: Any, name: str = name) -> None:
                await session.run_sync(partial(work, name))

            try:
                await db.async_run_in_transaction(inner, timeout=LIMIT)
            except Exception as error:
                ledger.note(name, error)
                continue
            ledger.note(name, None)
            if reads:
                try:
                    async with db.async_session(read_only=True) as session:
                        found = await session.scalar(FIND, {"name": name})
                    ledger.reads += 1
                    ledger.stale += not found
                except Exception as error:
                    ledger.note_unread(error)

    async def main() -> None:
        await asyncio.gather(*(unit() for _ in range(number)))
        await db.async_dispose()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="ledger-loop")
    thread.start()
    return [thread]


def naive(url: str, ledger: Ledger, stop: threading.Event, number: int) -> list[threading.Thread]:
    """Write as most applications do: a pool with pre-ping, and the unit again after whatever error the driver has."""
    engine = create_engine(url, pool_pre_ping=True, pool_size=number, connect_args=_limits(url))

    def run() -> None:
        while not stop.is_set():
            name = str(uuid.uuid4())
            late = time.monotonic() + LIMIT
            error: Exception | None = None
            while time.monotonic() < late:
                try:
                    with Session(engine) as session, session.begin():
                        work(name, session)
                except Exception as found:  # of the driver, whatever it is: that is what is naive
                    error = found
                    time.sleep(PAUSE)
                else:
                    error = None
                    break
            ledger.note(name, error)

    found = [threading.Thread(target=run, name=f"naive-{each}") for each in range(number)]
    for each in found:
        each.start()
    return found


# A process of its own, which can be stopped: then nothing goes through, nothing is lost, and nobody is told, as where a
# network drops packets that are sent again.
WAY = """
import sys
from tests.support.proxy import Proxy
proxy = Proxy(sys.argv[1], int(sys.argv[2]))
print(proxy.host, proxy.port, sep=":", flush=True)
sys.stdin.read()
proxy.close()
"""


class Network:
    """Proxies before the servers, which can be cut off from those who come by them."""

    def __init__(self, hosts: list[str], question: str) -> None:
        self._question = question
        self._ways: dict[str, tuple[subprocess.Popen[str], str]] = {}
        for each in hosts:
            command = [sys.executable, "-c", WAY, *each.split(":")]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            self._ways[each] = process, process.stdout.readline().strip()

    def through(self, text: str) -> str:
        """Return a text with the proxies in the place of the servers."""
        for host, (_, way) in self._ways.items():
            text = text.replace(host, way)
        return text

    def cut(self, seconds: float, url: str) -> None:
        """Let nothing through to the primary for so long."""
        base = make_url(url)
        for host, (process, _) in self._ways.items():
            at = base.set(host=host.split(":")[0], port=int(host.split(":")[1]))
            engine = create_engine(at, poolclass=NullPool, connect_args=_limits(url))
            with engine.connect() as connection:
                if not connection.scalar(text(self._question)):
                    process.send_signal(signal.SIGSTOP)
                    time.sleep(seconds)
                    process.send_signal(signal.SIGCONT)
                    return
        raise RuntimeError("no host is the primary")

    def close(self) -> None:
        for process, _ in self._ways.values():
            process.communicate(timeout=60)


def probe(urls: list[str], stop: threading.Event, beats: list[float]) -> None:
    """Write with a client that knows nothing: a fresh connection for each row, to whichever host takes it."""
    engines = [create_engine(url, poolclass=NullPool, connect_args=_limits(url)) for url in urls]
    while not stop.is_set():
        for engine in engines:
            try:
                with engine.begin() as connection:
                    connection.execute(INSERT, {"name": f"probe-{uuid.uuid4().hex[:20]}"})
            except Exception:  # a bare client: whatever it is, the next host is tried
                continue
            beats.append(time.monotonic())
            break
        time.sleep(0.1)


def _limits(url: str) -> dict[str, Any]:
    if url.startswith("postgresql"):
        return {"connect_timeout": 2, "options": "-c statement_timeout=2000", "tcp_user_timeout": 2000}
    return {"connect_timeout": 2, "read_timeout": 2, "write_timeout": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("profile", type=Path, help="the profile's file, config/NAME.yaml")
    parser.add_argument("--style", choices=("threads", "tasks"), default="threads")
    parser.add_argument("--workers", type=int, help="8 threads, 50 tasks")
    parser.add_argument("--fault", default="true", help="a shell command, after the warm-up")
    parser.add_argument("--before", type=float, default=5.0)
    parser.add_argument("--after", type=float, default=40.0, help="seconds from the fault's beginning")
    parser.add_argument("--audit", required=True, help="URL by which the rows are counted at the end")
    parser.add_argument("--probe", nargs="*", default=[], help="URLs of the hosts, for the bare client")
    parser.add_argument("--reads", action="store_true", help="read each row back with a reading session")
    parser.add_argument("--naive", default="", help="URL by which plain SQLAlchemy writes beside it, with 8 threads")
    parser.add_argument("--cut", type=float, help="seconds without a network to the primary, instead of a fault")
    parser.add_argument("--hosts", nargs="*", default=[], help="host:port of each server, for --cut")
    given = parser.parse_args()
    on_postgresql = given.audit.startswith("postgresql")
    question = "SELECT pg_is_in_recovery()" if on_postgresql else "SELECT @@read_only"
    network = Network(given.hosts, question)
    audit = create_engine(given.audit, poolclass=NullPool)
    serial = "GENERATED ALWAYS AS IDENTITY" if audit.dialect.name == "postgresql" else "AUTO_INCREMENT"
    with audit.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS ledger_entry"))
        connection.execute(text(TABLE.format(serial=serial)))
    ledger, stop, beats = Ledger(), threading.Event(), list[float]()
    start = threads if given.style == "threads" else tasks
    workers = given.workers or (8 if given.style == "threads" else 50)
    folder = Path(tempfile.mkdtemp())
    (folder / given.profile.name).write_text(network.through(given.profile.read_text()))
    db = Registry(folder, profile=given.profile.stem)
    plain = Ledger()
    bare = threading.Thread(target=probe, args=([network.through(each) for each in given.probe], stop, beats))
    beside = naive(network.through(given.naive), plain, stop, 8) if given.naive else []
    running = [
        *beside,
        *start(db, ledger, stop, workers, reads=given.reads),
        *([bare] if given.probe else []),
    ]
    if given.probe:
        bare.start()
    time.sleep(given.before)
    begun = time.monotonic()
    if given.cut:
        network.cut(given.cut, given.audit)
    else:
        subprocess.run(given.fault, shell=True, check=False, capture_output=True)  # the caller's own
    time.sleep(max(0.0, given.after - (time.monotonic() - begun)))
    stop.set()
    for each in running:
        each.join(LIMIT * 2)
    db.dispose(timeout=10)
    network.close()
    rows = read(audit)
    found = counted(ledger, rows)
    gaps = [later - earlier for earlier, later in pairwise(beats)]
    found["outage of a bare client"] = round(max(gaps, default=0.0), 1)
    if beside:
        found["plain SQLAlchemy"] = counted(plain, rows)
    print(json.dumps(found, indent=1))


def read(audit: Engine) -> Counter[str]:
    """Return how often each row exists, once the cluster tells."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with audit.connect() as connection:
                return Counter(connection.scalars(text("SELECT name FROM ledger_entry")))
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def counted(ledger: Ledger, rows: Counter[str]) -> dict[str, Any]:
    names = {name for _, name in ledger.acknowledged}
    every = [*names, *ledger.uncertain, *ledger.failed]
    return {
        "acknowledged": len(names),
        "uncertain": len(ledger.uncertain),
        "failed": len(ledger.failed),
        "errors": dict(ledger.errors),
        "lost": len(names - rows.keys()),
        "doubled": sum(rows[name] > 1 for name in every),
        "failed, but there": sum(name in rows for name in ledger.failed),
        "outage": round(ledger.outage(), 1),
        "reads": ledger.reads,
        "stale": ledger.stale,
        "reads that failed": dict(ledger.unread),
    }


if __name__ == "__main__":
    main()

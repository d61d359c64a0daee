"""What callers see of a fault: dbconfig beside SQLAlchemy with its documented settings, on the same server.

Eight threads transfer between accounts through a proxy; every transfer that was acknowledged is looked for afterwards.
`python -m benchmarks.faults` prints a table; `--write` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlmodel import Session

from dbconfig import Profile, Registry
from tests.support import servers
from tests.support.bank import Bank, Result, Run
from tests.support.proxy import Proxy
from tests.support.servers import Server

RESULTS = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
LIMIT = 30.0  # seconds in which everybody must be back; who is not is counted as never
POOL = {"pool_size": 8, "max_overflow": 0}
DRIVERS = {"postgresql": "postgresql+psycopg2", "mariadb": "mysql+pymysql"}


@dataclass
class Place:
    server: Server
    network: Proxy


def pause(place: Place) -> None:
    place.server.pause()
    time.sleep(4.0)
    place.server.resume()


FAULTS: dict[str, Callable[[Place], object]] = {
    "restart, 1 s down": lambda place: place.server.restart("fast", down=1.0),
    "crash and recovery, 1 s down": lambda place: place.server.restart("immediate", down=1.0),
    "every session ended": lambda place: place.server.terminate(),
    "every connection reset": lambda place: place.network.reset(),
    "the server stands still for 4 s": pause,
    "existing connections go silent": lambda place: place.network.swallow_existing(),
}


@contextmanager
def with_dbconfig(url: str) -> Iterator[Run]:
    limits = {"statement_timeout": "5s", "idle_in_transaction_timeout": "6s", "connect_timeout": "2s"}
    with Registry.from_profile(Profile(name="bank", url=url, pool_timeout="5s", **POOL, **limits)) as db:
        yield partial(db.run_in_transaction, attempts=50, timeout=60)


@contextmanager
def with_sqlalchemy(url: str) -> Iterator[Run]:
    """The same pool and the same limits, in the driver's words, pre-ping as documented, and no retries."""
    if url.startswith("postgresql"):
        options = "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=6000"
        arguments: dict[str, Any] = {"connect_timeout": 2, "options": options}
    else:
        command = "SET SESSION max_statement_time = 5, SESSION idle_transaction_timeout = 6"
        arguments = {"connect_timeout": 2, "init_command": command}
    engine = sqlalchemy.create_engine(url, pool_pre_ping=True, pool_timeout=5, connect_args=arguments, **POOL)

    def run(work: Callable[[Any], None]) -> None:
        with Session(engine) as session, session.begin():
            work(session)

    yield run
    engine.dispose()


PEERS = {"dbconfig": with_dbconfig, "SQLAlchemy, pool_pre_ping": with_sqlalchemy}


def measure(server: Server, fault: str, peer: str) -> Result:
    with ExitStack() as stack:
        stack.enter_context(server.fresh_database())
        network = stack.enter_context(Proxy(server.host, server.port))
        direct = stack.enter_context(Registry.from_profile(Profile(name="audit", url=server.url())))
        bank = Bank(partial(direct.run_in_transaction, attempts=50, timeout=60))
        run = stack.enter_context(PEERS[peer](server.url(DRIVERS[server.kind], host=network.host, port=network.port)))
        with bank.open(run) as shift:
            FAULTS[fault](Place(server, network))
            shift.healed()
            shift.wait_for_work(limit=LIMIT)
        stuck = [thread for thread in shift._threads if thread.is_alive()]
        network.pass_through()
        network.cut()  # lets go of who hangs
        for thread in stuck:
            thread.join(30)
        return shift.result()


def row(server: Server, fault: str, peer: str, result: Result) -> str:
    recovery = "not within 30 s" if result.recovery is None else f"{result.recovery:.2f} s"
    errors = sum(result.errors.values())
    sound = f"{len(result.lost)} / {len(result.doubled)}"
    cells = (server.kind, fault, peer, str(errors), str(result.uncertain), f"{result.stall:.2f} s", recovery, sound)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    head = ("server", "fault", "with", "errors", "uncertain", "longest stall", "all 8 back after", "lost / doubled")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    print("\n".join(lines))
    for start in (servers.postgresql, servers.mariadb):
        with start() as server:
            for fault in FAULTS:
                for peer in PEERS:
                    lines.append(row(server, fault, peer, measure(server, fault, peer)))
                    print(lines[-1], flush=True)
    if given.write:
        write("\n".join(lines))


def write(table: str) -> None:
    versions = f"SQLAlchemy {sqlalchemy.__version__}, {os.cpu_count()} cores"
    section = f"""{BEGIN}
## Faults under load

Eight threads transfer money, one fault strikes, all go on. Both have the same pool size and the same limits; SQLAlchemy
runs with `pool_pre_ping=True` and a transaction per transfer, dbconfig with `run_in_transaction`. An error is what the
caller got; "uncertain" is `CommitUncertain`, of which SQLAlchemy's callers see an error like any other. {versions}.
`python -m benchmarks.faults --write`

{table}
{END}"""
    old = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
    new = pattern.sub(lambda _: section, old) if pattern.search(old) else f"{old.rstrip()}\n\n{section}\n"
    RESULTS.write_text(new)


if __name__ == "__main__":
    main()

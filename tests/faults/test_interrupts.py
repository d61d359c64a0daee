"""Ctrl-C in a statement: rolled back, soon, with the pool whole."""

import os
import select
import signal
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.interpreter import Program, started_python
from tests.support.processes import wait_until
from tests.support.servers import Server

SLEEP = {"postgresql": "SELECT pg_sleep(300)", "mariadb": "SELECT SLEEP(300)"}
ACTIVE = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(300)%'",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(300)'",
}
PROGRAM = """
    import sys
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    db = Registry.from_profile(Profile(name="keys", url=sys.argv[1], pool_size=1, max_overflow=0, **eval(sys.argv[3])))
    try:
        with db.transaction() as session:
            session.execute(text("INSERT INTO keys_pressed VALUES (1)"))
            print("running", flush=True)
            session.execute(text(sys.argv[2]))
            print("not interrupted", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    with db.session() as session:
        print(session.execute(text("SELECT count(*) FROM keys_pressed")).scalar_one(), db.stats().used, flush=True)
"""


@contextmanager
def running(server: Server, program: str, *arguments: str) -> Iterator[Program]:
    """A program with a statement under way that would take minutes."""
    command = ["-c", textwrap.dedent(program), server.url(), SLEEP[server.kind], *arguments]
    with started_python(command, folder=Path.cwd(), environ=os.environ) as process:
        assert process.stdout.readline() == "running\n"
        wait_until(lambda: server.sql(ACTIVE[server.kind]) == [(1,)], "the statement")
        yield process


@pytest.mark.parametrize(
    ("server", "settings"),
    [
        ("postgresql", "{}"),
        ("postgresql", "{'statement_timeout': '250s'}"),
        ("postgresql", "{'fast_begin': True}"),  # of psycopg2
        ("mariadb", "{}"),
        ("mariadb", "{'statement_timeout': '250s'}"),
    ],
    indirect=["server"],
)
def test_p11_ctrl_c_in_a_statement_rolls_back_and_leaves_the_pool_whole(server: Server, settings: str) -> None:
    server.sql("CREATE TABLE keys_pressed (id int)")
    with running(server, PROGRAM, settings) as process:
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate(timeout=100)[0] == "interrupted\n0 1\n"
        assert process.returncode == 0


OWN_HANDLER = """
    import signal, sys
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    heard = []
    db = Registry.from_profile(Profile(name="keys", url=sys.argv[1]))
    with db.transaction() as session:
        session.execute(text("SELECT 1"))
        signal.signal(signal.SIGINT, lambda *_: heard.append(1))  # it ends after this statement
        print("running", flush=True)
        session.execute(text(sys.argv[2]))
    print("ended in its time", len(heard), flush=True)
"""
CHILD = """
    import os, signal, sys, time
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    db = Registry.from_profile(Profile(name="keys", url=sys.argv[1]))
    with db.transaction() as session:
        session.execute(text("SELECT 1"))
        ready, begun = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(begun, b"1")  # before that it has not forgotten yet what its parent listens to
                time.sleep(300)
            finally:
                os._exit(0)
        os.read(ready, 1)
        print("running", flush=True)
        session.execute(text(sys.argv[2]))
    print("ended in its time", flush=True)
"""


def test_an_application_that_only_takes_note_of_ctrl_c_keeps_its_statement(postgresql: Server) -> None:
    with running(postgresql, OWN_HANDLER) as process:
        os.kill(process.pid, signal.SIGINT)
        assert select.select([process.stdout], [], [], 3)[0] == []  # a cancellation would have come long before
        number = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(300)%'"
        assert postgresql.sql(ACTIVE["postgresql"]) == [(1,)]
        postgresql.sql(number)


def test_a_childs_ctrl_c_is_not_its_parents(postgresql: Server) -> None:
    with running(postgresql, CHILD) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGINT)
        assert select.select([process.stdout], [], [], 3)[0] == []
        assert postgresql.sql(ACTIVE["postgresql"]) == [(1,)]

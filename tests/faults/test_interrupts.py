"""Ctrl-C in a statement: rolled back, soon, with the pool whole."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.support.processes import wait_until
from tests.support.servers import Server

SLEEP = {"postgresql": "SELECT pg_sleep(3)", "mariadb": "SELECT SLEEP(3)"}
ACTIVE = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(3)'",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(3)'",
}
PROGRAM = """
    import sys
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    db = Registry.from_profile(Profile(name="keys", url=sys.argv[1], pool_size=1, max_overflow=0, pool_timeout="5s"))
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


@pytest.mark.slow
def test_p11_ctrl_c_in_a_statement_rolls_back_and_leaves_the_pool_whole(server: Server) -> None:
    server.sql("CREATE TABLE keys_pressed (id int)")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), server.url(), SLEEP[server.kind]],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    wait_until(lambda: server.sql(ACTIVE[server.kind]) == [(1,)], "the statement")
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    assert process.stdout.readline() == "0 1\n"
    assert process.wait(60) == 0
    process.stdout.close()

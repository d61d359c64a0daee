"""`echo` prints each statement once, whatever the program does with logging, and whenever it does it."""

import logging
import os
from pathlib import Path

import pytest

from tests.support.interpreter import run_python

PROGRAM = """
import logging, logging.config, sys
from sqlalchemy import text
from dbconfig import Profile, Registry
{before}
with Registry.from_profile(Profile(name="case", url="sqlite://", echo=True, echo_pool="debug")) as db:
    engine = db.engine()
    {after}
    with db.session() as session:
        session.connection().execute(text("SELECT 42"))
"""
CONSOLE = "logging.basicConfig(level=logging.INFO)"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        (CONSOLE, ""),
        ("", CONSOLE),
        ("logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)", ""),
        ("logging.basicConfig(level=logging.WARNING)", ""),
        ("logging.basicConfig(filename='program.log', level=logging.DEBUG)", ""),
        ("logging.getLogger().addHandler(logging.NullHandler())", ""),
        ("logging.basicConfig(stream=open('stream.log', 'w'), level=logging.DEBUG)", ""),
        (f"{CONSOLE}; logging.getLogger().handlers[0].addFilter(lambda record: 'sqlalchemy' not in record.name)", ""),
        ("import logging.handlers; logging.basicConfig(handlers=[logging.handlers.MemoryHandler(99)], level=10)", ""),
        (
            "import logging.handlers; port = 9; "
            "logging.basicConfig(handlers=[logging.handlers.DatagramHandler('127.0.0.1', port)], level=10)",
            "",
        ),
        (
            "import logging.handlers; console = logging.StreamHandler(); "
            "logging.basicConfig(handlers=[logging.handlers.MemoryHandler(99, target=console)], level=10)",
            "",
        ),
        ("import os; logging.basicConfig(stream=open(os.dup(2), 'w'), level=logging.DEBUG)", ""),
        # A handler that takes warnings alone prints no statement.
        ("handler = logging.StreamHandler(); handler.setLevel(30); logging.getLogger().addHandler(handler)", ""),
        ("logging.getLogger('sqlalchemy').addHandler(logging.StreamHandler())", ""),
        (f"{CONSOLE}; logging.getLogger('sqlalchemy').propagate = False", ""),
        ("logging.getLogger('sqlalchemy.engine.Engine.case').addHandler(logging.StreamHandler())", ""),
    ],
)
def test_a_statement_is_printed_once(tmp_path: Path, before: str, after: str) -> None:
    program = PROGRAM.format(before=before, after=after)
    done = run_python(["-c", program], folder=tmp_path, environ=os.environ)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count("SELECT 42") == 1, said
    assert said.count("checked out from pool") == 1, said


def test_no_handler_is_left_where_nothing_is_echoed() -> None:
    from dbconfig import Profile, Registry

    with Registry.from_profile(Profile(name="silent", url="sqlite://")) as db:
        db.engine()
    assert not logging.getLogger("sqlalchemy.engine.Engine.silent").handlers

"""Reads from two standbys, writes to their primary, and every writer sees what it wrote.

python examples/read_replicas/main.py
    starts a PostgreSQL primary with two standbys of its own, if its programs are installed; one standby is 300 ms late.
    Else it runs on a SQLite file, where the same code reads from the only database that there is.
python examples/read_replicas/main.py sqlite
DBCONFIG_REPLICAS=off python examples/read_replicas/main.py
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from sqlmodel import Field, SQLModel

from dbconfig import ConfigError, Registry

HERE = Path(__file__).parent
NOTES = 50


class Note(SQLModel, table=True):
    __tablename__ = "read_replicas_note"
    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(max_length=100)


def start_servers(stack: ExitStack) -> dict[str, str]:
    """Start a primary and two standbys and return where they are; nothing where they are not installed."""
    sys.path.insert(0, str(HERE.parents[1]))  # the servers of the test suite
    try:
        from tests.support import servers

        primary = stack.enter_context(servers.postgresql())
    except ImportError:
        return {}
    except servers.ServerMissing as missing:
        print(f"on SQLite: {missing}")
        return {}
    first = stack.enter_context(primary.standby())
    second = stack.enter_context(primary.standby(settings={"recovery_min_apply_delay": "300ms"}))
    return {"PRIMARY_URL": primary.url(), "FIRST_PORT": str(first.port), "SECOND_PORT": str(second.port)}


def main() -> None:
    with ExitStack() as stack:
        variables = {} if "sqlite" in sys.argv else start_servers(stack)
        profile = "servers" if variables else "development"
        db = stack.enter_context(Registry(HERE / "config", profile=profile, environ={**os.environ, **variables}))
        db.create_tables()
        seen = 0
        for number in range(NOTES):
            with db.transaction() as session:
                note = Note(text=f"note {number}")
                session.add(note)
                session.flush()
                key = note.id
            with db.session(read_only=True) as session:
                seen += session.get(Note, key) is not None
        print(f"wrote {NOTES} notes on {db.engine().url.drivername}, and saw {seen} of them right after")
        for server, which in zip(
            db.readers(), ("first standby", "second standby, 300 ms late", "primary"), strict=False
        ):
            print(f"{which:<28} {server.reads:>3} reads")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(str(error))

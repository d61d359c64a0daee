"""What the workers of this folder do: count how often each process ran a job, over a connection of its own."""

import os

from sqlmodel import Field, SQLModel, text

from dbconfig import db


class Job(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    process: int
    backend: int  # the server's number of the connection


def prepare() -> None:
    db.create_tables(Job)  # the parent has used its pool before it forks: the children must not take it over


def run(_: int = 0) -> int:
    with db.transaction() as session:
        postgresql = session.get_bind().dialect.name == "postgresql"
        backend = session.connection().execute(text("SELECT pg_backend_pid()")).scalar_one() if postgresql else 0
        session.add(Job(process=os.getpid(), backend=backend))
    return os.getpid()

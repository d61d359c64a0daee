"""A command with Typer: it opens what it uses, and closes at its end.

python command.py add 3
"""

import jobs
import typer
from sqlmodel import func, select

from dbconfig import db

app = typer.Typer()


@app.command()
def add(count: int) -> None:
    jobs.prepare()
    for _ in range(count):
        jobs.run()


@app.command()
def show() -> None:
    with db.session() as session:
        typer.echo(session.exec(select(func.count()).select_from(jobs.Job)).one())


if __name__ == "__main__":
    with db:
        app()

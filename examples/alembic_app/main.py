"""Upgrade the database of the profile, then use it.

python examples/alembic_app/main.py
ENVIRONMENT=postgresql POSTGRES_URL=postgresql://user:password@127.0.0.1/library python examples/alembic_app/main.py
ENVIRONMENT=mariadb MARIADB_URL=mysql://user:password@127.0.0.1/library python examples/alembic_app/main.py

After a change of models.py, in this folder: alembic revision --autogenerate -m "what has changed"
"""

import sys
from pathlib import Path

from models import Author, Book
from sqlmodel import select

from dbconfig import ConfigError, db
from dbconfig.integrations.alembic import upgrade


def main() -> None:
    # At the start of a single process; of several, one migrates and the others wait.
    upgrade(db.engine(), ini=str(Path(__file__).with_name("alembic.ini")))
    with db.transaction() as session:
        author = session.exec(select(Author).where(Author.name == "Ursula K. Le Guin")).first()
        if author is None:
            author = Author(name="Ursula K. Le Guin")
            session.add(author)
            session.flush()
        session.add(Book(title="The Dispossessed", author_id=author.id, pages=387))
    with db.session() as session:
        books = session.exec(select(Book).order_by(Book.id)).all()
    for book in books:
        print(f"{book.id}: {book.title}, {book.pages} pages")
    print(f"on {db.engine().url.drivername}")
    db.dispose()


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(str(error))

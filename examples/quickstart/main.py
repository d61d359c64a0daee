"""Heroes and teams: create the tables, write, read back. The profile decides which database that happens on.

python examples/quickstart/main.py
ENVIRONMENT=production DATABASE_URL=postgresql://user:password@127.0.0.1/shop python examples/quickstart/main.py
"""

import sys

from sqlmodel import Field, Relationship, SQLModel, col, select

from dbconfig import ConfigError, db


class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True, unique=True, max_length=80)
    heroes: list["Hero"] = Relationship(back_populates="team")


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True, max_length=80)
    team_id: int | None = Field(default=None, foreign_key="team.id")
    team: Team | None = Relationship(back_populates="heroes")


def add_heroes() -> None:
    """Write both or neither: a transaction commits at its end and rolls back on an exception."""
    with db.transaction() as session:
        team = session.exec(select(Team).where(Team.name == "Preventers")).first() or Team(name="Preventers")
        session.add_all([Hero(name="Deadpond", team=team), Hero(name="Rusty-Man", team=team)])


def print_heroes() -> None:
    with db.session() as session:
        for hero in session.exec(select(Hero).order_by(col(Hero.id)).limit(10)):
            print(f"  {hero.id}: {hero.name} of the {hero.team.name if hero.team else 'nobody'}")


def main() -> None:
    url = db.engine().url  # has no password: that is handed to the driver at each connect
    print(f"profile {db.profile.name} ({db.profile.reason}), database {url.drivername}: {url.database}")
    print(f"created tables: {', '.join(db.create_tables()) or 'none (all exist)'}")
    add_heroes()
    print_heroes()
    db.dispose()


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(str(error))

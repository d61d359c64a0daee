"""A small FastAPI application: one engine for the process, one session for each request.

pip install fastapi uvicorn
uvicorn --app-dir examples/web_app main:app
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlmodel import Field, Session, SQLModel, select

from dbconfig import db


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=80)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    db.create_tables()
    yield
    db.dispose()


def get_session() -> Iterator[Session]:
    """Yield a session that closes, and rolls back whatever was not committed, when the endpoint has returned."""
    with db.session() as session:
        yield session


# With FastAPI's usual scope the session would be closed only after the response was sent.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
app = FastAPI(title="heroes", lifespan=lifespan)


@app.post("/heroes", status_code=201)
def create_hero(hero: Hero, session: SessionDep) -> Hero:
    session.add(hero)
    session.commit()
    session.refresh(hero)
    return hero


@app.get("/heroes")
def read_heroes(session: SessionDep) -> list[Hero]:
    return list(session.exec(select(Hero).order_by(Hero.name).limit(100)))


@app.get("/heroes/{hero_id}")
def read_hero(hero_id: int, session: SessionDep) -> Hero:
    hero = session.get(Hero, hero_id)
    if hero is None:
        raise HTTPException(404, "no such hero")
    return hero

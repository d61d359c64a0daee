"""The application. Run it with `fastapi dev app/main.py`, or with `uvicorn app.main:app`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbconfig import db
from dbconfig.integrations.fastapi import SessionDep, TransactionDep, install, lifespan
from fastapi import FastAPI, HTTPException
from sqlmodel import select

from app.models import Hero


@asynccontextmanager
async def prepare(app: FastAPI) -> AsyncIterator[None]:
    await asyncio.to_thread(db.create_tables)  # creates only missing tables; `dbconfig init --alembic` adds migrations
    yield


app = FastAPI(title="Heroes", lifespan=lifespan(around=prepare))
install(app)  # GET /health/db, and 503 with Retry-After when the pool is exhausted


@app.post("/heroes", status_code=201)
def create_hero(hero: Hero, session: TransactionDep) -> Hero:
    session.add(hero)
    session.flush()  # assigns the ID; TransactionDep commits before the response is sent
    return hero


@app.get("/heroes")
def list_heroes(session: SessionDep) -> list[Hero]:
    return list(session.exec(select(Hero).order_by(Hero.name).limit(100)))


@app.get("/heroes/{hero_id}")
def read_hero(hero_id: int, session: SessionDep) -> Hero:
    hero = session.get(Hero, hero_id)
    if hero is None:
        raise HTTPException(404, "hero not found")
    return hero

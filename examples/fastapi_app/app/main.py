"""The application.

cd examples/fastapi_app
uvicorn app.main:app                                       # SQLite, in data/app.db
ENVIRONMENT=postgresql POSTGRES_URL=postgresql://… uvicorn --workers 2 app.main:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio.to_thread import run_sync
from fastapi import FastAPI

from app.api import router
from dbconfig import db
from dbconfig.integrations.alembic import upgrade
from dbconfig.integrations.fastapi import install, lifespan

ALEMBIC_INI = Path(__file__).parent.parent / "alembic.ini"


@asynccontextmanager
async def migrated(app: FastAPI) -> AsyncIterator[None]:
    # Any number of workers and containers may do so at once: one migrates, the others wait for it.
    await run_sync(lambda: upgrade(db.engine(), ini=str(ALEMBIC_INI)))
    yield


app = FastAPI(title="items", lifespan=lifespan(around=migrated))
install(app)  # 503 with Retry-After where no connection is free in time, and GET /health/db
app.include_router(router)

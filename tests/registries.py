"""Registries and models of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import text
from sqlmodel import Field, MetaData, Session, SQLModel, select

from dbconfig import Profile, Registry

T = TypeVar("T")


class Base(SQLModel):
    metadata = MetaData()


class Team(Base, table=True):
    __tablename__ = "engine_team"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)


class Hero(Base, table=True):
    __tablename__ = "engine_hero"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    team_id: int | None = Field(default=None, foreign_key="engine_team.id")


class Account(Base, table=True):
    __tablename__ = "engine_account"
    id: int = Field(primary_key=True)
    balance: int


def registry(url: str, **settings: Any) -> Registry:
    return Registry.from_profile(Profile(name="tests", url=url, **settings))


def ask(db: Registry | Session, statement: str, **parameters: Any) -> Any:
    """Return the one value that a statement yields."""
    if isinstance(db, Registry):
        with db.session() as session:
            return session.execute(text(statement), parameters).scalar_one()
    return db.execute(text(statement), parameters).scalar_one()


def names(db: Registry) -> list[str]:
    with db.session() as session:
        return sorted(session.exec(select(Hero.name)))


def at_once(works: Iterable[Callable[[], T]]) -> list[T]:
    """Run each in a thread of its own, return what they return; the first error is raised."""
    works = list(works)
    with ThreadPoolExecutor(len(works)) as threads:
        return [each.result() for each in [threads.submit(work) for work in works]]


def from_yaml(root: Path, content: str, environ: Mapping[str, str] | None = None) -> Registry:
    """Return the registry of a project whose only profile has this content."""
    config = root / "config"
    config.mkdir(exist_ok=True)
    (config / "development.yaml").write_text(content, encoding="utf-8")
    return Registry(config, environ=environ or {})

"""`dbconfig check` adds up what all databases of a profile that are on one server want of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.support.server import Server


def shards(server: Server, count: int, more: str = "") -> str:
    names = [server.create_database() for _ in range(count)]
    lines = "".join(f"      s{number}: {{database: {name}}}\n" for number, name in enumerate(names))
    return f"url: sqlite:///app.db\ndatabases:\n  orders:\n    url: {server.url()}\n{more}    shards:\n{lines}"


def test_shards_that_fit_one_by_one_and_not_together_are_over_budget(project: Project, server: Server) -> None:
    sizes = "    pool_size: 4\n    max_overflow: 6\n"
    project.profile(shards(server, 6, sizes))  # 6 × 10 × 2 processes, of about 100
    result = project.run("check", "--workers", "2", "--pools", "1")
    assert result.code == 1
    assert "6 databases (orders/s0, orders/s1, orders/s2, orders/s3, and 2 more): 60 × 1 pool × 2 workers" in result.out
    assert "= 120 connections" in result.out
    assert result.err.count("error[pool-over-budget]") == 1
    assert "2 processes may open 120 connections to 6 databases of 127.0.0.1" in result.err
    assert "for each of them would fit" in result.err
    found = json.loads(project.run("check", "--workers", "2", "--pools", "1", "--format", "json").out)
    (told,) = found["servers"]
    assert (told["databases"], told["wanted"]) == ([f"orders/s{number}" for number in range(6)], "120")
    assert [each["slug"] for each in told["problems"]] == ["pool-over-budget"]
    assert all(not each["problems"] for each in found["databases"].values())  # none of them by itself


def test_what_fits_together_is_said_to(project: Project, server: Server) -> None:
    project.profile(shards(server, 3, "    pool_size: 2\n    max_overflow: 0\n"))
    result = project.run("check", "--workers", "2", "--pools", "1")
    assert (result.code, result.err) == (0, "")
    assert "3 databases (orders/s0, orders/s1, orders/s2): 6 × 1 pool × 2 workers × 1 replica = 12" in result.out


def test_the_limit_of_the_role_counts_for_all_databases(project: Project, postgresql: Server) -> None:
    postgresql.create_user("few", "few-secret")
    postgresql.sql("ALTER ROLE few CONNECTION LIMIT 10")
    text = shards(postgresql, 3, "    pool_size: 5\n    max_overflow: 0\n")
    project.profile(text.replace("app:app-secret@", "few:few-secret@"))
    result = project.run("check", "--pools", "1")
    assert result.code == 1
    assert "= 15 connections; 10 free of 100 (the limit of the role)" in result.out


def test_one_database_a_server_adds_nothing_up(project: Project, postgresql: Server, tmp_path: Path) -> None:
    project.profile(f"url: {postgresql.url()}\ndatabases: {{other: {{url: 'sqlite:///other.db'}}}}\n")
    assert "together" not in project.run("check").out


@pytest.mark.parametrize("size", ["pool_size: 0", "max_overflow: -1"])
def test_a_pool_without_a_limit_wants_all_of_it(project: Project, postgresql: Server, size: str) -> None:
    project.profile(shards(postgresql, 2, f"    {size}\n"))
    result = project.run("check", "--pools", "1")
    assert result.code == 1
    assert "unlimited" in result.out

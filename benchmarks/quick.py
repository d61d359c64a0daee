"""Every ratio that users wait for, in two minutes: printed with its goal, and compared with what was measured before.

``python -m benchmarks.quick`` fails when a ratio is worse by more than 15 % than in RESULTS.json, of the same kind of
machine; ``--write`` writes that file. Both sides of a ratio run in turns, so that what disturbs one disturbs the other.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import create_engine, text
from sqlmodel import Session

from benchmarks import startup
from benchmarks.engines import ours, stock
from benchmarks.harness import machine, servers
from benchmarks.paired import as_processes, in_process
from dbconfig import Profile, Registry
from dbconfig.cli.commands.init import templates
from tests.engine.pool.support import url_of

RESULTS = Path(__file__).with_name("RESULTS.json")
WORSE = 1.15
PYTHON = [sys.executable, "-c"]


@dataclass(frozen=True)
class Ratio:
    """One line of the table."""

    name: str
    value: float
    goal: float


def _ratio(samples: dict[str, list[float]], name: str, base: str) -> float:
    return median(one / other for one, other in zip(samples[name], samples[base], strict=True))


def processes() -> Iterator[Ratio]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config")
        config.mkdir()
        for name, content in templates.profiles().items():
            (config / name).write_text(content)
        (config / "development.yaml").write_text("url: sqlite:///data/app.db\n")
        dbconfig = [sys.executable, "-m", "dbconfig"]
        found = as_processes(
            {
                "pass": [*PYTHON, "pass"],
                "help": [*dbconfig, "--help"],
                "completion": [*dbconfig, "completion", "bash"],
                "import sqlmodel": [*PYTHON, "import sqlmodel"],
                "validate": [*dbconfig, "validate", "--config", str(config)],
                "bare": [*PYTHON, startup.BARE.format(folder=folder)],
                "ours": [*PYTHON, startup.OURS.format(folder=folder)],
            },
            rounds=7,
        )
    yield Ratio("start of a process to SELECT 1, SQLite : bare SQLModel", _ratio(found, "ours", "bare"), 1.05)
    yield Ratio("dbconfig --help : python -c pass", _ratio(found, "help", "pass"), 2.0)
    yield Ratio("dbconfig completion bash : python -c pass", _ratio(found, "completion", "pass"), 2.0)
    yield Ratio("dbconfig validate : import sqlmodel", _ratio(found, "validate", "import sqlmodel"), 0.5)


def sessions() -> Iterator[Ratio]:
    statement = text("SELECT 1")
    db = Registry.from_profile(Profile(name="quick", url="sqlite://"))
    engine, bare = db.engine(), create_engine("sqlite://")

    def query(make: Callable[[], Session]) -> Callable[[], None]:
        def run() -> None:
            with make() as session:
                session.execute(statement)

        return run

    found = in_process({"bare": lambda: Session(engine), "ours": lambda: db.session()}, calls=1000, rounds=101)
    yield Ratio("hand-out of a session : Session(engine)", _ratio(found, "ours", "bare"), 1.05)
    found = in_process({"bare": query(lambda: Session(bare)), "ours": query(db.session)}, calls=20, rounds=301)
    yield Ratio("session + query + close in memory : bare Session", _ratio(found, "ours", "bare"), 1.0)
    db.dispose()


def checkouts() -> Iterator[Ratio]:
    def use(engine: Any) -> Callable[[], None]:
        connect = engine.pool.connect
        return lambda: connect().close()

    with servers("postgresql") as running:
        url = url_of(running["postgresql"])
        engines = {"stock": stock(url), "ours": ours(url), "leaks": ours(url, pool_leak_warning=30.0)}
        found = in_process({name: use(engine) for name, engine in engines.items()}, calls=200, rounds=301)
        for engine in engines.values():
            engine.dispose()
    yield Ratio("checkout + checkin : stock, PostgreSQL", _ratio(found, "ours", "stock"), 0.6)
    yield Ratio("checkout with leak warnings : without", _ratio(found, "leaks", "ours"), 1.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write RESULTS.json")
    write = parser.parse_args().write
    found = [*processes(), *sessions(), *checkouts()]
    here = machine()
    kind = {key: here[key] for key in ("cpu", "cores") if key in here} | {"python": here["python"].rpartition(".")[0]}
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    before = known.get("ratios", {}) if known.get("machine") == kind else {}
    print(f"{'':<58} {'ratio':>7} {'goal':>6} {'before':>7}")
    worse = []
    for each in found:
        old = before.get(each.name)
        missed = "" if each.value <= each.goal else "  goal missed"
        if old is not None and each.value > old * WORSE:
            worse.append(each.name)
            missed += "  WORSE"
        print(f"{each.name:<58} {each.value:>7.2f} {each.goal:>6.2f} {old if old is not None else '–':>7}{missed}")
    if write:
        ratios = {each.name: round(each.value, 3) for each in found}
        RESULTS.write_text(json.dumps({"machine": kind, "ratios": ratios}, indent=2) + "\n")
    elif not before:
        print("RESULTS.json is of another kind of machine: nothing is compared")
    if worse and not write:
        sys.exit(f"worse by more than {WORSE - 1:.0%}: {', '.join(worse)}")


if __name__ == "__main__":
    main()

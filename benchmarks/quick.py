"""Every ratio that users wait for, in two minutes: printed with its goal, and compared with what was measured before.

``python -m benchmarks.quick`` fails when a ratio is worse by more than 15 % than in RESULTS.json, of the same kind of
machine; ``--write`` writes that file. Both sides of a ratio run in turns, so that what disturbs one disturbs the other.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import create_engine, text
from sqlmodel import Session

from benchmarks import scale, startup
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
                "profiles": [*dbconfig, "completion", "profiles", "--config", str(config)],
                "validate": [*dbconfig, "validate", "--config", str(config)],
                "bare": [*PYTHON, startup.BARE.format(url=f"sqlite:///{folder}/bare.db")],
                "ours": [*PYTHON, startup.OURS.format(folder=folder)],
            },
            rounds=5,
        )
    yield Ratio("start of a process to SELECT 1, SQLite : bare SQLModel", _ratio(found, "ours", "bare"), 1.05)
    yield Ratio("dbconfig --help : python -c pass", _ratio(found, "help", "pass"), 2.0)
    yield Ratio("dbconfig completion bash : python -c pass", _ratio(found, "completion", "pass"), 2.0)
    yield Ratio("dbconfig completion profiles : python -c pass", _ratio(found, "profiles", "pass"), 2.0)
    yield Ratio("dbconfig validate : import sqlmodel", _ratio(found, "validate", "import sqlmodel"), 0.5)


def memory() -> Iterator[Ratio]:
    """What an import and one engine add, beside what SQLModel alone takes; in MB, no ratio, and measured once."""
    used = (
        "def resident():\n"
        "    import gc; gc.collect()\n"
        "    return next(int(l.split()[1]) for l in open('/proc/self/smaps_rollup') if l.startswith('Rss:'))\n"
        "import sqlmodel\n"
        "start = resident()\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        bare = startup.BARE.format(url=f"sqlite:///{folder}/bare.db")
        config = Path(folder, "config")
        config.mkdir()
        (config / "development.yaml").write_text("url: sqlite:///data/app.db\n")
        ours = startup.OURS.format(folder=folder)
        found = [
            min(
                int(subprocess.run([*PYTHON, f"{used}{code}print(resident() - start)"], stdout=-1, check=True).stdout)
                for _ in range(2)
            )
            for code in (bare, ours)
        ]
    yield Ratio("MB of import dbconfig and one engine, over SQLModel's", (found[1] - found[0]) / 1024, 8.2)
    ours, stock = (scale.in_a_process(name, 50)[0] for name in ("further_engines", "further_stock_engines"))
    yield Ratio("kB of a further engine, used once, over a stock engine's", ours - stock, 200)


def many_profiles() -> Iterator[Ratio]:
    yield Ratio("seconds for validate --all of 200 profiles", scale.in_a_process("validation", 200)[0], 1.0)


def sessions() -> Iterator[Ratio]:
    statement = text("SELECT 1")
    db = Registry.from_profile(Profile(name="quick", url="sqlite://"))
    engine, bare = db.engine(), create_engine("sqlite://")

    def query(make: Callable[[], Session]) -> Callable[[], None]:
        def run() -> None:
            with make() as session:
                session.execute(statement)

        return run

    found = in_process({"bare": lambda: Session(engine), "ours": lambda: db.session()}, calls=500, rounds=101)
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
        found = in_process({name: use(engine) for name, engine in engines.items()}, calls=200, rounds=201)
        rests: dict[str, list[float]] = {"stock": [], "ours": []}
        for _ in range(400):
            for name, took in rests.items():
                time.sleep(0.006)  # longer than a connection is trusted without a look at its socket
                began = time.perf_counter()
                engines[name].pool.connect().close()
                took.append(time.perf_counter() - began)
        rested = median(rests["ours"]) / median(rests["stock"])
        for engine in engines.values():
            engine.dispose()
    yield Ratio("checkout + checkin : stock, PostgreSQL", _ratio(found, "ours", "stock"), 0.6)
    yield Ratio("checkout after a rest : stock without ping", rested, 1.1)
    yield Ratio("checkout with leak warnings : without", _ratio(found, "leaks", "ours"), 1.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write RESULTS.json")
    write = parser.parse_args().write
    found = [*processes(), *memory(), *many_profiles(), *sessions(), *checkouts()]
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

"""Write, then read, in 16 threads: is a stale row ever read, and who serves the reads?

A primary with two streaming standbys, of which one or both replay 500 ms late.
python -m benchmarks.read_your_writes [PAIRS]
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from sqlmodel import Field, MetaData, SQLModel

from benchmarks.tables import show
from dbconfig import Profile, Registry
from tests.support import servers

THREADS = 16
LATE = {"recovery_min_apply_delay": "500ms"}


class Base(SQLModel):
    metadata = MetaData()


class Note(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    text: str = ""


def pairs(db: Registry, count: int, pause: float) -> int:
    stale = 0
    for _ in range(count):
        with db.transaction() as session:
            note = Note()
            session.add(note)
            session.flush()
            number = note.id
        if pause:
            time.sleep(pause)
        with db.session(read_only=True) as session:
            stale += session.get(Note, number) is None
    return stale


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rows: list[list[object]] = []
    with servers.postgresql() as primary:
        for title, delays, pause in (
            ("both 500 ms late", (LATE, LATE), 0.0),
            ("one 500 ms late, one not", (LATE, {}), 0.0),
            ("one 500 ms late, one not; 20 ms between write and read", (LATE, {}), 0.02),
            ("neither late", ({}, {}), 0.0),
            ("off: both 500 ms late, read_your_writes: false", (LATE, LATE), 0.0),
        ):
            off = title.startswith("off")
            with primary.standby(settings=delays[0]) as one, primary.standby(settings=delays[1]) as two:
                replicas = [{"port": one.port}, {"port": two.port}]
                profile = Profile(
                    name="bench", url=primary.url(), replicas=replicas, pool_size=THREADS, read_your_writes=not off
                )
                with Registry.from_profile(profile) as db:
                    db.create_tables(Note)
                    two.catch_up()
                    one.catch_up()
                    begin = time.perf_counter()
                    with ThreadPoolExecutor(THREADS) as threads:
                        counts = [total // THREADS] * THREADS
                        stale = sum(threads.map(pairs, [db] * THREADS, counts, [pause] * THREADS))
                    took = time.perf_counter() - begin
                    reads = [each.reads for each in db.readers()]
                    done = sum(counts)
                    rows.append([title, done, stale, *reads[:2], reads[2] if len(reads) > 2 else 0, round(done / took)])
    columns = ["standbys", "pairs", "stale reads", "first standby", "second standby", "primary", "pairs/s"]
    show("Read your writes, 16 threads", columns, rows)


if __name__ == "__main__":
    main()

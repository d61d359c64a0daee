"""What the choice of a server costs: a reading session with 0, 1 and 3 replicas against a bare engine in AUTOCOMMIT."""

from collections.abc import Callable
from contextlib import ExitStack

from sqlmodel import Session, create_engine, text

from benchmarks.paired import in_process, report
from dbconfig import Profile, Registry
from tests.support import servers

STATEMENT = text("SELECT 1")


def main() -> None:
    with servers.postgresql() as server, ExitStack() as stack:
        url = server.url("postgresql+psycopg2")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        stack.callback(engine.dispose)

        def sessions(replicas: int) -> Callable[[], Session]:
            settings = [{"weight": number + 1} for number in range(replicas)]
            db = stack.enter_context(Registry.from_profile(Profile(name="bench", url=url, replicas=settings)))
            return lambda: db.session(read_only=True)

        ways: dict[str, Callable[[], Session]] = {"bare Session(engine), AUTOCOMMIT": lambda: Session(engine)}
        ways |= {f"session(read_only=True), {count} replicas": sessions(count) for count in (0, 1, 3)}
        base = next(iter(ways))

        def query(open_session: Callable[[], Session]) -> Callable[[], object]:
            def work() -> None:
                with open_session() as session:
                    session.execute(STATEMENT)

            return work

        report("hand-out of a reading session", in_process(dict(ways), calls=5_000, rounds=21), base=base, goal="none")
        used = {name: query(way) for name, way in ways.items()}
        report("a reading session with one query", in_process(used, calls=500, rounds=31), base=base, goal="<= 1.10")


if __name__ == "__main__":
    main()

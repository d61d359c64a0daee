"""What `db.session()` costs against a bare `Session(engine)`, and `db.transaction()` against a bare transaction."""

from sqlmodel import Session, text

from benchmarks.paired import in_process, report
from dbconfig import Profile, Registry

db = Registry.from_profile(Profile(name="benchmark", url="sqlite://", databases={}))
engine = db.engine()
statement = text("SELECT 1")


def bare_session() -> Session:
    return Session(engine)


def our_session() -> Session:
    return db.session()


def bare_query() -> None:
    with Session(engine) as session:
        session.execute(statement)


def our_query() -> None:
    with db.session() as session:
        session.execute(statement)


def main() -> None:
    hand_out = {"Session(engine)": bare_session, "db.session()": our_session}
    report(
        "hand-out of a session", in_process(hand_out, calls=20_000, rounds=41), base="Session(engine)", goal="<= 1.10"
    )
    used = {"with Session(engine): SELECT 1": bare_query, "with db.session(): SELECT 1": our_query}
    report("a session with one query", in_process(used, calls=2_000, rounds=41), base=next(iter(used)), goal="<= 1.10")
    db.dispose()


if __name__ == "__main__":
    main()

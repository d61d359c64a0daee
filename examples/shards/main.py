"""One model in several databases, a shard for each region: the profile names them, a session chooses one.

python examples/shards/main.py
ENVIRONMENT=postgresql EU_URL=postgresql://user:password@127.0.0.1/eu US_URL=postgresql://user:password@127.0.0.1/us \\
    python examples/shards/main.py
"""

from concurrent.futures import ThreadPoolExecutor

from sqlmodel import Field, Session, SQLModel, func, select

from dbconfig import ConfigError, db


class Order(SQLModel, table=True):
    __tablename__ = "shards_order"

    id: int | None = Field(default=None, primary_key=True)
    customer: str = Field(max_length=100)


def place(customer: str) -> None:
    """Write an order wherever the caller is at work; this function knows no shards."""

    def work(session: Session) -> None:
        session.add(Order(customer=customer))

    db.run_in_transaction(work, "orders")


def count(shard: str) -> int:
    with db.session("orders", shard=shard, read_only=True) as session:
        return session.exec(select(func.count()).select_from(Order)).one()


def main() -> None:
    db.create_tables(Order, database="orders")  # in every shard
    with db.on_shard("eu"):
        place("Ada")
        place("Zoë")
    with db.on_shard("us"):
        place("Grace")
    with ThreadPoolExecutor() as threads:
        counts = dict(zip(db.shards("orders"), threads.map(count, db.shards("orders")), strict=True))
    print(", ".join(f"{shard}: {number}" for shard, number in counts.items()))
    try:
        place("Nobody")
    except ConfigError as error:
        print(error.problems[0].message)
    db.dispose()


if __name__ == "__main__":
    main()

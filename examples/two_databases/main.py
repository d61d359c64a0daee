"""One session over two databases: orders in one, page views in another, each table created where it belongs.

python examples/two_databases/main.py
    starts a PostgreSQL and a MariaDB server of its own, if their programs are installed, and else takes SQLite files.
python examples/two_databases/main.py sqlite
SHOP_URL=postgresql://… ANALYTICS_URL=mysql://… python examples/two_databases/main.py
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from sqlmodel import Field, MetaData, SQLModel, func, select

from dbconfig import ConfigError, Registry

HERE = Path(__file__).parent


class Order(SQLModel, table=True):
    __tablename__ = "two_databases_order"
    id: int | None = Field(default=None, primary_key=True)
    customer: str = Field(max_length=100)


class AnalyticsBase(SQLModel):
    metadata = MetaData()  # its own: that is what `bind` tells the databases apart by


class PageView(AnalyticsBase, table=True):
    __tablename__ = "page_view"
    id: int | None = Field(default=None, primary_key=True)
    page: str = Field(max_length=200)


def start_servers(stack: ExitStack) -> dict[str, str]:
    """Start private servers and return where they are; nothing where they are not installed."""
    sys.path.insert(0, str(HERE.parents[1]))  # the servers of the test suite
    try:
        from tests.support import servers

        postgresql = stack.enter_context(servers.postgresql())
        mariadb = stack.enter_context(servers.mariadb())
    except ImportError:
        return {}
    except servers.ServerMissing as missing:
        print(f"on SQLite: {missing}")
        return {}
    return {"SHOP_URL": postgresql.url(), "ANALYTICS_URL": mariadb.url()}


def main() -> None:
    with ExitStack() as stack:
        urls = {} if "sqlite" in sys.argv or "SHOP_URL" in os.environ else start_servers(stack)
        db = stack.enter_context(Registry(HERE / "config", environ={**os.environ, **urls}))
        db.bind(analytics=AnalyticsBase.metadata)
        db.create_tables()
        with db.transaction() as session:
            session.add(Order(customer="Ada"))
            session.add_all([PageView(page="/"), PageView(page="/checkout")])
        with db.session(read_only=True) as session:
            orders = session.exec(select(func.count()).select_from(Order)).one()
            views = session.exec(select(func.count()).select_from(PageView)).one()
        print(f"{orders} orders on {db.engine().url.drivername}")
        print(f"{views} page views on {db.engine('analytics').url.drivername}")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(str(error))

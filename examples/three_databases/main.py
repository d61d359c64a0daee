"""The same models on SQLite, PostgreSQL and MariaDB: only ENVIRONMENT differs.

python examples/three_databases/main.py
ENVIRONMENT=postgresql POSTGRES_URL=postgresql://user:password@127.0.0.1/shop python examples/three_databases/main.py
ENVIRONMENT=mariadb MARIADB_URL=mysql://user:password@127.0.0.1/shop python examples/three_databases/main.py
"""

import sys
from decimal import Decimal

from sqlmodel import Field, SQLModel, col, func, select

from dbconfig import ConfigError, db


class Order(SQLModel, table=True):
    __tablename__ = "shop_order"

    id: int | None = Field(default=None, primary_key=True)
    customer: str = Field(max_length=100)
    total: Decimal = Field(max_digits=10, decimal_places=2)


def main() -> None:
    db.create_tables(Order)
    with db.transaction() as session:
        session.add_all(
            [Order(customer="Zoë 🦊", total=Decimal("12.50")), Order(customer="Ada", total=Decimal("7.25"))]
        )
    with db.session() as session:
        count, total = session.exec(select(func.count(col(Order.id)), func.sum(Order.total))).one()
        names = session.exec(select(Order.customer).distinct().order_by(Order.customer)).all()
    print(
        f"{db.profile.name}: {count} orders of {', '.join(names)}, {total:.2f} in all, on {db.engine().url.drivername}"
    )
    db.dispose()


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(str(error))

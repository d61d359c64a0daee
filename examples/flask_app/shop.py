"""A small Flask application from a factory.

cd examples/flask_app
flask --app shop dbconfig create-tables
flask --app shop run
"""

from flask import Flask, request
from sqlmodel import Field, SQLModel, col, select

from dbconfig.integrations.flask import DBConfig

db = DBConfig()


class Product(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=80, unique=True)


def create_app(**config: object) -> Flask:
    app = Flask("shop")
    app.config.update(config)
    db.init_app(app)

    @app.post("/products")
    def add() -> tuple[dict[str, object], int]:
        product = Product(name=request.get_json()["name"])
        db.session.add(product)
        db.session.commit()  # before the answer: if it fails, the client gets the error
        return {"id": product.id, "name": product.name}, 201

    @app.get("/products")
    def names() -> list[str]:
        return list(db.session.exec(select(Product.name).order_by(col(Product.name))))

    return app

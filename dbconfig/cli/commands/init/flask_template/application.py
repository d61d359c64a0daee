"""The application. Run it with `flask --app app run`."""

from dbconfig.integrations.flask import DBConfig
from flask import Flask, abort, request
from sqlmodel import col, select

from app.models import Hero

db = DBConfig()


def create_app(**config: object) -> Flask:
    app = Flask("app")
    app.config.update(config)  # DBCONFIG_PROFILE selects another profile than ENVIRONMENT does
    db.init_app(app)

    @app.post("/heroes")
    def create_hero() -> tuple[dict[str, object], int]:
        hero = Hero(name=request.get_json()["name"])
        db.session.add(hero)
        db.session.commit()
        db.session.refresh(hero)  # the commit expired its attributes
        return hero.model_dump(), 201

    @app.get("/heroes")
    def list_heroes() -> list[dict[str, object]]:
        return [hero.model_dump() for hero in db.session.exec(select(Hero).order_by(col(Hero.name)).limit(100))]

    @app.get("/heroes/<int:hero_id>")
    def read_hero(hero_id: int) -> dict[str, object]:
        hero = db.session.get(Hero, hero_id)
        if hero is None:
            abort(404)
        return hero.model_dump()

    return app

"""The conftest.py of SQLAlchemy's suite: its engines are made by dbconfig, where the environment says so."""

import os
from contextvars import ContextVar
from typing import Any

import pytest
import sqlalchemy

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403

if os.environ.get("DBCONFIG_COMPLIANCE") == "ours":
    from dbconfig import Profile
    from dbconfig.engine import create
    from dbconfig.engine.pool.threads import FairPool

    def _keep(pool: Any, seconds: float) -> None:
        pool.__dict__["_timeout"] = seconds

    stock = sqlalchemy.create_engine
    within: ContextVar[bool] = ContextVar("within", default=False)

    def create_engine(url: Any, **options: Any) -> sqlalchemy.Engine:
        address = sqlalchemy.make_url(url)
        known = address.get_backend_name() in ("sqlite", "postgresql", "mysql", "mariadb")
        if within.get() or not known or options.get("module"):
            return stock(url, **options)
        token = within.set(True)
        try:
            profile = Profile(name="suite", url=address.render_as_string(hide_password=False))
            return create.build(profile.databases["default"], "suite", options)
        finally:
            within.reset(token)

    sqlalchemy.create_engine = create_engine

    # The suite takes the waiting time from a pool that was given none: 0 seconds, which bound a connect of ours too.
    FairPool._timeout = property(lambda pool: pool.__dict__["_timeout"] or 30.0, _keep)  # type: ignore[assignment]

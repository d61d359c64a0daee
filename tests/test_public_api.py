"""The public names, their signatures, and what importing them costs."""

import importlib
import json
import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path

import pytest

import dbconfig
from dbconfig import Registry

NAMES = {
    "CommitUncertain",
    "ConfigError",
    "DBConfigError",
    "DatabaseSettings",
    "DeadlineExceeded",
    "Location",
    "PoolStats",
    "Problem",
    "Profile",
    "ProfileNotFound",
    "Registry",
    "db",
    "load",
}
SIGNATURES = {
    "__init__": "self, path=None, *, profile=None, environ=None, engine_options=None, "
    "session_class=<class 'sqlmodel.orm.session.Session'>, async_session_class=None",
    "from_profile": "profile, **options",
    "deadline": "self, seconds",
    "engine": "self, database='default', *, profile=None, shard=None",
    "session": "self, database='default', *, profile=None, read_only=False, snapshot=False, schema=None, "
    "execution_options=None, shard=None",
    "transaction": "self, database='default', *, profile=None, schema=None, execution_options=None, shard=None",
    "connect": "self, database='default', *, read_only=False",
    "begin": "self, database='default', *, read_only=False",
    "async_connect": "self, database='default', *, read_only=False",
    "async_begin": "self, database='default', *, read_only=False",
    "run_in_transaction": "self, work, database='default', *, attempts=None, timeout=30.0, schema=None, "
    "execution_options=None, shard=None",
    "create_tables": "self, *models, database='default', schema=None, shard=None",
    "drop_tables": "self, *models, database='default', schema=None, shard=None",
    "ping": "self, database='default', *, timeout=5.0, shard=None",
    "wait": "self, database='default', *, timeout=30.0, shard=None",
    "bind": "self, **databases",
    "readers": "self, database='default'",
    "read_after": "self, token=None",
    "write_token": "self, database='default'",
    "stats": "self, database='default', *, shard=None",
    "shards": "self, database='default'",
    "on_shard": "self, shard, database=None",
    "all_stats": "self",
    "tags": "self, **tags",
    "advice": "self",
    "async_create_tables": "self, *models, database='default', schema=None, shard=None",
    "async_drop_tables": "self, *models, database='default', schema=None, shard=None",
    "async_ping": "self, database='default', *, timeout=5.0, shard=None",
    "async_wait": "self, database='default', *, timeout=30.0, shard=None",
    "password_provider": "self, name, function, *, timeout=10.0",
    "reload": "self",
    "dispose": "self, *, timeout=None",
    "async_engine": "self, database='default', *, profile=None, shard=None",
    "async_session": "self, database='default', *, profile=None, read_only=False, snapshot=False, schema=None, "
    "execution_options=None, shard=None",
    "async_transaction": "self, database='default', *, profile=None, schema=None, execution_options=None, shard=None",
    "async_run_in_transaction": "self, work, database='default', *, attempts=None, timeout=30.0, schema=None, "
    "execution_options=None, shard=None",
    "async_write_token": "self, database='default'",
    "async_readers": "self, database='default'",
    "async_dispose": "self, *, timeout=None",
}
# What an application that only names dbconfig must not pay for.
HEAVY = (
    "sqlalchemy",
    "sqlmodel",
    "pydantic",
    "yaml",
    "psycopg2",
    "pymysql",
    "sqlite3",
    "argparse",
    "asyncio",
    "greenlet",
)


def loaded_by(script: str) -> set[str]:
    """Return the modules that a process has loaded after a script."""
    command = [sys.executable, "-c", f"{script}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_public_names_are_these_and_at_most_fifteen() -> None:
    assert set(dbconfig.__all__) == NAMES
    assert dbconfig.__all__ == sorted(dbconfig.__all__)
    assert len(NAMES) <= 15
    for name in NAMES:
        assert getattr(dbconfig, name) is getattr(dbconfig, name)
        assert name in dir(dbconfig)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dbconfig' has no attribute 'dbs'"):
        _ = dbconfig.dbs


def test_every_public_name_has_a_documentation() -> None:
    for name in NAMES:
        assert getattr(dbconfig, name).__doc__, name
    for name in dir(Registry):
        assert name.startswith("_") or getattr(Registry, name).__doc__, name


def test_a_registry_has_these_methods_with_these_arguments() -> None:
    def shown(parameter: Parameter) -> Parameter:
        return parameter.replace(annotation=Parameter.empty)

    ours = [each for each in Registry.__mro__ if each.__module__.startswith("dbconfig.")]
    public = {name for each in ours for name in vars(each) if not name.startswith("_")}
    assert public == SIGNATURES.keys() - {"__init__"} | {"profile"}
    for name, expected in SIGNATURES.items():
        found = signature(getattr(Registry, name))
        plain = found.replace(
            parameters=[shown(each) for each in found.parameters.values()], return_annotation=found.empty
        )
        assert str(plain) == f"({expected})", name
    assert str(signature(dbconfig.load)).startswith("(profile: 'str | None' = None, *, path")


def test_the_errors_are_what_people_already_catch() -> None:
    from sqlalchemy.exc import OperationalError

    assert issubclass(dbconfig.ConfigError, ValueError)
    assert issubclass(dbconfig.ConfigError, dbconfig.DBConfigError)
    assert issubclass(dbconfig.ProfileNotFound, dbconfig.ConfigError)
    assert issubclass(dbconfig.CommitUncertain, OperationalError)


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import dbconfig") & set(HEAVY) == set()
    assert loaded_by("from dbconfig import ConfigError") & set(HEAVY) == set()


def test_loading_a_profile_loads_no_sqlalchemy_and_no_driver(tmp_path: Path) -> None:
    (tmp_path / "development.yaml").write_text(
        "url: postgresql://app@db/shop\npassword: secret\ndatabases: {facts: {url: 'mysql://h/d'}, lite: {url: 'sqlite:///x'}}"
    )
    modules = loaded_by(f"from dbconfig import load; print(load(path={str(tmp_path)!r}, environ={{}}).databases)")
    assert "yaml" in modules
    assert modules & {"sqlalchemy", "sqlmodel", "psycopg2", "pymysql", "sqlite3", "dbconfig.registry.registry"} == set()


def test_what_is_set_aside_of_a_shared_default_does_not_bring_in_pydantic_settings(tmp_path: Path) -> None:
    """`connect_timeout` of `default.yaml`, as `dbconfig init` writes it, has no effect on SQLite."""
    (tmp_path / "default.yaml").write_text("connect_timeout: 5s\n")
    (tmp_path / "development.yaml").write_text("url: sqlite://\n")
    modules = loaded_by(f"from dbconfig import Registry; Registry({str(tmp_path)!r}, environ={{}}).session()")
    assert "pydantic_settings" not in modules


def test_the_first_session_loads_its_own_driver_alone(tmp_path: Path) -> None:
    (tmp_path / "development.yaml").write_text("url: sqlite://")
    modules = loaded_by(
        f"from dbconfig import Registry; Registry({str(tmp_path)!r}, environ={{}}).session().connection().close()"
    )
    assert "sqlite3" in modules
    assert modules & {"psycopg2", "pymysql", "psycopg", "sqlalchemy.ext.asyncio"} == set()


def test_who_reads_from_no_replica_does_not_load_what_routes(tmp_path: Path) -> None:
    (tmp_path / "development.yaml").write_text("url: sqlite://")
    modules = loaded_by(f"from dbconfig import Registry; Registry({str(tmp_path)!r}, environ={{}}).session()")
    assert modules & {"dbconfig.replicas.routing", "dbconfig.replicas.health", "dbconfig.replicas.positions"} == set()


def test_the_package_is_typed() -> None:
    assert (Path(dbconfig.__file__).parent / "py.typed").is_file()


def test_every_module_can_be_imported_alone_and_says_its_one_job() -> None:
    root = Path(dbconfig.__file__).parent
    names = [".".join(("dbconfig", *path.relative_to(root).with_suffix("").parts)) for path in root.rglob("*.py")]
    for name in names:
        if "integrations" in name or "_template" in name or name.endswith("__main__"):
            continue  # they need what is optional, are copied into a project, or run
        module = importlib.import_module(name.removesuffix(".__init__"))
        assert module.__doc__, name

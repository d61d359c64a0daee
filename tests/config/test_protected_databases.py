"""What is protected: production's tables, also from another profile that points at the same database."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from dbconfig import ConfigError, Registry
from dbconfig.integrations.testing.databases import Options
from dbconfig.integrations.testing.testbed import refuse_unless_for_tests
from tests.registries import Account, registry

PRODUCTION = "url: ${DATABASE_URL}"  # protected by its name
URL = "postgresql://app:secret@db.internal/shop"


def opened(root: Path, environ: dict[str, str] | None = None, /, **profiles: str) -> Registry:
    config = root / "config"
    config.mkdir()
    for name, content in profiles.items():
        (config / f"{name}.yaml").write_text(content)
    return Registry(config, environ=environ or {})


def refused(db: Registry) -> str:
    with db, pytest.raises(ConfigError) as caught:
        db.drop_tables(Account)
    return str(caught.value)


def test_production_keeps_its_tables_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    environ = {"ENVIRONMENT": "production"}
    with opened(tmp_path, environ, production="url: sqlite:///p.db") as db:
        assert db.create_tables(Account) == ["engine_account"]
        with pytest.raises(ConfigError, match="profile 'production' is protected"):
            db.drop_tables(Account)
        (tmp_path / "config/production.yaml").write_text("url: sqlite:///p.db\nprotected: false")
        db.dispose()
        assert db.drop_tables(Account) == ["engine_account"]


def test_the_refusal_says_where_the_protection_was_written(tmp_path: Path) -> None:
    message = refused(opened(tmp_path, development="url: sqlite:///p.db\nprotected: true"))
    assert "config/development.yaml:2:1" in message
    assert "write `protected: false` in a profile whose tables may be dropped" in message


@pytest.mark.parametrize(
    "development",
    [
        "url: postgresql://other:word@DB.internal:5432/shop",
        "url: postgres://db.internal/shop?sslmode=require",
        "url: postgresql://app@/shop?host=db.internal",
        "url: postgresql://app@/shop?host=replica.internal:5433&host=db.internal:5432",
        "url: postgresql://app@/shop?host=replica.internal,db.internal",
        "url: ${DATABASE_URL}",
        "drivername: postgresql+psycopg2\nhost: db.internal\ndatabase: shop",
    ],
)
def test_another_way_to_the_protected_database_is_refused(development: str, tmp_path: Path) -> None:
    message = refused(opened(tmp_path, {"DATABASE_URL": URL}, production=PRODUCTION, development=development))
    assert "profile 'development' points at the same database as 'production', which is protected" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("production", "development"),
    [
        ("url: mysql://app@127.0.0.1/shop", "url: mariadb://app@localhost:3306/shop"),
        ("url: mysql://app@localhost/shop", "url: mysql://app@/shop?unix_socket=/run/mysqld/mysqld.sock"),
        ("url: postgresql://app@localhost/shop", "url: postgresql:///shop?host=/var/run/postgresql"),
        ("url: postgresql://app@[::1]/shop", "url: postgresql://app@127.0.0.1/shop"),
        ("url: sqlite:///data/shop.db", "url: sqlite:///data/../data/shop.db"),
        ("url: sqlite:///data/shop.db", "url: sqlite:///file:data/shop.db?uri=true"),
        ("url: sqlite:///data/shop.db", "url: sqlite:///link.db"),
    ],
)
def test_the_same_database_is_recognised_by_whatever_address(production: str, development: str, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "data/shop.db")
    message = refused(opened(tmp_path, production=production, development=development))
    assert "which is protected" in message


@pytest.mark.parametrize(
    ("production", "development"),
    [
        ("url: sqlite:///data/shop.db", "url: sqlite:///data/other.db"),
        ("url: sqlite://\nprotected: true", "url: sqlite://"),
        ("url: sqlite:///data/shop.db\nprotected: false", "url: sqlite:///data/shop.db"),
        ("url: postgresql://db.internal/shop", "url: sqlite:///shop"),
        ("url: ${UNSET:?needed}", "url: sqlite:///data/shop.db"),
        ("nonsense: true", "url: sqlite:///data/shop.db"),
    ],
)
def test_another_database_is_ones_own(production: str, development: str, tmp_path: Path) -> None:
    with opened(tmp_path, production=production, development=development) as db:
        assert db.create_tables(Account) == db.drop_tables(Account) == ["engine_account"]


def test_another_server_another_port_and_another_name_are_other_databases(tmp_path: Path) -> None:
    from dbconfig.config.protected_databases import protected_elsewhere

    for number, url in enumerate(
        ["postgresql://db.internal/shop2", "postgresql://db2.internal/shop", "postgresql://db.internal:5433/shop",
         "mysql://db.internal/shop", "postgresql://db.internal/shop"]
    ):  # fmt: skip
        root = tmp_path / str(number)
        root.mkdir()
        with opened(root, production=f"url: {URL}", development=f"url: {url}") as db:
            owner = protected_elsewhere(
                db.profile, db.profile.databases["default"], destructive=True, path=root / "config", environ={}
            )
            assert owner == ("production" if number == 4 else ""), url


def test_a_database_in_memory_is_nobody_elses(tmp_path: Path) -> None:
    from dbconfig.config.protected_databases import protected_elsewhere

    with opened(tmp_path, production="url: sqlite://", development="url: sqlite://") as db:
        settings = db.profile.databases["default"]
        found = protected_elsewhere(db.profile, settings, destructive=True, path=tmp_path / "config", environ={})
        assert found == ""


def test_tables_are_created_where_only_the_environment_leads_to_production(tmp_path: Path) -> None:
    """A staging profile may share its server's variable; what is written in the files may not."""
    path = f"sqlite:///{tmp_path}/shop.db"
    files = {"production": "url: ${DATABASE_URL}", "development": "url: ${DATABASE_URL}"}
    with opened(tmp_path, {"DATABASE_URL": path}, **files) as db:
        assert db.create_tables(Account) == ["engine_account"]
        with pytest.raises(ConfigError, match="which is protected"):
            db.drop_tables(Account)


@pytest.mark.parametrize("exported", [URL, "postgresql://db.internal/testing"])
def test_a_suite_runs_only_where_the_variables_that_are_exported_do_not_lead_to_production(
    exported: str, tmp_path: Path
) -> None:
    files = {"production": f"url: {URL}", "testing": "url: ${DATABASE_URL}"}
    with opened(tmp_path, {"ENVIRONMENT": "testing", "DATABASE_URL": exported}, **files) as db:
        told = "'testing' points at the database of 'production', which is protected"
        with pytest.raises(ConfigError, match=told) if exported == URL else nullcontext():
            refuse_unless_for_tests(db, Options())


def test_a_profile_made_in_code_is_protected_by_itself_alone() -> None:
    with registry("sqlite://", protected=True) as db:
        db.create_tables(Account)
        with pytest.raises(ConfigError, match="is protected"):
            db.drop_tables(Account)

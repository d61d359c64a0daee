"""TLS by one key: what each word verifies, measured against real servers with the same words."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import ConfigError, Profile, Registry
from tests.support import servers
from tests.support.servers import Server, ServerMissing

DRIVERS = {"postgresql": ("postgresql+psycopg2", "postgresql+psycopg"), "mariadb": ("mysql+pymysql",)}
ALL = [(kind, driver) for kind, drivers in DRIVERS.items() for driver in drivers]
ENCRYPTED = {
    "postgresql": "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mariadb": "SELECT variable_value <> '' FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'",
}
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def with_tls() -> Iterator[dict[str, Server]]:
    try:
        with servers.postgresql(tls=True) as postgresql, servers.mariadb(tls=True) as mariadb:
            yield {"postgresql": postgresql, "mariadb": mariadb}
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that has signed nobody here."""
    folder = tmp_path_factory.mktemp("stranger")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=stranger"]
    subprocess.run([*command, "-keyout", folder / "key", "-out", folder / "ca"], check=True, capture_output=True)
    return folder / "ca"


def encrypted(server: Server, driver: str, host: str | None = None, **settings: object) -> bool:
    """Connect, and return what the server says."""
    url = server.url(driver, host=host)
    with Registry.from_profile(Profile(name="tls", url=url, **settings)) as db, db.session() as session:
        return bool(session.execute(text(ENCRYPTED[server.kind])).scalar_one())


@pytest.mark.parametrize(("kind", "driver"), ALL)
def test_each_word_encrypts_and_verifies_what_it_says(
    with_tls: dict[str, Server], stranger: Path, kind: str, driver: str
) -> None:
    pytest.importorskip(driver.partition("+")[2])
    server = with_tls[kind]
    own = str(server.certificate)
    assert encrypted(server, driver, sslmode="disable") is False
    assert encrypted(server, driver, sslmode="prefer") is True
    assert encrypted(server, driver, sslmode="require") is True
    assert encrypted(server, driver, sslmode="verify-ca", sslrootcert=own) is True
    assert encrypted(server, driver, sslmode="verify-full", sslrootcert=own) is True
    for mode in ("verify-ca", "verify-full"):
        with pytest.raises(DBAPIError, match=r"(?i)certificate"):
            encrypted(server, driver, sslmode=mode, sslrootcert=str(stranger))
    with pytest.raises(DBAPIError, match=r"(?i)certificate"):
        encrypted(server, driver, sslmode="verify-full", sslrootcert="system")


@pytest.mark.parametrize(("kind", "driver"), ALL)
def test_only_verify_full_finds_out_that_the_certificate_is_another_hosts(
    with_tls: dict[str, Server], kind: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(driver.partition("+")[2])
    server = with_tls[kind]
    own = str(server.certificate)
    other = server.host
    # The certificate is for 127.0.0.1 and localhost; let the driver think that it was told another name.
    if driver.endswith("pymysql"):
        import ssl

        wrap = ssl.SSLContext.wrap_socket
        monkeypatch.setattr(
            ssl.SSLContext,
            "wrap_socket",
            lambda self, sock, **given: wrap(self, sock, **{**given, "server_hostname": "db.elsewhere"}),
        )
        given: dict[str, object] = {}
    else:
        given, other = {"query": {"hostaddr": "127.0.0.1"}}, "db.elsewhere"
    assert encrypted(server, driver, other, sslmode="verify-ca", sslrootcert=own, **given) is True
    with pytest.raises(DBAPIError, match=r"(?i)host ?name|does not match"):
        encrypted(server, driver, other, sslmode="verify-full", sslrootcert=own, **given)


@pytest.mark.parametrize(("kind", "driver"), ALL)
@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_refused_never_talked_to_in_plaintext(
    request: pytest.FixtureRequest, with_tls: dict[str, Server], kind: str, driver: str, mode: str
) -> None:
    pytest.importorskip(driver.partition("+")[2])
    server: Server = request.getfixturevalue(kind)
    root = {"sslrootcert": str(with_tls[kind].certificate)} if mode == "verify-full" else {}
    with pytest.raises(DBAPIError, match=r"(?i)ssl|tls"):
        encrypted(server, driver, sslmode=mode, **root)
    assert encrypted(server, driver, sslmode="prefer") is False


@pytest.mark.parametrize(
    ("settings", "key", "told"),
    [
        ({"sslmode": "verify-full"}, "sslmode", "needs `sslrootcert`"),
        ({"sslmode": "require", "sslrootcert": "ca.pem"}, "sslrootcert", "acts with `sslmode: verify-ca`"),
        ({"sslmode": "verify-ca", "sslrootcert": "system"}, "sslmode", "would take anybody"),
        ({"sslmode": "require", "sslcert": "c.pem"}, "sslcert", "needs `sslkey`"),
        ({"sslmode": "prefer", "sslcert": "c.pem", "sslkey": "k.pem"}, "sslcert", "needs TLS"),
        ({"sslmode": "require", "query": {"sslmode": "disable"}}, "query.sslmode", "beside `sslmode`"),
        ({"sslmode": "require", "connect_args": {"ssl_disabled": True}}, "connect_args.ssl_disabled", "beside"),
        ({"sslmode": "require", "url": "postgresql://h/d?sslmode=disable"}, "url", "beside `sslmode`"),
        ({"sslmode": "required"}, "sslmode", "must be one of disable, prefer, require"),
        ({"sslmode": "require", "url": "sqlite://"}, "sslmode", "there is no network"),
    ],
)
def test_what_contradicts_itself_is_refused_when_the_profile_is_loaded(settings: dict, key: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Profile(name="tls", **{"url": "postgresql://h/d", **settings})
    assert (caught.value.problems[0].key, told in caught.value.problems[0].message) == (key, True)


def test_files_are_relative_to_the_project_and_a_missing_one_is_told_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    lines = "url: postgresql://a@h/d\nsslmode: verify-full\nsslrootcert: certificates/ca.pem\n"
    (tmp_path / "config" / "production.yaml").write_text(lines)
    db = Registry(tmp_path / "config", profile="production", environ={})
    with pytest.raises(ConfigError) as caught:
        db.engine()
    assert caught.value.problems[0].key == "sslrootcert"
    assert f"{tmp_path}/certificates/ca.pem" in str(caught.value)
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "ca.pem").touch()
    assert db.engine().url.query["sslrootcert"] == f"{tmp_path}/certificates/ca.pem"

"""TLS by one key: what each word verifies, measured against real servers with the same words."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import ConfigError, Profile, Registry
from tests.support import servers
from tests.support.drivers import SERVED, Driver, params
from tests.support.servers import Server, ServerMissing

ELSEWHERE = "db.elsewhere"  # a name that the certificate is not for
# By mode, certificate authority and host: what comes of it, at a server that offers TLS and at one that does not.
TABLE = (
    ("disable", None, "right", "plaintext", "plaintext"),
    ("prefer", None, "right", "encrypted", "plaintext"),
    ("require", None, "right", "encrypted", "refused"),
    ("require", None, "wrong", "encrypted", "refused"),
    ("verify-ca", "right", "right", "encrypted", "refused"),
    ("verify-ca", "right", "wrong", "encrypted", "refused"),
    ("verify-ca", "wrong", "right", "refused", "refused"),
    ("verify-ca", None, "right", "no profile", "no profile"),
    ("verify-full", "right", "right", "encrypted", "refused"),
    ("verify-full", "right", "wrong", "refused", "refused"),
    ("verify-full", "wrong", "right", "refused", "refused"),
    ("verify-full", "system", "right", "refused", "refused"),
    ("verify-full", None, "right", "no profile", "no profile"),
)
ENCRYPTED = {
    "postgresql": "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mariadb": "SHOW SESSION STATUS LIKE 'Ssl_cipher'",  # a name and a value; the tables of the same are not on each
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


def outcome(server: Server, driver: str, asynchronous: bool, host: str | None, **settings: object) -> str:
    """Connect, and return what comes of it: for encryption, what the server says."""
    try:
        profile = Profile(name="tls", url=server.url(driver, host=host), **settings)
    except ConfigError:
        return "no profile"
    question = text(ENCRYPTED[server.kind])
    with Registry.from_profile(profile) as db:

        async def ask() -> object:
            try:
                async with db.async_engine().connect() as connection:
                    return (await connection.execute(question)).one()[-1]
            finally:
                await db.async_dispose()

        try:
            if asynchronous:
                found = asyncio.run(ask())
            else:
                with db.engine().connect() as connection:
                    found = connection.execute(question).one()[-1]
        except DBAPIError as error:
            said = " ".join([str(error), *getattr(error, "__notes__", ())])
            slug = re.search(r"dbconfig\[(.*?)\]", said)
            assert slug is not None, said
            return slug[1]
    return "encrypted" if found else "plaintext"


@pytest.mark.parametrize("driver", params(SERVED))
@pytest.mark.parametrize(("mode", "authority", "host", "with_it", "without_it"), TABLE)
def test_each_word_encrypts_verifies_and_refuses_what_it_says(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    with_tls: dict[str, Server],
    stranger: Path,
    driver: Driver,
    mode: str,
    authority: str | None,
    host: str,
    with_it: str,
    without_it: str,
) -> None:
    pytest.importorskip(driver.module)
    kind = driver.server
    if driver.module == "asyncmy" and mode == "prefer":
        with_it = without_it = "refused for this driver"
    authorities = {"right": str(with_tls[kind].certificate), "wrong": str(stranger), "system": "system"}
    settings: dict[str, object] = {"sslmode": mode}
    if authority is not None:
        settings["sslrootcert"] = authorities[authority]
    name = None
    if host == "wrong":
        name = ELSEWHERE
        _resolve_elsewhere(monkeypatch)
        if driver.module.startswith("psycopg"):  # libpq resolves names itself
            settings["query"] = {"hostaddr": "127.0.0.1"}
    there = (with_tls[kind], with_it, "tls-untrusted"), (request.getfixturevalue(kind), without_it, "tls-refused")
    for server, expected, slug in there:
        if expected == "refused for this driver":
            with pytest.raises(ConfigError, match="asyncmy"):
                outcome(server, driver.scheme, driver.asynchronous, name, **settings)
        else:
            wanted = slug if expected == "refused" else expected
            assert outcome(server, driver.scheme, driver.asynchronous, name, **settings) == wanted


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"ssl": "disable"}, "plaintext"),
        ({"ssl": "require"}, "encrypted"),
        ({"ssl": "disable", "sslmode": "disable"}, "are the same setting"),
    ],
)
def test_asyncpgs_own_word_in_a_url_is_understood_as_sqlalchemy_promises(
    with_tls: dict[str, Server], query: dict[str, str], expected: str
) -> None:
    pytest.importorskip("asyncpg")
    try:
        found = outcome(with_tls["postgresql"], "postgresql+asyncpg", True, None, query=query)
    except ConfigError as error:
        found = str(error)
    assert expected in found


def _resolve_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **how: resolve("127.0.0.1" if host == ELSEWHERE else host, *more, **how),
    )


@pytest.mark.parametrize(
    ("settings", "key", "told"),
    [
        ({"sslmode": "verify-full"}, "sslmode", "needs `sslrootcert`"),
        ({"sslmode": "require", "sslrootcert": "ca.pem"}, "sslrootcert", "needs `sslmode: verify-ca`"),
        ({"sslmode": "verify-ca", "sslrootcert": "system"}, "sslmode", "would accept any server"),
        ({"sslmode": "require", "sslcert": "c.pem"}, "sslcert", "needs `sslkey`"),
        ({"sslmode": "prefer", "sslcert": "c.pem", "sslkey": "k.pem"}, "sslcert", "needs TLS"),
        ({"sslmode": "require", "query": {"sslmode": "disable"}}, "query.sslmode", "in addition to `sslmode`"),
        ({"sslmode": "require", "connect_args": {"ssl_disabled": True}}, "connect_args.ssl_disabled", "in addition to"),
        ({"sslmode": "require", "url": "postgresql://h/d?sslmode=disable"}, "url", "in addition to `sslmode`"),
        ({"sslmode": "required"}, "sslmode", "must be one of disable, prefer, require"),
        ({"sslmode": "require", "url": "sqlite://"}, "sslmode", "it does not use the network"),
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

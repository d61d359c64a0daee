"""The TLS context of asyncmy and aiomysql is the one that PyMySQL makes of the same words."""

import ssl
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pymysql.connections import Connection

from dbconfig import ConfigError
from dbconfig.engine.dialects.mysql import pymysql, tls
from dbconfig.settings.database import DatabaseSettings

AUTHORITIES = ssl.get_default_verify_paths().openssl_capath
TRUST: tuple[dict[str, Any], ...] = ({}, {"capath": AUTHORITIES})
NAMES: tuple[dict[str, Any], ...] = ({}, {"check_hostname": True}, {"check_hostname": False})
MODES = (None, True, False, "required", "REQUIRED", "none", "No", "optional", "1", "0", "something else")


@pytest.mark.parametrize(("trust", "name", "mode"), list(product(TRUST, NAMES, MODES)))
def test_it_verifies_what_pymysql_verifies(trust: dict[str, Any], name: dict[str, Any], mode: object) -> None:
    wanted = {**trust, **name, "verify_mode": mode}

    def of(build: Any) -> object:
        try:
            made = build(wanted)
        except ValueError as error:  # a host name cannot be checked where nothing is verified
            return str(error)
        return made.check_hostname, made.verify_mode

    theirs = getattr(Connection, "_create_ssl_ctx")  # noqa: B009  # private, and unchanged since 2013
    assert of(tls._context) == of(lambda each: theirs(None, each))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost", "-keyout", key]
    subprocess.run(["openssl", *request, "-out", certificate], check=True, capture_output=True)
    return {"ssl_ca": certificate, "ssl_cert": certificate, "ssl_key": key}


@pytest.mark.parametrize("identity", [{}, {"ssl_verify_identity": True}, {"ssl_verify_identity": False}])
@pytest.mark.parametrize("certificate", [{}, {"ssl_verify_cert": True}, {"ssl_verify_cert": False}])
def test_to_verify_the_name_or_the_certificate_is_enough_to_verify_the_certificate(
    identity: dict[str, Any], certificate: dict[str, Any], files: dict[str, Path]
) -> None:
    given = {"ssl_ca": str(files["ssl_ca"]), **identity, **certificate}
    made = tls._context(tls._in_arguments(given))
    assert (made.verify_mode is ssl.CERT_REQUIRED) is (True in (*identity.values(), *certificate.values()))
    assert made.check_hostname is (True in identity.values())


def test_a_context_is_taken_as_it_is() -> None:
    given = ssl.create_default_context()
    assert tls._context(given) is given


@pytest.mark.parametrize("driver", ["pymysql", "asyncmy, aiomysql"])
@pytest.mark.parametrize(
    ("wanted", "read"),
    [({}, False), ({"verify_mode": True}, True), ({"verify_mode": "optional"}, True), ({"capath": AUTHORITIES}, False)],
)
def test_the_authorities_of_the_system_are_read_only_to_verify(
    driver: str, wanted: dict[str, Any], read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes 30 ms, at each start of a program."""
    found: list[bool] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: found.append(True))
    theirs: Any = pymysql._sharing_tls_context()
    made = theirs._create_ssl_ctx(None, wanted) if driver == "pymysql" else tls._context(wanted)
    assert bool(found) is read
    assert (made.verify_mode is not ssl.CERT_NONE) is bool(wanted)


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
@pytest.mark.parametrize("named", ["ssl_ca", "ssl_cert"])
def test_the_file_that_is_no_certificate_is_the_one_that_is_named(
    driver: str, named: str, files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.pem").write_text("not a certificate")
    arguments = {name: str(path) for name, path in {**files, named: tmp_path / "broken.pem"}.items()}
    settings = DatabaseSettings.model_validate({"url": "mysql://localhost/x", "connect_args": arguments})
    with pytest.raises(ConfigError) as found:
        tls.with_tls_context(settings, arguments, driver, on_socket=False)
    assert found.value.problems[0].key == f"connect_args.{named}"
    assert str(found.value).count(f"connect_args.{named}: a certificate cannot be used") == 1

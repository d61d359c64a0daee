"""The places where a password may stand."""

from pathlib import Path

from dbconfig import Registry
from tests.registries import from_yaml
from tests.support.servers import Server

PASSWORD = 'p@ss/w:rd%#?é€ "x"'
PLACES = ("variable in a URL", "password", "variable", "file", "env", "URL", "override")


def opened(place: str, server: Server, root: Path, password: str = PASSWORD) -> Registry:
    """Return the registry of a profile whose user is `nasty` and whose password stands in this place."""
    address = f"{server.host}:{server.port}/{server.database}"
    without = f"url: {server.driver}://nasty@{address}\n"
    environ = {"DB_PASSWORD": password}
    if place == "variable in a URL":
        return from_yaml(root, f"url: {server.driver}://nasty:${{DB_PASSWORD}}@{address}", environ)
    if place == "password":
        return from_yaml(root, f"{without}password: '{password}'", {})
    if place == "variable":
        return from_yaml(root, f"{without}password: ${{DB_PASSWORD}}", environ)
    if place == "file":
        secret = root / "secret"
        secret.write_text(f"{password}\n", encoding="utf-8")
        secret.chmod(0o600)
        return from_yaml(root, f"{without}password: {{file: secret}}", {})
    if place == "env":
        return from_yaml(root, f"{without}password: {{env: DB_PASSWORD}}", environ)
    if place == "URL":
        return from_yaml(root, "url: ${DATABASE_URL}", {"DATABASE_URL": server.url(user="nasty", password=password)})
    return from_yaml(root, without, {"DBCONFIG_PASSWORD": password})

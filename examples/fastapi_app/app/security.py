"""Passwords and tokens."""

import hashlib
import hmac
import os
import secrets

_ROUNDS = int(os.environ.get("PASSWORD_ROUNDS", "200000"))


def hash_password(password: str) -> str:
    salt = secrets.token_hex(16)
    return f"{_ROUNDS}${salt}${_derived(password, salt, _ROUNDS)}"


def is_password(password: str, stored: str) -> bool:
    rounds, salt, expected = stored.split("$")
    return hmac.compare_digest(_derived(password, salt, int(rounds)), expected)


def _derived(password: str, salt: str, rounds: int) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), rounds).hex()


def new_token() -> str:
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

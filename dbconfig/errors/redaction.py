"""Which part of a value a message may show: never a secret, nor what might be one in the wrong place."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from dbconfig.errors.late_pattern import late_pattern

MASK = "***"

_SECRET_PARTS = (
    *("pass", "pwd", "psw", "secret", "token", "credential", "initcommand", "auth", "signature", "bearer", "jwt"),
    *("apikey", "privatekey"),
)
# Of names that end in "key", as libpq's scram_client_key: files, and what is public.
_PUBLIC_KEYS = ("publickey", "primarykey", "foreignkey", "sslkey", "tlskey")
_NUMBER_LIKE = late_pattern(r"[-+]?[0-9][0-9._:eE+-]{0,23} ?(?:ms|s|m|h|d)?|true|false|null|~|", re.ASCII)
_WORD = late_pattern(r"[A-Za-z]{1,24}")
_SECRET_NAMES = frozenset({"pw", "pin", "key"})  # too short to search for inside other names
_PUBLIC_NAMES = frozenset({"loggingtoken", "passwordencryption"})  # SQLAlchemy's and PostgreSQL's own; no secrets
# A colon must precede a port here: in postgresql://app:secret/shop, which lacks a host, it precedes a password.
_ADDRESS_LIKE = late_pattern(
    r"(?:\[[0-9A-Fa-f:.]{2,60}\]|[\w.-]{0,120})(?::[0-9]{1,5})?(?:/[\w.\-+/ ]{0,200})?", re.ASCII
)
_FILE_LIKE = late_pattern(r"/(?::memory:|[\w.\-+/: ]{0,200})", re.ASCII)
_PLACE_LIKE = late_pattern(r"[\w.\-+/:\[\] ]{1,120}")
_PLACE_KEYS = frozenset(
    {"host", "database", "drivername", "username", "extends", "logging_name", "pool_logging_name", "file", "env"}
)
# Keys whose values are numbers, durations, flags, or fixed words: a wrong value is a mistake, not a secret.
PLAIN_KEYS: Final = frozenset(
    {"port", "sslmode", "pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_pre_ping", "pool_min_idle"}
    | {
        "pool_idle_timeout",
        "pool_keepalive",
        "pool_max_waiting",
        "pool_queue_target",
        "pool_leak_warning",
        "engine_idle_timeout",
        "pool_use_lifo",
        "poolclass",
    }
    | {
        "pool_reset",
        "pool_reset_on_return",
        "echo",
        "echo_pool",
        "hide_parameters",
        "isolation_level",
        "query_cache_size",
    }
    | {"insertmanyvalues_page_size", "use_insertmanyvalues", "enable_from_linting", "label_length", "paramstyle"}
    | {"max_identifier_length", "connect_timeout", "statement_timeout", "lock_timeout", "idle_in_transaction_timeout"}
    | {"pgbouncer", "read_your_writes", "replica_max_lag", "replica_fallback", "fast_begin", "expire_on_commit"}
    | {"autoflush", "protected", "slow_statement", "slow_statement_plan", "weight"}
)
# Further keys that need not be compared with "password" if they are spelled correctly.
_COMMON_KEYS: Final = frozenset({"url", "databases", "replicas", "shards", "default", "connect_args"})
# "1 hour", "5;", "54x2", "read commited"; a password on the wrong line rarely looks like that.
_PLAIN_LIKE = late_pattern(
    r"(?=.{1,12}$)[-+]?[0-9][0-9_.,:]*(?: ?[A-Za-z]{1,8}[0-9]{0,4}){0,2}[;,.%]?"
    r"|[A-Za-z]{1,24}(?:[ _-][A-Za-z]{2,24}){0,3}",
    re.ASCII,
)
_SCHEME = late_pattern(r"[a-z0-9+]{1,30}://", re.ASCII)
_REFERENCE = late_pattern(r"\$\{(\w+)(?:(:[-?])[^{}]*)?\}")
_NEAR_SECRET = 0.72  # difflib ratio: pasword and passwrod are near, port and user are not


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Return whether a key with this name, correctly spelled or not, holds a secret."""
    bare = "".join(ch for ch in name.lower() if "a" <= ch <= "z")
    if bare in _PUBLIC_NAMES or name in PLAIN_KEYS or name in _PLACE_KEYS or name in _COMMON_KEYS:
        return False
    if bare in _SECRET_NAMES or any(part in bare for part in _SECRET_PARTS):
        return True
    if bare.endswith("key") and not bare.endswith(_PUBLIC_KEYS):
        return True
    from difflib import SequenceMatcher  # only for names that are not ours

    return SequenceMatcher(None, bare, "password").ratio() >= _NEAR_SECRET


def shown(key: str, text: str, secrets: Collection[str] = ()) -> str:
    """Return the value of a key for display.

    Args:
        key: the last part of the key's path.
        text: the value as it was written.
        secrets: values known to be secret; a text that contains one is masked.
    """
    if _REFERENCE.search(text):
        return _masked_references(text)
    if is_secret_name(key) or any(secret in text for secret in secrets):
        return MASK
    if "://" in text:
        return masked_url(text)
    if _NUMBER_LIKE.fullmatch(text) or _WORD.fullmatch(text):
        return text
    if key in PLAIN_KEYS and _PLAIN_LIKE.fullmatch(text):
        return text
    if key in _PLACE_KEYS and _PLACE_LIKE.fullmatch(text):
        return text
    return MASK


def masked_url(text: str) -> str:
    """Return a URL without its possible secrets, even if it is malformed."""
    scheme, mark, rest = text.partition("://")
    if not re.fullmatch(r"[\w+.\- ]{0,40}", scheme):
        return MASK
    plain = _ADDRESS_LIKE.fullmatch(rest) or (scheme.lower().startswith("sqlite") and _FILE_LIKE.fullmatch(rest))
    return text if plain else f"{scheme}{mark}{MASK}"


def shown_name(text: str) -> str:
    """Return a text used as a name, unless it looks like a URL with a password."""
    return MASK if "://" in text or "@" in text else text


def _masked_references(text: str) -> str:
    """Keep the references, whose names are not secret, and mask the literal text and the defaults around them."""
    parts, end = [], 0
    for match in _REFERENCE.finditer(text):
        parts += [
            _literal(text[end : match.start()]),
            f"${{{match[1]}" + (f"{match[2]}{MASK}" if match[2] else "") + "}",
        ]
        end = match.end()
    return "".join([*parts, _literal(text[end:])])


def _literal(text: str) -> str:
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    return (scheme[0] if scheme else "") + (rest if re.fullmatch(r"[:/@?.]*", rest) else MASK)


# URL parameters about how to connect, which hold no secret; for all others, only the name is shown.
PLAIN_PARAMETERS: Final = frozenset(
    {
        *("sslmode", "sslrootcert", "ssl_ca", "ssl_check_hostname", "channel_binding", "gssencmode", "host", "port"),
        *("target_session_attrs", "load_balance_hosts", "charset", "mode", "cache", "vfs"),
        *("uri", "timeout", "connect_timeout", "read_timeout", "write_timeout", "unix_socket"),
    }
)

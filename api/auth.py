"""API keys: where they come from, and whether a request carries one.

The file is a JSON array of strings. Only its absence, and only under the default name, means "no authentication";
whatever else is wrong with it stops the start, because a service that silently opens itself to everybody is worse
than one that is down.

How a key is written in a request is one rule, that of RFC 9110, section 11.6.2: ``Authorization: Bearer KEY`` with
the scheme in any case and one or more spaces (not tabs) before the key. The key itself is compared byte for byte.
White space after it is no part of the header's value in HTTP and has been removed by the server.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from .errors import SettingsError

DEFAULT_FILE = "api_keys.json"
VARIABLE = "ZEROBOOT_API_KEYS_FILE"

_CREDENTIALS = re.compile(r"bearer +(?P<key>[^ ].*)", re.IGNORECASE | re.DOTALL)
_SENDABLE = re.compile(r"[!-~]([ -~]*[!-~])?")
"""Printable ASCII, no white space at the ends: all that survives the way through an HTTP header unchanged."""


class KeyRing:
    """The set of keys that are accepted; holds digests only."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = sorted({_digest(key.encode()) for key in keys})

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._digests)}>"

    def __len__(self) -> int:
        return len(self._digests)

    def identify(self, authorization: str | None) -> str | None:
        """The digest (in hex) of the key in an ``Authorization`` header, or None if there is no valid key in it.

        Every digest is compared, so the time taken does not tell which one was near.
        """
        credentials = _CREDENTIALS.fullmatch(authorization or "")
        if credentials is None:
            return None
        # WSGI hands over header bytes as latin-1 (PEP 3333); what cannot be that came from a test client and is no key.
        presented = _digest(credentials["key"].encode("latin-1", "replace"))
        found = None
        for digest in self._digests:
            if hmac.compare_digest(digest, presented):
                found = digest
        return found.hex() if found else None


def load_keys(environ: Mapping[str, str], directory: Path) -> KeyRing | None:
    """The keys that this process was given; None if there is no key file and none was named.

    Raises ``SettingsError`` if there is one that cannot be used.
    """
    named = environ.get(VARIABLE)
    path = directory / (DEFAULT_FILE if named is None else named)
    where = f"{path} (named by {VARIABLE})" if named is not None else str(path)
    if named == "":
        raise SettingsError(f"{VARIABLE} is set but empty; unset it, or name a file")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if named is None and not path.is_symlink():
            return None
        raise SettingsError(f"API keys: {where} does not exist") from error
    except OSError as error:
        raise SettingsError(f"API keys: {where} cannot be read: {error.strerror}") from error
    return KeyRing(_parse(content, where))


def _parse(content: bytes, where: str) -> list[str]:
    try:
        keys = msgspec.json.decode(content, type=list[str])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The message of the decoder names a type or a position, never a value.
        raise SettingsError(f"API keys: {where} is not a JSON array of strings") from error
    if not keys:
        raise SettingsError(f"API keys: {where} holds no key; to run without authentication, remove the file")
    for index, key in enumerate(keys):
        if not _SENDABLE.fullmatch(key):
            raise SettingsError(
                f"API keys: number {index} in {where} is empty, has white space at an end, or has characters"
                " other than printable ASCII"
            )
    return keys


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

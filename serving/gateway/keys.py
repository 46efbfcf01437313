"""A file of keys: a line for each caller, with the hash of its key. The file may change while the server runs.

    # name      sha256 of the key                                                 images a minute, if limited
    studio      9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  600

Keys are random and long (`new_key`), so a fast hash tells nobody which key it is. They are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

PREFIX = "spade-"
_LOOK_S = 1.0  # how often the file is looked at
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")


class KeysError(ValueError):
    """A file of keys that cannot be read; the message names the line."""


@dataclass(frozen=True)
class Key:
    """One line: whose key it is, its hash, and how many images a minute it may ask for (None: the server's limit)."""

    name: str
    sha256: str
    per_minute: int | None

    def line(self) -> str:
        """The line of the file."""
        return f"{self.name} {self.sha256}" + (f" {self.per_minute}" if self.per_minute else "")


def new_key(name: str, per_minute: int | None = None) -> tuple[str, Key]:
    """A fresh key, which nobody can tell from its line, and the line. Raises KeysError for a name that is none."""
    text = PREFIX + secrets.token_urlsafe(32)
    return text, _checked(Key(name, _hash(text), per_minute), "the new key")


def read_keys(text: str, where: str) -> tuple[Key, ...]:
    """The keys of a file's text. Raises KeysError."""
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        limit = words[2] if len(words) == 3 else "1"
        if len(words) not in (2, 3) or not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:10]) < 10**9):
            raise KeysError(
                f"[keys] expected `NAME SHA256 [IMAGES_A_MINUTE]` in {where}, line {number}, but got "
                f"{len(words)} words, or a wrong number; make lines with `spade key`"
            )
        key = Key(words[0], words[1].lower(), int(words[2]) if len(words) == 3 else None)
        keys.append(_checked(key, f"{where}, line {number}"))
    return tuple(keys)


def _checked(key: Key, where: str) -> Key:
    if not _NAME.fullmatch(key.name):
        raise KeysError(f"[keys] expected a name of letters, digits, '.', '-', '_' in {where} but got {key.name!r}")
    if not _HASH.fullmatch(key.sha256):
        raise KeysError(
            f"[keys] expected 64 hexadecimal digits as the hash in {where} but got {len(key.sha256)} others"
        )
    return key


class Keys:
    """The keys of a file, as the file has them now. Raises KeysError or OSError for a file that cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stat()
        self._keys = self._read()
        self._looked = time.monotonic()

    def find(self, text: str) -> Key | None:
        """The line of a key; None for a wrong one. Two keys may have one name while they are rotated."""
        self._look()
        hashed, found = _hash(text), None
        for key in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(key.sha256, hashed):
                found = key
        return found

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        try:
            stamp = self._stat()
            if stamp != self._stamp:
                self._keys = self._read()
                self._stamp = stamp
                log.warning("read %d keys from %s", len(self._keys), self._path)
        except (OSError, KeysError) as error:
            log.error("the keys stay as they were: %s", error)

    def _stat(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[Key, ...]:
        return read_keys(self._path.read_text(encoding="utf-8"), f"'{self._path}'")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

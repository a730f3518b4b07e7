"""Passwords: hashed with Argon2id, with the parameters that the library recommends."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from stellwerk.errors import UsageError

SHORTEST = 10
LONGEST = 1000

_hasher = PasswordHasher()
# Verified for users that do not exist, so that the answer takes as long.
_nobody = _hasher.hash("nobody's password")


def hash_password(password: str) -> str:
    """The hash to keep; raises `UsageError` for a password that is too short."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError(
            f"a password has at least {SHORTEST} characters", hint="A few words in a row are easy to keep in mind."
        )
    return _hasher.hash(password)


def verify(kept: str | None, password: str) -> bool:
    """Whether it is the password; without a hash the same work is done, in vain."""
    try:
        _hasher.verify(kept or _nobody, password[:LONGEST])
    except (VerifyMismatchError, InvalidHashError):
        return False
    return kept is not None

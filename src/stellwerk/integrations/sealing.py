"""Secrets at rest: sealed with the keys of the installation before the database sees them, opened for one call."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from stellwerk.errors import StellwerkError, UsageError
from stellwerk.settings import Settings

KEY_FILE = "secret-keys"


class Seals:
    """Seals and opens secrets. The first key seals, all open, so that keys can be changed without a pause.

    A sealed text names what it is for: moved into another row or another tenant it does not open.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise UsageError("there is no key to seal secrets with", hint="Set STELLWERK_SECRET_KEYS.")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise UsageError(
                "a key of STELLWERK_SECRET_KEYS cannot be used",
                hint="A key is 32 random bytes in URL-safe base64: openssl rand -base64 32 | tr '+/' '-_'",
            ) from None
        self.nothing = self.seal("nothing", Fernet.generate_key().decode("ascii"))  # costs as much to open as a secret

    @classmethod
    def from_settings(cls, settings: Settings) -> Seals:
        """With the keys of the environment, else with the one that was generated into STELLWERK_HOME."""
        return cls(settings.secret_keys or [generated_key(settings.home)])

    @classmethod
    def that_open_nothing(cls) -> Seals:
        """For an installation whose keys cannot be had: whatever was sealed stays sealed."""
        return cls([Fernet.generate_key().decode("ascii")])

    def seal(self, purpose: str, secret: str) -> str:
        """The secret as a text that may be stored."""
        return self._fernet.encrypt(json.dumps([purpose, secret]).encode()).decode("ascii")

    def unseal(self, purpose: str, sealed: str) -> str | None:
        """The secret, or None if it was sealed with another key, for something else, or was changed."""
        try:
            meant_for, secret = json.loads(self._fernet.decrypt(sealed.encode()))
        except (InvalidToken, ValueError):
            return None
        return str(secret) if meant_for == purpose else None


def hook_purpose(tenant_id: int | None, source: str) -> str:
    """What the secret of a webhook source is sealed for."""
    return f"webhook_source/{tenant_id}/{source}"


def generated_key(home: Path) -> str:
    """The key in STELLWERK_HOME; made once, whoever comes first, and readable for this account only."""
    path = home / KEY_FILE
    try:
        if not path.exists():
            home.mkdir(parents=True, exist_ok=True)
            # Written whole before it has its name, so that two processes that begin at once agree on one key.
            handle, name = tempfile.mkstemp(dir=home, prefix=KEY_FILE)
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(Fernet.generate_key().decode("ascii") + "\n")
                with contextlib.suppress(FileExistsError):
                    os.link(name, path)
            finally:
                Path(name).unlink()
        return path.read_text("ascii").strip()
    except OSError as error:
        raise StellwerkError(
            f"the key file {path} cannot be used: {error.strerror}",
            hint="Set STELLWERK_SECRET_KEYS, or STELLWERK_HOME to a folder that this account may write.",
        ) from None

"""The environment, read once; the table of variables is in docs/installation.md."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stellwerk.errors import UsageError

DEFAULT_BASE_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Settings:
    """What the environment says, checked."""

    home: Path
    database_url: str | None = None
    tenant: str = "default"
    base_url: str = DEFAULT_BASE_URL
    log_format: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    smtp_url: str | None = None
    secret_keys: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the variables; raises `UsageError` for one that cannot be meant."""
        env = os.environ if environment is None else environment
        log_format = env.get("STELLWERK_LOG") or None
        if log_format not in (None, "text", "json"):
            raise UsageError(f"STELLWERK_LOG is {log_format!r}", hint="It is either text or json.")
        return cls(
            home=_home(env),
            database_url=env.get("DATABASE_URL") or None,
            tenant=env.get("STELLWERK_TENANT") or "default",
            base_url=(env.get("STELLWERK_BASE_URL") or DEFAULT_BASE_URL).rstrip("/"),
            log_format=log_format,
            allowed_hosts=_list(env.get("STELLWERK_ALLOWED_HOSTS")),
            smtp_url=env.get("STELLWERK_SMTP_URL") or None,
            secret_keys=_list(env.get("STELLWERK_SECRET_KEYS")),
        )


def _home(env: Mapping[str, str]) -> Path:
    """Where the embedded server, generated keys and files live: a folder for data, never the current one."""
    if given := env.get("STELLWERK_HOME"):
        return Path(given).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/stellwerk")
    if data := env.get("XDG_DATA_HOME"):
        return Path(data).absolute() / "stellwerk"
    try:
        return Path.home() / ".local" / "share" / "stellwerk"
    except RuntimeError:
        raise UsageError(
            "this account has no home folder", hint="Set STELLWERK_HOME to a folder that may hold data."
        ) from None


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())

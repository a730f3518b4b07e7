"""`stellwerk web` as processes of their own, for tests that need more than the application."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

from stellwerk.settings import Settings


@contextlib.contextmanager
def web_processes(dsn: str, settings: Settings, count: int) -> Iterator[list[str]]:
    """`stellwerk web`, so many times; yields their addresses."""
    environment = {
        **os.environ,
        "DATABASE_URL": dsn,
        "STELLWERK_HOME": str(settings.home),
        "STELLWERK_SECRET_KEYS": ",".join(settings.secret_keys),
    }
    command = [sys.executable, "-u", "-m", "stellwerk", "web", "--port", "0"]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        addresses = []
        for process in processes:
            assert process.stdout is not None
            found = re.search(r"port (\d+)", process.stdout.readline())
            assert found is not None
            addresses.append(f"http://127.0.0.1:{found[1]}")
        yield addresses
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            assert process.wait(timeout=20) == 0

"""Stops an embedded server that nobody uses any more.

A small process of its own, started together with the server. It sleeps in a file lock that every user of the server
shares, so it costs nothing while there are users, and it wakes however they ended, `kill -9` included. It knows the
standard library only: it is started as a plain file, without site-packages, and stays small.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LINGER_SECONDS = 1.5
"""How long an unused server stays, so that a script of several commands does not start it again for each."""

OTHER_CLIENTS_SECONDS = 3.0
"""How often a server without Stellwerk processes, but with other clients (`psql`), is looked at."""

USERS, STARTING, KEEPER, STAY = "users.lock", "start.lock", "keeper.lock", "stay"


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a file lock; yields False instead of waiting where `wait` is false and somebody else holds it."""
    with path.open("a") as file:
        yield take(file, shared=shared, wait=wait)


def take(file: IO[str], *, shared: bool = False, wait: bool = True) -> bool:
    """Take a lock that ends when the file is closed, at the latest when the process ends."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def keep(home: Path, data: Path, binaries: Path, sockets: Path, account: tuple[int, int] | None) -> None:
    """Wait until nobody uses the server, then stop it."""
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(locked(home / KEEPER, wait=False)):
            return
        while True:
            with locked(home / USERS):
                pass  # granted: at this moment nobody uses the server
            time.sleep(LINGER_SECONDS)
            with locked(home / STARTING):
                if (home / STAY).exists() or not (data / "postmaster.pid").exists():
                    stack.close()  # before the start lock is let go: who starts the server next needs a keeper
                    return
                with locked(home / USERS, wait=False) as unused:
                    if unused and not other_clients(binaries, sockets, account):
                        run(account, binaries / "pg_ctl", "-w", "-m", "fast", "-D", data, "stop")
                        stack.close()
                        return
            if unused:
                time.sleep(OTHER_CLIENTS_SECONDS)


def other_clients(binaries: Path, sockets: Path, account: tuple[int, int] | None) -> bool:
    """Whether anybody is connected; a server that does not answer has nobody worth waiting for."""
    question = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    answer = run(account, binaries / "psql", "-AtX", "-h", sockets, "-U", "stellwerk", "-c", question, "postgres")
    return answer.returncode == 0 and answer.stdout.strip() not in ("", "0")


def run(account: tuple[int, int] | None, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the server as the account that owns the data."""
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        check=False,
        user=account[0] if account else None,
        group=account[1] if account else None,
        extra_groups=[] if account else None,
    )


if __name__ == "__main__":
    os.umask(0o077)
    _home, _data, _binaries, _sockets, _user, _group = sys.argv[1:]
    keep(Path(_home), Path(_data), Path(_binaries), Path(_sockets), (int(_user), int(_group)) if _user else None)

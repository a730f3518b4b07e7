"""The server of our own: started, shared, killed, kept, stopped."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import site
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psycopg
import pytest

from stellwerk.database import embedded, keeper
from stellwerk.database.embedded import Embedded
from stellwerk.errors import DatabaseUnavailable

IS_ROOT = os.geteuid() == 0

USER = """
    import sys, time
    from pathlib import Path
    from stellwerk.database.embedded import Embedded
    print(Embedded(Path(sys.argv[1])).start(), flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as the first start makes it: most tests begin with the second one, which is much quicker."""
    home = Path(tempfile.mkdtemp(prefix="stellwerk-made-"))
    home.chmod(0o711)
    server = Embedded(home)
    server._initialise()
    kept = tmp_path_factory.mktemp("made") / "postgresql"
    shutil.copytree(server.data, kept)
    shutil.rmtree(home)
    return kept


@pytest.fixture
def home(private_home: Path, data_folder: Path) -> Path:
    """A STELLWERK_HOME in which the server has run before."""
    copy = private_home / "postgresql"
    shutil.copytree(data_folder, copy)
    if owner := embedded.account():
        for path in (copy, *copy.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    return private_home


def user(home: Path, python: str = sys.executable, **settings: object) -> subprocess.Popen[str]:
    """Another process that uses the server; ready when it has printed the address."""
    process = subprocess.Popen(
        [python, "-c", textwrap.dedent(USER), str(home)],
        stdout=subprocess.PIPE,
        text=True,
        **settings,  # type: ignore[call-overload]
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("postgresql://")
    return process


def gone(server: Embedded) -> bool:
    return not server.running()


def postmaster(server: Embedded) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def test_it_starts_keeps_its_data_and_stops(private_home, wait_until):
    server = Embedded(private_home)
    with psycopg.connect(server.start()) as connection:
        connection.execute("create schema stellwerk")  # called like the user, and still not where tables land
        connection.execute("create table kept as select 42 as n")
        assert connection.execute("select to_regclass('public.kept') is not null").fetchone() == (True,)
        assert connection.execute("show server_version_num").fetchone() >= ("180000",)
        assert connection.execute("show listen_addresses").fetchone() == ("",)
        assert connection.execute("select datcollate, datlocale from pg_database where datname = 'stellwerk'")
    server.leave()
    wait_until(lambda: gone(server), what="the end of the unused server")
    with psycopg.connect(server.start()) as connection:
        assert connection.execute("select n from kept").fetchone() == (42,)
    assert server.stop()
    assert not server.stop()


def test_several_processes_share_it_and_the_last_one_ends_it_even_when_killed(home, wait_until):
    server = Embedded(home)
    first, second = user(home), user(home)
    number = postmaster(server)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(keeper.LINGER_SECONDS + 0.5)
    assert postmaster(server) == number
    assert server.ready()
    second.send_signal(signal.SIGKILL)
    second.wait()
    wait_until(lambda: gone(server), what="the end of the server whose users were killed")


def test_it_waits_for_other_clients(home, wait_until):
    server = Embedded(home)
    client = psycopg.connect(server.start())
    server.leave()
    time.sleep(keeper.LINGER_SECONDS + 1)
    assert client.execute("select 1").fetchone() == (1,)
    client.close()
    wait_until(lambda: gone(server), what="the end of the server after its last client")


def test_it_comes_back_after_a_kill_of_its_main_process(home):
    server = Embedded(home)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("create schema stellwerk")  # called like the user, and still not where tables land
        connection.execute("create table kept as select 42 as n")
        assert connection.execute("select to_regclass('public.kept') is not null").fetchone() == (True,)
    os.kill(postmaster(server), signal.SIGKILL)
    with psycopg.connect(server.start()) as connection:
        assert connection.execute("select n from kept").fetchone() == (42,)


def test_a_number_that_another_program_carries_now_does_not_keep_it_from_starting(home):
    server = Embedded(home)
    server.start()
    os.kill(postmaster(server), signal.SIGKILL)
    time.sleep(1)
    lock = server.data / "postmaster.pid"
    other = subprocess.Popen(["sleep", "60"], user=server.account.pw_uid if server.account else None)
    lock.write_text(lock.read_text().replace(lock.read_text().split()[0], str(other.pid), 1))
    try:
        assert not server.running()
        psycopg.connect(server.start()).close()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_db_start_keeps_it_up_until_db_stop(home):
    server = Embedded(home)
    server.start(stay=True)
    server.leave()
    time.sleep(keeper.LINGER_SECONDS + 1.5)
    assert server.ready()
    assert server.stop()
    assert not server.stays


def test_processes_that_start_it_at_the_same_moment_get_the_same_server(private_home):
    command = [sys.executable, "-c", textwrap.dedent(USER).replace("time.sleep(60)", ""), str(private_home)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in processes}) == 1
    assert all(process.returncode == 0 for process in processes)


def test_a_path_too_long_for_a_socket_has_it_elsewhere_in_a_private_folder(private_home, wait_until):
    server = Embedded(private_home / ("long-" * 25))
    psycopg.connect(server.start()).close()
    sockets = server._sockets()
    assert sockets != server.data
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    server.stop()
    shutil.rmtree(sockets)


def test_it_changes_no_permissions_outside_its_folder(private_home):
    above = private_home / "above"
    above.mkdir(mode=0o751)
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (above, *above.parents)]
    server = Embedded(above / "home")
    server.start()
    server.stop()
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (above, *above.parents)] == modes
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another account")
def test_root_is_told_when_the_account_cannot_reach_the_folder(private_home):
    closed = private_home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DatabaseUnavailable, match="cannot reach") as caught:
        Embedded(closed / "home").start()
    assert "STELLWERK_HOME" in str(caught.value.hint)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another account")
def test_root_without_an_account_for_it_is_told_so(monkeypatch):
    def nobody(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", nobody)
    with pytest.raises(DatabaseUnavailable, match="no account postgres or nobody"):
        embedded.account()


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_a_plain_user_starts_it_too(wait_until):
    nobody = pwd.getpwnam("nobody")
    path = os.pathsep.join([str(Path(embedded.__file__).parents[2]), *site.getsitepackages()])
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, system):
        if embedded._can(nobody, "/usr/bin/env", f"PYTHONPATH={path}", python, "-c", "import stellwerk, psycopg"):
            break
    else:
        pytest.skip("other users can read neither this checkout nor this Python")
    home = Path(tempfile.mkdtemp(prefix="stellwerk-nobody-"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    environment = {"PYTHONPATH": path, "PATH": os.environ["PATH"]}
    process = user(home, python, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], env=environment)
    assert (home / "postgresql").stat().st_uid == nobody.pw_uid
    process.kill()
    process.wait()
    wait_until(lambda: not (home / "postgresql/postmaster.pid").exists(), what="the end of the server")
    time.sleep(0.2)
    shutil.rmtree(home)


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another account")
def test_binaries_that_the_account_cannot_read_are_copied_once(private_home, monkeypatch):
    monkeypatch.setattr(embedded, "_executable", lambda program, owner: False)
    server = Embedded(private_home)
    assert server.binaries.is_relative_to(private_home)
    psycopg.connect(server.start()).close()
    made = server.binaries.stat().st_ctime_ns
    assert Embedded(private_home).binaries.stat().st_ctime_ns == made


def test_other_binaries_are_respected_and_must_fit_the_data(private_home, monkeypatch):
    older = Path("/usr/lib/postgresql/15/bin")
    if not older.exists():
        pytest.skip("there is no PostgreSQL 15 here")
    monkeypatch.setenv("STELLWERK_PG_BIN", str(older))
    server = Embedded(private_home)
    with psycopg.connect(server.start()) as connection:
        assert connection.info.server_version // 10000 == 15
    server.stop()
    monkeypatch.delenv("STELLWERK_PG_BIN")
    with pytest.raises(DatabaseUnavailable, match="made by PostgreSQL 15, but the binaries are PostgreSQL 18"):
        Embedded(private_home).start()
    monkeypatch.setenv("STELLWERK_PG_BIN", "/nowhere")
    with pytest.raises(DatabaseUnavailable, match="no postgres in it"):
        Embedded(private_home)


def test_an_interrupted_first_start_is_begun_again(private_home):
    server = Embedded(private_home)
    server.data.mkdir()
    (server.data / "half").touch()
    psycopg.connect(server.start()).close()


def test_a_folder_that_cannot_be_made_is_a_clear_error():
    with pytest.raises(DatabaseUnavailable, match="cannot be made"):
        Embedded(Path("/proc/stellwerk"))

"""`stellwerk doctor`: what is wrong here and how to mend it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import typer

from stellwerk.cli.output import JSON, say, to_json
from stellwerk.database import pool, schema
from stellwerk.database.embedded import Embedded
from stellwerk.engine import Engine
from stellwerk.errors import StellwerkError
from stellwerk.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    said: str
    mend: str | None = None


def register(app: typer.Typer) -> None:
    """Add the command of this module to the program."""
    app.command()(doctor)


def doctor(as_json: bool = JSON) -> None:
    """Say what is wrong here and how to mend it; exits with 1 if anything is."""
    findings = []
    for finding in _examine(Settings.from_environment()):
        findings.append(finding)
        if not as_json:
            say(f"{'✓' if finding.good else '✗'} {finding.what}: {finding.said}")
            if finding.mend and not finding.good:
                say(f"    {finding.mend}")
    if as_json:
        say(to_json([{"what": f.what, "good": f.good, "said": f.said, "mend": f.mend} for f in findings]))
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def _examine(settings: Settings) -> Iterator[Finding]:
    try:
        dsn = pool.resolve(settings)
        connection = pool.connect(settings, dsn=dsn, name="stellwerk-doctor")
    except StellwerkError as error:
        said = f"{error.message}: {error.detail}" if error.detail else error.message
        yield Finding("database", False, said, error.hint)
        return
    with connection:
        stellwerk = Engine(connection)
        yield Finding("database", True, f"{connection.info.dbname or 'database'} as {connection.info.user}")
        if settings.database_url is None:
            yield _home(Embedded(settings.home))
        yield from _guarded("server", stellwerk, _server)
        outdated = _schema(stellwerk)
        yield outdated
        if not outdated.good:
            return
        for what, look in CHECKS:
            yield from _guarded(what, stellwerk, look)


def _guarded(what: str, stellwerk: Engine, look: Callable[[Engine], Finding]) -> Iterator[Finding]:
    try:
        yield look(stellwerk)
    except StellwerkError as error:
        yield Finding(what, False, error.message, error.hint)


def _home(server: Embedded) -> Finding:
    mode = stat.S_IMODE(server.data.stat().st_mode)
    good = not mode & 0o077
    return Finding(
        "home", good, f"{server.home}, data folder mode {mode:o}", f"Close it to others: chmod 700 {server.data}"
    )


def _server(stellwerk: Engine) -> Finding:
    version = stellwerk.connection.info.server_version
    schema.check_server(version)
    return Finding("server", True, f"PostgreSQL {version // 10000}.{version % 10000}")


def _schema(stellwerk: Engine) -> Finding:
    entries = schema.entries(stellwerk.connection)
    lacking = [entry.name for entry in entries if entry.state != "applied"]
    if not lacking:
        return Finding("schema", True, f"up to date, {len(entries)} files")
    return Finding("schema", False, f"{len(lacking)} files missing or different, {lacking[0]} first",
                   "Run `stellwerk db migrate`.")  # fmt: skip


def _tenant(stellwerk: Engine) -> Finding:
    stellwerk.value("select stellwerk.current_tenant_id()")
    return Finding("tenant", True, str(stellwerk.value("select current_setting('stellwerk.tenant', true)")))


def _watches(stellwerk: Engine) -> Finding:
    rows = stellwerk.rows(
        "select target, reason, state from stellwerk.table_watch where tenant_id = stellwerk.current_tenant_id()"
    )
    broken = [row for row in rows if row["state"] == "broken"]
    if broken:
        said = f"{len(broken)} of {len(rows)} broken; {broken[0]['target']}: {broken[0]['reason']}"
        return Finding("watches", False, said, "Mend the table, then `stellwerk watch` it again.")
    return Finding("watches", True, f"{len(rows)} in order")


def _workers(stellwerk: Engine) -> Finding:
    rows = stellwerk.rows("select * from stellwerk.worker_status")
    alive = [row for row in rows if row.get("alive", True)]
    if alive:
        return Finding("workers", True, f"{len(alive)} at work")
    if any(job["active"] for job in stellwerk.rows("select * from stellwerk.cron_jobs()")):
        # pg_cron moves what runs in SQL; only steps for workers wait for one.
        steps = int(
            stellwerk.value("select count(*) from stellwerk.step where state = 'queued' and runs_in = 'worker' limit 1")
        )
        said = f"none at work, {steps} worker steps wait" if steps else "none at work; pg_cron moves what runs in SQL"
        return Finding("workers", not steps, said, "Start one: `stellwerk worker`, or `stellwerk up`.")
    waiting = int(
        stellwerk.value(
            "select (select count(*) from stellwerk.run where state in ('pending', 'running') limit 1)"
            " + (select count(*) from stellwerk.event where state = 'pending')"
        )
    )
    said = f"none at work, {waiting} runs and events wait" if waiting else "none at work, and nothing waits"
    return Finding("workers", not waiting, said, "Start one: `stellwerk worker`, or `stellwerk up`.")


def _runs(stellwerk: Engine) -> Finding:
    late = stellwerk.rows(
        "select run_id from stellwerk.run r where tenant_id = stellwerk.current_tenant_id()"
        " and state in ('pending', 'running') and not held and created_at < now() - interval '15 minutes'"
        " and (start_at is null or start_at < now() - interval '15 minutes') order by run_id limit 100"
    )
    if late:
        return Finding(
            "runs",
            False,
            f"{len(late)} have not ended for more than 15 minutes, run {late[0]['run_id']} first",
            f"`stellwerk run why {late[0]['run_id']}` says what it waits for.",
        )
    return Finding("runs", True, "none is stuck")


def _events(stellwerk: Engine) -> Finding:
    failed = int(
        stellwerk.value(
            "select count(*) from stellwerk.event where tenant_id = stellwerk.current_tenant_id()"
            " and state = 'failed' and created_at > now() - interval '1 day'"
        )
    )
    late = int(
        stellwerk.value(
            "select count(*) from stellwerk.event where tenant_id = stellwerk.current_tenant_id()"
            " and state = 'pending' and created_at < now() - interval '5 minutes'"
        )
    )
    if failed or late:
        return Finding(
            "events",
            False,
            f"{failed} failed since yesterday, {late} not processed for more than 5 minutes",
            "select event_id, target, reason from stellwerk.event where state = 'failed' order by 1 desc limit 20;",
        )
    return Finding("events", True, "none failed since yesterday")


def _queue(stellwerk: Engine) -> Finding:
    if stellwerk.value("select to_regclass('stellwerk_queue.pgqueuer') is null"):
        return Finding("queue", False, "its tables are missing", "Run `stellwerk db migrate --force`.")
    trigger = stellwerk.value(
        "select count(*) from pg_trigger where tgrelid = 'stellwerk_queue.pgqueuer'::regclass and not tgisinternal"
    )
    if trigger:
        return Finding(
            "queue",
            False,
            "it notifies on each change, which slows every commit down",
            "drop trigger tg_pgqueuer_changed on stellwerk_queue.pgqueuer;",
        )
    return Finding("queue", True, "in order")


def _notifications(stellwerk: Engine) -> Finding:
    usage = float(stellwerk.value("select pg_notification_queue_usage()"))
    return Finding(
        "notifications",
        usage < 0.5,
        f"{usage:.0%} of the server's notification queue in use",
        "A session listens inside a long transaction: find it in pg_stat_activity and end it.",
    )


def _cron(stellwerk: Engine) -> Finding:
    if stellwerk.value("select to_regclass('cron.job') is null"):
        return Finding("pg_cron", True, "not installed; workers keep the time")
    jobs = stellwerk.rows("select * from stellwerk.cron_jobs()")
    if not any(job["active"] for job in jobs):
        said = "installed, but it does not call stellwerk.tick(); workers keep the time"
        return Finding("pg_cron", True, f"{said}. `stellwerk db migrate` sets it up")
    failed = [job for job in jobs if job["failure"]]
    if failed:
        mend = "See cron.job_run_details. Its connections need cron.use_background_workers = on, or a trusted login."
        return Finding("pg_cron", False, f"its last call failed: {failed[0]['failure']}", mend)
    return Finding("pg_cron", True, f"calls stellwerk.tick(), schedule {jobs[0]['schedule']}")


CHECKS: list[tuple[str, Callable[[Engine], Finding]]] = [
    ("tenant", _tenant),
    ("workers", _workers),
    ("watches", _watches),
    ("events", _events),
    ("runs", _runs),
    ("queue", _queue),
    ("notifications", _notifications),
    ("pg_cron", _cron),
]

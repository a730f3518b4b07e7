"""Lets pg_cron keep the time where it is there, so that SQL workflows, timers and schedules need no worker.

Workers tick all the same: both at once do no harm, and a worker is more exact than a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg


def set_up(connection: psycopg.Connection[Any], report: Callable[[str], None]) -> bool:
    """Makes the extension and its job, with the rights of the login; whether pg_cron keeps the time from now on.

    Only one database of a server can have the extension, the one that the setting cron.database_name names.
    """
    row = connection.execute(
        "select case when exists (select from pg_extension where extname = 'pg_cron') then true"
        " when pg_has_role('pg_read_all_settings', 'usage')"
        " then current_setting('cron.database_name', true) = current_database() end"
    ).fetchone()
    if row != (True,):
        return False
    try:
        with connection.transaction():
            connection.execute("set local client_min_messages = warning")
            connection.execute("create extension if not exists pg_cron")
            connection.execute("select stellwerk.use_pg_cron()")
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported) as error:
        report(
            f"pg_cron is there but cannot be used by this login, workers keep the time: {error.diag.message_primary}"
        )
        return False
    report("pg_cron calls stellwerk.tick()")
    return True

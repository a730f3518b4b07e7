"""Who owns the schema, and the roles that the grants in `sql/` speak of."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from stellwerk.errors import MigrationFailed

OWNER = "stellwerk_owner"
# Runs what belongs to nobody: a type's own cast to json, which may be anybody's code.
NOBODY = "stellwerk_nobody"
ROLES = {
    OWNER: "owns the tables and the functions of Stellwerk",
    "stellwerk_worker": "workers act as this role",
    "stellwerk_web": "the web application acts as this role",
    "stellwerk_dba": "people who read and steer runs with SQL belong to this role",
    NOBODY: "has no rights; turns rows into json, where a type's own cast may be anybody's code",
}

Connection = psycopg.Connection[Any]


def become_owner(connection: Connection, *, local: bool = True) -> str:
    """Act as the role that owns the schema, or shall own it, and return its name.

    An existing schema keeps its owner. A new one belongs to `stellwerk_owner` where the current user may make that
    role and act as it, else to the current user: no superuser is needed.
    """
    owner = _value(
        connection,
        "select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'stellwerk'",
    )
    me = _value(connection, "select current_user")
    if local:
        with_roles = _attempt(connection, _make_roles)
        if owner is None:
            owner = OWNER if with_roles and _attempt(connection, _open_database) else me
    if owner != me and not _attempt(connection, lambda c: _act_as(c, owner, local)):
        raise MigrationFailed(
            f"the schema stellwerk belongs to {owner}, and {me} may not act as that role",
            hint=f'Run this as {owner}, or let an administrator say: grant "{owner}" to "{me}".',
        )
    missing = _value(connection, "select to_regnamespace('stellwerk') is null")
    if missing and not _value(connection, "select has_database_privilege(current_database(), 'create')"):
        name = _value(connection, "select current_database()")
        raise MigrationFailed(
            f"{me} may not create a schema in the database {name}",
            hint=f'Let its owner say: grant create on database "{name}" to "{me}".',
        )
    return str(owner)


def _make_roles(connection: Connection) -> None:
    for name, purpose in ROLES.items():
        role = sql.Identifier(name)
        if _value(connection, "select 1 from pg_roles where rolname = %s", name) is None:
            connection.execute(sql.SQL("create role {} nologin").format(role))
            connection.execute(sql.SQL("comment on role {} is {}").format(role, purpose))
        if not _value(connection, "select pg_has_role(current_user, %s, 'usage')", name):
            connection.execute(sql.SQL("grant {} to current_user").format(role))
    if not _value(connection, "select pg_has_role(%s, %s, 'member')", OWNER, NOBODY):
        connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(NOBODY), sql.Identifier(OWNER)))


def _open_database(connection: Connection) -> None:
    if _value(connection, "select has_database_privilege(%s, current_database(), 'create')", OWNER):
        return
    database = _value(connection, "select current_database()")
    assert database is not None
    connection.execute(
        sql.SQL("grant create on database {} to {}").format(sql.Identifier(database), sql.Identifier(OWNER))
    )
    if not _value(connection, "select has_database_privilege(%s, current_database(), 'create')", OWNER):
        raise psycopg.errors.InsufficientPrivilege("the grant had no effect")  # the server only warns


def _act_as(connection: Connection, role: str, local: bool) -> None:
    connection.execute(sql.SQL("set local role {}" if local else "set role {}").format(sql.Identifier(role)))


def _attempt(connection: Connection, action: Any) -> bool:
    """Do it in a savepoint; False where the current user may not."""
    for _ in range(3):
        try:
            with connection.transaction():
                action(connection)
        except psycopg.errors.InsufficientPrivilege:
            return False
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            continue  # another database of this server was migrated at the same moment
        return True
    return False


def _value(connection: Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row else None

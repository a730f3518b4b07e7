"""How the engine is called: one statement at a time over one connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from stellwerk.errors import UnknownThing, from_database
from stellwerk.json_text import JsonText, dumps

Row = dict[str, Any]


class Calls:
    """A connection, and answers as dictionaries; database errors come out as `StellwerkError`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def rows(self, query: str, parameters: Sequence[object] | None = None) -> list[Row]:
        """The rows of a query as dictionaries."""
        try:
            with self.connection.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query.encode(), parameters).fetchall()
        except psycopg.Error as error:
            raise from_database(error) from error

    def row(self, query: str, parameters: Sequence[object] | None = None) -> Row:
        """The only row of a query."""
        rows = self.rows(query, parameters)
        if not rows:
            raise UnknownThing("there is no such row")
        return rows[0]

    def value(self, query: str, parameters: Sequence[object] | None = None) -> Any:
        """The only value of a query."""
        return next(iter(self.row(query, parameters).values()))

    def _table(self, name: str) -> int:
        """The table's oid: a name is looked up as PostgreSQL does it, and is never part of a statement."""
        try:
            oid = self.value("select to_regclass(%s::text)::oid", [name])
        except Exception as error:
            raise UnknownThing(f"{name!r} is no name of a table", hint="Write it as schema.table.") from error
        if oid is None:
            raise UnknownThing(
                f"there is no table {name!r}, or not in the search path", hint="Write it as schema.table."
            )
        return int(oid)


def as_json(value: Any) -> Any:
    """The value as a parameter of type jsonb; JSON that was read strictly goes as the text it came as."""
    return str(value) if isinstance(value, JsonText) else Jsonb(value, dumps=dumps)

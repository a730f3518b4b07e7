"""Conditions of row triggers: what may stand in a WHEN, and what is said about the rest."""

from __future__ import annotations

import pytest

from stellwerk.definition.trigger_when import when_faults

COLUMNS = ("id", "status", "total", "Order No", "note", "created_at")


@pytest.mark.parametrize(
    "text",
    [
        "new.status = 'paid' and new.total > 1000",
        "NEW.STATUS <> 'paid'",
        "new.total > -5",
        "new.status in ('a', 'b') or new.total between 1 and 2",
        "new.status not in ('a')",
        "new.note is null",
        "new.note is not null",
        "new.status is not distinct from 'x'",
        "lower(new.status) = 'paid'",
        "coalesce(new.note, '') <> ''",
        "length(new.note) > 3",
        "new.status like 'pa%' and new.status not ilike '%x'",
        'new."Order No" = 5',
        "not (new.total = 1)",
        "new.total is true",
    ],
)
def test_the_grammar_of_when_is_admitted(text: str) -> None:
    assert when_faults(text, ["insert", "update"], COLUMNS) == []


@pytest.mark.parametrize(
    ("text", "code", "position", "hint"),
    [
        ("new.stauts = 'x'", "unknown_column", 4, "Did you mean status?"),
        ("new.order_no = 1", "unknown_column", 4, "Did you mean Order No?"),
        ("new.\"status \" = 'x'", "unknown_column", 4, "Did you mean status?"),
        ("status = 'x'", "unknown_name", 0, "Write new.status or old.status."),
        ("orders.status = 'x'", "unknown_name", 0, "Columns are written new.column or old.column."),
        ("old.status = 'x'", "unknown_name", 0, "Use new, or watch insert by a trigger of its own."),
        (
            "new.total::int = 1",
            "not_allowed",
            0,
            "It could raise and break the application's own write; check it in a logic.if after the trigger.",
        ),
        ("new.total + 1 > 5", "not_allowed", 0, None),
        ("new.total / 0 > 5", "not_allowed", 0, None),
        ("-new.total > 5", "not_allowed", 1, "Compare the column itself."),
        ("new.total > - new.id", "not_allowed", 14, "Compare the column itself."),
        ("new.status || 'x' = 'ax'", "not_allowed", 0, None),
        ("pg_sleep(10) is null", "unknown_function", 0, None),
        ("uper(new.status) = 'X'", "unknown_function", 0, "Did you mean upper?"),
        ("replace(new.status, 'a', 'b') = 'b'", "unknown_function", 0, None),
        ("new.id in (select 1)", "not_allowed", 0, None),
        ("exists (select 1)", "not_allowed", 15, None),
        ("new.status like new.note", "not_allowed", 0, None),
        ("new.status like 'x\\'", "bad_pattern", 16, "Write two backslashes for one."),
        ("new.status like 'x' escape '!'", "not_allowed", 0, "Escape with a backslash."),
        ("new.status ~ 'x'", "not_allowed", 0, "Use like, contains() or starts_with()."),
        ("new.total between symmetric 1 and 2", "not_allowed", 0, None),
        ("new.status = 'a' -- b", "comment", None, None),
        ("new.status = 'a'; drop table x", "syntax", 16, None),
        ("new.status = any(new.note)", "not_allowed", None, None),
        ("case when new.total = 1 then true end", "not_allowed", None, None),
        ("now() > new.created_at", "unknown_function", 0, None),
        ("current_date > new.created_at", "not_allowed", None, None),
        ("new.id = 1 = true", "not_allowed", 0, None),
        ("new.id = $1", "not_allowed", None, None),
        ("new.note = E'x'", "not_allowed", None, None),
        ("new.note collate \"C\" = 'x'", "not_allowed", None, None),
        ("new is null", "unknown_name", 0, None),
        ("new.* is null", "unknown_name", None, None),
        ("'x'", "not_allowed", 0, None),
        ("", "empty_expression", 0, None),
    ],
)
def test_anything_else_is_refused_with_its_place(text: str, code: str, position: int | None, hint: str | None) -> None:
    faults = when_faults(text, ["insert"], COLUMNS)
    assert faults, text
    assert faults[0].code == code, faults
    if position is not None:
        assert faults[0].position == position, faults
    if hint is not None:
        assert faults[0].hint == hint


def test_rows_must_exist_for_every_operation() -> None:
    assert when_faults("old.status <> new.status", ["update"]) == []
    assert [fault.message for fault in when_faults("old.status <> new.status", ["update", "delete"])] == [
        "There is no new row on delete."
    ]
    assert when_faults("old.status = 'x'", ["delete", "update"]) == []


def test_without_columns_only_the_grammar_is_checked() -> None:
    assert when_faults("new.anything = 1", ["insert"]) == []

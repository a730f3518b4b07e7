"""JSON Schema: over schemas and values that nobody thought of, SQL and Python depart at the same places."""

from __future__ import annotations

import json
import random
from typing import Any

from stellwerk.definition.schemas import schema_faults, value_faults

CASES = 3000
DEEPEST = 3
TYPES = ["string", "number", "integer", "boolean", "object", "array", "null"]
NAMES = ["a", "b", "c.d", "ü", "", "A"]
NUMBERS = [0, 1, -1, 1.0, 1.5, 2, 10, 1e3, -0.0, 0.1, 1e-7, 123456789012345678901234567890, 1e30, 3, 2.0, 1e15 + 0.5]
TEXTS = [
    *("", "a", "ab", "1", "true", "ü", "😀", "e\u0301", "\n", "\t", "a@b.de", "a@b.c", " a@b.c", "a@\u2003b.c", "a@b.c\u00a0"),
    *("x@y.z.", "x@.y.z", "é@ü.de", "a\x85b@c.de", "a\x1cb@c.de", "\ufeffa@b.c", "a" * 316 + "@b.de", "a" * 315 + "@b.de"),
    *("2026-02-28", "2026-02-30", "2024-02-29", "1900-02-29", "0001-01-01", "9999-12-31", "10000-01-01", "٢٠٢٦-05-31"),
    *("2026-05-31T09:30:00Z", "2026-05-31T09:30:60Z", "2026-05-31T23:59:59+14:59", "2026-05-31T09:30:00+15:00"),
    *("2026-05-31t09:30:00z", "2026-05-31T", "2026-05-31T09:30:00Z\n", "2026-05-31T09:30:00.1234567890Z", "2026-05-31T09Z"),
]  # fmt: skip


class Chance(random.Random):
    """Makes schemas up, and values that they may be about."""

    def value(self, depth: int = 0) -> Any:
        kind = self.randrange(9 if depth < DEEPEST else 6)
        if kind < 2:
            return self.choice([None, True, False])
        if kind < 6:
            return self.choice(NUMBERS if kind < 4 else TEXTS)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.randrange(4))]
        return {self.choice(NAMES): self.value(depth + 1) for _ in range(self.randrange(4))}

    def schema(self, depth: int = 0) -> Any:
        if depth > DEEPEST:
            return {}
        parts = {
            "type": lambda: self.choice([self.choice(TYPES), self.sample(TYPES, 2)]),
            "required": lambda: self.choices(NAMES, k=self.randrange(3)),
            "properties": lambda: {name: self.schema(depth + 1) for name in self.sample(NAMES, self.randrange(4))},
            "additionalProperties": lambda: self.choice([True, False, self.schema(depth + 1)]),
            "items": lambda: self.schema(depth + 1),
            "enum": lambda: [self.value(2) for _ in range(self.randrange(1, 4))],
            "const": lambda: self.value(2),
            "minimum": lambda: self.choice(NUMBERS),
            "maximum": lambda: self.choice(NUMBERS),
            "format": lambda: self.choice(["email", "date", "date-time"]),
            **dict.fromkeys(
                ("minLength", "maxLength", "minItems", "maxItems"), lambda: self.choice([0, 1, 2, 3, 2.0, 320])
            ),
        }
        return {key: parts[key]() for key in self.sample(sorted(parts), self.randrange(1, 5))}

    def value_for(self, schema: Any, depth: int = 0) -> Any:
        if not isinstance(schema, dict) or self.random() < 0.25:
            return self.value(depth)
        if "enum" in schema and self.random() < 0.5:
            return self.choice(schema["enum"])
        if "const" in schema and self.random() < 0.5:
            return schema["const"]
        if {"format", "minLength", "maxLength"} & set(schema):
            return self.choice(TEXTS)
        if {"properties", "required", "additionalProperties"} & set(schema):
            known = schema.get("properties", {})
            names = [*known, *schema.get("required", []), "zz"]
            rest = schema.get("additionalProperties")
            return {
                name: self.value_for(known.get(name, rest), depth + 1)
                for name in self.sample(names, self.randrange(len(names) + 1))
            }
        if "items" in schema:
            return [self.value_for(schema["items"], depth + 1) for _ in range(self.randrange(4))]
        return self.choice(NUMBERS) if {"minimum", "maximum"} & set(schema) else self.value(depth)


def test_sql_and_python_depart_at_the_same_places(tx):
    chance = Chance(7)
    cases = []
    while len(cases) < CASES:
        schema = chance.schema()
        assert schema_faults(schema) == []
        cases.append((schema, chance.value_for(schema)))
    rows = tx.execute(
        "select stellwerk.schema_problems(c.schema::jsonb, c.value::jsonb)"
        " from unnest(%s::text[], %s::text[]) with ordinality c (schema, value, place) order by place",
        [[json.dumps(schema) for schema, _ in cases], [json.dumps(value) for _, value in cases]],
    ).fetchall()
    departing = 0
    for (schema, value), (problems,) in zip(cases, rows, strict=True):
        places = [fault.path for fault in value_faults(schema, value)]
        assert [problem["path"] for problem in problems] == places, (schema, value)
        departing += bool(places)
    assert CASES * 0.2 < departing < CASES * 0.9  # both verdicts are common, so that the comparison means something

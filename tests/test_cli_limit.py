"""`stellwerk limit`: set, listed, changed, removed."""

from __future__ import annotations

import json


def test_limits_are_set_listed_and_removed(stellwerk, dsn):
    assert stellwerk("limit", "list", dsn=dsn) == (0, "No limit is set.\n", "")
    status, out, err = stellwerk("limit", "set", "provider", "Slack", "50", "PT1M")
    assert (status, out, err) == (0, "At most 50 steps of provider slack begin within PT1M.\n", "")
    assert stellwerk("limit", "set", "provider", "slack", "40", "2 minutes")[0] == 0
    status, out, _ = stellwerk("limit", "list")
    assert out.splitlines()[1].split() == ["provider", "slack", "40", "PT2M", "0", "0"]
    (row,) = json.loads(stellwerk("limit", "list", "--json")[1])
    assert {key: row[key] for key in ("kind", "name", "max_count", "per", "begun", "waiting", "next_at")} == {
        "kind": "provider", "name": "slack", "max_count": 40, "per": "PT2M", "begun": 0, "waiting": 0, "next_at": None,
    }  # fmt: skip
    assert stellwerk("limit", "remove", "provider", "slack")[1] == "Steps of provider slack begin without a limit.\n"
    assert stellwerk("limit", "remove", "provider", "slack")[1] == "There was no limit for provider slack.\n"


def test_a_bad_limit_is_told_in_a_sentence(stellwerk, dsn):
    status, out, err = stellwerk("limit", "set", "type", "http.request", "0", "PT1M", dsn=dsn)
    assert (status, out) == (1, "")
    assert err.startswith("error: a rate limit lets 1 to 1000000 steps begin, not 0\nhint: ")
    assert stellwerk("limit", "set", "type", "http.request", "5", "soon")[0] == 1

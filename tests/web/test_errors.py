"""What is said of errors that are ours: to whoever asked, and in the log."""

from __future__ import annotations

import pytest
from web.desk import Client, LogIn

from stellwerk.web.desk import Desk


def test_an_error_of_ours_is_logged_by_where_it_was_and_not_by_what_it_said(
    client: Client, log_in: LogIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Texts of errors hold values: of rows, of parameters."""

    def fail(*_: object) -> None:
        raise LookupError("the customer's card " + "-".join(["4111", "1111"]))

    log_in("operator")
    monkeypatch.setattr(Desk, "rows", fail)
    monkeypatch.setattr(Desk, "engine", fail)
    answer = client.get("/runs", headers={"accept": "application/json"})
    assert (answer.status_code, "4111-1111" in answer.text) == (500, False)
    assert "GET /runs failed: LookupError" in caplog.text
    assert "in fail" in caplog.text
    assert "4111-1111" not in caplog.text

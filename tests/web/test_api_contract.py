"""Whatever the document of the API allows, and a good deal of what it does not, gets an answer that the document describes."""

from __future__ import annotations

import logging
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from litestar.testing import TestClient
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stellwerk.definition.compile import compile_workflow
from stellwerk.web import access
from stellwerk.web.api.definitions import EXAMPLE

PARTS = ("method", "url", "headers", "params", "data", "json", "cookies")
CASES = 5
CASES_IN_FULL = 150
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.one_server
def test_every_answer_is_in_the_document(
    client: TestClient[Any], engine: Any, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Each operation is called with generated values, in process."""
    caplog.set_level(logging.CRITICAL, "stellwerk")
    compiled = compile_workflow(EXAMPLE)
    engine.save_workflow(compiled.document, compiled.plan, [])
    engine.publish_workflow("greet")
    engine.start_run("greet", {"name": "Ada"})
    token = access.new_secret(1)
    engine.create_token("schemathesis", "admin", access.digest(token))
    schema = schemathesis.openapi.from_dict(client.get("/schema/openapi.json").json())
    full = request.config.getoption("full")
    number = CASES_IN_FULL if full else CASES
    wrong = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

        @hypothesis.settings(
            max_examples=number,
            deadline=None,
            database=None,
            derandomize=not full,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(case=strategy)
        def try_one(case: Any) -> None:
            if isinstance(case.body, dict) and "wait" in case.body:
                case.body["wait"] = 0
            wish = case.as_transport_kwargs(base_url=str(client.base_url))
            sent = requests.Request(**{name: wish[name] for name in wish if name in PARTS}).prepare()
            headers = {**sent.headers, "authorization": f"Bearer {token}"}
            answer = client.request(sent.method or "", sent.url or "", content=sent.body, headers=headers)
            case.validate_response(answer, checks=CHECKS)

        try:
            try_one()
        except BaseExceptionGroup as found:
            wrong[operation.label] = [str(error) for error in found.exceptions]
        except Exception as found:
            wrong[operation.label] = [str(found)]
    assert wrong == {}, "\n\n".join(f"{label}: {text}" for label, texts in wrong.items() for text in texts)

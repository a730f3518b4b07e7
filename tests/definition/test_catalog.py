"""The catalog of node types: complete, described, drawn into the docs, open to third parties."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from definition.helpers import document, node
from pydantic import BaseModel, ConfigDict, Field

from stellwerk.definition import catalog
from stellwerk.definition.compile import compile_workflow

ROOT = Path(__file__).resolve().parent.parent.parent

EXECUTABLE = [
    "trigger.manual",
    "trigger.form_submit",
    "trigger.row",
    "trigger.webhook",
    "trigger.event",
    "trigger.email_inbound",
    "logic.if",
    "logic.switch",
    "logic.set",
    "logic.transform",
    "logic.stop",
    "logic.loop",
    "logic.join",
    "logic.call",
    "logic.wait",
    "webhook.appointment_confirmed",
    "webhook.esign_completed",
    "task.user",
    "record.create",
    "record.update",
    "record.delete",
    "record.query",
    "sql.function",
    "action.backoffice_push",
    "action.backoffice_status_update",
    "notification.create",
    "log.write",
    "log.error",
    "http.request",
    "action.fonio_call",
    "action.esign_request",
    "trigger.schedule",
    "timer.reminder_call",
    "timer.precheck_docs",
]

LATER = [
    "trigger.workflow",
    "message.send",
    "slack.send_message",
    "slack.reply_in_thread",
    "slack.upload_file",
    "slack.notify_status",
    "fattureincloud.create_invoice",
    "fattureincloud.update_status",
    "fattureincloud.send_pdf",
    "fattureincloud.list_invoices",
    "document.upload",
    "document.request_signature",
    "document.update_status",
    "document.archive",
    "document.render_pdf",
    "file.read",
    "file.write",
    "file.copy",
    "file.delete",
    "client.form",
    "client.confirmation",
    "client.display",
    "client.validation",
    "client.api_call",
]


def test_every_node_type_is_known_and_only_some_run_yet() -> None:
    assert {name for name, kind in catalog.NODE_TYPES.items() if kind.executable} == set(EXECUTABLE)
    assert {name for name, kind in catalog.NODE_TYPES.items() if not kind.executable} == set(LATER)


@pytest.mark.parametrize("name", catalog.NODE_TYPES)
def test_a_node_type_is_described(name: str) -> None:
    kind = catalog.NODE_TYPES[name]
    assert kind.type == name
    assert kind.title
    assert kind.description.endswith(".")
    assert kind.icon
    assert kind.output
    form = kind.form()
    json.dumps(form)
    for field in form.get("properties", {}).values():
        assert field.get("title"), field
        assert field.get("description"), field


@pytest.mark.parametrize("name", LATER)
def test_a_node_type_of_a_later_release_cannot_be_published(name: str) -> None:
    compiled = compile_workflow(
        document(node("a", name)) if not name.startswith("trigger.") else {"slug": "x", "nodes": [node("a", name)]}
    )
    assert not compiled.is_publishable
    later = [problem for problem in compiled.problems if problem.code == "not_yet_available"]
    assert [problem.node for problem in later] == ["a"]
    assert name in later[0].message
    assert [row["executable"] for row in compiled.plan if row["node_id"] == "a"] == [False]


def test_the_docs_show_the_catalog() -> None:
    assert catalog.catalog_table() in (ROOT / "docs" / "workflow-document.md").read_text()


class MeasureConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    depth: int = Field(default=1, ge=1)
    unit: str = "m"


class Measure:
    """Measures something."""

    config = MeasureConfig


def test_a_third_party_s_executor_is_a_node_type(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("acme.measure", f"{__name__}:Measure", catalog.ENTRY_POINTS)
    monkeypatch.setattr(catalog, "_entry_points", lambda: {"acme.measure": point})
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Measure)
    catalog._third_party.cache_clear()
    compiled = compile_workflow(document(node("a", "acme.measure", depth=3)))
    assert not compiled.problems
    assert (compiled.plan[1]["runs_in"], compiled.plan[1]["config"], compiled.plan[1]["timeout"]) == (
        "worker",
        {"depth": 3, "unit": "m"},
        "PT30S",
    )
    rows = compile_workflow(document(node("a", "acme.measure", depth="{{ trigger.payload.depth }}"))).plan
    assert rows[1]["config"] == {"depth": None, "unit": "m"}
    told = compile_workflow(document(node("a", "acme.measure", dept=3))).problems
    assert [problem.hint for problem in told] == ["Did you mean depth?"]
    assert "Did you mean acme.measure?" in [
        problem.hint for problem in compile_workflow(document(node("a", "acme.mesure"))).problems
    ]
    catalog._third_party.cache_clear()


def test_a_third_party_s_executor_that_cannot_be_loaded_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("acme.broken", "no_such_module_anywhere:Broken", catalog.ENTRY_POINTS)
    monkeypatch.setattr(catalog, "_entry_points", lambda: {"acme.broken": point})
    catalog._third_party.cache_clear()
    assert [problem.code for problem in compile_workflow(document(node("a", "acme.broken"))).problems] == [
        "broken_type"
    ]
    catalog._third_party.cache_clear()


def test_a_built_in_type_cannot_be_replaced() -> None:
    with pytest.raises(ValueError, match="built in"):
        catalog.register(catalog.NODE_TYPES["log.write"])


def test_executors_and_catalog_agree() -> None:
    """Every worker node that runs now has an executor of that name, and its settings are the catalog's."""
    points = {point.name: point for point in importlib.metadata.entry_points(group=catalog.ENTRY_POINTS)}
    for name, kind in catalog.NODE_TYPES.items():
        if kind.runs_in == "worker" and kind.executable and name in points:
            assert issubclass(points[name].load().config, kind.config)

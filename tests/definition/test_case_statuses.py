"""The case statuses that a document declares."""

from __future__ import annotations

import pytest

from stellwerk.definition.compile import compile_workflow


def problems(statuses, *configs):
    steps = [{"id": "start", "type": "trigger.manual"}]
    for number, config in enumerate(configs):
        kind = "action.backoffice_status_update" if "complete_when" in config else "action.backoffice_push"
        steps.append({"id": f"p{number}", "type": kind, "config": config})
    compiled = compile_workflow({"slug": "x", "settings": {"case_statuses": statuses}, "steps": steps})
    return [(problem.path, problem.code, problem.hint) for problem in compiled.problems]


NEW, DONE = {"status": "neu", "next": ["fertig"]}, {"status": "fertig", "final": True, "color": "green"}


def test_declared_statuses_may_be_set():
    either = {"complete_when": "true", "status_complete": "fertig", "status_missing": "neu"}
    assert problems([NEW, DONE], {"status": "neu"}, {"status": "{{ trigger.payload.s }}"}, either, {}) == []


def test_an_unknown_one_is_a_problem_where_it_stands():
    either = {"complete_when": "true", "status_complete": "fetig", "status_missing": "neu"}
    assert problems([NEW, DONE], {"status": "weg"}, either) == [
        ("steps[1].config.status", "unknown_status", "There are: neu, fertig."),
        ("steps[2].config.status_complete", "unknown_status", "Did you mean fertig?"),
    ]


@pytest.mark.parametrize(
    ("statuses", "path", "code"),
    [
        ([NEW, DONE, {"status": "neu"}], "settings.case_statuses[2].status", "duplicate_status"),
        ([NEW], "settings.case_statuses[0].next[0]", "unknown_status"),
        ([{"status": "a", "color": "pink"}], "settings.case_statuses[0].color", None),
        ([{"label": "a"}], "settings.case_statuses[0].status", None),
        ([{"status": "a", "colour": "red"}], "settings.case_statuses[0].colour", None),
        ([], "settings.case_statuses", None),
        ("neu", "settings.case_statuses", None),
    ],
)
def test_what_is_wrong_with_the_set_is_told(statuses, path, code):
    ((where, what, _), *more) = problems(statuses)
    assert (where, more) == (path, [])
    assert code in (None, what)

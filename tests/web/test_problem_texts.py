"""What the compiler finds wrong is told in German too: every problem of the tests' bad documents, and how it is mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from definition.helpers import document, node
from definition.test_bad_documents import TABLE

from stellwerk.definition.compile import compile_workflow
from stellwerk.web.texts import said

GOLDEN = json.loads((Path(__file__).parents[1] / "cases" / "expressions.json").read_text())["bad"]
BAD = {case[0]: document(node("a", "logic.transform", output="{{ " + case[0] + " }}")) for case in GOLDEN}


@pytest.mark.parametrize("value", [*(case[0] for case in TABLE.values()), *BAD.values()], ids=[*TABLE, *BAD])
def test_every_problem_has_a_german_sentence_and_hint(value):
    for problem in compile_workflow(value).problems:
        assert said("en", problem.message) == problem.message
        assert said("de", problem.message) != problem.message
        assert not problem.hint or said("de", problem.hint) != problem.hint or problem.hint.startswith("nodes[")


def test_what_a_problem_is_about_stays_in_it():
    (problem,) = compile_workflow(document(node("a", "log.wrte"))).problems
    assert said("de", problem.message) == "Es gibt keine Art 'log.wrte'."
    assert said("de", problem.hint) == "Meinten Sie log.write?"


def test_a_sentence_that_nobody_knows_stays_as_it_is():
    assert said("de", "It rained 7 frogs.") == "It rained 7 frogs."
    assert said("de", None) == ""

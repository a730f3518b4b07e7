"""The builder speaks German throughout: node types, their forms, and what its scripts say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from stellwerk.definition.catalog import NODE_TYPES
from stellwerk.definition.document import Settings
from stellwerk.web import palette, rendering, texts

CALL = re.compile(r'\bt\("((?:[^"\\]|\\.)*)"')
SCRIPTS = sorted((rendering.STATIC / "builder").glob("*.js"))
GERMAN = Path(texts.__file__).parent / "texts" / "de"


def german(name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((GERMAN / f"{name}.json").read_text())
    return found


def test_every_node_type_and_every_setting_has_a_german_name() -> None:
    wanted = {text for kind in NODE_TYPES.values() for text in palette.texts_of(kind)}
    assert palette.SETTINGS.keys() == Settings.model_fields.keys()
    wanted |= {text for pair in palette.SETTINGS.values() for text in pair}
    wanted |= {function["title"] for function in palette.functions()}
    known = {text for file in GERMAN.glob("*.json") for text in json.loads(file.read_text())}
    assert wanted - known == set()


def test_every_text_of_a_script_has_a_german_one() -> None:
    used = {match[1] for file in SCRIPTS for match in CALL.finditer(file.read_text())}
    assert len(used) > 100
    assert used - german("builder").keys() == set()


def test_tables_of_texts_in_scripts_are_translated() -> None:
    """Their texts are given to `t` by a variable."""
    keyboard = (rendering.STATIC / "builder" / "keyboard.js").read_text()
    rows = re.findall(r'^  \["[^"]+", "([^"]+)"\],$', keyboard, re.MULTILINE)
    assert len(rows) > 10
    assert set(rows) - german("builder").keys() == set()


def test_scripts_never_write_markup() -> None:
    """What documents hold goes into the page as text."""
    for file in SCRIPTS:
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", file.read_text()
        )
        assert found is None, f"{file.name}: {found[0] if found else ''}"


def test_each_icon_of_a_node_type_is_in_the_sprite() -> None:
    sprite = (rendering.STATIC / "node-icons.svg").read_text()
    assert {kind.icon for kind in NODE_TYPES.values()} - set(re.findall(r'<symbol id="([^"]+)"', sprite)) == set()

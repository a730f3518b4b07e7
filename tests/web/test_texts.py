"""Both languages are whole, and what is vendored is what it says it is."""

from __future__ import annotations

import hashlib
import json
import re
import string
from pathlib import Path

from stellwerk import resources
from stellwerk.web import rendering, texts

CALL = re.compile(r"""\bt\(\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")
WEB = Path(texts.__file__).parent
FILES = [*sorted(resources.folder("templates").rglob("*.html")), *sorted(WEB.rglob("*.py"))]


def used() -> dict[str, Path]:
    """Every text that a page or module has translated, and where."""
    return {
        (match[1] or match[2]).replace('\\"', '"').replace("\\'", "'"): file
        for file in FILES
        for match in CALL.finditer(file.read_text())
    }


def german() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted((WEB / "texts" / "de").glob("*.json")):
        entries = json.loads(file.read_text())
        assert list(entries) == sorted(entries), f"{file.name} is not sorted"
        for text, translation in entries.items():
            assert found.get(text, translation) == translation, f"{file.name} translates {text!r} in another way"
        found |= entries
    return found


def test_every_text_of_a_page_has_a_german_one() -> None:
    known = german()
    missing = {text: str(file.relative_to(file.parents[1])) for text, file in used().items() if text not in known}
    assert missing == {}


def test_a_translation_fills_in_what_the_text_does() -> None:
    for text, translation in german().items():
        assert fields(text) == fields(translation), text


def test_vendored_files_are_what_they_say() -> None:
    folder = rendering.STATIC / "vendor"
    listed = {each["file"]: each for each in json.loads((folder / "vendored.json").read_text())}
    assert set(listed) == {file.name for file in folder.iterdir()} - {"vendored.json"}
    for name, each in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == each["sha256"], name
        assert each["version"] in name


def test_no_template_goes_past_the_policy_of_scripts_and_styles() -> None:
    for file in resources.folder("templates").rglob("*.html"):
        text = file.read_text()
        for forbidden in (
            r"\sstyle=",
            r"\son[a-z]+=",
            r"<style",
            r"<script(?! src=)",
            r"javascript:",
            r"\|\s*safe",
            "hx-on",
            "hx-vals='js:",
        ):
            assert not re.search(forbidden, text), f"{file.name} has {forbidden}"


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}

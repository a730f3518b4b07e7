"""What stands in an address or in a form comes back as text, in pages, parts of pages and refusals alike."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from litestar.routes import HTTPRoute
from web.hostile import SHORT, TEXTS, markup_in
from web.routing import FORMS, routes_of
from web.serving import Serving
from web.tenants import People, Tenant

pytestmark = pytest.mark.one_server

TRIED = (SHORT, "javascript:alert(1)", "²", "-1", "99999999999", "9" * 30)


def parameters_of(serving: Serving) -> dict[str, list[str]]:
    """What each page can be asked, by its path."""
    found: dict[str, list[str]] = {}
    for route in serving.app.routes:
        assert isinstance(route, HTTPRoute)
        for handler in route.route_handlers:
            if "GET" in handler.http_methods:
                found[route.path] = [
                    getattr(field.kwarg_definition, "query", None) or name
                    for name, field in handler.parsed_fn_signature.parameters.items()
                    if name not in ("desk", "state", "request") and f"{{{name}:" not in route.path
                ]
    return found


def check(answer: Any) -> None:
    if answer.headers.get("content-type", "").startswith("text/html"):
        assert markup_in(answer.text) == [], answer.url
    assert "xss" not in str(answer.headers.get("location", "")), answer.url
    assert answer.status_code < 500, (answer.url, answer.text)


def test_what_is_asked_for_comes_back_as_text(
    serving: Serving, outside: httpx2.Client, own: Tenant, people: People
) -> None:
    page = {**people.session("admin", own), "accept": "text/html"}
    tried = 0
    for path, parameters in parameters_of(serving).items():
        if path.startswith(("/static", "/scripts", "/live", "/api")):
            continue
        for place in ("int", "str", "path"):
            path = path.replace(f":{place}}}", "}")
        for name in parameters:
            for text in TRIED:
                address = path.format(**own.things) + f"?{name}={quote(text)}"
                check(outside.get(address, headers={**page, "hx-request": "true"} if tried % 2 else page))
                tried += 1
        for text in (SHORT, "99999999999", "9" * 30):
            check(outside.get(path.format(**dict.fromkeys(own.things, quote(text, safe=""))), headers=page))
    check(outside.get("/login", params={"next": f"/{SHORT}", "tenant": SHORT}, headers={"accept": "text/html"}))
    assert tried > 200


def test_what_a_form_holds_comes_back_as_text(
    serving: Serving, outside: httpx2.Client, own: Tenant, people: People
) -> None:
    for route in routes_of(serving.app):
        if route.name not in FORMS:
            continue
        known = {name: own.things.get(value[1:-1], value) for name, value in FORMS[route.name].items()}
        for name in known:
            for text in (SHORT, "9" * 18):
                headers = {**people.session("admin", own), "accept": "text/html", "hx-request": "true"}
                check(outside.post(route.path.format(**own.things), data={**known, name: text}, headers=headers))


def test_numbers_that_no_row_has_are_refused(
    serving: Serving, outside: httpx2.Client, own: Tenant, people: People
) -> None:
    for route in routes_of(serving.app):
        for place in route.places:
            if place.endswith("_id") and f"{{{place}}}" in route.path and not route.path.startswith("/live"):
                for number in ("99999999999", "9" * 30):
                    answer = route.call(outside, {**own.things, place: number}, people.session("admin", own))
                    assert answer.status_code < 500, (route.name, number, answer.text)


def test_the_texts_are_told_from_markup() -> None:
    """The look-out itself: written into a page as they are, most of the texts are found."""
    assert sum(bool(markup_in(f"<p>{text}</p>")) for text in TEXTS) > 40
    assert markup_in('<a href="javascript:x">')
    assert markup_in('<a href="https://example.org/">') == []

"""What a handler works with: who is there, the engine in a transaction of theirs, and pages in their language."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from litestar import Request, Response
from litestar.datastructures import State
from litestar.response import Template

from stellwerk.engine import Engine, Row
from stellwerk.web import texts
from stellwerk.web.access import Entrance, Right
from stellwerk.web.database import Database


class Desk:
    """One request's: given to handlers as `desk`."""

    def __init__(self, request: Request[Any, Any, Any], state: State) -> None:
        self.request = request
        self.database: Database = state.database
        self.base_url: str = state.settings.base_url
        self.language = texts.choose(request.cookies.get("language"), request.headers.get("accept-language"))
        self._entrance: Entrance | None = request.scope.get("user")  # no route, no middleware

    @property
    def who(self) -> Entrance:
        """Who has come in; only routes that need no right have nobody."""
        assert self._entrance is not None
        return self._entrance

    def may(self, right: Right) -> bool:
        """Whether they have the right: what they may not do is not offered to them."""
        return self._entrance is not None and self._entrance.may(right)

    def t(self, text: str, **values: object) -> str:
        """The text in the language of the page."""
        return texts.translate(self.language, text, **values)

    def engine(self) -> AbstractContextManager[Engine]:
        """The engine in a transaction of theirs, committed at the end of the block."""
        return self.database.transaction(self._entrance, self.request.headers.get("traceparent"))

    def rows(self, query: str, parameters: Sequence[object] | None = None) -> list[Row]:
        """The rows of a query in a transaction of its own."""
        with self.engine() as engine:
            return engine.rows(query, parameters)

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks, and wants a part of the page only."""
        return "hx-request" in self.request.headers and "hx-boosted" not in self.request.headers

    def page(
        self, template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
    ) -> Template:
        """A page or fragment in `templates/`."""
        context = {
            "desk": self,
            "t": self.t,
            "may": self.may,
            "language": self.language,
            "theme": self._theme(),
            "path": self.request.url.path,
            "who": self._entrance,
            "csrf": self.request.scope.get("auth"),
            **values,
        }
        return Template(template, context=context, status_code=status, headers=headers or {}, media_type="text/html")

    def go(self, path: str) -> Response[Any]:
        """Send the browser to another page, whether htmx asked or a plain form."""
        path = quote(path, safe="/?#&=%:;,+@!$'()*~")  # a header holds nothing but ASCII
        if "hx-request" in self.request.headers:
            return Response(None, status_code=204, headers={"hx-redirect": path})
        return Response(None, status_code=303, headers={"location": path})

    def _theme(self) -> str:
        theme = self.request.cookies.get("theme", "")
        return theme if theme in ("light", "dark") else ""


def provide_desk(request: Request[Any, Any, Any], state: State) -> Desk:
    """The dependency `desk`."""
    return Desk(request, state)

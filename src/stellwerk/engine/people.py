"""Users, their accounts and their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stellwerk.engine.calls import Calls, as_json


class People(Calls):
    """The verbs of tasks, of the users who do them, and of how users and programs come in."""

    def complete_task(self, task_id: int, result: Any, outcome: str | None = None) -> str:
        """Decide a task: `completed`, or `open` while more people must approve."""
        query = "select stellwerk.complete_task(%s::bigint, %s::jsonb, %s::text)"
        return str(self.value(query, [task_id, as_json(result), outcome]))

    def claim_task(self, task_id: int) -> None:
        """Work on a task that is offered to a role."""
        self.value("select stellwerk.claim_task(%s::bigint)", [task_id])

    def release_task(self, task_id: int) -> None:
        """Give a claimed task back."""
        self.value("select stellwerk.release_task(%s::bigint)", [task_id])

    def reassign_task(self, task_id: int, assignee: str) -> None:
        """Hand a task to a user, or to `role:NAME`."""
        self.value("select stellwerk.reassign_task(%s::bigint, %s::text)", [task_id, assignee])

    def save_task_draft(self, task_id: int, draft: Any) -> None:
        """Keep what was filled in so far."""
        self.value("select stellwerk.save_task_draft(%s::bigint, %s::jsonb)", [task_id, as_json(draft)])

    def comment_task(self, task_id: int, body: str) -> int:
        """Write a comment to a task; its number."""
        return int(self.value("select stellwerk.comment_task(%s::bigint, %s::text)", [task_id, body]))

    def attach_to_task(self, task_id: int, name: str, reference: str, media_type: str | None = None) -> int:
        """Note a file that belongs to a task; the note's number."""
        query = "select stellwerk.attach_to_task(%s::bigint, %s::text, %s::text, %s::text)"
        return int(self.value(query, [task_id, name, reference, media_type]))

    def add_user(
        self,
        email: str,
        role: str,
        *,
        name: str | None = None,
        login: str | None = None,
        groups: Sequence[str] = (),
    ) -> int:
        """Add a user of the tenant; the user's number."""
        query = "select stellwerk.add_user(%s::text, %s::text, %s::text, %s::text, %s::text[])"
        return int(self.value(query, [email, role, name, login, list(groups)]))

    def change_user(
        self,
        email: str,
        *,
        role: str | None = None,
        name: str | None = None,
        login: str | None = None,
        groups: Sequence[str] | None = None,
        active: bool | None = None,
        mails: bool | None = None,
    ) -> None:
        """Change what is given of a user and leave the rest."""
        self.value(
            "select stellwerk.change_user("
            "%s::text, %s::text, %s::text, %s::text, %s::text[], %s::boolean, %s::boolean)",
            [email, role, name, login, None if groups is None else list(groups), active, mails],
        )

    def set_absence(self, email: str, until: Any = None, delegate: str | None = None) -> None:
        """A user is away from now on, and the delegate does the tasks."""
        self.value("select stellwerk.set_absence(%s::text, %s::timestamptz, %s::text)", [email, until, delegate])

    def end_absence(self, email: str) -> None:
        """A user is back."""
        self.value("select stellwerk.set_absence(%s::text, absent_from => null)", [email])

    def set_password(self, email: str, hash: str) -> None:  # the function's own name for it
        """Set a user's password, given as its hash, and end all of the user's sessions."""
        self.value("select stellwerk.set_password(%s::text, %s::text)", [email, hash])

    def end_sessions(self, email: str) -> int:
        """Log a user out everywhere; how many sessions that were."""
        return int(self.value("select stellwerk.end_sessions(%s::text)", [email]))

    def invite_user(self, email: str, digest: bytes) -> None:
        """Make a link, of which this is the secret's digest, with which a user chooses a password."""
        self.value("select stellwerk.invite_user(%s::text, %s::bytea)", [email, digest])

    def create_token(
        self, name: str, role: str, digest: bytes, scopes: Sequence[str] | None = None, expires_at: Any = None
    ) -> int:
        """A token for a program, of which this is the digest; the token's number."""
        query = "select stellwerk.create_token(%s::text, %s::text, %s::bytea, %s::text[], %s::timestamptz)"
        given = None if scopes is None else list(scopes)
        return int(self.value(query, [name, role, digest, given, expires_at]))

    def revoke_token(self, token_id: int) -> None:
        """A token works no more."""
        self.value("select stellwerk.revoke_token(%s::bigint)", [token_id])

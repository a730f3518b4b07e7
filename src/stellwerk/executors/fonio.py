"""`action.fonio_call`: a call by a voice agent. Without an address it only says what would happen."""

from __future__ import annotations

from typing import Any

from stellwerk.definition.catalog import FonioCallConfig
from stellwerk.executors.base import Call, Executor, TextLike
from stellwerk.executors.http import order, refuse_credential


class FonioCallSettings(FonioCallConfig):
    """As in the catalog; a number that is a number is fine as well."""

    phone: TextLike | None = None


class FonioCall(Executor[FonioCallSettings, Any]):
    """Order a phone call, and pass the context on to the next steps."""

    type = "action.fonio_call"

    async def execute(self, call: Call[FonioCallSettings]) -> Any:
        """Log the call or order it at the address; answers the context."""
        config = call.config
        refuse_credential(config.credential)
        context = {} if config.context is None else config.context
        if config.url is None:
            call.log.info("Fonio-Anruf würde ausgeführt")
            return context
        answer = await order(
            call.effects,
            config.url,
            {"phone": config.phone, "agent": config.agent, "script": config.script, "context": context},
        )
        return {**context, **answer} if isinstance(context, dict) else {"context": context, **answer}

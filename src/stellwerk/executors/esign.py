"""`action.esign_request`: a request to sign a document. Without an address it only says what would happen."""

from __future__ import annotations

import hashlib
from typing import Any

from stellwerk.definition.catalog import EsignRequestConfig
from stellwerk.executors.base import Call, Executor
from stellwerk.executors.http import order, refuse_credential


class EsignRequest(Executor[EsignRequestConfig, dict[str, Any]]):
    """Order a signature; `envelope_id` in the output is what `webhook.esign_completed` correlates by."""

    type = "action.esign_request"

    async def execute(self, call: Call[EsignRequestConfig]) -> dict[str, Any]:
        """Log the request or order it at the address; answers the context and the envelope's id."""
        config = call.config
        refuse_credential(config.credential)
        context = config.context if isinstance(config.context, dict) else {}
        if config.context is not None and not isinstance(config.context, dict):
            context = {"context": config.context}
        if config.url is None:
            call.log.info("Signaturanfrage würde gesendet")
            return {**context, "envelope_id": envelope_id(call.idempotency_key)}
        answer = await order(
            call.effects,
            config.url,
            {
                "signer": config.signer,
                "document": config.document,
                "subject": config.subject,
                "context": config.context,
            },
        )
        return {**context, "envelope_id": envelope_id(call.idempotency_key), **answer}


def envelope_id(idempotency_key: str) -> str:
    """The same envelope for every attempt at a step."""
    return "env_" + hashlib.sha256(idempotency_key.encode()).hexdigest()[:24]

"""Whether a webhook was sent by whom it claims: four schemes, one answer, and the same work for every refusal.

What is compared is the text as it was sent with the one text that is right, byte for byte: a signature that was
encoded anew (capital hex digits, other padding, a changed last character that decodes to the same bytes) is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SCHEMES = ("hmac", "standard", "slack", "token")
TOLERANCE_SECONDS = 300
MOST_SIGNATURES = 8
LEAST_SECRET = 8
ROUNDS = 2  # the present secret and the former; an absent one is replaced by bytes that nobody knows

_NOBODY_KNOWS = random.token_bytes(32)


@dataclass(frozen=True)
class Claim:
    """What a request says of itself: when, under which number, with which signatures."""

    timestamp: str
    signed: bytes  # what stands before the body in the signed bytes
    signatures: Sequence[bytes]
    complete: bool


@dataclass(frozen=True)
class Verdict:
    """Whether a request is genuine; if not, why, for the log alone. The digest names the signed bytes."""

    genuine: bool
    reason: str
    digest: bytes | None = None


def verify(
    scheme: str | None,
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    *,
    signature_header: str | None = None,
    timestamp_header: str | None = None,
) -> Verdict:
    """Check a request; `headers` have names in lower case. Without a secret, or without a scheme, it is refused."""
    claim = _claim(scheme, headers, signature_header, timestamp_header)
    keys = [key for key in (_key(scheme, secret) for secret in secrets) if key]
    signed = claim.signed + body
    matches = False
    for number in range(ROUNDS):
        key = keys[number] if number < len(keys) else _NOBODY_KNOWS
        expected = _written(scheme, key, hmac.digest(key, signed, "sha256"))
        for given in claim.signatures:
            matches = hmac.compare_digest(given, expected) or matches
    fresh = scheme == "token" or (
        re.fullmatch(r"[0-9]{1,12}", claim.timestamp, re.ASCII) is not None
        and abs(now - int(claim.timestamp)) <= TOLERANCE_SECONDS
    )
    digest = hashlib.sha256(signed).digest()
    for holds, reason in (
        (scheme in SCHEMES, "there is no such source"),
        (bool(keys), "the source has no secret that can be opened"),
        (claim.complete, "the signature or something that belongs to it is missing"),
        (fresh, "the timestamp is no number or too far from now"),
        (matches, "the signature is wrong"),
    ):
        if not holds:
            return Verdict(False, reason)
    return Verdict(True, "", None if scheme == "token" else digest)


def sign(scheme: str, secret: str, body: bytes, *, timestamp: int, number: str = "") -> dict[str, str]:
    """The headers that a sender would add, with the usual names: for tests and for trying a source out."""
    key = _key(scheme, secret) or b""
    at = str(timestamp)
    if scheme == "token":
        return {"authorization": f"Bearer {secret}"}
    before = {"standard": f"{number}.{at}.", "slack": f"v0:{at}:"}.get(scheme, f"{at}.").encode()
    text = _written(scheme, key, hmac.digest(key, before + body, "sha256")).decode()
    if scheme == "standard":
        return {"webhook-id": number, "webhook-timestamp": at, "webhook-signature": text}
    if scheme == "slack":
        return {"x-slack-request-timestamp": at, "x-slack-signature": text}
    return {"stellwerk-signature": f"t={at},v1={text}"}


def with_standard_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Svix's names of the headers, which Resend sends, as those of Standard Webhooks."""
    named = dict(headers)
    if "webhook-signature" not in named:
        for part in ("id", "timestamp", "signature"):
            if f"svix-{part}" in named:
                named[f"webhook-{part}"] = named[f"svix-{part}"]
    return named


def fault_of(scheme: str, secret: str) -> str | None:
    """Why a secret cannot be used with a scheme; None if it can."""
    if len(secret) < LEAST_SECRET:
        return f"a secret has at least {LEAST_SECRET} characters"
    if secret != secret.strip() or not secret.isprintable():
        return "a secret has no spaces around it and no control characters"
    if scheme == "standard" and _key(scheme, secret) is None:
        return "a secret of Standard Webhooks is base64, usually after whsec_"
    return None


def new_secret(scheme: str) -> str:
    """A fresh secret in the form that a scheme uses."""
    if scheme == "standard":
        return "whsec_" + base64.b64encode(random.token_bytes(32)).decode("ascii")
    return random.token_hex(32)


def _claim(
    scheme: str | None, headers: Mapping[str, str], signature_header: str | None, timestamp_header: str | None
) -> Claim:
    if scheme == "standard":
        number = headers.get("webhook-id", "")
        at = headers.get("webhook-timestamp", "")
        given = headers.get("webhook-signature", "").split(" ")
        complete = bool(number and at and given[0]) and "." not in number
        return Claim(at, _bytes(f"{number}.{at}."), _some(given), complete)
    if scheme == "slack":
        at, text = headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", "")
        return Claim(at, _bytes(f"v0:{at}:"), [_bytes(text)], bool(at and text))
    text = headers.get(signature_header or ("authorization" if scheme == "token" else "stellwerk-signature"), "")
    if scheme == "token":
        token = text.removeprefix("Bearer ")
        return Claim("", b"", [hashlib.sha256(_bytes(token)).digest()], bool(token))
    if timestamp_header is not None:
        at = headers.get(timestamp_header, "")
        return Claim(at, _bytes(f"{at}."), [_bytes(text.removeprefix("sha256="))], bool(at and text))
    parts = [part.strip().partition("=") for part in text.split(",")]
    at = next((value for name, _, value in parts if name == "t"), "")
    given = [value for name, _, value in parts if name == "v1"]
    return Claim(at, _bytes(f"{at}."), _some(given), bool(at and given))


def _some(signatures: Sequence[str]) -> list[bytes]:
    return [_bytes(signature) for signature in signatures[:MOST_SIGNATURES]]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _key(scheme: str | None, secret: str) -> bytes | None:
    if scheme != "standard":
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _written(scheme: str | None, key: bytes, digest: bytes) -> bytes:
    """The one way in which the right signature is written; of a token, its digest, so that its length stays hidden."""
    if scheme == "token":
        return hashlib.sha256(key).digest()
    if scheme == "standard":
        return b"v1," + base64.b64encode(digest)
    return (b"v0=" if scheme == "slack" else b"") + digest.hex().encode()

"""The node types that a worker carries out: calls to other systems, messages, documents and files."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from stellwerk.definition.node_types import Name, NodeConfig, NodeType, Values, literal, textarea

Credential = Annotated[Name | None, Field(**literal("Credential", "Name of the stored credential."))]
Text = Annotated[str, Field(**textarea("Text", "May hold {{ expressions }}."))]


def check_expected(value: Any) -> Any:
    statuses = value if isinstance(value, list) else [value]
    if not statuses or not all(re.fullmatch(r"[1-5](xx|\d\d)", str(status)) for status in statuses):
        raise ValueError("must be a status such as 2xx or 200, or a list of such")
    return value


class HttpRequestConfig(NodeConfig):
    method: Annotated[
        Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], Field(**literal("Method", "HTTP method."))
    ] = "GET"
    url: Annotated[
        str, Field(min_length=1, title="URL", description="http:// or https://; may hold {{ expressions }}.")
    ]
    headers: Annotated[Values, Field(title="Headers", description="Names and values.")] = Field(default_factory=dict)
    query: Annotated[Values, Field(title="Query", description="Parameters that are put behind the URL.")] = Field(
        default_factory=dict
    )
    json_body: Annotated[Any, Field(alias="json", title="JSON", description="The body as JSON.")] = None
    body: Annotated[Any, Field(**textarea("Body", "Or the body as text."))] = None
    credential: Credential = None
    expect: Annotated[
        Any,
        AfterValidator(check_expected),
        Field(**literal("Expect", "Which answers are a success: 2xx, 200, or a list of such.")),
    ] = "2xx"

    @model_validator(mode="after")
    def check_together(self) -> HttpRequestConfig:
        if self.json_body is not None and self.body is not None:
            raise ValueError("give either json or body")
        return self


class FonioCallConfig(NodeConfig):
    phone: Annotated[str | None, Field(title="Phone", description="The number to call.")] = None
    agent: Annotated[str | None, Field(title="Agent", description="The voice agent that calls.")] = None
    script: Annotated[str | None, Field(**textarea("Script", "What to ask or say."))] = None
    context: Annotated[
        Any, Field(title="Context", description="What the agent may know; passed on to the next steps.")
    ] = None
    url: Annotated[
        str | None, Field(title="URL", description="Where the call is ordered; without it, it is only logged.")
    ] = None
    credential: Credential = None


class EsignRequestConfig(NodeConfig):
    signer: Annotated[str | None, Field(title="Signer", description="Email address of the person who signs.")] = None
    document: Annotated[Any, Field(title="Document", description="The document's name, id or address.")] = None
    subject: Annotated[str | None, Field(title="Subject", description="Of the mail to the signer.")] = None
    context: Annotated[Any, Field(title="Context", description="Passed on to the next steps.")] = None
    url: Annotated[
        str | None, Field(title="URL", description="Where the envelope is ordered; without it, it is only logged.")
    ] = None
    credential: Credential = None


class MessageSendConfig(NodeConfig):
    channel: Annotated[Literal["email", "whatsapp"], Field(**literal("Channel", "How the message is sent."))]
    to: Annotated[Any, Field(title="To", description="Recipients: addresses, users or roles.")]
    subject: Annotated[str | None, Field(title="Subject", description="For email.")] = None
    body: Text
    credential: Credential = None


class SlackMessageConfig(NodeConfig):
    channel: Annotated[str, Field(title="Channel", description="Name or id, such as #orders.")]
    text: Text
    credential: Credential = None


class SlackReplyConfig(SlackMessageConfig):
    thread: Annotated[str, Field(title="Thread", description="The ts of the message to answer.")]


class SlackFileConfig(NodeConfig):
    channel: Annotated[str, Field(title="Channel", description="Name or id.")]
    file: Annotated[str, Field(title="File", description="Path in the file store.")]
    title: Annotated[str | None, Field(title="Title", description="Shown above the file.")] = None
    credential: Credential = None


class SlackStatusConfig(NodeConfig):
    channel: Annotated[str, Field(title="Channel", description="Name or id.")]
    status: Annotated[str, Field(title="Status", description="What to announce.")]
    credential: Credential = None


class CreateInvoiceConfig(NodeConfig):
    client: Annotated[Any, Field(title="Client", description="Who is billed.")]
    items: Annotated[Any, Field(title="Items", description="What is billed.")]
    date: Annotated[str | None, Field(title="Date", description="The invoice's date.")] = None
    credential: Credential = None


class InvoiceConfig(NodeConfig):
    invoice_id: Annotated[Any, Field(title="Invoice", description="Its id.")]
    credential: Credential = None


class InvoiceStatusConfig(InvoiceConfig):
    status: Annotated[str, Field(title="Status", description="The new status.")]


class ListInvoicesConfig(NodeConfig):
    filter: Annotated[Values, Field(title="Filter", description="Which invoices.")] = Field(default_factory=dict)
    limit: Annotated[int, Field(ge=1, le=1000, title="Limit", description="At most so many.")] = 100
    credential: Credential = None


class DocumentUploadConfig(NodeConfig):
    name: Annotated[str, Field(title="Name", description="The document's name.")]
    content: Annotated[Any, Field(title="Content", description="Text, or a path in the file store.")]
    kind: Annotated[str | None, Field(title="Kind", description="What sort of document it is.")] = None


class DocumentConfig(NodeConfig):
    document_id: Annotated[Any, Field(title="Document", description="Its id.")]


class DocumentSignatureConfig(DocumentConfig):
    signer: Annotated[str, Field(title="Signer", description="Email address of the person who signs.")]
    credential: Credential = None


class DocumentStatusConfig(DocumentConfig):
    status: Annotated[str, Field(title="Status", description="The new status.")]


class RenderPdfConfig(NodeConfig):
    template: Annotated[str, Field(**literal("Template", "Name of the template."))]
    data: Annotated[Any, Field(title="Data", description="What the template shows.")] = Field(default_factory=dict)
    name: Annotated[str, Field(title="Name", description="The document's name.")]


class FileConfig(NodeConfig):
    path: Annotated[str, Field(title="Path", description="In the file store.")]


class FileWriteConfig(FileConfig):
    content: Annotated[Any, Field(title="Content", description="What is written.")]


class FileCopyConfig(FileConfig):
    to: Annotated[str, Field(title="To", description="The copy's path.")]


INVOICE = '{ "invoice_id", … }'
DOCUMENT = '{ "document_id", … }'

SERVICES = (
    NodeType(
        "http.request",
        "HTTP request",
        "Calls another system; private addresses are refused unless allowed.",
        "Services",
        "globe",
        "worker",
        HttpRequestConfig,
        '{ "status", "headers", "body" }',
        executable=True,
    ),
    NodeType(
        "action.fonio_call",
        "Phone call",
        "Orders a call by a voice agent; without an address it is only logged.",
        "Services",
        "phone",
        "worker",
        FonioCallConfig,
        "the context, passed on",
        executable=True,
    ),
    NodeType(
        "action.esign_request",
        "Signature request",
        "Orders a signature; without an address it is only logged.",
        "Services",
        "signature",
        "worker",
        EsignRequestConfig,
        "the context, passed on",
        executable=True,
    ),
    NodeType(
        "message.send",
        "Send message",
        "Sends an email or a WhatsApp message.",
        "Messages",
        "mail",
        "worker",
        MessageSendConfig,
        '{ "message_id", "state" }',
    ),
    NodeType(
        "slack.send_message",
        "Slack message",
        "Posts a message to a channel.",
        "Messages",
        "chat",
        "worker",
        SlackMessageConfig,
        '{ "channel", "ts" }',
    ),
    NodeType(
        "slack.reply_in_thread",
        "Slack reply",
        "Answers in a thread.",
        "Messages",
        "reply",
        "worker",
        SlackReplyConfig,
        '{ "channel", "ts" }',
    ),
    NodeType(
        "slack.upload_file",
        "Slack file",
        "Uploads a file to a channel.",
        "Messages",
        "clip",
        "worker",
        SlackFileConfig,
        '{ "file_id" }',
    ),
    NodeType(
        "slack.notify_status",
        "Slack status",
        "Announces a status.",
        "Messages",
        "megaphone",
        "worker",
        SlackStatusConfig,
        '{ "channel", "ts" }',
    ),
    NodeType(
        "fattureincloud.create_invoice",
        "Create invoice",
        "Creates an invoice in Fatture in Cloud.",
        "Services",
        "invoice",
        "worker",
        CreateInvoiceConfig,
        INVOICE,
    ),
    NodeType(
        "fattureincloud.update_status",
        "Invoice status",
        "Sets an invoice's status.",
        "Services",
        "flag",
        "worker",
        InvoiceStatusConfig,
        INVOICE,
    ),
    NodeType(
        "fattureincloud.send_pdf",
        "Send invoice",
        "Sends an invoice as PDF.",
        "Services",
        "send",
        "worker",
        InvoiceConfig,
        INVOICE,
    ),
    NodeType(
        "fattureincloud.list_invoices",
        "List invoices",
        "Reads invoices.",
        "Services",
        "list",
        "worker",
        ListInvoicesConfig,
        '{ "invoices", "count" }',
    ),
    NodeType(
        "document.upload",
        "Store document",
        "Puts a document into the store.",
        "Documents",
        "upload",
        "worker",
        DocumentUploadConfig,
        DOCUMENT,
    ),
    NodeType(
        "document.request_signature",
        "Have a document signed",
        "Sends a stored document to a signer.",
        "Documents",
        "signature",
        "worker",
        DocumentSignatureConfig,
        DOCUMENT,
    ),
    NodeType(
        "document.update_status",
        "Document status",
        "Sets a document's status.",
        "Documents",
        "flag",
        "sql",
        DocumentStatusConfig,
        DOCUMENT,
    ),
    NodeType(
        "document.archive",
        "Archive document",
        "Moves a document into the archive.",
        "Documents",
        "archive",
        "sql",
        DocumentConfig,
        DOCUMENT,
    ),
    NodeType(
        "document.render_pdf",
        "Render PDF",
        "Renders a template as PDF into the store.",
        "Documents",
        "file",
        "worker",
        RenderPdfConfig,
        DOCUMENT,
    ),
    NodeType(
        "file.read",
        "Read file",
        "Reads a file of the file store.",
        "Documents",
        "file",
        "worker",
        FileConfig,
        '{ "content", "size" }',
    ),
    NodeType(
        "file.write",
        "Write file",
        "Writes a file into the file store.",
        "Documents",
        "save",
        "worker",
        FileWriteConfig,
        '{ "path", "size" }',
    ),
    NodeType(
        "file.copy",
        "Copy file",
        "Copies a file of the file store.",
        "Documents",
        "copy",
        "worker",
        FileCopyConfig,
        '{ "path", "size" }',
    ),
    NodeType(
        "file.delete",
        "Delete file",
        "Deletes a file of the file store.",
        "Documents",
        "trash",
        "worker",
        FileConfig,
        '{ "path" }',
    ),
)

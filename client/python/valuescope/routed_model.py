"""Which model a call is about, told in its metadata too, by which gateways route: they see headers and no messages."""

from __future__ import annotations

import re

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

MODEL = "x-valuescope-model"

# As deep as requests name a model: spec.judge_responses.judge.rubric.model.
_DEEPEST = 4
# What metadata may hold; a server refuses other names by itself.
_SENDABLE = re.compile(r"[!-~]{1,1024}", re.ASCII)


def routed_model(request: Message) -> str:
    """The models/ID that a request names: its `model`, or its `name` where that is a model's, or else that of its `spec` or of what it has
    one of, such as the header of an upload. Empty where it names none that metadata can hold.
    """
    part: Message | None = request
    for _ in range(_DEEPEST + 1):
        if part is None:
            break
        name = _text(part, "model")
        if not name and _text(part, "name").startswith("models/"):
            name = _text(part, "name")
        if name:
            return name if _SENDABLE.fullmatch(name) else ""
        part = _inner_part(part)
    return ""


def _text(message: Message, name: str) -> str:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None or field.type != FieldDescriptor.TYPE_STRING:
        return ""
    value = getattr(message, name)
    return value if isinstance(value, str) else ""  # not a list of them


def _inner_part(message: Message) -> Message | None:
    """What the message is about, where it has such a part."""
    for field, value in message.ListFields():
        # The oneof of an optional field is no choice between several.
        of_several = field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
        if isinstance(value, Message) and (of_several or field.name == "spec"):
            return value
    return None

"""Chat messages as text; shared by the OpenAI-style and TRL formats."""

from __future__ import annotations

from typing import Any

from reftcli.problems.formats.interface import BadRow


def message_texts(messages: Any, key: str) -> list[tuple[str, str]]:
    """``(role, text)`` of each message, in order; content is text or a list of text parts."""
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"`{key}` is not a list of messages")
    return [_message(message, f"{key}[{index}]") for index, message in enumerate(messages)]


def question_of(messages: Any, key: str) -> str:
    """Everything the model is to see, joined by blank lines; the last message must come from the user."""
    pairs = message_texts(messages, key)
    if pairs[-1][0] != "user":
        raise BadRow(f"the last of `{key}` is from {pairs[-1][0]!r}, not from 'user'")
    if not pairs[-1][1].strip():
        raise BadRow(f"the last of `{key}` is empty")
    return "\n\n".join(text.strip() for _, text in pairs if text.strip())


def _message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRow(f"`{where}` has no role")
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        known = [text for text in texts if isinstance(text, str)]
        if len(known) == len(content):
            return message["role"], "\n".join(known)
    if not isinstance(content, str):
        raise BadRow(f"`{where}` has content that is not text")
    return message["role"], content

"""Short hashes by which questions are told apart, whatever template or form they were shown in."""

from __future__ import annotations

import hashlib

from reftcli.problems.splits import normalised_question


def fingerprint(text: str) -> str:
    """Equal for texts that differ in white space only."""
    return hashlib.sha256(" ".join(text.split()).encode(errors="surrogatepass")).hexdigest()[:16]


def question_fingerprint(question: str) -> str:
    """Equal for what a person calls the same question, as `reft data check` does."""
    return fingerprint(normalised_question(question))

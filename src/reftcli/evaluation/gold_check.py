"""Gold answers and gold chains of thought through the grader: what fails here would mislead training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reftcli.grading.build import build_grader
from reftcli.grading.interface import Grade, Verdict, grade_in_slices
from reftcli.problems.load import SPLITS, ProblemSets
from reftcli.problems.prompts import ANSWER_TRIGGER, answer_text
from reftcli.problems.record import CotForm, Problem
from reftcli.recipe.schema import GradingSettings
from reftcli.runs.progress import Progress

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class FailingGold:
    """A problem whose own gold does not grade correct."""

    split: str
    problem: Problem
    why: str


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """``ungradable``: gold answers the grader cannot read; ``failing``: gold chains that do not lead to them."""

    answers: int
    ungradable: tuple[FailingGold, ...]
    chains: int
    failing: tuple[FailingGold, ...]
    correct_by_source: Mapping[str, int]
    """Where chains come from: how many of them grade correct. What does not lead to its gold is not even derived."""

    @property
    def shares(self) -> dict[str, float]:
        """Where chains come from: share of all problems, 0 to 1, that have a chain from there which grades correct."""
        return {source: correct / self.answers for source, correct in self.correct_by_source.items()}

    def to_json(self) -> dict[str, Any]:
        """Counts, and every problem that fails."""

        def listed(golds: Sequence[FailingGold]) -> list[dict[str, str]]:
            return [{"item_id": g.problem.item_id, "source": g.problem.source, "why": g.why} for g in golds]

        return {
            "answers": self.answers,
            "ungradable": listed(self.ungradable),
            "chains": self.chains,
            "chains_not_correct": listed(self.failing),
            "chains_correct": dict(self.correct_by_source),
            "share_of_problems": self.shares,
        }

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Findings as table rows: severity, split, count, message, examples."""
        rows: list[tuple[str, str, str, str, str]] = []
        kinds = (
            ("error", self.ungradable, "gold answer cannot be graded"),
            ("warning", self.failing, "gold chain of thought does not grade correct"),
        )
        for severity, golds, message in kinds:
            for split in SPLITS:
                found = [gold for gold in golds if gold.split == split]
                if found:
                    examples = "; ".join(f"{gold.problem.source}: {gold.why}" for gold in found[:_SHOWN])
                    rows.append((severity, split, str(len(found)), message, examples))
        return rows


def check_golds(sets: ProblemSets, form: CotForm, settings: GradingSettings, progress: Progress) -> GoldCheck:
    """Grades every gold answer as N-CoT and every gold chain in its own form."""
    pairs = [(split, problem) for split in SPLITS for problem in sets.split(split)]
    kind = pairs[0][1].answer_kind
    reader = build_grader("ncot", kind, policy=settings.policy)
    grader = build_grader(form, kind, policy=settings.policy, timeout_s=settings.timeout_s, workers=settings.workers)
    try:
        with_chain = [(split, problem) for split, problem in pairs if form in problem.chains]
        with progress.task("gold answers and chains", len(pairs) + len(with_chain), "grade") as task:
            texts = [f"{ANSWER_TRIGGER} {answer_text(problem)}" for _, problem in pairs]
            answers = grade_in_slices(reader, [problem for _, problem in pairs], texts, task.advance)
            chains = [_completion(problem, form) for _, problem in with_chain]
            grades = grade_in_slices(grader, [problem for _, problem in with_chain], chains, task.advance)
    finally:
        reader.close()
        grader.close()
    return GoldCheck(
        answers=len(pairs),
        ungradable=_not_correct(pairs, answers),
        chains=len(with_chain),
        failing=_not_correct(with_chain, grades),
        correct_by_source=Counter(
            problem.chain_sources.get(form, "given")
            for (_, problem), grade in zip(with_chain, grades, strict=True)
            if grade.verdict is Verdict.CORRECT
        ),
    )


def _not_correct(pairs: Sequence[tuple[str, Problem]], grades: Sequence[Grade]) -> tuple[FailingGold, ...]:
    return tuple(
        FailingGold(split, problem, grade.why)
        for (split, problem), grade in zip(pairs, grades, strict=True)
        if grade.verdict is not Verdict.CORRECT
    )


def _completion(problem: Problem, form: CotForm) -> str:
    chain = problem.chains[form]
    return chain if form == "pcot" else f"{chain}\n{ANSWER_TRIGGER} {answer_text(problem)}"

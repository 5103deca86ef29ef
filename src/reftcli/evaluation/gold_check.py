"""Gold answers and gold chains of thought through the grader: what fails here would mislead training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reftcli.grading.build import build_grader
from reftcli.grading.interface import Verdict, grade_in_slices
from reftcli.problems.load import SPLITS, ProblemSets
from reftcli.problems.prompts import ANSWER_TRIGGER, answer_text
from reftcli.problems.record import CotForm, Problem
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

    def to_json(self) -> dict[str, Any]:
        """Counts, and every problem that fails."""

        def listed(golds: Sequence[FailingGold]) -> list[dict[str, str]]:
            return [{"item_id": g.problem.item_id, "source": g.problem.source, "why": g.why} for g in golds]

        return {
            "answers": self.answers,
            "ungradable": listed(self.ungradable),
            "chains": self.chains,
            "chains_not_correct": listed(self.failing),
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


def check_golds(sets: ProblemSets, form: CotForm, progress: Progress) -> GoldCheck:
    """Grades every gold answer as N-CoT and every gold chain in its own form."""
    pairs = [(split, problem) for split in SPLITS for problem in sets.split(split)]
    kind = pairs[0][1].answer_kind
    reader = build_grader("ncot", kind)
    grader = build_grader(form, kind)
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
        ungradable=tuple(
            FailingGold(split, problem, grade.why)
            for (split, problem), grade in zip(pairs, answers, strict=True)
            if grade.verdict is not Verdict.CORRECT
        ),
        chains=len(with_chain),
        failing=tuple(
            FailingGold(split, problem, grade.why)
            for (split, problem), grade in zip(with_chain, grades, strict=True)
            if grade.verdict is not Verdict.CORRECT
        ),
    )


def _completion(problem: Problem, form: CotForm) -> str:
    chain = problem.chains[form]
    return chain if form == "pcot" else f"{chain}\n{ANSWER_TRIGGER} {answer_text(problem)}"

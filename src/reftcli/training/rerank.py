"""`reft rerank`: graded samples on training problems, a reward model from them, its pick among K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from reftcli.errors import DataError
from reftcli.evaluation.collecting import collect, drawn_differently, on_main
from reftcli.evaluation.experiment import Experiment, chosen, open_experiment
from reftcli.evaluation.fingerprints import question_fingerprint
from reftcli.evaluation.reward_scores import Scores, score_completions, score_samples
from reftcli.evaluation.samples import SampleRecord, iter_samples, read_samples
from reftcli.evaluation.saved import Origin, SavedEvaluation, saved_evaluations
from reftcli.evaluation.stages import (
    Evaluation,
    evaluate,
    evaluation_identity,
    grader_file,
    with_reranking,
)
from reftcli.evaluation.trained_on import write_trained_on
from reftcli.grading.interface import Verdict
from reftcli.metrics.calibration import Calibration, calibration
from reftcli.metrics.ranking import auc
from reftcli.models.load import load_classifier
from reftcli.models.source import ModelSource, resolve_model
from reftcli.models.verifier import Classifier, save_classifier
from reftcli.problems.record import Problem
from reftcli.recipe.batches import check_shares
from reftcli.runs.folder import Run
from reftcli.runs.progress import Progress
from reftcli.runs.ranks import Ranks
from reftcli.sampling.interface import Decode
from reftcli.training.reward_model import LabelledCompletion, held_out, labelled, share_correct, train_reward_model
from reftcli.training.saving import folder_of_all
from reftcli.training.stages import StageRequest, stage_run

_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Judged:
    """How well p(correct) tells right samples from wrong ones, and how well it says how sure it is.

    ``auc``: None where all samples have one label.
    """

    samples: int
    share_correct: float
    auc: float | None
    calibration: Calibration | None

    @classmethod
    def of(cls, correct: Sequence[bool], scores: Sequence[float]) -> Judged:
        return cls(
            samples=len(correct),
            share_correct=sum(correct) / max(len(correct), 1),
            auc=auc(correct, scores),
            calibration=calibration(correct, scores),
        )

    def to_json(self) -> dict[str, Any]:
        """``{"samples", "share_correct", "auc", "brier", "ece", "reliability"}``."""
        row: dict[str, Any] = {"samples": self.samples, "share_correct": self.share_correct, "auc": self.auc}
        return {**row, **(self.calibration.to_json() if self.calibration else {})}


@dataclass(frozen=True, slots=True)
class RerankOutcome:
    """The reward model in numbers, and the evaluation with rerank@k.

    ``held_out``: samples like those that it was trained on, of other training problems. ``candidates``: those that it
    picked among, on problems that it never saw.
    """

    training_samples: int
    share_correct: float
    held_out: Judged
    candidates: Judged
    evaluation: Evaluation

    @property
    def held_out_auc(self) -> float | None:
        return self.held_out.auc

    def reward_model(self) -> dict[str, Any]:
        """All but the evaluation, for ``--json`` and ``run.json``."""
        return {
            "training_samples": self.training_samples,
            "share_correct": self.share_correct,
            "held_out_samples": self.held_out.samples,
            "held_out_auc": self.held_out.auc,
            "held_out": self.held_out.to_json(),
            "candidates": self.candidates.to_json(),
        }


def rerank_stage(
    request: StageRequest, warmup_source: ModelSource, policy: Run, progress: Progress
) -> tuple[Run, RerankOutcome]:
    """Runs the stage. A resumed run goes on with the samples that it has, and trains from the start.

    Args:
        request: starts from the policy whose candidates are picked from; the reward model is initialised with it.
        warmup_source: the model whose samples are labelled, unless `rerank.samples_from` says otherwise.
        policy: its run; saved samples on the test split are taken from there if they are what would be drawn.

    Raises:
        DataError: a training problem is also a test problem, or all samples have one label.
    """
    recipe, sets, ranks = request.recipe, request.sets, request.ranks
    check_shares(recipe, "rerank", ranks.count)
    _refuse_overlap(sets.train, sets.test)
    run = stage_run(request, "rerank", reward_model_of=warmup_source.target)
    with run.recorded():
        rows = labelled(_training_samples(run, request, warmup_source, progress))
        training, kept_out = held_out(rows, _HELD_OUT_SHARE, recipe.seed)
        with open_experiment(recipe, sets, request.source, progress) as experiment:
            classifier = _trained(run, request, experiment, training)
            judged = _judged(experiment, classifier, kept_out, ranks)
            records, origin = _candidates(run, experiment, policy, ranks)
            scores = _scores(experiment, classifier, records, ranks)
            evaluation = on_main(
                ranks, lambda: with_reranking(run, experiment, sets.test, records, scores, "test", origin)
            )
        outcome = RerankOutcome(
            len(training), share_correct(training), judged, _judged_candidates(records, scores), evaluation
        )
        run.update_record(outcome=outcome.reward_model())
    return run, outcome


def _refuse_overlap(train: Sequence[Problem], test: Sequence[Problem]) -> None:
    questions = {question_fingerprint(problem.question) for problem in train}
    shared = [problem for problem in test if question_fingerprint(problem.question) in questions]
    if shared:
        raise DataError(
            f"{len(shared)} test problems are also training problems (first: {shared[0].item_id}); a reward model must "
            "not be tested on problems it was trained on: see `reft data check`"
        )


def _training_samples(
    run: Run, request: StageRequest, warmup_source: ModelSource, progress: Progress
) -> list[SampleRecord]:
    """Graded completions for training problems, of the models that `rerank.samples_from` names."""
    sources = {"train": warmup_source, "train-policy": request.source}
    if request.recipe.rerank.samples_from == "warmup" or warmup_source.target == request.source.target:
        del sources["train-policy"]
    elif request.recipe.rerank.samples_from == "policy":
        del sources["train"]
    records: list[SampleRecord] = []
    for label, source in sources.items():
        file = run.samples_file(label)
        if request.ranks.from_main(file.is_file()):  # of the run that is resumed
            records += read_samples(file)
            continue
        with open_experiment(request.recipe, request.sets, source, progress) as experiment:
            run.write_json(grader_file(file), experiment.grader.spec)
            records += _sampled(experiment, run, label, request.ranks)
    return records


def _sampled(experiment: Experiment, run: Run, label: str, ranks: Ranks) -> list[SampleRecord]:
    recipe = experiment.recipe
    problems = chosen(experiment.sets.train, recipe.rerank.problems, recipe.seed)
    settings = recipe.sampling
    decode = Decode(
        "sampled",
        settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        seed=recipe.seed,
    )
    n, file = recipe.rerank.samples_per_problem, run.samples_file(label)
    return collect(experiment, problems, "train", n, decode, file, ranks)


def _trained(run: Run, request: StageRequest, experiment: Experiment, rows: Sequence[LabelledCompletion]) -> Classifier:
    """The reward model, trained and saved with what it must not be tested on."""
    recipe, loaded, ranks = request.recipe, experiment.loaded, request.ranks
    ranks.is_at("training of the reward model")
    torch.manual_seed(recipe.seed)  # the layer of a classifier is new
    classifier = load_classifier(request.source, loaded.pad_token_id, recipe.rerank.scorer)
    engine = train_reward_model(
        classifier,
        loaded.tokenizer,
        rows,
        recipe.rerank,
        recipe.model,
        recipe.seed,
        run.checkpoints,
        experiment.progress,
        ranks,
    )
    weights = engine.weights(classifier, wanted=ranks.is_main) if engine else None
    with folder_of_all(run.final, ranks) as aside:
        if ranks.is_main:
            save_classifier(aside, classifier, loaded.tokenizer, weights)
            seen = {row.item_id for row in rows}
            write_trained_on(aside, (problem.question for problem in request.sets.train if problem.item_id in seen))
    if weights is None:
        return classifier
    # DeepSpeed has divided it, and would divide what is loaded now.
    unset_hf_deepspeed_config()
    return load_classifier(resolve_model(str(run.final)), loaded.pad_token_id).eval()


def _judged(experiment: Experiment, classifier: Classifier, rows: Sequence[LabelledCompletion], ranks: Ranks) -> Judged:
    recipe = experiment.recipe
    own = [(row.prompt, row.completion) for row in rows[ranks.rank :: ranks.count]]
    with experiment.progress.task("held-out samples", len(own), "completion") as task:
        scores = score_completions(
            classifier, experiment.loaded.tokenizer, own, recipe.model, recipe.sampling.batch_size, task
        )
    everybodys = ranks.gather(scores)
    return Judged.of(
        [row.correct for row in rows], [everybodys[i % ranks.count][i // ranks.count] for i in range(len(rows))]
    )


def _scores(experiment: Experiment, classifier: Classifier, records: Sequence[SampleRecord], ranks: Ranks) -> Scores:
    """p(correct) of all candidates."""
    recipe, tokenizer, size = experiment.recipe, experiment.loaded.tokenizer, experiment.recipe.sampling.batch_size
    return score_samples(classifier, tokenizer, records, recipe.model, size, experiment.progress, ranks)


def _judged_candidates(records: Sequence[SampleRecord], scores: Scores) -> Judged:
    graded = [r for r in records if r.decoding == "sampled" and r.verdict is not Verdict.UNGRADABLE]
    return Judged.of(
        [r.verdict is Verdict.CORRECT for r in graded], [scores[r.item_id, r.sample_index] for r in graded]
    )


def _candidates(run: Run, experiment: Experiment, policy: Run, ranks: Ranks) -> tuple[list[SampleRecord], Origin]:
    """The policy's samples on the test split, K for each problem: saved ones if they are what is wanted, or new."""
    recipe, test = experiment.recipe, experiment.sets.test
    k = recipe.rerank.k or recipe.sampling.k
    saved = on_main(ranks, lambda: _saved_candidates(run, experiment, policy, k))
    if saved is None:
        drawn = evaluate(run, experiment, test, "test", k, "candidates", ranks=ranks)
        return read_samples(drawn.samples_file), drawn.origin
    wanted = (r for r in iter_samples(saved.samples_file) if r.decoding == "greedy" or r.sample_index < k)
    return list(wanted), saved.origin


def _saved_candidates(run: Run, experiment: Experiment, policy: Run, k: int) -> SavedEvaluation | None:
    """The newest evaluation with K samples of these weights on these problems: of the policy's run, or, where this run
    is resumed, its own. Says why not where there is none.
    """
    identity = evaluation_identity(experiment, experiment.sets.test, "test", k)
    reasons = []
    for saved in (*saved_evaluations(run, "candidates"), *saved_evaluations(policy, "test")):
        why = drawn_differently(saved.origin.identity, identity)
        if saved.samples_per_problem < k:
            why = f"{saved.samples_per_problem} a problem, {k} are wanted"
        if not why:
            experiment.progress.say(f"candidates: those in {saved.samples_file}")
            return saved
        reasons.append(f"candidates are drawn anew: those in {saved.samples_file} are others ({why})")
    for newest in reasons[:1]:
        experiment.progress.say(newest)
    return None

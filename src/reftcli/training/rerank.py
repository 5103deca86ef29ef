"""`reft rerank`: samples of the warm-up model on training problems, a reward model from them, its pick among K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reftcli.errors import DataError
from reftcli.evaluation.experiment import Experiment, chosen, open_experiment
from reftcli.evaluation.reward_scores import score_completions, score_samples
from reftcli.evaluation.samples import SampleRecord, newest_samples, read_samples
from reftcli.evaluation.stages import Evaluation, collect, evaluate, grader_file, with_reranking
from reftcli.metrics.ranking import auc
from reftcli.models.load import load_classifier, save_model
from reftcli.models.source import ModelSource
from reftcli.problems.record import Problem
from reftcli.runs.files import folder_written_aside, write_json
from reftcli.runs.folder import Run
from reftcli.runs.progress import Progress
from reftcli.sampling.interface import Decode
from reftcli.training.reward_model import LabelledCompletion, held_out, labelled, train_reward_model
from reftcli.training.stages import StageRequest, new_run

_HELD_OUT_SHARE = 0.1
_SAMPLES_PER_CHUNK = 512


@dataclass(frozen=True, slots=True)
class RerankOutcome:
    """The reward model in numbers, and the evaluation with rerank@k."""

    training_samples: int
    share_correct: float
    held_out_samples: int
    held_out_auc: float | None
    evaluation: Evaluation


def rerank_stage(
    request: StageRequest, warmup_source: ModelSource, policy: Run, progress: Progress
) -> tuple[Run, RerankOutcome]:
    """Runs the stage.

    Args:
        request: starts from the policy whose candidates are picked from; the reward model is initialised with it.
        warmup_source: samples the labelled completions.
        policy: its run; saved samples on the test split are taken from there if there are enough per problem.

    Raises:
        DataError: a training problem is also a test problem, or all samples have one label.
    """
    recipe, sets = request.recipe, request.sets
    _refuse_overlap(sets.train, sets.test)
    run = new_run(request, "rerank", reward_model_of=warmup_source.target)
    with run.recorded():
        with open_experiment(recipe, sets, warmup_source, progress) as warmup:
            records = _training_samples(run, warmup)
        rows = labelled(records)
        training, kept_out = held_out(rows, _HELD_OUT_SHARE, recipe.seed)
        with open_experiment(recipe, sets, request.source, progress) as experiment:
            loaded = experiment.loaded
            torch.manual_seed(recipe.seed)  # the classifier's head is new
            classifier = load_classifier(request.source, loaded.pad_token_id)
            train_reward_model(
                classifier,
                loaded.tokenizer,
                training,
                recipe.rerank,
                recipe.model,
                recipe.seed,
                run.folder / "checkpoints",
                progress,
            )
            with folder_written_aside(run.final) as aside:
                save_model(aside, classifier, loaded.tokenizer)
            found = _auc(experiment, classifier, kept_out)
            records = _candidates(run, experiment, policy)
            scores = score_samples(
                classifier,
                loaded.tokenizer,
                records,
                recipe.model,
                recipe.sampling.batch_size,
                progress,
            )
            evaluation = with_reranking(run, experiment, sets.test, records, scores, "test")
        share = sum(row.correct for row in training) / len(training)
        outcome = RerankOutcome(len(training), share, len(kept_out), found, evaluation)
        run.update_record(
            outcome={
                "training_samples": len(training),
                "share_correct": share,
                "held_out_samples": len(kept_out),
                "held_out_auc": found,
            }
        )
    return run, outcome


def _refuse_overlap(train: Sequence[Problem], test: Sequence[Problem]) -> None:
    questions = {problem.question for problem in train}
    shared = [problem for problem in test if problem.question in questions]
    if shared:
        raise DataError(
            f"{len(shared)} test problems are also training problems (first: {shared[0].item_id}); a reward model must "
            "not be tested on problems it was trained on: see `reft data check`"
        )


def _training_samples(run: Run, warmup: Experiment) -> list[SampleRecord]:
    """Completions of the warm-up model for training problems, graded; saved as they come."""
    settings, sampling = warmup.recipe.rerank, warmup.recipe.sampling
    problems = chosen(warmup.sets.train, settings.problems, warmup.recipe.seed)
    n = settings.samples_per_problem
    decode = Decode("sampled", sampling.max_new_tokens, temperature=sampling.temperature, seed=warmup.recipe.seed)
    file = run.samples_file("train")
    write_json(grader_file(file), warmup.grader.spec)
    return collect(warmup, problems, "train", n, decode, file)


def _auc(experiment: Experiment, classifier: torch.nn.Module, rows: Sequence[LabelledCompletion]) -> float | None:
    recipe = experiment.recipe
    scores = score_completions(
        classifier, experiment.loaded.tokenizer, [row.text for row in rows], recipe.model, recipe.sampling.batch_size
    )
    return auc([row.correct for row in rows], scores)


def _candidates(run: Run, experiment: Experiment, policy: Run) -> list[SampleRecord]:
    """The policy's samples on the test split, K for each problem: the saved ones, or new ones."""
    recipe, test = experiment.recipe, experiment.sets.test
    k = recipe.rerank.k or recipe.sampling.k
    saved = newest_samples(policy, "test", samples_per_problem=k)
    if saved is not None:
        records = read_samples(saved)
        if {record.item_id for record in records} == {problem.item_id for problem in test}:
            return [record for record in records if record.decoding == "greedy" or record.sample_index < k]
    fresh = evaluate(run, experiment, test, "test", k, "candidates")
    return read_samples(fresh.samples_file)

"""Rows of samples counted problem by problem: some 30 bytes a sample, whatever the length of its text."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from reftcli.errors import DataError
from reftcli.evaluation.samples import SampleRecord
from reftcli.grading.interface import Verdict
from reftcli.sampling.interface import Decoding

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

_NO_ANSWER = -1
_NAN = float("nan")


class Tally:
    """What the votes of one problem need. Arrays have one entry a sample, in the order of the sample indices."""

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self.greedy: bool | None = None
        """Whether the greedy answer is correct; None where there is none."""
        self._texts: dict[str, int] = {}
        self._index, self._answer, self._correct = array("q"), array("q"), array("b")
        self._logprob, self._score = array("d"), array("d")

    def add(self, record: SampleRecord) -> None:
        """Counts one row of this problem."""
        correct = record.verdict is Verdict.CORRECT
        if record.decoding == "greedy":
            if self.greedy is not None:
                raise _twice(self.item_id, "greedy completion")
            self.greedy = correct
            return
        answer = _NO_ANSWER
        if record.answered:
            answer = self._texts.setdefault(cast(str, record.predicted_answer), len(self._texts))
        self._index.append(record.sample_index)
        self._answer.append(answer)
        self._correct.append(correct)
        self._logprob.append(_NAN if record.logprob is None else record.logprob)
        self._score.append(_NAN if record.rm_score is None else record.rm_score)

    def sort(self) -> None:
        """Brings the samples into the order of their indices.

        Raises DataError for a sample that occurs twice.
        """
        index = np.array(self._index)
        order = np.argsort(index, kind="stable")
        same = np.flatnonzero(np.diff(index[order]) == 0)
        if same.size:
            raise _twice(self.item_id, f"sample {index[order][same[0]]}")
        for name in ("_index", "_answer", "_correct", "_logprob", "_score"):
            column: array[float] = getattr(self, name)
            setattr(self, name, array(column.typecode, np.array(column)[order].tolist()))

    @property
    def samples(self) -> int:
        return len(self._index)

    @property
    def right(self) -> int:
        """Samples that are correct."""
        return sum(self._correct)

    @property
    def correct(self) -> BoolArray:
        return np.array(self._correct, dtype=np.bool_)

    @property
    def answered(self) -> BoolArray:
        """Which samples vote."""
        voted: BoolArray = np.array(self._answer, dtype=np.int64) != _NO_ANSWER
        return voted

    @property
    def answers(self) -> list[str | None]:
        texts: list[str | None] = [*self._texts, None]  # None is the last one: where -1 points
        return [texts[place] for place in self._answer]

    @property
    def logprobs(self) -> FloatArray:
        """In nats, not a number where it was not computed."""
        return np.array(self._logprob)

    @property
    def rm_scores(self) -> FloatArray:
        """The reward model's p(correct), not a number where there is none."""
        return np.array(self._score)

    @property
    def has_scores(self) -> bool:
        return any(score == score for score in self._score)  # noqa: PLR0124 - not a number differs from itself


class TallyBook:
    """The tallies of all problems."""

    def __init__(self) -> None:
        self.ungradable: set[str] = set()
        self._tallies: dict[str, Tally] = {}
        self._verdicts: Counter[tuple[Decoding, Verdict]] = Counter()

    @classmethod
    def of(cls, records: Iterable[SampleRecord]) -> TallyBook:
        """Counts rows in any order."""
        book = cls()
        for record in records:
            book.add(record)
        return book

    def add(self, record: SampleRecord) -> None:
        """Counts one row."""
        tally = self._tallies.get(record.item_id)
        if tally is None:
            tally = self._tallies[record.item_id] = Tally(record.item_id)
        tally.add(record)
        self._verdicts[record.decoding, record.verdict] += 1
        if record.verdict is Verdict.UNGRADABLE:
            self.ungradable.add(record.item_id)

    def sorted(self) -> list[Tally]:
        """All problems by their id, each with its samples in order.

        Raises DataError for a sample that occurs twice.
        """
        for tally in self._tallies.values():
            tally.sort()
        return [self._tallies[item_id] for item_id in sorted(self._tallies)]

    @property
    def samples_per_problem(self) -> int:
        """The most that any problem has."""
        return max((tally.samples for tally in self._tallies.values()), default=0)

    def verdict_counts(self) -> dict[Decoding, dict[str, int]]:
        """Decoding -> verdict -> rows."""
        decodings = cast(tuple[Decoding, ...], get_args(Decoding))
        return {
            decoding: {str(verdict): self._verdicts[decoding, verdict] for verdict in Verdict}
            for decoding in decodings
            if any(self._verdicts[decoding, verdict] for verdict in Verdict)
        }


def _twice(item_id: str, which: str) -> DataError:
    return DataError(f"problem {item_id} has {which} twice; give the rows of one evaluation only")

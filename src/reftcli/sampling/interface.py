"""What a sampler is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from reftcli.problems.prompts import Prompt

Decoding = Literal["greedy", "sampled"]


@dataclass(frozen=True, slots=True)
class Decode:
    """How completions are drawn.

    ``stream`` separates draws that must differ (RL uses the update's number): the random numbers of a completion
    depend only on (seed, stream, item_id, sample index), never on batching or order.
    """

    decoding: Decoding
    max_new_tokens: int
    max_total_tokens: int | None = None
    """Limit of prompt and completion together; whichever limit is reached first ends a completion."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stream: int = 0
    first_sample: int = 0
    """Index of the first of the ``n`` samples: the samples of a problem can be drawn in several calls."""

    def sample_indices(self, n: int) -> range:
        """Of the ``n`` samples that a call draws."""
        return range(self.first_sample, self.first_sample + n)


@dataclass(frozen=True, slots=True)
class Completion:
    """Generated tokens, EOS included where the model ended by itself (``ended``).

    ``logprobs``: log pi(token | before) for each token, at the sampling temperature, before top-k and top-p;
    ``entropies``: of the distribution each token came from, likewise; ``values``: V(before) for each token. Each is
    empty where the sampler does not give it.
    """

    prompt: Prompt
    sample_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    values: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()

    @property
    def total_tokens(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt.token_ids) + len(self.token_ids)

    @property
    def logprob(self) -> float | None:
        """Log-probability of the whole completion, in nats; None where the sampler gave none."""
        return sum(self.logprobs) if len(self.logprobs) == len(self.token_ids) else None


class Sampler(Protocol):
    """Anything that can complete prompts."""

    def sample(
        self, prompts: Sequence[Prompt], n: int, decode: Decode, on_done: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """``n`` completions of each prompt: all of the first prompt, then of the second, and so on.

        Args:
            on_done: called with the number of completions that just ended, for a progress bar.
        """
        ...

    def weights_changed(self) -> None:
        """Whoever changes the model's weights says so here: a sampler may keep a copy of them."""
        ...

    def close(self) -> None:
        """Gives back what the sampler holds beside the model."""
        ...

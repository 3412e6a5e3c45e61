"""The next tokens of a batch by the compiled kernels: those of engine/sampler.py, without its passes over a vocabulary.

Where rounding alone would decide, or logits are no numbers, the compiled sampler says so, and torch draws that row.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from ctypes import addressof, c_double, c_int64
from typing import Final

from torch import Tensor

from tandem_runtime.contracts.sampling import uniform
from tandem_runtime.engine.sampler import Drawn, Place, sample
from tandem_runtime.ops.native import Native
from tandem_runtime.ops.native_structs import ChoiceStruct, ChosenStruct

UNDECIDED: Final = -1


def sample_compiled(native: Native, logits: Tensor, places: Sequence[Place], ends: Sequence[int] = ()) -> Drawn:
    """float32 [rows, vocab], contiguous, one place for each row. `ends`: ids of the end of text. Leaves `logits` as
    they are. Log probabilities are in double precision, where torch's are float32."""
    drawn = choose(native, logits, places, ends)
    left = [row for row, token in enumerate(drawn.ids) if token == UNDECIDED]
    if left:
        again = sample(logits[left], [places[row] for row in left], ends)
        for row, token, logprob, others in zip(left, again.ids, again.logprobs, again.alternatives, strict=True):
            drawn.ids[row], drawn.logprobs[row], drawn.alternatives[row] = token, logprob, others
    return drawn


def choose(native: Native, logits: Tensor, places: Sequence[Place], ends: Sequence[int]) -> Drawn:
    """As sample_compiled, but ids are UNDECIDED where torch has to draw."""
    rows = len(places)
    if not rows:
        return Drawn()
    kept: list[array[int] | array[float]] = []  # what the structures point at
    choices = (ChoiceStruct * rows)(*(_describe(place, ends, kept) for place in places))
    wanted = [place.sampling.logprobs for place in places]
    most = max((count or 0 for count in wanted), default=0)
    ids, logprobs = (c_int64 * rows)(), (c_double * rows)()
    others, certain = (c_int64 * (rows * most))(), (c_double * (rows * most))()
    chosen = ChosenStruct(addressof(ids), addressof(logprobs), most, addressof(others), addressof(certain))
    native.choose_rows(logits, choices, chosen)
    drawn = Drawn(list(ids), [None] * rows, [[] for _ in places])
    for row, count in enumerate(wanted):
        if count is not None:
            places_of_row = range(row * most, row * most + min(count, logits.shape[1]))
            drawn.logprobs[row] = logprobs[row]
            drawn.alternatives[row] = [(others[at], certain[at]) for at in places_of_row]
    return drawn


def _describe(place: Place, ends: Sequence[int], kept: list[array[int] | array[float]]) -> ChoiceStruct:
    sampling, index = place.sampling, place.output_index
    choice = ChoiceStruct(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        number=uniform(sampling.seed, index) if sampling.temperature > 0 else 0.0,
        top_k=min(sampling.top_k, 1 << 62),
        alternatives=-1 if sampling.logprobs is None else sampling.logprobs,
    )
    if not sampling.changes_logits:
        return choice

    def point(kind: str, numbers: Sequence[int] | Sequence[float]) -> tuple[int, int]:
        kept.append(array(kind, numbers))
        return kept[-1].buffer_info()

    if sampling.counts_tokens and place.tokens:
        choice.repetition, choice.frequency = sampling.repetition_penalty, sampling.frequency_penalty
        choice.presence, choice.answered = sampling.presence_penalty, index
        choice.tokens, choice.token_count = point("q", place.tokens)
    if sampling.logit_bias:
        choice.biased, choice.biased_count = point("q", [token for token, _ in sampling.logit_bias])
        choice.biases, _ = point("d", [bias for _, bias in sampling.logit_bias])
    if index < sampling.min_tokens:
        choice.barred, choice.barred_count = point("q", [*ends, *sampling.stop_token_ids])
    return choice

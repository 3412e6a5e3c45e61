"""An executor without a model: sleeps the time of the coefficients, answers with ids derived from the prompt.

Its pages hold what real KV depends on, the tokens so far, so that a wrong, late or missing page is noticed.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.contracts.hashing import prompt_digest
from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.contracts.sampling import Alternatives
from tandem_runtime.engine.executor import (
    Capacity,
    ModelError,
    Plan,
    SequenceError,
    SequenceStep,
    StepResult,
    first_page,
)
from tandem_runtime.engine.speculation import count_held
from tandem_runtime.text.byte_tokenizer import EOS, PRINTABLE_IDS, VOCAB_SIZE, ByteTokenizer

DIGEST_BYTES: Final = 16
COUNT_BYTES: Final = 4
KV_SCALE: Final = 1 / 64
"""Share of the real payload that is sent: a laptop's loopback carries what 64 links of a fleet would."""
ENDS_FROM: Final = 512
"""An answer ends itself after this many tokens and up to as many more, unless it is told to ignore that."""
LOGPROB: Final = -0.5
"""Of every token. Emulated ids depend on prompt and place alone: temperature, filters, penalties and bias are taken in
and change nothing; lengths, ends and stop ids are honoured."""

ZERO = bytes(DIGEST_BYTES)


@dataclass(slots=True)
class Page:
    """Digest of all tokens before the page, and the page's own. Not `intact`: it came garbled."""

    before: bytes = ZERO
    tokens: array[int] = field(default_factory=lambda: array("I"))
    intact: bool = True

    def after(self) -> bytes:
        """Digest of all tokens up to the end of the page."""
        return blake2b(self.before + self.tokens.tobytes(), digest_size=DIGEST_BYTES).digest()


class EmulatedExecutor:
    """Memory does not grow with `kv_scale`: payloads are made when they are sent."""

    def __init__(
        self,
        coefficients: Coefficients,
        *,
        max_context_tokens: int = 131072,
        kv_scale: float = KV_SCALE,
        page_tokens: int = 32,
        load_seconds: float = 0.0,
        window_tokens: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coefficients = coefficients
        self._max_context_tokens = max_context_tokens
        self._page_tokens = page_tokens
        self._load_seconds = load_seconds
        self._window_tokens = window_tokens
        self._sleep, self._clock = sleep, clock
        smallest = DIGEST_BYTES + COUNT_BYTES + 4 * page_tokens
        self._page_bytes = max(smallest, int(page_tokens * coefficients.kv_bytes_per_token * kv_scale))
        self._pages: dict[int, Page] = {}
        self._foreign: set[int] = set()
        self._seen: dict[int, tuple[int, int]] = {}
        """Last page of a sequence -> (prompt digest, position that comes next): already compared up to there."""

    def load(self) -> Capacity:
        """Takes `load_seconds`, none by default."""
        self._sleep(self._load_seconds)
        known = self._coefficients
        if known.kv_tokens < self._page_tokens:
            raise ModelError(f"coefficients say kv_tokens {known.kv_tokens}; at least {self._page_tokens} are needed")
        layout = Layout(1, 1, 1, self._page_tokens, "emulated", self._page_bytes)
        facts = f"emulated {known.kv_bytes_per_token} {self._page_tokens} {self._page_bytes} {self._window_tokens}"
        return Capacity(
            pages=known.kv_tokens // self._page_tokens,
            page_tokens=self._page_tokens,
            max_sequences=known.max_sequences,
            max_context_tokens=self._max_context_tokens,
            vocab_size=VOCAB_SIZE,
            eos_token_ids=ByteTokenizer.eos_token_ids,
            layout=layout,
            compat_hash=blake2b(facts.encode(), digest_size=16).hexdigest(),
            window_tokens=self._window_tokens,
        )

    def execute(self, plan: Plan) -> StepResult:
        """Raises SequenceError when a sequence's pages do not hold the tokens that they should."""
        started = self._clock()
        ids = [token for index, step in enumerate(plan.sequences) for token in self._run(index, step)]
        self._sleep(max(0.0, self._seconds(plan) - (self._clock() - started)))
        samplings = [step.sampling for step in plan.sequences for _ in range(step.rows)]
        wanted = [None if sampling is None else sampling.logprobs for sampling in samplings]
        logprobs = [None if count is None else LOGPROB for count in wanted]
        alternatives = [self._alternatives(token, count) for token, count in zip(ids, wanted, strict=True)]
        return StepResult(ids, logprobs, self._clock() - started, alternatives if any(wanted) else [])

    def _alternatives(self, token: int | None, count: int | None) -> Alternatives:
        """The token and its neighbours in the vocabulary, each less likely by LOGPROB: made up, but well formed."""
        if token is None or not count:
            return []
        return [((token + other) % VOCAB_SIZE, LOGPROB * (other + 1)) for other in range(count)]

    def _seconds(self, plan: Plan) -> float:
        decoding = [s for s in plan.sequences if len(s.token_ids) == s.rows and s.output_index > 0]
        chunks = [s for s in plan.sequences if not (len(s.token_ids) == s.rows and s.output_index > 0)]
        seconds = sum(self._coefficients.prefill_seconds(len(s.token_ids), s.position) for s in chunks)
        if decoding:
            seconds += self._coefficients.step_seconds(len(decoding), sum(s.position for s in decoding))
        return seconds

    def _run(self, index: int, step: SequenceStep) -> list[int | None]:
        if step.position and not self._is_known(step):
            self._compare(index, step)
        self._store(index, step)
        tokens = [None if step.sampling is None else self._token(step, row) for row in range(step.rows)]
        own = len(step.token_ids) - step.drafts
        position = step.position + own + count_held(step.token_ids[own:], tokens)
        last = step.pages[(position - 1) // self._page_tokens]
        self._seen[last] = (step.prompt_digest, position)
        if position % self._page_tokens == 0 and step.output_index > 0:
            self._seen.pop(last)  # once a page all is compared again: a late write would show
        return tokens

    def _is_known(self, step: SequenceStep) -> bool:
        page = step.pages[(step.position - 1) // self._page_tokens]
        known = self._seen.get(page) == (step.prompt_digest, step.position)
        return known and self._foreign.isdisjoint(step.pages)

    def _compare(self, index: int, step: SequenceStep) -> None:
        """What the pages hold must be one chain, of the right length, that starts with the prompt; with a window, as
        far back as a model with one would look."""
        held: array[int] = array("I")
        first = first_page(step.position, self._window_tokens, self._page_tokens)
        before = None if first else ZERO
        for number in range(first, -(-step.position // self._page_tokens)):
            page = self._pages.get(step.pages[number])
            if page is None or not page.intact or (before is not None and page.before != before):
                raise SequenceError(index, self._complaint(step, number, "is not the page of this sequence"))
            before = page.after()
            held.extend(page.tokens[: step.position - first * self._page_tokens - len(held)])
            self._foreign.discard(step.pages[number])
        end = first * self._page_tokens + len(held)
        if end != step.position:
            raise SequenceError(index, self._complaint(step, len(step.pages) - 1, f"ends at token {end}"))
        prompt = step.position + len(step.token_ids) - step.drafts - step.output_index
        if first == 0 and 0 < prompt <= len(held) and prompt_digest(held[:prompt]) != step.prompt_digest:
            raise SequenceError(index, self._complaint(step, 0, "starts another prompt"))

    def _complaint(self, step: SequenceStep, number: int, what: str) -> str:
        page = step.pages[number]
        return f"page {page}, number {number} of the sequence, {what} (position {step.position}); its KV is wrong"

    def _store(self, index: int, step: SequenceStep) -> None:
        for offset, token in enumerate(step.token_ids):
            number, slot = divmod(step.position + offset, self._page_tokens)
            if slot == 0:
                before = self._pages[step.pages[number - 1]].after() if number else ZERO
                self._pages[step.pages[number]] = Page(before)
            page = self._pages.get(step.pages[number])
            if page is None or len(page.tokens) < slot:
                raise SequenceError(index, self._complaint(step, number, f"has no token at slot {slot - 1}"))
            del page.tokens[slot:]
            page.tokens.append(token)

    def _token(self, step: SequenceStep, row: int = 0) -> int:
        output_index = step.output_index + row
        seed = f"{step.prompt_digest} {output_index}".encode()
        drawn = int.from_bytes(blake2b(seed, digest_size=4).digest(), "little")
        if output_index >= ENDS_FROM + step.prompt_digest % ENDS_FROM:
            sampling = step.sampling
            if sampling is not None and not sampling.ignore_eos and output_index >= sampling.min_tokens:
                return EOS
        return PRINTABLE_IDS[drawn % len(PRINTABLE_IDS)]

    def read_pages(self, pages: list[int], layer_first: int, layer_end: int) -> list[memoryview]:
        """Digest, count and tokens; the rest of the payload repeats the digest of all."""
        self._check_layers(layer_first, layer_end)
        return [self._payload(self._pages.get(page, Page())) for page in pages]

    def _payload(self, page: Page) -> memoryview:
        head = page.before + len(page.tokens).to_bytes(COUNT_BYTES, "little") + page.tokens.tobytes()
        return memoryview(head + self._filler(page, self._page_bytes - len(head)))[: self._page_bytes]

    def _filler(self, page: Page, size: int) -> bytes:
        """At least so much."""
        return page.after() * (size // DIGEST_BYTES + 1)

    def write_pages(self, pages: list[int], layer_first: int, layer_end: int, payloads: list[memoryview]) -> None:
        """Takes in what read_pages gave, elsewhere. Raises ValueError when a payload's size is wrong."""
        self._check_layers(layer_first, layer_end)
        for number, payload in zip(pages, payloads, strict=True):
            if len(payload) != self._page_bytes:
                raise ValueError(f"payload of {len(payload)} bytes for a page of {self._page_bytes}")
            start = DIGEST_BYTES + COUNT_BYTES
            count = int.from_bytes(payload[DIGEST_BYTES:start], "little")
            end = start + 4 * min(count, self._page_tokens)
            page = Page(bytes(payload[:DIGEST_BYTES]), array("I", bytes(payload[start:end])))
            page.intact = count <= self._page_tokens and self._filler(page, len(payload) - end).startswith(
                payload[end:]
            )
            self._pages[number] = page
            self._foreign.add(number)

    def _check_layers(self, layer_first: int, layer_end: int) -> None:
        if (layer_first, layer_end) != (0, 1):
            raise ValueError(f"layers {layer_first} to {layer_end}; an emulated page has one layer")

    def close(self) -> None:
        """Forgets the pages."""
        self._pages.clear()

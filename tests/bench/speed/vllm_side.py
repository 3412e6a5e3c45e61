"""Runs in the peer's environment: vLLM on a CPU, told on stdin what to measure, answers on stdout, one JSON a line.

It imports nothing of Tandem. Usage: python vllm_side.py CHECKPOINT
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what vLLM prints must not end up between the answers
    started = time.monotonic()
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=sys.argv[1],
        dtype="bfloat16",
        max_model_len=2048,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )

    def generate(prompts: list[list[int]], tokens: int) -> float:
        sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        begin = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        taken = time.perf_counter() - begin
        assert all(len(output.outputs[0].token_ids) == tokens for output in outputs)
        return taken

    generate([[5, 6, 7]], 2)
    print(json.dumps({"ready_seconds": time.monotonic() - started}), file=answers)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        print(json.dumps({"seconds": generate(order["prompts"], order["tokens"])}), file=answers)


if __name__ == "__main__":
    main()

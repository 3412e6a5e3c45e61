// The choice of tokens from logits: engine/sampling_law.py, token for token. Mirrored in native_structs.py.
#pragma once

#include "kernels.h"

namespace tandem {

// How one row is chosen from; filters and penalties that do nothing are as contracts/sampling.py has them.
struct Choice {
    double temperature;  // 0: greedy
    double top_p, min_p;
    double number;  // the uniform one of seed and output index
    double repetition, frequency, presence;
    int64_t top_k;
    int64_t alternatives;    // -1: no log probabilities are wanted
    const int64_t* tokens;   // prompt and output so far, the last `answered` are output; what penalties count
    int64_t token_count, answered;
    const int64_t* biased;
    const double* biases;
    int64_t biased_count;
    const int64_t* barred;   // not to be drawn
    int64_t barred_count;
};

// Of each row. `ids` is -1 where rounding alone would decide, or the logits are no numbers: the reference is asked.
// Alternatives: `most` places for each row, most likely first, ties by id.
struct Chosen {
    int64_t* ids;
    double* logprobs;
    int64_t most;
    int64_t* others;
    double* other_logprobs;
};

void choose_rows(const Kernels& kernels, const float* logits, int64_t rows, int64_t count, const Choice* choices,
                 const Chosen& chosen);

}  // namespace tandem

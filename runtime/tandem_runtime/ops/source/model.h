// A decoder as data, and one step of it. The structures are mirrored in native_structs.py, field by field.
#pragma once

#include "kernels.h"

namespace tandem {

struct Layer {
    const float* attention_norm;
    Linear qkv;
    Linear output;
    const float* mlp_norm;
    Linear gate_up;
    Linear down;
    const float* query_norm;  // of one head; null: none
    const float* key_norm;
    int64_t window;  // 0: none
};

struct Model {
    int64_t hidden, inner, heads, kv_heads, head_dim, layer_count;
    const Layer* layers;
    const float* norm;
    const Linear* head;
    const bf16* embedding;  // row-major; null: the rows of the packed head
    const float* inverse_frequencies;
    float norm_eps, rope_scale;
};

struct Step {
    int64_t tokens, sequences, outputs;
    const int64_t* token_ids;
    const int64_t* positions;
    const int64_t* first_rows;   // of each sequence, and `tokens` at the end
    const int64_t* first_pages;  // of each sequence in `pages`, and their count at the end
    const int32_t* pages;
    const int64_t* output_rows;  // rows whose logits are wanted
    char* pool;
    int64_t page_bytes;
    int64_t kv_kind;  // of what pages hold: kBf16 or kInt8
    float* logits;  // [outputs, vocabulary]
};

// Where the time of a step goes; the order of `part_names`.
enum Part { kEmbed, kNorm, kQkv, kRope, kAttend, kOutput, kGateUp, kDown, kHead, kParts };

void run_step(const Kernels& kernels, const Model& model, const Step& step);
void run_linear(const Kernels& kernels, const Linear& weight, const float* x, int64_t rows, float* out);
extern double part_seconds[kParts];

}  // namespace tandem

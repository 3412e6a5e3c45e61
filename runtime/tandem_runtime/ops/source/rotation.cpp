#include <cmath>
#include <cstring>

#include "paged_attention.h"
#include "threads.h"

namespace tandem {

namespace {

inline bf16 round_to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<bf16>((bits >> 16) | 64);  // stays a NaN
    return static_cast<bf16>((bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16);
}

void rotate_head(float* head, const float* norm, float eps, const float* angles, int64_t dim, float scale) {
    if (norm != nullptr) {
        float squares = 0;
        for (int64_t at = 0; at < dim; ++at) squares += head[at] * head[at];
        const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
        for (int64_t at = 0; at < dim; ++at) head[at] *= inverse * norm[at];
    }
    const int64_t half = dim / 2;
    for (int64_t at = 0; at < half; ++at) {
        const float low = head[at], high = head[half + at], cos = angles[at], sin = angles[half + at];
        head[at] = (low * cos - high * sin) * scale;
        head[half + at] = (high * cos + low * sin) * scale;
    }
}

}  // namespace

void rotate(const Model& model, const Layer& layer, int64_t index, const Step& step, const float* angles, float* qkv) {
    const int64_t dim = model.head_dim, width = (model.heads + 2 * model.kv_heads) * dim;
    const int64_t plane = model.kv_heads * kPageTokens * dim;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    const auto one = [&](int64_t sequence, int64_t row) {
        float* from = qkv + row * width;
        const float* turn = angles + row * dim;
        for (int64_t head = 0; head < model.heads; ++head)
            rotate_head(from + head * dim, layer.query_norm, model.norm_eps, turn, dim, scale);
        const int64_t position = step.positions[row];
        const int64_t page = step.pages[step.first_pages[sequence] + position / kPageTokens];
        bf16* keys = reinterpret_cast<bf16*>(step.pool + page * step.page_bytes) + index * 2 * plane;
        keys += position % kPageTokens * dim;
        for (int64_t head = 0; head < model.kv_heads; ++head) {
            float* key = from + (model.heads + head) * dim;
            const float* value = from + (model.heads + model.kv_heads + head) * dim;
            rotate_head(key, layer.key_norm, model.norm_eps, turn, dim, 1.0f);
            bf16* to = keys + head * kPageTokens * dim;
            for (int64_t at = 0; at < dim; ++at) to[at] = round_to_bf16(key[at]), to[plane + at] = round_to_bf16(value[at]);
        }
    };
    for (int64_t sequence = 0; sequence < step.sequences; ++sequence) {
        const int64_t first = step.first_rows[sequence], rows = step.first_rows[sequence + 1] - first;
        for_each(rows, rows <= kFewRows, [&](int64_t row, int) { one(sequence, first + row); });
    }
}

}  // namespace tandem

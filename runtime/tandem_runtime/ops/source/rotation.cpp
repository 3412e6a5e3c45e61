#include <cmath>
#include <cstring>

#include "paged_attention.h"
#include "threads.h"

namespace tandem {

namespace {

constexpr float kTop = 127, kSmallest = 1e-30f;  // as in ops/kv_pages.py
constexpr float kRound = 12582912.0f;            // adding it rounds to an integer

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

// As ops/kv_pages.py defines it. A value that is no number makes the scale none: it is seen, not hidden.
void round_to_int8(const float* from, int64_t dim, int8_t* codes, float* scale) {
    float largest = kSmallest, rest = 0;
    for (int64_t at = 0; at < dim; ++at) {
        const float size = std::fabs(from[at]);
        largest = size > largest ? size : largest;
        rest += from[at] * 0.0f;
    }
    const float inverse = kTop / largest;
    for (int64_t at = 0; at < dim; ++at)
        codes[at] = static_cast<int8_t>(static_cast<int32_t>((from[at] * inverse + kRound) - kRound));
    *scale = largest / kTop + rest;
}

// One token's row into its slot of a plane.
void put(const float* from, int64_t dim, int64_t slot, int32_t kind, char* plane) {
    if (kind == kInt8) {
        float* scales = reinterpret_cast<float*>(plane + kPageTokens * dim);
        return round_to_int8(from, dim, reinterpret_cast<int8_t*>(plane) + slot * dim, scales + slot);
    }
    bf16* to = reinterpret_cast<bf16*>(plane) + slot * dim;
    for (int64_t at = 0; at < dim; ++at) to[at] = round_to_bf16(from[at]);
}

}  // namespace

void rotate(const Model& model, const Layer& layer, int64_t index, const Step& step, const float* angles, float* qkv) {
    const int64_t dim = model.head_dim, width = (model.heads + 2 * model.kv_heads) * dim;
    const int32_t kind = static_cast<int32_t>(step.kv_kind);
    const int64_t plane = plane_bytes(dim, kind);
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    const auto one = [&](int64_t sequence, int64_t row) {
        float* from = qkv + row * width;
        const float* turn = angles + row * dim;
        for (int64_t head = 0; head < model.heads; ++head)
            rotate_head(from + head * dim, layer.query_norm, model.norm_eps, turn, dim, scale);
        const int64_t position = step.positions[row], slot = position % kPageTokens;
        const int64_t page = step.pages[step.first_pages[sequence] + position / kPageTokens];
        char* keys = step.pool + page * step.page_bytes + index * 2 * model.kv_heads * plane;
        for (int64_t head = 0; head < model.kv_heads; ++head) {
            float* key = from + (model.heads + head) * dim;
            const float* value = from + (model.heads + model.kv_heads + head) * dim;
            rotate_head(key, layer.key_norm, model.norm_eps, turn, dim, 1.0f);
            put(key, dim, slot, kind, keys + head * plane);
            put(value, dim, slot, kind, keys + (model.kv_heads + head) * plane);
        }
    };
    for (int64_t sequence = 0; sequence < step.sequences; ++sequence) {
        const int64_t first = step.first_rows[sequence], rows = step.first_rows[sequence + 1] - first;
        for_each(rows, rows <= kFewRows, [&](int64_t row, int) { one(sequence, first + row); });
    }
}

}  // namespace tandem

// Attention of some queries over some pages: a page's keys are turned into columns and widened once for all of them.
// What lies in a page beyond the last token is never used, whatever it is.

constexpr float kNothing = -1e30f;

// out[rows][32] = a[rows][k] b[k][32]; three rows fill the registers.
template <int R>
static inline void multiply_rows(const float* const* a, const float* b, int64_t k, int64_t b_stride, F (*sum)[32 / W]) {
    for (int64_t at = 0; at < k; ++at) {
        F column[32 / W];
#pragma GCC unroll 8
        for (int part = 0; part < 32 / W; ++part) column[part] = load<F>(b + at * b_stride + part * W);
#pragma GCC unroll 3
        for (int row = 0; row < R; ++row)
#pragma GCC unroll 8
            for (int part = 0; part < 32 / W; ++part) sum[row][part] += column[part] * a[row][at];
    }
}

static inline void score(const float* const* query, int rows, const float* keys, int64_t head_dim, float* scores) {
    F sum[3][32 / W] = {};
    if (rows == 3)
        multiply_rows<3>(query, keys, head_dim, kPageTokens, sum);
    else if (rows == 2)
        multiply_rows<2>(query, keys, head_dim, kPageTokens, sum);
    else
        multiply_rows<1>(query, keys, head_dim, kPageTokens, sum);
    for (int row = 0; row < rows; ++row)
        for (int part = 0; part < 32 / W; ++part) save(scores + row * kPageTokens + part * W, sum[row][part]);
}

static inline void mix(const float* const* weights, int rows, const float* values, int64_t tokens, int64_t head_dim,
                       float* out) {
    int64_t at = 0;
    for (; at + 32 <= head_dim; at += 32) {
        F sum[3][32 / W];
        for (int row = 0; row < rows; ++row)
            for (int part = 0; part < 32 / W; ++part) sum[row][part] = load<F>(out + row * head_dim + at + part * W);
        if (rows == 3)
            multiply_rows<3>(weights, values + at, tokens, head_dim, sum);
        else if (rows == 2)
            multiply_rows<2>(weights, values + at, tokens, head_dim, sum);
        else
            multiply_rows<1>(weights, values + at, tokens, head_dim, sum);
        for (int row = 0; row < rows; ++row)
            for (int part = 0; part < 32 / W; ++part) save(out + row * head_dim + at + part * W, sum[row][part]);
    }
    for (int row = 0; row < rows; ++row)
        for (int64_t token = 0; token < tokens; ++token)
            for (int64_t place = at; place < head_dim; ++place)
                out[row * head_dim + place] += weights[row][token] * values[token * head_dim + place];
}

// bf16 or int8 [32][head_dim] -> float [head_dim][32]
static inline void turn_keys(const char* plane, int32_t kind, int64_t tokens, int64_t head_dim, float* out) {
    const bf16* keys = (const bf16*)plane;
    const int8_t* codes = (const int8_t*)plane;
    const float* scales = (const float*)(plane + kPageTokens * head_dim);
    if (kind == kInt8)
        for (int64_t token = 0; token < tokens; ++token)
            for (int64_t at = 0; at < head_dim; ++at)
                out[at * kPageTokens + token] = (float)codes[token * head_dim + at] * scales[token];
    else
        for (int64_t token = 0; token < tokens; ++token)
            for (int64_t at = 0; at < head_dim; ++at) out[at * kPageTokens + token] = widen(keys[token * head_dim + at]);
    for (int64_t token = tokens; token < kPageTokens; ++token)
        for (int64_t at = 0; at < head_dim; ++at) out[at * kPageTokens + token] = 0;
}

static inline void widen_values(const char* plane, int32_t kind, int64_t tokens, int64_t head_dim, float* out) {
    const bf16* values = (const bf16*)plane;
    const int8_t* codes = (const int8_t*)plane;
    const float* scales = (const float*)(plane + kPageTokens * head_dim);
    if (kind == kInt8)
        for (int64_t token = 0; token < tokens; ++token)
            for (int64_t at = token * head_dim; at < (token + 1) * head_dim; ++at) out[at] = (float)codes[at] * scales[token];
    else
        for (int64_t at = 0; at < tokens * head_dim; ++at) out[at] = widen(values[at]);
}

// Softmax of one row's scores of one page, as far as it sees them; returns by what the row's old sums shrink.
static inline float soften(float* scores, int64_t first, int64_t end, float* top, float* sum) {
    I lanes;
    for (int lane = 0; lane < W; ++lane) lanes[lane] = lane;
    F tops = spread(kNothing);
    for (int part = 0; part < 32 / W; ++part) {
        const I place = lanes + part * W;
        const I seen = (place >= (int32_t)first) & (place < (int32_t)end);
        const F value = choose(seen, load<F>(scores + part * W), spread(kNothing));
        save(scores + part * W, value);
        tops = larger(value, tops);
    }
    const float best = top_of(tops) > *top ? top_of(tops) : *top;
    F sums = {};
    for (int part = 0; part < 32 / W; ++part) {
        const F value = load<F>(scores + part * W);
        const F weight = choose(value > kNothing, exponential(value - best), F{});
        save(scores + part * W, weight);
        sums += weight;
    }
    const float shrink = *top > kNothing ? exponential(spread(*top - best))[0] : 0.0f;
    *sum = *sum * shrink + sum_of(sums);
    *top = best;
    return shrink;
}

static void attend(const Attention& w, int64_t begin, int64_t end, int64_t page_begin, int64_t page_end, float* out,
                   float* top, float* sum) {
    const int64_t dim = w.head_dim, rows = (end - begin) * w.group;
    alignas(64) float keys[kMaxHeadDim * kPageTokens], values[kMaxHeadDim * kPageTokens];
    alignas(64) float scores[3 * kPageTokens];
    for (int64_t at = 0; at < rows * dim; ++at) out[at] = 0;
    for (int64_t row = 0; row < rows; ++row) top[row] = kNothing, sum[row] = 0;
    for (int64_t page = page_begin; page < page_end; ++page) {
        const int64_t start = page * kPageTokens;
        const int64_t tokens = least(kPageTokens, w.position + end - start);
        const int64_t place = (int64_t)w.pages[page] * w.page_bytes;
        turn_keys(w.keys + place, w.kind, tokens, dim, keys);
        widen_values(w.values + place, w.kind, tokens, dim, values);
        for (int64_t row = 0; row < rows; row += 3) {
            const int count = (int)least(3, rows - row);
            const float* query[3];
            const float* weights[3];
            for (int i = 0; i < count; ++i) {
                query[i] = w.query + (begin + (row + i) / w.group) * w.query_stride + (row + i) % w.group * dim;
                weights[i] = scores + i * kPageTokens;
            }
            score(query, count, keys, dim, scores);
            for (int i = 0; i < count; ++i) {
                const int64_t position = w.position + begin + (row + i) / w.group;
                const int64_t first = w.window ? most(0, position + 1 - w.window - start) : 0;
                const float shrink = soften(scores + i * kPageTokens, first, position + 1 - start, top + row + i, sum + row + i);
                if (shrink != 1.0f)
                    for (int64_t at = 0; at < dim; ++at) out[(row + i) * dim + at] *= shrink;
            }
            mix(weights, count, values, tokens, dim, out + row * dim);
        }
    }
}

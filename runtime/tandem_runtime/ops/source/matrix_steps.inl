// Matrices for instructions that multiply 4 bytes of a row by 4 bytes of a column: pairs of bf16, quads of int8. A step
// is 64 bytes of every row: in a panel its low 16 columns, then its high ones, each as 16 lines of 16 columns x 4 bytes,
// which is what a tile register holds. int8 weights lie 128 higher, as unsigned bytes: both kinds of instruction take
// unsigned by signed, and 128 times the sum of a row's activations is taken off at the end.

constexpr int64_t kStep = 64, kHalf = 16 * kStep, kStepBytes = 2 * kHalf;
// Batches beyond this read int8 activations of 8 bits, smaller ones 12 bits as two bytes; tiles pay from here on.
constexpr int kFineRows = 7;
// Rows whose sums are kept at a time: 16 KB, beside the weights of a few steps in the nearest cache.
constexpr int64_t kChunk = 128, kSpare = 8;

static int64_t steps_of(int64_t k, int32_t kind) { return ((kind == kInt8 ? k : 2 * k) + kStep - 1) / kStep; }

static int64_t packed_bytes(int64_t n, int64_t k, int32_t kind) {
    return ((n + kPanel - 1) / kPanel + 1) * steps_of(k, kind) * kStepBytes;  // one more: halves of pairs are padded apart
}

// Where byte `byte` of the row in column `column` stands in its panel.
static inline int64_t place_of(int column, int64_t byte) {
    return byte / kStep * kStepBytes + column / W * kHalf + byte % kStep / 4 * kStep + column % W * 4 + byte % 4;
}

static void pack_int8(const bf16* row, int64_t k, int column, char* out, float* scale) {
    float top = 0;
    for (int64_t at = 0; at < k; ++at) top = __builtin_fabsf(widen(row[at])) > top ? __builtin_fabsf(widen(row[at])) : top;
    *scale = top / 127.0f;
    const float inverse = top > 0 ? 127.0f / top : 0.0f;
    for (int64_t at = 0; at < k; ++at)
        out[place_of(column, at)] = (char)((int32_t)((widen(row[at]) * inverse + 12582912.0f) - 12582912.0f) + 128);
}

static void pack(const bf16* weight, int64_t n, int64_t k, int32_t kind, int32_t pairs, void* data, float* scales,
                 int64_t begin, int64_t end) {
    const int64_t bytes = steps_of(k, kind) * kStepBytes;
    for (int64_t panel = begin; panel < end && panel < panels_of(n, pairs); ++panel) {
        char* to = (char*)data + panel * bytes;
        __builtin_memset(to, kind == kInt8 ? 128 : 0, bytes);
        for (int column = 0; column < kPanel; ++column) {
            const int64_t row = row_of(n, pairs, panel, column);
            float* scale = scales + panel * kPanel + column;
            if (row < 0 && kind == kInt8) *scale = 0;
            if (row < 0) continue;
            const bf16* from = weight + row * k;
            if (kind == kInt8) {
                pack_int8(from, k, column, to, scale);
                continue;
            }
            for (int64_t at = 0; at + 2 <= k; at += 2) __builtin_memcpy(to + place_of(column, 2 * at), from + at, 4);
            if (k % 2) __builtin_memcpy(to + place_of(column, 2 * k - 2), from + k - 1, 2);
        }
    }
}

static void unpack_row(const Linear& w, int64_t row, float* out) {
    const char* from = (const char*)w.data + row / kPanel * steps_of(w.k, w.kind) * kStepBytes;
    for (int64_t at = 0; at < w.k; ++at) {
        bf16 value;
        __builtin_memcpy(&value, from + place_of((int)(row % kPanel), 2 * at), 2);
        out[at] = widen(value);
    }
}

// Activations: one line a row, or two where int8 keeps 12 bits (value = 128 high + low), all of them `stride` apart. The
// last 64 bytes of a line begin with what int8 takes off; they also keep rows out of each other's places in the cache.
struct Lines {
    const char* data;
    int64_t stride, steps;
    int planes;
};

static Lines lines_of(const void* data, int64_t k, int32_t kind, int32_t top) {
    const int64_t steps = steps_of(k, kind);
    return {(const char*)data, (steps + 1) * kStep, steps, kind == kInt8 && top > 127 ? 2 : 1};
}

static int64_t input_bytes(int64_t rows, int64_t k, int32_t kind, int32_t top) {
    const Lines lines = lines_of(nullptr, k, kind, top);
    return (rows * lines.planes + kSpare) * lines.stride;  // kernels may read some lines more than there are
}

static inline bf16 round_to_bf16(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const uint32_t up = (bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16, nan = (bits >> 16) | 64;
    return (bf16)((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : up);
}

static void prepare_int8(const float* from, int64_t k, int32_t top, const Lines& lines, char* out, float* scale) {
    float largest = 0;
    for (int64_t at = 0; at < k; ++at) largest = __builtin_fabsf(from[at]) > largest ? __builtin_fabsf(from[at]) : largest;
    *scale = largest / (float)top;
    const float inverse = largest > 0 ? (float)top / largest : 0.0f;
    int8_t *high = (int8_t*)out, *low = (int8_t*)out + (lines.planes - 1) * lines.stride;
    int32_t highs = 0, lows = 0;
    for (int64_t at = 0; at < k; ++at) {
        const int32_t value = (int32_t)((from[at] * inverse + 12582912.0f) - 12582912.0f);
        const int32_t upper = (value + 64) >> 7;
        if (lines.planes == 2) high[at] = (int8_t)upper, highs += upper;
        const int32_t lower = lines.planes == 2 ? value - 128 * upper : value;
        low[at] = (int8_t)lower, lows += lower;
    }
    for (int plane = 0; plane < lines.planes; ++plane) {
        char* line = out + plane * lines.stride;
        const int32_t off = 128 * (plane + 1 < lines.planes ? highs : lows);
        __builtin_memset(line + k, 0, lines.steps * kStep - k);
        __builtin_memcpy(line + lines.steps * kStep, &off, 4);
    }
}

static void prepare(const float* tiled, int64_t columns, int32_t kind, int32_t top, Tile tile, void* input, float* scales) {
    const Lines lines = lines_of(input, columns, kind, top);
    const float* from = tiled + tile.row * columns;  // tiles of one row
    char* out = (char*)input + tile.row * lines.planes * lines.stride;
    if (kind == kInt8) return prepare_int8(from, columns, top, lines, out, scales + tile.row);
    for (int64_t at = 0; at < columns; ++at) ((bf16*)out)[at] = round_to_bf16(from[at]);
    __builtin_memset(out + 2 * columns, 0, lines.steps * kStep - 2 * columns);
}

static inline void put(float* to, F value, int64_t room, bool add) {
    if (room >= W) {
        save(to, add ? value + load<F>(to) : value);
    } else {
        for (int64_t lane = 0; lane < room; ++lane) to[lane] = add ? to[lane] + value[lane] : value[lane];
    }
}

// Half a panel's sums of one row as floats; wrapping around on the way does no harm, the result is in range.
static inline F total(const Linear& w, const Lines& lines, const char* line, const int32_t* sums) {
    if (w.kind != kInt8) return load<F>(sums);
    U value = {};
    for (int plane = 0; plane < lines.planes; ++plane) {
        uint32_t off;
        __builtin_memcpy(&off, line + plane * lines.stride + lines.steps * kStep, 4);
        value = value * 128 + (load<U>(sums + plane * kPanel) - off);
    }
    return __builtin_convertvector((I)value, F);
}

// What becomes of one row of one panel: scale, bias, then the epilogue.
static inline void finish(const Gemm& g, const Lines& lines, int64_t panel, int64_t row, const int32_t* sums) {
    const Linear& w = *g.weight;
    const int64_t first = panel * kPanel;
    const char* line = lines.data + row * lines.planes * lines.stride;
    F low = total(w, lines, line, sums), high = total(w, lines, line, sums + W);
    if (w.kind == kInt8) {
        low *= load<F>(w.scales + first) * g.a_scales[row];
        high *= load<F>(w.scales + first + W) * g.a_scales[row];
    }
    if (w.bias) low += load<F>(w.bias + first), high += load<F>(w.bias + first + W);
    if (g.epilogue == kSwiglu) {
        put(g.out + row * (w.n / 2) + panel * W, silu(low) * high, w.n / 2 - panel * W, false);
    } else {
        float* to = g.out + row * g.stride + first;
        put(to, low, w.n - first, g.epilogue == kAdd);
        put(to + W, high, w.n - first - W, g.epilogue == kAdd);
    }
}

// `Multiply` has multiply(kind, lines, panel, count, sums): sums [count][kPanel] of the lines from `lines.data` on.
template <typename Multiply>
static void gemm_by(const Gemm& g, int64_t begin, int64_t end, Multiply&& multiply) {
    const Linear& w = *g.weight;
    const Lines lines = lines_of(g.a, w.k, w.kind, g.top);
    alignas(64) int32_t sums[(kChunk + kSpare) * kPanel];
    end = least(end, panels_of(w.n, w.pairs));
    const int64_t most_rows = kChunk / lines.planes, chunks = (g.tile_count + most_rows - 1) / most_rows;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = g.tile_count * chunk / chunks, last = g.tile_count * (chunk + 1) / chunks;
        Lines part = lines;
        part.data += first * lines.planes * lines.stride;
        for (int64_t panel = begin; panel < end; ++panel) {
            multiply(w.kind, part, (const char*)w.data + panel * lines.steps * kStepBytes, (last - first) * lines.planes, sums);
            for (int64_t row = first; row < last; ++row)
                finish(g, lines, panel, row, sums + (row - first) * lines.planes * kPanel);
        }
    }
}

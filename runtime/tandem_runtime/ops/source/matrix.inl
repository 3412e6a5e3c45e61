// Packed matrices. A panel is 2 W columns. bf16: for each k the W words (column j | column j + W << 16), so that a
// shift and a mask make two vectors of floats. int8: for each pair of k, W lanes of (k, k + 1) of the low columns, then
// of the high ones. Matrices of `pairs` have gate columns low and up columns high.

// Bytes to fetch ahead of use: longer than memory's latency at full bandwidth.
constexpr int kAhead = 2048;

static int64_t packed_bytes(int64_t n, int64_t k, int32_t kind) {
    const int64_t panels = (n + kPanel - 1) / kPanel + 1;  // one more: halves of pairs are padded apart
    return panels * kPanel * (kind == kInt8 ? (k + 1) / 2 * 2 : k * 2);
}

static int64_t panel_bytes(const Linear& w) { return kPanel * (w.kind == kInt8 ? (w.k + 1) / 2 * 2 : w.k * 2); }

static void pack_bf16(const bf16* const* rows, int64_t k, bf16* out) {
    for (int64_t at = 0; at < k; ++at)
        for (int lane = 0; lane < W; ++lane) {
            out[at * kPanel + 2 * lane] = rows[lane] ? rows[lane][at] : 0;
            out[at * kPanel + 2 * lane + 1] = rows[lane + W] ? rows[lane + W][at] : 0;
        }
}

static void pack_int8(const bf16* const* rows, int64_t k, int8_t* out, float* scales) {
    for (int column = 0; column < kPanel; ++column) {
        const bf16* row = rows[column];
        float top = 0;
        for (int64_t at = 0; row && at < k; ++at) top = __builtin_fabsf(widen(row[at])) > top ? __builtin_fabsf(widen(row[at])) : top;
        scales[column] = top / 127.0f;
        const float inverse = top > 0 ? 127.0f / top : 0.0f;
        int8_t* to = out + (column / W) * kPanel + 2 * (column % W);
        for (int64_t at = 0; at < (k + 1) / 2 * 2; ++at) {
            const float value = row && at < k ? widen(row[at]) * inverse : 0.0f;
            to[at / 2 * 2 * kPanel + at % 2] = (int8_t)(int32_t)((value + 12582912.0f) - 12582912.0f);
        }
    }
}

static void pack(const bf16* weight, int64_t n, int64_t k, int32_t kind, int32_t pairs, void* data, float* scales,
                 int64_t begin, int64_t end) {
    const Linear w = {data, scales, nullptr, n, k, kind, pairs};
    for (int64_t panel = begin; panel < end && panel < panels_of(n, pairs); ++panel) {
        const bf16* rows[kPanel];
        for (int column = 0; column < kPanel; ++column) {
            const int64_t row = row_of(n, pairs, panel, column);
            rows[column] = row < 0 ? nullptr : weight + row * k;
        }
        char* to = (char*)data + panel * panel_bytes(w);
        if (kind == kInt8)
            pack_int8(rows, k, (int8_t*)to, scales + panel * kPanel);
        else
            pack_bf16(rows, k, (bf16*)to);
    }
}

static void unpack_row(const Linear& w, int64_t row, float* out) {
    const int64_t column = row % kPanel;
    const bf16* from = (const bf16*)((const char*)w.data + row / kPanel * panel_bytes(w));
    from += 2 * (column % W) + column / W;
    for (int64_t at = 0; at < w.k; ++at) out[at] = widen(from[at * kPanel]);
}

// `R` rows of a against one panel. `Steps` accumulators for each, where there are too few rows to hide latency.
template <int R, int Steps>
static inline void multiply_bf16(const bf16* b, const float* a, int64_t k, F* low, F* high) {
    F l[Steps][R] = {}, h[Steps][R] = {};
    int64_t at = 0;
    for (; at + Steps <= k; at += Steps) {
        __builtin_prefetch((const char*)(b + at * kPanel) + kAhead);
        if (Steps * kPanel * 2 > 64) __builtin_prefetch((const char*)(b + at * kPanel) + kAhead + 64);
#pragma GCC unroll 4
        for (int step = 0; step < Steps; ++step) {
            const U words = load<U>(b + (at + step) * kPanel);
            const F wl = low_half(words), wh = high_half(words);
#pragma GCC unroll 6
            for (int row = 0; row < R; ++row) {
                const F x = spread(a[(at + step) * R + row]);
                l[step][row] += wl * x;
                h[step][row] += wh * x;
            }
        }
    }
    for (; at < k; ++at) {
        const U words = load<U>(b + at * kPanel);
        for (int row = 0; row < R; ++row) {
            l[0][row] += low_half(words) * a[at * R + row];
            h[0][row] += high_half(words) * a[at * R + row];
        }
    }
    for (int row = 0; row < R; ++row) {
        low[row] = l[0][row], high[row] = h[0][row];
        for (int step = 1; step < Steps; ++step) low[row] += l[step][row], high[row] += h[step][row];
    }
}

// The same with int8 weights and int16 activations: exact in int32 (the scales see to it), so order is free.
template <int R, int Steps>
static inline void multiply_int8(const int8_t* b, const int32_t* a, int64_t pairs, I* low, I* high) {
    I l[Steps][R] = {}, h[Steps][R] = {};
    int64_t at = 0;
    for (; at + Steps <= pairs; at += Steps) {
        __builtin_prefetch((const char*)(b + at * 2 * kPanel) + kAhead);
        if (Steps * kPanel * 2 > 64) __builtin_prefetch((const char*)(b + at * 2 * kPanel) + kAhead + 64);
#pragma GCC unroll 4
        for (int step = 0; step < Steps; ++step) {
            const int8_t* from = b + (at + step) * 2 * kPanel;
            const S wl = widen(load<B>(from)), wh = widen(load<B>(from + kPanel));
#pragma GCC unroll 6
            for (int row = 0; row < R; ++row) {
                const S x = (S)spread(a[(at + step) * R + row]);
                l[step][row] += dot_pairs(wl, x);
                h[step][row] += dot_pairs(wh, x);
            }
        }
    }
    for (; at < pairs; ++at) {
        const int8_t* from = b + at * 2 * kPanel;
        for (int row = 0; row < R; ++row) {
            l[0][row] += dot_pairs(widen(load<B>(from)), (S)spread(a[at * R + row]));
            h[0][row] += dot_pairs(widen(load<B>(from + kPanel)), (S)spread(a[at * R + row]));
        }
    }
    for (int row = 0; row < R; ++row) {
        low[row] = l[0][row], high[row] = h[0][row];
        for (int step = 1; step < Steps; ++step) low[row] += l[step][row], high[row] += h[step][row];
    }
}

static inline void put(float* to, F value, int64_t room, bool add) {
    if (room >= W) {
        save(to, add ? value + load<F>(to) : value);
    } else {
        for (int64_t lane = 0; lane < room; ++lane) to[lane] = add ? to[lane] + value[lane] : value[lane];
    }
}

// What becomes of the R rows of one panel: scale, bias, then the epilogue.
template <int R>
static inline void finish(const Gemm& g, int64_t panel, Tile tile, F* low, F* high) {
    const Linear& w = *g.weight;
    const int64_t first = panel * kPanel;
    for (int row = 0; row < R; ++row) {
        F l = low[row], h = high[row];
        if (w.kind == kInt8) {
            const float scale = g.a_scales[tile.row + row];
            l *= load<F>(w.scales + first) * scale;
            h *= load<F>(w.scales + first + W) * scale;
        }
        if (w.bias) l += load<F>(w.bias + first), h += load<F>(w.bias + first + W);
        if (g.epilogue == kSwiglu) {
            const F value = silu(l) * h;
            const int64_t columns = w.n / 2, column = panel * W;
            float* to = g.out + tile.row * columns + column * R + row;
            for (int64_t lane = 0; lane < least(W, columns - column); ++lane) to[lane * R] = value[lane];
        } else {
            float* to = g.out + (tile.row + row) * g.stride + first;
            put(to, l, w.n - first, g.epilogue == kAdd);
            put(to + W, h, w.n - first - W, g.epilogue == kAdd);
        }
    }
}

template <int R, int Steps>
static void tile_by_panels(const Gemm& g, Tile tile, int64_t begin, int64_t end) {
    const Linear& w = *g.weight;
    for (int64_t panel = begin; panel < end; ++panel) {
        const char* b = (const char*)w.data + panel * panel_bytes(w);
        F low[R], high[R];
        if (w.kind == kInt8) {
            I l[R], h[R];
            const int64_t pairs = (w.k + 1) / 2;
            multiply_int8<R, Steps>((const int8_t*)b, (const int32_t*)g.a + tile.row * pairs, pairs, l, h);
            for (int row = 0; row < R; ++row)
                low[row] = __builtin_convertvector(l[row], F), high[row] = __builtin_convertvector(h[row], F);
        } else {
            multiply_bf16<R, Steps>((const bf16*)b, (const float*)g.a + tile.row * w.k, w.k, low, high);
        }
        finish<R>(g, panel, tile, low, high);
    }
}

static void gemm(const Gemm& g, int64_t begin, int64_t end) {
    end = least(end, panels_of(g.weight->n, g.weight->pairs));
    for (int64_t index = 0; index < g.tile_count; ++index) {
        const Tile tile = g.tiles[index];
        switch (tile.rows) {
            case 1: tile_by_panels<1, 4>(g, tile, begin, end); break;
            case 2: tile_by_panels<2, 2>(g, tile, begin, end); break;
            case 3: tile_by_panels<3, 2>(g, tile, begin, end); break;
            case 4: tile_by_panels<4, 1>(g, tile, begin, end); break;
            case 5: tile_by_panels<5, 1>(g, tile, begin, end); break;
            default: tile_by_panels<6, 1>(g, tile, begin, end); break;
        }
    }
}

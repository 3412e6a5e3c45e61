// A few rows against one panel of matrix_steps.inl, by AVX512-BF16 and AVX512-VNNI.

constexpr int kMostLines = 12;  // 24 accumulators of 32 registers
constexpr int kAhead = 2 * (int)kStepBytes;  // bytes to fetch ahead of use, where rows are too few to hide memory

template <bool Int8>
static inline I dot(I sum, I weights, I x) {
    if (Int8) return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)x);
    return (I)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)x);
}

template <bool Int8>
static inline I plus(I a, I b) {
    return Int8 ? a + b : (I)((F)a + (F)b);
}

// `R` lines; `Chains` accumulators for each, where there are too few lines to hide latency.
template <bool Int8, int R, int Chains>
static void dots(const char* b, const char* a, int64_t stride, int64_t steps, int32_t* sums) {
    I low[Chains][R] = {}, high[Chains][R] = {};
    for (int64_t step = 0; step < steps; ++step, b += kStepBytes, a += kStep) {
        for (int line = 0; line < 16; line += Chains) {
#pragma GCC unroll 4
            for (int chain = 0; chain < Chains; ++chain) {
                const char* from = b + (line + chain) * kStep;
                if (R <= 4) __builtin_prefetch(from + kAhead), __builtin_prefetch(from + kAhead + kHalf);
                const I wl = load<I>(from), wh = load<I>(from + kHalf);
#pragma GCC unroll 12
                for (int row = 0; row < R; ++row) {
                    const I x = spread(load<int32_t>(a + row * stride + (line + chain) * 4));
                    low[chain][row] = dot<Int8>(low[chain][row], wl, x);
                    high[chain][row] = dot<Int8>(high[chain][row], wh, x);
                }
            }
        }
    }
#pragma GCC unroll 12  // else GCC keeps the sums in memory from the start
    for (int row = 0; row < R; ++row) {
        I l = low[0][row], h = high[0][row];
        for (int chain = 1; chain < Chains; ++chain) l = plus<Int8>(l, low[chain][row]), h = plus<Int8>(h, high[chain][row]);
        save(sums + row * kPanel, l);
        save(sums + row * kPanel + W, h);
    }
}

// Blocks of nearly equal size; one that is rounded up computes a line that the next block, or nobody, wants.
template <bool Int8>
static void dot_lines(const Lines& lines, const char* panel, int64_t count, int32_t* sums) {
    const int64_t blocks = (count + kMostLines - 1) / kMostLines, stride = lines.stride, steps = lines.steps;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = count * block / blocks, some = count * (block + 1) / blocks - first;
        const char* a = lines.data + first * stride;
        int32_t* to = sums + first * kPanel;
        switch (some) {
            case 1: dots<Int8, 1, 4>(panel, a, stride, steps, to); break;
            case 2: dots<Int8, 2, 2>(panel, a, stride, steps, to); break;
            case 3: dots<Int8, 3, 2>(panel, a, stride, steps, to); break;
            case 4: dots<Int8, 4, 1>(panel, a, stride, steps, to); break;
            case 5: case 6: dots<Int8, 6, 1>(panel, a, stride, steps, to); break;
            case 7: case 8: dots<Int8, 8, 1>(panel, a, stride, steps, to); break;
            case 9: case 10: dots<Int8, 10, 1>(panel, a, stride, steps, to); break;
            default: dots<Int8, 12, 1>(panel, a, stride, steps, to); break;
        }
    }
}

static void multiply_by_dots(int32_t kind, const Lines& lines, const char* panel, int64_t count, int32_t* sums) {
    if (kind == kInt8)
        dot_lines<true>(lines, panel, count, sums);
    else
        dot_lines<false>(lines, panel, count, sums);
}

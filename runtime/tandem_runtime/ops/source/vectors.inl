// Vectors of W floats and their like, by GCC's extension: the same source for SSE, NEON, AVX2 and AVX-512.

constexpr int W = TANDEM_WIDTH;
typedef float F __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef uint32_t U __attribute__((vector_size(4 * W)));
typedef int8_t B __attribute__((vector_size(2 * W)));   // pairs of int8, one pair a lane
typedef int16_t S __attribute__((vector_size(4 * W)));  // pairs of int16, one pair a lane

template <typename V>
static inline V load(const void* from) {
    V value;
    __builtin_memcpy(&value, from, sizeof(V));
    return value;
}

template <typename V>
static inline void save(void* to, V value) {
    __builtin_memcpy(to, &value, sizeof(V));
}

static inline F spread(float value) { return value - F{}; }
static inline I spread(int32_t value) { return value - I{}; }
static inline F low_half(U words) { return (F)(words << 16); }
static inline F high_half(U words) { return (F)(words & 0xFFFF0000u); }
static inline F choose(I mask, F yes, F no) { return (F)(((I)yes & mask) | ((I)no & ~mask)); }
static inline F larger(F a, F b) { return choose(a > b, a, b); }

static inline float sum_of(F value) {
    float total = 0;
    for (int lane = 0; lane < W; ++lane) total += value[lane];
    return total;
}

static inline float top_of(F value) {
    float top = value[0];
    for (int lane = 1; lane < W; ++lane) top = value[lane] > top ? value[lane] : top;
    return top;
}

// Sum of products of the two int16 in each lane; no product of ours overflows.
static inline I dot_pairs(S a, S b) {
#if TANDEM_WIDTH == 16 && defined(__AVX512BW__)  // wider than 4 is chosen on x86-64 only
    return (I)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif TANDEM_WIDTH == 8
    return (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif TANDEM_WIDTH == 4 && defined(__SSE2__)
    return (I)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const I x = (I)a, y = (I)b;
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
}

static inline S widen(B bytes) {
#if TANDEM_WIDTH == 16 && defined(__AVX512BW__)  // one instruction, where GCC 12 makes four of the conversion below
    return (S)_mm512_cvtepi8_epi16((__m256i)bytes);
#elif TANDEM_WIDTH == 8
    return (S)_mm256_cvtepi8_epi16((__m128i)bytes);
#else
    return __builtin_convertvector(bytes, S);
#endif
}

// e^x with a relative error below 2e-7; below -87 it is as good as 0.
static inline F exponential(F x) {
    const F low = spread(-87.0f), high = spread(88.0f);
    x = choose(x < low, low, x);
    x = choose(x > high, high, x);
    const F magic = spread(12582912.0f);  // adding it rounds to an integer
    const F n = (x * 1.44269504f + magic) - magic;
    const F r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    F p = spread(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (F)((__builtin_convertvector(n, I) + 127) << 23);
}

static inline F silu(F x) { return x / (1.0f + exponential(-x)); }

static inline float widen(bf16 value) {
    const uint32_t bits = (uint32_t)value << 16;
    float number;
    __builtin_memcpy(&number, &bits, 4);
    return number;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

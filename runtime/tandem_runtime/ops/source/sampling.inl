// Passes over logits for the sampler: block by block, so that what cannot matter is skipped.

typedef double D __attribute__((vector_size(4 * W)));   // half as many lanes
typedef int64_t L __attribute__((vector_size(4 * W)));
typedef float H __attribute__((vector_size(2 * W)));

constexpr int kLanes = W / 2;

static bool scan(const float* logits, int64_t count, float* tops) {
    I strange = {};
    bool odd = false;
    for (int64_t begin = 0; begin < count; begin += kSampleBlock) {
        const int64_t end = least(begin + kSampleBlock, count);
        F a = spread(-INFINITY), b = a;
        int64_t at = begin;
        for (; at + 2 * W <= end; at += 2 * W) {
            const F x = load<F>(logits + at), y = load<F>(logits + at + W);
            strange |= (I)(x != x) | (I)(y != y);
            a = x > a ? x : a;
            b = y > b ? y : b;
        }
        float top = top_of(a > b ? a : b);
        for (; at < end; ++at) {
            odd |= logits[at] != logits[at];
            top = logits[at] > top ? logits[at] : top;
        }
        *tops++ = top;
    }
    for (int lane = 0; lane < W; ++lane) odd |= strange[lane] != 0;
    return !odd;
}

// e^x for x from -50 to 0, to about 1e-15 of it.
static inline D exponential(D x) {
    const double magic = 6755399441055744.0;  // adding it rounds to an integer
    const D shifted = x * 1.4426950408889634 + magic;
    const D n = shifted - magic;
    const D r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    D p = D{} + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return (D)((L)p + ((L)shifted << 52));  // the low bits of `shifted` are n
}

static inline D weight_of(H logits, double top, double inverse, double floor) {
    const D value = __builtin_convertvector(logits, D);
    const D x = (value - top) * inverse, lowest = D{} + kLowestExponent;
    const L kept = (L)(value >= floor) & (L)(x >= lowest);
    return (D)((L)exponential(x >= lowest ? x : lowest) & kept);
}

static double weigh(const float* logits, int64_t count, double top, double inverse, float floor, double* weights) {
    D sums = {};
    int64_t at = 0;
    for (; at + kLanes <= count; at += kLanes) {
        const D each = weight_of(load<H>(logits + at), top, inverse, floor);
        save(weights + at, each);
        sums += each;
    }
    double total = 0;
    if (at < count) {
        H rest = H{} - INFINITY;
        __builtin_memcpy(&rest, logits + at, (count - at) * sizeof(float));
        const D each = weight_of(rest, top, inverse, floor);
        __builtin_memcpy(weights + at, &each, (count - at) * sizeof(double));
        sums += each;
    }
    for (int lane = 0; lane < kLanes; ++lane) total += sums[lane];
    return total;
}

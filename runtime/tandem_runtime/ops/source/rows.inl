// Work on rows: normalisation, quantisation of activations, and reading memory as fast as it goes.

static void norm(const float* x, const float* weight, float eps, int64_t columns, Tile tile, float* tiled) {
    float* out = tiled + tile.row * columns;
    for (int row = 0; row < tile.rows; ++row) {
        const float* from = x + (tile.row + row) * columns;
        F squares = {};
        float rest = 0;
        int64_t at = 0;
        for (; at + W <= columns; at += W) squares += load<F>(from + at) * load<F>(from + at);
        for (; at < columns; ++at) rest += from[at] * from[at];
        const float scale = 1.0f / __builtin_sqrtf((sum_of(squares) + rest) / (float)columns + eps);
        for (int64_t column = 0; column < columns; ++column)
            out[column * tile.rows + row] = from[column] * scale * weight[column];
    }
}

static int64_t input_bytes(int64_t rows, int64_t k, int32_t kind, int32_t) {
    return kind == kInt8 ? rows * ((k + 1) / 2) * 4 : 0;
}

static void quantise(const float* tiled, int64_t columns, int32_t, int32_t top, Tile tile, void* input, float* scales) {
    const int rows = tile.rows;
    const float* from = tiled + tile.row * columns;
    int16_t* out = (int16_t*)((int32_t*)input + tile.row * ((columns + 1) / 2));
    float largest[kMaxRows] = {}, inverse[kMaxRows];
    for (int64_t column = 0; column < columns; ++column)
        for (int row = 0; row < rows; ++row) {
            const float size = __builtin_fabsf(from[column * rows + row]);
            largest[row] = size > largest[row] ? size : largest[row];
        }
    for (int row = 0; row < rows; ++row) {
        scales[tile.row + row] = largest[row] / (float)top;
        inverse[row] = largest[row] > 0 ? (float)top / largest[row] : 0.0f;
    }
    for (int64_t column = 0; column < columns; ++column)
        for (int row = 0; row < rows; ++row) {
            const float value = from[column * rows + row] * inverse[row];
            out[(column / 2 * rows + row) * 2 + column % 2] = (int16_t)(int32_t)((value + 12582912.0f) - 12582912.0f);
        }
    for (int row = 0; columns % 2 && row < rows; ++row) out[(columns / 2 * rows + row) * 2 + 1] = 0;
}

static float read(const char* memory, int64_t bytes) {
    U a = {}, b = {}, c = {}, d = {};
    for (int64_t at = 0; at + 16 * W <= bytes; at += 16 * W) {
        __builtin_prefetch(memory + at + kAhead);
        a |= load<U>(memory + at), b |= load<U>(memory + at + 4 * W);
        c |= load<U>(memory + at + 8 * W), d |= load<U>(memory + at + 12 * W);
    }
    a = (a | b) | (c | d);
    return (float)a[0];
}

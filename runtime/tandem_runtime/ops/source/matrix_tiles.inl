// Many rows against one panel of matrix_steps.inl, by AMX: sums of up to 32 lines x 32 columns in registers 0 to 3,
// lines in 4 and 5, low and high columns in 6 and 7.

// Steps whose weights stay in the nearest cache while all lines of a chunk pass by.
constexpr int64_t kBlockSteps = 12;
constexpr int64_t kSumStride = 4 * kPanel;

struct alignas(64) TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void configure_tiles(int64_t rows) {
    TileConfig config = {};
    config.palette = 1;
    for (int tile = 0; tile < 8; ++tile) config.row_bytes[tile] = kStep, config.rows[tile] = (uint8_t)(tile < 6 ? rows : 16);
    asm volatile("" : : "r"(&config) : "memory");  // to GCC 12 the intrinsic reads 8 bytes only
    _tile_loadconfig(&config);
}

// GCC wants register numbers as literals.
#define TANDEM_TILE_DOT(sum, lines, columns)             \
    do {                                                 \
        if (Int8)                                        \
            _tile_dpbsud(sum, lines, columns);           \
        else                                             \
            _tile_dpbf16ps(sum, lines, columns);         \
    } while (0)

// One or two tiles of `rows` lines each over some steps; adds to `sums` unless it is the first of them.
template <bool Int8, bool Two>
static void tile_block(const char* b, const char* a, int64_t stride, int64_t rows, int64_t steps, bool first, bool fetch,
                       int32_t* sums) {
    int32_t* second = sums + rows * kPanel;
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, kSumStride);
        _tile_loadd(1, sums + W, kSumStride);
        if (Two) {
            _tile_loadd(2, second, kSumStride);
            _tile_loadd(3, second + W, kSumStride);
        }
    }
    for (int64_t step = 0; step < steps; ++step, a += kStep, b += kStepBytes) {
        if (fetch)
#pragma GCC unroll 8
            for (int64_t line = 0; line < kStepBytes; line += 64) __builtin_prefetch(b + 2 * kStepBytes + line);
        _tile_loadd(6, b, kStep);
        _tile_loadd(7, b + kHalf, kStep);
        _tile_loadd(4, a, stride);
        TANDEM_TILE_DOT(0, 4, 6);
        TANDEM_TILE_DOT(1, 4, 7);
        if (Two) {
            _tile_loadd(5, a + rows * stride, stride);
            TANDEM_TILE_DOT(2, 5, 6);
            TANDEM_TILE_DOT(3, 5, 7);
        }
    }
    _tile_stored(0, sums, kSumStride);
    _tile_stored(1, sums + W, kSumStride);
    if (Two) {
        _tile_stored(2, second, kSumStride);
        _tile_stored(3, second + W, kSumStride);
    }
}

// How a chunk of lines is cut: `blocks` of one or two tiles of `rows` lines each, rounded up by less than kSpare lines.
struct Cut {
    int64_t blocks, tiles, rows;
};

static Cut cut_lines(int64_t count) {
    const int64_t blocks = (count + 31) / 32, tiles = count > 16 ? 2 : 1;
    return {blocks, tiles, (count + blocks * tiles - 1) / (blocks * tiles)};
}

template <bool Int8>
static void tile_lines(const Lines& lines, const char* panel, int64_t count, int32_t* sums) {
    const Cut cut = cut_lines(count);
    configure_tiles(cut.rows);
    const int64_t each = cut.blocks == 1 ? lines.steps : kBlockSteps;
    for (int64_t step = 0; step < lines.steps; step += each) {
        const int64_t some = least(each, lines.steps - step);
        for (int64_t block = 0; block < cut.blocks; ++block) {
            const int64_t line = block * cut.tiles * cut.rows;
            const char* a = lines.data + line * lines.stride + step * kStep;
            const char* b = panel + step * kStepBytes;
            if (cut.tiles == 2)
                tile_block<Int8, true>(b, a, lines.stride, cut.rows, some, step == 0, block == 0, sums + line * kPanel);
            else
                tile_block<Int8, false>(b, a, lines.stride, cut.rows, some, step == 0, block == 0, sums + line * kPanel);
        }
    }
    asm volatile("" : : : "memory");
}

static void multiply_by_tiles(int32_t kind, const Lines& lines, const char* panel, int64_t count, int32_t* sums) {
    if (kind == kInt8)
        tile_lines<true>(lines, panel, count, sums);
    else
        tile_lines<false>(lines, panel, count, sums);
}

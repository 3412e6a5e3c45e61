// The instructions of AVX512-BF16, AVX512-VNNI and AMX that the kernels use, as plain loops with the meaning that Intel's
// manual gives them. With them the very same kernels run on a CPU without these instructions: packing, tiling and tails
// are verified; speed, and what a real CPU does with the encoded instructions, is not.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulated {

static inline float from_bf16(uint16_t value) {
    const uint32_t bits = (value & 0x7F80) ? (uint32_t)value << 16 : (uint32_t)(value & 0x8000) << 16;  // tiny ones are 0
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

static inline __m512 dot_bf16(__m512 sum, __m512bh a, __m512bh b) {
    float sums[16];
    uint16_t x[32], y[32];
    std::memcpy(sums, &sum, 64), std::memcpy(x, &a, 64), std::memcpy(y, &b, 64);
    for (int lane = 0; lane < 16; ++lane)
        for (int half = 1; half >= 0; --half)
            sums[lane] = std::fma(from_bf16(x[2 * lane + half]), from_bf16(y[2 * lane + half]), sums[lane]);
    std::memcpy(&sum, sums, 64);
    return sum;
}

static inline __m512i dot_u8_s8(__m512i sum, __m512i a, __m512i b) {
    uint32_t sums[16];
    uint8_t x[64];
    int8_t y[64];
    std::memcpy(sums, &sum, 64), std::memcpy(x, &a, 64), std::memcpy(y, &b, 64);
    for (int at = 0; at < 64; ++at) sums[at / 4] += (uint32_t)((int32_t)x[at] * (int32_t)y[at]);
    std::memcpy(&sum, sums, 64);
    return sum;
}

struct Tiles {
    bool configured = false;
    int rows[8], row_bytes[8];
    uint8_t data[8][16][64];
};

inline thread_local Tiles tiles;

static inline void fault(const char* what) {
    std::fprintf(stderr, "a real CPU would fault: %s\n", what);
    std::abort();
}

static inline void load_config(const void* config) {
    const uint8_t* bytes = (const uint8_t*)config;
    if (bytes[0] != 1) fault("palette");
    for (int at = 1; at < 16; ++at)
        if (bytes[at]) fault("reserved bytes of a tile configuration");
    for (int tile = 0; tile < 8; ++tile) {
        uint16_t row_bytes;
        std::memcpy(&row_bytes, bytes + 16 + 2 * tile, 2);
        tiles.rows[tile] = bytes[48 + tile], tiles.row_bytes[tile] = row_bytes;
        if (bytes[48 + tile] > 16 || row_bytes > 64 || !row_bytes != !bytes[48 + tile]) fault("size of a tile");
    }
    std::memset(tiles.data, 0, sizeof(tiles.data));
    tiles.configured = true;
}

static inline void check(int tile) {
    if (!tiles.configured || !tiles.rows[tile]) fault("tile not configured");
}

static inline void zero(int tile) {
    check(tile);
    std::memset(tiles.data[tile], 0, sizeof(tiles.data[tile]));
}

static inline void load_tile(int tile, const void* from, long stride) {
    zero(tile);
    for (int row = 0; row < tiles.rows[tile]; ++row)
        std::memcpy(tiles.data[tile][row], (const char*)from + row * stride, tiles.row_bytes[tile]);
}

static inline void store_tile(int tile, void* to, long stride) {
    check(tile);
    for (int row = 0; row < tiles.rows[tile]; ++row)
        std::memcpy((char*)to + row * stride, tiles.data[tile][row], tiles.row_bytes[tile]);
}

static inline void check_shapes(int sum, int a, int b) {
    check(sum), check(a), check(b);
    if (tiles.rows[sum] != tiles.rows[a] || tiles.row_bytes[sum] != tiles.row_bytes[b]) fault("shapes of sum and factors");
    if (tiles.row_bytes[a] != 4 * tiles.rows[b]) fault("shapes of factors");
    if (sum == a || sum == b || a == b) fault("the same tile twice");
}

static inline void dot_tiles_bf16(int sum, int a, int b) {
    check_shapes(sum, a, b);
    for (int row = 0; row < tiles.rows[sum]; ++row)
        for (int column = 0; column < tiles.row_bytes[sum] / 4; ++column) {
            float halves[2] = {0, 0}, total;
            for (int at = 0; at < tiles.rows[b]; ++at)
                for (int half = 0; half < 2; ++half) {
                    uint16_t x, y;
                    std::memcpy(&x, &tiles.data[a][row][4 * at + 2 * half], 2);
                    std::memcpy(&y, &tiles.data[b][at][4 * column + 2 * half], 2);
                    halves[half] = std::fma(from_bf16(x), from_bf16(y), halves[half]);
                }
            std::memcpy(&total, &tiles.data[sum][row][4 * column], 4);
            total += halves[0] + halves[1];
            std::memcpy(&tiles.data[sum][row][4 * column], &total, 4);
        }
}

static inline void dot_tiles_s8_u8(int sum, int a, int b) {
    check_shapes(sum, a, b);
    for (int row = 0; row < tiles.rows[sum]; ++row)
        for (int column = 0; column < tiles.row_bytes[sum] / 4; ++column) {
            uint32_t total;
            std::memcpy(&total, &tiles.data[sum][row][4 * column], 4);
            for (int at = 0; at < 4 * tiles.rows[b]; ++at)
                total += (uint32_t)((int32_t)(int8_t)tiles.data[a][row][at] * (int32_t)tiles.data[b][at / 4][4 * column + at % 4]);
            std::memcpy(&tiles.data[sum][row][4 * column], &total, 4);
        }
}

}  // namespace emulated

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _mm512_dpbf16_ps(sum, a, b) emulated::dot_bf16(sum, a, b)
#define _mm512_dpbusd_epi32(sum, a, b) emulated::dot_u8_s8(sum, a, b)
#define _tile_loadconfig(config) emulated::load_config(config)
#define _tile_release() (emulated::tiles.configured = false)
#define _tile_zero(tile) emulated::zero(tile)
#define _tile_loadd(tile, from, stride) emulated::load_tile(tile, from, stride)
#define _tile_stored(tile, to, stride) emulated::store_tile(tile, to, stride)
#define _tile_dpbf16ps(sum, a, b) emulated::dot_tiles_bf16(sum, a, b)
#define _tile_dpbsud(sum, a, b) emulated::dot_tiles_s8_u8(sum, a, b)

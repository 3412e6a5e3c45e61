// What one instruction set offers: pieces of work for one thread. The order of packed weights is its own affair.
#pragma once

#include <cstdint>

namespace tandem {

using bf16 = uint16_t;

constexpr int kMaxRows = 6;        // rows of a tile: accumulators of 6 rows fill the registers of AVX2
constexpr int kAllRows = 1 << 30;
constexpr int kPageTokens = 32;    // of the KV cache
constexpr int kMaxHeadDim = 256;
constexpr int kAttentionRows = 48;  // queries that share one page's conversion
constexpr int kSampleBlock = 256;   // logits that the sampler looks at or passes by together
constexpr double kLowestExponent = -50;  // of e: less likely tokens together are far below the rounding of a sum

enum Kind : int32_t { kBf16 = 0, kInt8 = 1 };
// Bytes of one head's keys or values in a page; of kInt8 the codes of all tokens, then a float scale of each.
constexpr int64_t plane_bytes(int64_t head_dim, int32_t kind) {
    return kPageTokens * (kind == kInt8 ? head_dim + 4 : head_dim * 2);
}

enum Epilogue : int32_t { kStore = 0, kAdd = 1, kSwiglu = 2 };

// Rows [row, row + rows) of a batch. A tiled matrix of C columns keeps a tile at row * C, column after column.
struct Tile {
    int32_t row, rows;
};

// y = x weight^T + bias. `data` in panels of columns; `pairs`: gate and up lie side by side in each panel.
struct Linear {
    const void* data;
    const float* scales;  // int8 only, in the order of the panels, as is the bias; either may be null
    const float* bias;
    int64_t n, k;
    int32_t kind, pairs;
};

struct Gemm {
    const Linear* weight;
    const void* a;           // what `prepare` made, else tiled floats
    const float* a_scales;   // of each row, int8 only
    int32_t top;             // largest activation, int8 only
    const Tile* tiles;
    int64_t tile_count;
    float* out;              // kStore, kAdd: row-major, `stride` floats a row; kSwiglu: tiled, n / 2 columns
    int64_t stride;
    Epilogue epilogue;
};

struct Attention {
    const float* query;      // of the first token of the sequence, rotated and scaled; rows `query_stride` apart
    int64_t query_stride;
    int64_t position;        // of the first token
    const int32_t* pages;    // of the sequence
    const char* keys;        // of this layer and head in page 0; pages `page_bytes` apart
    const char* values;
    int64_t page_bytes;
    int32_t kind;            // of keys and values
    int32_t group, head_dim;  // query heads of one KV head, side by side
    int64_t window;          // 0: none
};

struct Kernels {
    const char* name;
    int32_t panel;      // columns
    int32_t tile_rows;  // at most; with 1 a tiled matrix is row-major
    int32_t fine_rows;  // int8: activations of batches up to here keep 12 bits, those of larger ones 8
    int64_t (*packed_bytes)(int64_t n, int64_t k, int32_t kind);
    // Packs panels [begin, end) of row-major bf16 [n, k] (kInt8: quantises, scales in panel order).
    void (*pack)(const bf16* weight, int64_t n, int64_t k, int32_t kind, int32_t pairs, void* data, float* scales,
                 int64_t begin, int64_t end);
    // Row of a packed bf16 matrix, as floats.
    void (*unpack_row)(const Linear& weight, int64_t row, float* out);
    // Room for what `prepare` makes of a batch; 0: `gemm` reads the tiled floats themselves.
    int64_t (*input_bytes)(int64_t rows, int64_t k, int32_t kind, int32_t top);
    // One tile of a tiled float matrix as `gemm` reads it: for int8 integers of at most `top`, and scales by row.
    void (*prepare)(const float* tiled, int64_t columns, int32_t kind, int32_t top, Tile tile, void* input,
                    float* scales);
    void (*gemm)(const Gemm& work, int64_t panel_begin, int64_t panel_end);
    // RMSNorm of one tile's rows of x [., columns] into a tiled float matrix.
    void (*norm)(const float* x, const float* weight, float eps, int64_t columns, Tile tile, float* tiled);
    // Tokens [begin, end) against pages [page_begin, page_end): out [rows, head_dim] not divided yet, and for each
    // row the largest score and the sum. Rows are token after token, the group's heads inside.
    void (*attend)(const Attention& work, int64_t begin, int64_t end, int64_t page_begin, int64_t page_end, float* out,
                   float* top, float* sum);
    // Largest of each kSampleBlock logits; false when one of them is not a number.
    bool (*scan)(const float* logits, int64_t count, float* tops);
    // Weights exp((logit - top) * inverse) of at most kSampleBlock logits, 0 where below `floor`; returns their sum.
    double (*weigh)(const float* logits, int64_t count, double top, double inverse, float floor, double* weights);
    float (*read)(const char* memory, int64_t bytes);  // reads all of it: the bandwidth that there is
};

extern const Kernels kGeneric;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
// Those of kAvx512 but for matrices: instructions for pairs of bf16 and quads of int8, and for tiles of them.
const Kernels& bf16_kernels();
const Kernels& amx_kernels();
#endif

}  // namespace tandem

#if defined(__x86_64__)
#include "includes.h"

#if defined(TANDEM_INTRINSICS)
#pragma GCC target("avx2,fma")
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,amx-tile,amx-bf16,amx-int8,prefer-vector-width=512")
#endif
#define TANDEM_WIDTH 16

namespace tandem {
namespace amx {

#include "vectors.inl"

#include "panels.inl"

#include "matrix_steps.inl"

#include "matrix_dots.inl"

#include "matrix_tiles.inl"

static void gemm(const Gemm& g, int64_t begin, int64_t end) {
    if (g.tile_count <= kFineRows) return gemm_by(g, begin, end, multiply_by_dots);
    gemm_by(g, begin, end, multiply_by_tiles);
    _tile_release();  // or the system keeps 8 KB for this thread whenever it runs another
}

}  // namespace amx

const Kernels& amx_kernels() {
    static const Kernels table =
        with_matrices("amx", {amx::kPanel, amx::kFineRows, amx::packed_bytes, amx::pack, amx::unpack_row,
                            amx::input_bytes, amx::prepare, amx::gemm});
    return table;
}

}  // namespace tandem
#endif

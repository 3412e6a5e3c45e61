#if defined(__x86_64__)
#include "includes.h"

#if defined(TANDEM_INTRINSICS)
#pragma GCC target("avx2,fma")
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,prefer-vector-width=512")
#endif
#define TANDEM_WIDTH 16

namespace tandem {
namespace avx512_vnni_bf16 {

#include "vectors.inl"

#include "panels.inl"

#include "matrix_steps.inl"

#include "matrix_dots.inl"

static void gemm(const Gemm& g, int64_t begin, int64_t end) { gemm_by(g, begin, end, multiply_by_dots); }

}  // namespace avx512_vnni_bf16

const Kernels& bf16_kernels() {
    namespace here = avx512_vnni_bf16;
    static const Kernels table = with_matrices(
        "avx512_vnni_bf16", {here::kPanel, here::kFineRows, here::packed_bytes, here::pack, here::unpack_row,
                             here::input_bytes, here::prepare, here::gemm});
    return table;
}

}  // namespace tandem
#endif

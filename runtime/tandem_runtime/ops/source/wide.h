// Instruction sets that differ from AVX-512 by their matrices alone, and whether this process may use them.
#pragma once

#include "kernels.h"

namespace tandem {

struct Matrices {
    int32_t panel, fine_rows;
    decltype(Kernels::packed_bytes) packed_bytes;
    decltype(Kernels::pack) pack;
    decltype(Kernels::unpack_row) unpack_row;
    decltype(Kernels::input_bytes) input_bytes;
    decltype(Kernels::prepare) prepare;
    decltype(Kernels::gemm) gemm;
};

// The kernels of AVX-512 with these matrices, whose tiles are of one row.
Kernels with_matrices(const char* name, const Matrices& matrices);

bool has_avx512();
bool has_bf16_dots();  // AVX512-BF16 and AVX512-VNNI
// AMX for bf16 and int8: asks the system for the state of tile registers, for all threads of the process.
bool allow_tiles();

}  // namespace tandem

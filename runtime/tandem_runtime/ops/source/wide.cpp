#if defined(__x86_64__)
#include "wide.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tandem {

#if defined(TANDEM_INTRINSICS)  // emulated: any CPU with AVX2 has them
static const Kernels& base = kAvx2;

bool has_avx512() { return false; }
bool has_bf16_dots() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool allow_tiles() { return has_bf16_dots(); }
#else
static const Kernels& base = kAvx512;

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_bf16_dots() {
    return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

static uint32_t enabled_states() {
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

bool allow_tiles() {
    constexpr uint32_t kTiles = 1u << 24, kInt8Tiles = 1u << 25, kBf16Tiles = 1u << 22;  // of leaf 7, edx
    constexpr uint32_t kTileStates = 3u << 17;                                           // of XCR0
    constexpr long kAskForState = 0x1023, kTileData = 18;                                // of arch_prctl
    uint32_t a, b, c, d;
    if (!has_bf16_dots() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr uint32_t wanted = kTiles | kInt8Tiles | kBf16Tiles;
    if ((d & wanted) != wanted || (enabled_states() & kTileStates) != kTileStates) return false;
    return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}
#endif

Kernels with_matrices(const char* name, const Matrices& m) {
    Kernels table = base;
    table.name = name;
    table.panel = m.panel;
    table.tile_rows = 1;
    table.fine_rows = m.fine_rows;
    table.packed_bytes = m.packed_bytes;
    table.pack = m.pack;
    table.unpack_row = m.unpack_row;
    table.input_bytes = m.input_bytes;
    table.prepare = m.prepare;
    table.gemm = m.gemm;
    return table;
}

}  // namespace tandem
#endif

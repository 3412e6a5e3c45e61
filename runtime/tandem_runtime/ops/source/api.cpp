// What Python calls, by ctypes: plain C, so that any torch will do and nothing of it is needed to compile.
// One step at a time: callers hold a lock.

#include <cstring>

#include "model.h"
#include "sampler.h"
#include "threads.h"
#include "wide.h"

using namespace tandem;

namespace {

const Kernels* chosen = &kGeneric;

const Kernels* find(const char* name) {
    if (!std::strcmp(name, "generic")) return &kGeneric;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!std::strcmp(name, "avx2") && avx2) return &kAvx2;
    if (!std::strcmp(name, "avx512") && has_avx512()) return &kAvx512;
    if (!std::strcmp(name, "avx512_vnni_bf16") && has_bf16_dots()) return &bf16_kernels();
    if (!std::strcmp(name, "amx") && allow_tiles()) return &amx_kernels();
#endif
    return nullptr;
}

template <typename Body>
void share(int64_t count, Body&& body) {
    team().begin();
    team().each(count, body);
    team().end();
}

}  // namespace

extern "C" {

int32_t tandem_choose(const char* name, int32_t threads) {
    const Kernels* found = find(name);
    if (found == nullptr) return 0;
    chosen = found;
    team().resize(threads);
    return found->panel;
}

int64_t tandem_packed_bytes(int64_t n, int64_t k, int32_t kind) { return chosen->packed_bytes(n, k, kind); }

void tandem_pack(const bf16* weight, int64_t n, int64_t k, int32_t kind, int32_t pairs, void* data, float* scales) {
    const int64_t panels = (n + chosen->panel - 1) / chosen->panel + 1, each = 16;
    share((panels + each - 1) / each, [&](int64_t index, int) {
        chosen->pack(weight, n, k, kind, pairs, data, scales, index * each, (index + 1) * each);
    });
}

void tandem_linear(const Linear* weight, const float* x, int64_t rows, float* out) {
    run_linear(*chosen, *weight, x, rows, out);
}

void tandem_step(const Model* model, const Step* step) { run_step(*chosen, *model, *step); }

void tandem_choose_rows(const float* logits, int64_t rows, int64_t count, const Choice* choices, const Chosen* out) {
    choose_rows(*chosen, logits, rows, count, choices, *out);
}

void tandem_part_seconds(double* seconds, int32_t reset) {
    std::memcpy(seconds, part_seconds, sizeof(part_seconds));
    if (reset) std::memset(part_seconds, 0, sizeof(part_seconds));
}

void tandem_read(const char* memory, int64_t bytes) {
    const int64_t piece = int64_t{1} << 20;
    volatile float sink = 0;
    share(bytes / piece, [&](int64_t index, int) { sink = chosen->read(memory + index * piece, piece); });
    (void)sink;
}

}  // extern "C"

// The kernels of the instruction sets that few machines have, checked on whatever runs this: a CPU, or an emulator that
// boots Linux with this as its first process. Prints one line for each check, then the counts, then turns the power off.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <sys/reboot.h>
#include <unistd.h>
#include <vector>

#include "../../runtime/tandem_runtime/ops/source/wide.h"

using namespace tandem;

extern "C" {
int32_t tandem_choose(const char* name, int32_t threads);
int64_t tandem_packed_bytes(int64_t n, int64_t k, int32_t kind);
void tandem_pack(const bf16* weight, int64_t n, int64_t k, int32_t kind, int32_t pairs, void* data, float* scales);
void tandem_linear(const Linear* weight, const float* x, int64_t rows, float* out);
}

namespace {

constexpr double kRounding = 1e-5;  // of the largest value: float32 sums in another order
constexpr int64_t kFineRows = 7;

int passed, failed;
uint32_t state = 1;

double uniform() {  // -1 .. 1
    state = state * 1664525u + 1013904223u;
    return (double)(int32_t)state / 2147483648.0;
}

void report(const std::string& what, bool good, double distance) {
    std::printf("%s %s distance %.2g\n", good ? "PASS" : "FAIL", what.c_str(), distance);
    std::fflush(stdout);
    ++(good ? passed : failed);
}

bf16 to_bf16(double value) {
    const float number = (float)value;
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    return (bf16)((bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16);
}

float widen(bf16 value) {
    const uint32_t bits = (uint32_t)value << 16;
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

double distance(const std::vector<float>& got, const std::vector<double>& want) {
    double most = 0, largest = 0;
    for (size_t at = 0; at < want.size(); ++at) {
        const double error = std::fabs((double)got[at] - want[at]);
        most = error > most || error != error ? error : most;
        largest = std::fabs(want[at]) > largest ? std::fabs(want[at]) : largest;
    }
    return most / largest;
}

// Random numbers, or integers whose rows have scale 1 so that int8 products are exact.
void check_linear(const std::string& set, int64_t n, int64_t k, int64_t rows, bool int8, bool pairs) {
    const bool wide = set == "amx" || set == "avx512_vnni_bf16";
    const double top = wide && rows > kFineRows ? 127 : 2047;
    std::vector<bf16> weight(n * k);
    std::vector<float> x(rows * k), bias(((n + 31) / 32 + 1) * 32);
    for (int64_t at = 0; at < n * k; ++at)
        weight[at] = to_bf16(!int8 ? uniform() : at % k ? std::round(uniform() * 127) : 127);
    for (int64_t at = 0; at < rows * k; ++at)
        x[at] = (float)(!int8 ? uniform() : at % k != k - 1 ? std::round(uniform() * top) : -top);
    std::vector<char> memory(tandem_packed_bytes(n, k, int8 ? kInt8 : kBf16) + 64);
    void* data = memory.data() + (64 - (uintptr_t)memory.data() % 64) % 64;
    std::vector<float> scales(bias.size());
    tandem_pack(weight.data(), n, k, int8, pairs, data, scales.data());
    const Linear linear = {data, int8 ? scales.data() : nullptr, nullptr, n, k, int8 ? kInt8 : kBf16, pairs};
    const int64_t columns = pairs ? n / 2 : n;
    std::vector<float> got(rows * columns);
    std::vector<double> want(rows * columns), whole(n);
    tandem_linear(&linear, x.data(), rows, got.data());
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t column = 0; column < n; ++column) {
            double sum = 0;
            for (int64_t at = 0; at < k; ++at) {
                const float value = x[row * k + at];
                sum += (double)(wide && !int8 ? widen(to_bf16(value)) : value) * widen(weight[column * k + at]);
            }
            whole[column] = int8 ? (double)(float)sum : sum;
        }
        for (int64_t column = 0; column < columns; ++column) {
            const double gate = whole[column];
            want[row * columns + column] = pairs ? gate / (1 + std::exp(-gate)) * whole[columns + column] : gate;
        }
    }
    const double off = distance(got, want);
    const std::string what = set + (int8 ? " int8 " : " bfloat16 ") + (pairs ? "gated " : "") + std::to_string(rows) +
                             " rows of " + std::to_string(k) + " to " + std::to_string(n);
    report(what, int8 && !pairs ? off == 0 : off < kRounding, off);
}

std::vector<float> numbers(int64_t count) {
    std::vector<float> made(count);
    for (float& number : made) number = (float)(3 * uniform());
    return made;
}

void compare(const std::string& what, const std::vector<float>& got, const std::vector<float>& want) {
    const double off = distance(got, {want.begin(), want.end()});
    report(what, off < kRounding, off);
}

void check_sampling(const Kernels& kernels) {
    constexpr int64_t count = 1003, blocks = (count + kSampleBlock - 1) / kSampleBlock;
    const auto logits = numbers(count);
    std::vector<float> ours(blocks + kSampleBlock + 1), theirs(ours.size());
    for (const auto& [table, to] : {std::pair{&kernels, ours.data()}, std::pair{&kGeneric, theirs.data()}}) {
        std::vector<double> weights(kSampleBlock);
        table->scan(logits.data(), count, to);
        to[blocks] = (float)table->weigh(logits.data(), kSampleBlock - 3, to[0], 1.3, -1.0f, weights.data());
        for (int at = 0; at < kSampleBlock; ++at) to[blocks + 1 + at] = (float)weights[at];
    }
    compare(std::string(kernels.name) + " scan and weigh", ours, theirs);
}

void check_attention(const Kernels& kernels) {
    constexpr int64_t dim = 72, group = 3, tokens = 5, pages = 3, rows = tokens * group;
    const auto query = numbers(rows * dim);
    const int32_t order[pages] = {2, 0, 1};
    for (int32_t kind : {kBf16, kInt8}) {
        const int64_t plane = plane_bytes(dim, kind);
        std::vector<char> cache(2 * pages * plane);
        for (int64_t page = 0; page < 2 * pages; ++page) {
            char* at = cache.data() + page * plane;
            if (kind == kBf16)
                for (int64_t code = 0; code < kPageTokens * dim; ++code) ((bf16*)at)[code] = to_bf16(uniform());
            else
                for (int64_t code = 0; code < kPageTokens * dim; ++code) at[code] = (char)(127 * uniform());
            for (int64_t token = 0; kind == kInt8 && token < kPageTokens; ++token)
                ((float*)(at + kPageTokens * dim))[token] = (float)(0.02 + 0.01 * uniform());
        }
        for (int64_t window : {0, 40}) {
            const Attention work = {query.data(), group * dim, 70,  order, cache.data(), cache.data() + pages * plane,
                                    plane,        kind,        group, dim, window};
            std::vector<float> ours(rows * (dim + 2)), theirs(ours.size());
            for (const auto& [table, to] : {std::pair{&kernels, ours.data()}, std::pair{&kGeneric, theirs.data()}})
                table->attend(work, 0, tokens, 0, pages, to, to + rows * dim, to + rows * (dim + 1));
            compare(std::string(kernels.name) + " attend", ours, theirs);
        }
    }
}

// What is not matrices, beside the generic kernels.
void check_rest(const Kernels& kernels) {
    const std::string name = kernels.name;
    constexpr int64_t columns = 100;
    const auto x = numbers(6 * columns), weight = numbers(columns);
    std::vector<float> got(6 * columns), want(6 * columns);
    for (int rows : {1, 4, 6}) {
        kernels.norm(x.data(), weight.data(), 1e-6f, columns, {0, rows}, got.data());
        kGeneric.norm(x.data(), weight.data(), 1e-6f, columns, {0, rows}, want.data());
        compare(name + " norm", got, want);
    }
    check_sampling(kernels);
    check_attention(kernels);
    std::vector<bf16> matrix(45 * 70);
    for (bf16& value : matrix) value = to_bf16(uniform());
    std::vector<char> packed(kernels.packed_bytes(45, 70, kBf16));
    kernels.pack(matrix.data(), 45, 70, kBf16, 0, packed.data(), nullptr, 0, 3);
    std::vector<float> row(70), same(70);
    kernels.unpack_row({packed.data(), nullptr, nullptr, 45, 70, kBf16, 0}, 44, row.data());
    for (int at = 0; at < 70; ++at) same[at] = widen(matrix[44 * 70 + at]);
    compare(name + " unpack_row", row, same);
}

void check_set(const std::string& set, const std::function<const Kernels&()>& table) {
    if (!tandem_choose(set.c_str(), 2)) {
        std::printf("NONE this CPU cannot run the kernels for %s\n", set.c_str());
        return;
    }
    check_rest(table());
    const int64_t shapes[][2] = {{97, 33}, {128, 256}, {40, 1000}, {70, 2050}};
    for (const auto& shape : shapes)
        for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 32, 33, 64, 131, 300})
            for (bool int8 : {false, true})
                if (rows < 100 || shape[1] < 1000) check_linear(set, shape[0], shape[1], rows, int8, false);
    for (int64_t inner : {5, 16, 44})
        for (int64_t rows : {1, 4, 7, 8, 19, 40}) check_linear(set, 2 * inner, 64, rows, false, true);
}

}  // namespace

int main() {
    __builtin_cpu_init();
    check_set("amx", amx_kernels);
    check_set("avx512_vnni_bf16", bf16_kernels);
    check_set("avx512", []() -> const Kernels& { return kAvx512; });
    std::printf("%d passed, %d failed\n", passed, failed);
    std::fflush(stdout);
    if (getpid() != 1) return failed != 0;
    sleep(1);  // the line has to leave the serial port
    reboot(RB_POWER_OFF);
}

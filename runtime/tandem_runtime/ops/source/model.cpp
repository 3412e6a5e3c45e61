#include "model.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "paged_attention.h"
#include "scratch.h"
#include "threads.h"

namespace tandem {

double part_seconds[kParts];

namespace {

// Weights of one piece: enough to stream, few enough that the last piece keeps nobody waiting; many rows reuse them,
// so that they must fit half of a 512 KB cache.
constexpr int64_t kPieceBytes = 96 << 10, kReusedBytes = 256 << 10;
// Activations of int8 linears are rounded to 12 bits where the sum of products allows: they stay exact in int32.
constexpr int64_t kTopActivation = 2047;
constexpr int32_t kCoarseActivation = 127;

class Timer {
  public:
    void stop(Part part) {
        const auto now = std::chrono::steady_clock::now();
        part_seconds[part] += std::chrono::duration<double>(now - last_).count();
        last_ = now;
    }

  private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Rows in tiles of nearly equal size.
void make_tiles(int64_t rows, int64_t most, std::vector<Tile>& tiles) {
    tiles.clear();
    const int64_t count = (rows + most - 1) / most;
    for (int64_t index = 0; index < count; ++index) {
        const int64_t begin = rows * index / count, end = rows * (index + 1) / count;
        tiles.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end - begin)});
    }
}

int32_t top_activation(int64_t columns) {
    const int64_t exact = 2147483647 / (127 * (columns + 1));
    return static_cast<int32_t>(exact < kTopActivation ? exact : kTopActivation);
}

class Runner {
  public:
    explicit Runner(const Kernels& kernels) : kernels_(kernels), attention_(kernels) {}

    void step(const Model& model, const Step& step);
    void linear(const Linear& weight, const float* x, int64_t rows, float* out);

  private:
    void embed(const Model& model, const Step& step);
    void norm(const float* weight, float eps, int64_t columns, const float* x);
    void multiply(const Linear& weight, float* out, int64_t stride, Epilogue epilogue);

    const Kernels& kernels_;
    std::vector<Tile> tiles_;
    std::vector<int32_t> tile_of_;  // of each row
    PagedAttention attention_;
    Scratch<float> x_, tiled_, wide_, qkv_, scales_, angles_, picked_;
    Scratch<char> prepared_;
    float *input_ = nullptr;  // tiled: what the next linear reads
    int64_t input_rows_ = 0;
    Timer timer_;

    void set_rows(int64_t rows) {
        make_tiles(rows, kernels_.tile_rows, tiles_);
        tile_of_.resize(rows);
        for (size_t index = 0; index < tiles_.size(); ++index)
            for (int32_t row = 0; row < tiles_[index].rows; ++row) tile_of_[tiles_[index].row + row] = static_cast<int32_t>(index);
        input_rows_ = rows;
    }
    bool few() const { return input_rows_ <= kFewRows; }

    template <typename Body>
    void each_tile(Body&& body) {
        const int64_t count = static_cast<int64_t>(tiles_.size()), each = kMaxRows / kernels_.tile_rows;
        for_each((count + each - 1) / each, few(), [&](int64_t piece, int) {
            for (int64_t index = piece * each; index < count && index < (piece + 1) * each; ++index) body(tiles_[index]);
        });
    }
};

void Runner::norm(const float* weight, float eps, int64_t columns, const float* x) {
    input_ = tiled_.take(input_rows_ * columns);
    each_tile([&](Tile tile) { kernels_.norm(x, weight, eps, columns, tile, input_); });
}

void Runner::multiply(const Linear& weight, float* out, int64_t stride, Epilogue epilogue) {
    const int64_t row_bytes = weight.kind == kInt8 ? weight.k : weight.k * 2;
    const int32_t top = input_rows_ > kernels_.fine_rows ? kCoarseActivation : top_activation(weight.k);
    float* scales = scales_.take(input_rows_);
    Gemm work = {&weight, input_, scales, top, tiles_.data(), static_cast<int64_t>(tiles_.size()), out, stride, epilogue};
    if (const int64_t bytes = kernels_.input_bytes(input_rows_, weight.k, weight.kind, top)) {
        char* prepared = prepared_.take(bytes);
        each_tile([&](Tile tile) { kernels_.prepare(input_, weight.k, weight.kind, top, tile, prepared, scales); });
        work.a = prepared;
    }
    const int64_t panel = kernels_.panel, panels = (weight.n + panel - 1) / panel + 1;
    const int64_t wanted = few() ? kPieceBytes : kReusedBytes;
    int64_t each = wanted / (row_bytes * panel);
    const int64_t fair = panels / (team().size() * 4);
    each = each < fair ? each : fair;
    each = each < 1 ? 1 : each;
    for_each((panels + each - 1) / each, false,
             [&](int64_t index, int) { kernels_.gemm(work, index * each, (index + 1) * each); });
}

void Runner::embed(const Model& model, const Step& step) {
    const int64_t hidden = model.hidden, half = model.head_dim / 2;
    float* x = x_.take(step.tokens * hidden);
    float* angles = angles_.take(step.tokens * model.head_dim);
    for_each(step.tokens, few(), [&](int64_t row, int) {
        if (model.embedding != nullptr) {
            const bf16* from = model.embedding + step.token_ids[row] * hidden;
            for (int64_t at = 0; at < hidden; ++at) {
                const uint32_t bits = static_cast<uint32_t>(from[at]) << 16;
                std::memcpy(x + row * hidden + at, &bits, 4);
            }
        } else {
            kernels_.unpack_row(*model.head, step.token_ids[row], x + row * hidden);
        }
        for (int64_t at = 0; at < half; ++at) {
            const float angle = static_cast<float>(step.positions[row]) * model.inverse_frequencies[at];
            angles[row * model.head_dim + at] = std::cos(angle) * model.rope_scale;
            angles[row * model.head_dim + half + at] = std::sin(angle) * model.rope_scale;
        }
    });
}

void Runner::step(const Model& model, const Step& step) {
    const int64_t width = (model.heads + 2 * model.kv_heads) * model.head_dim;
    timer_ = Timer();
    set_rows(step.tokens);
    embed(model, step);
    float *x = x_.take(0), *angles = angles_.take(0), *qkv = qkv_.take(step.tokens * width);
    float* wide = wide_.take(step.tokens * model.inner);
    timer_.stop(kEmbed);
    for (int64_t index = 0; index < model.layer_count; ++index) {
        const Layer& layer = model.layers[index];
        norm(layer.attention_norm, model.norm_eps, model.hidden, x);
        timer_.stop(kNorm);
        multiply(layer.qkv, qkv, width, kStore);
        timer_.stop(kQkv);
        rotate(model, layer, index, step, angles, qkv);
        timer_.stop(kRope);
        input_ = tiled_.take(step.tokens * model.heads * model.head_dim);
        attention_.run(model, layer, index, step, qkv, tiles_, tile_of_, input_);
        timer_.stop(kAttend);
        multiply(layer.output, x, model.hidden, kAdd);
        timer_.stop(kOutput);
        norm(layer.mlp_norm, model.norm_eps, model.hidden, x);
        timer_.stop(kNorm);
        multiply(layer.gate_up, wide, 0, kSwiglu);
        timer_.stop(kGateUp);
        input_ = wide;
        multiply(layer.down, x, model.hidden, kAdd);
        timer_.stop(kDown);
    }
    if (step.outputs == 0) return;
    float* picked = picked_.take(step.outputs * model.hidden);
    for (int64_t row = 0; row < step.outputs; ++row)
        std::memcpy(picked + row * model.hidden, x + step.output_rows[row] * model.hidden, model.hidden * sizeof(float));
    set_rows(step.outputs);
    norm(model.norm, model.norm_eps, model.hidden, picked);
    multiply(*model.head, step.logits, model.head->n, kStore);
    timer_.stop(kHead);
}

void Runner::linear(const Linear& weight, const float* x, int64_t rows, float* out) {
    set_rows(rows);
    input_ = tiled_.take(rows * weight.k);
    for (const Tile& tile : tiles_)
        for (int64_t at = 0; at < weight.k; ++at)
            for (int64_t row = 0; row < tile.rows; ++row)
                input_[tile.row * weight.k + at * tile.rows + row] = x[(tile.row + row) * weight.k + at];
    if (!weight.pairs) return multiply(weight, out, weight.n, kStore);
    const int64_t columns = weight.n / 2;
    float* wide = wide_.take(rows * columns);
    multiply(weight, wide, 0, kSwiglu);
    for (const Tile& tile : tiles_)
        for (int64_t at = 0; at < columns; ++at)
            for (int64_t row = 0; row < tile.rows; ++row)
                out[(tile.row + row) * columns + at] = wide[tile.row * columns + at * tile.rows + row];
}

Runner& runner(const Kernels& kernels) {
    static Runner* only = nullptr;
    static const Kernels* chosen = nullptr;
    if (chosen != &kernels) {
        delete only;
        only = new Runner(kernels);
        chosen = &kernels;
    }
    return *only;
}

struct Awake {
    Awake() { team().begin(); }
    ~Awake() { team().end(); }
};

}  // namespace

void run_step(const Kernels& kernels, const Model& model, const Step& step) {
    Awake awake;
    runner(kernels).step(model, step);
}

void run_linear(const Kernels& kernels, const Linear& weight, const float* x, int64_t rows, float* out) {
    Awake awake;
    runner(kernels).linear(weight, x, rows, out);
}

}  // namespace tandem

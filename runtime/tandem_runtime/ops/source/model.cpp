#include "model.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "scratch.h"
#include "threads.h"

namespace tandem {

double part_seconds[kParts];

namespace {

// Work below this many rows is done by the caller: waking the others costs more.
constexpr int64_t kFewRows = 8;
// Weights of one piece: enough to stream, few enough that the last piece keeps nobody waiting; many rows reuse them,
// so that they must fit half of a 512 KB cache.
constexpr int64_t kPieceBytes = 96 << 10, kReusedBytes = 256 << 10;
// Pages of one piece of a long context, when there are fewer sequences than threads.
constexpr int64_t kSplitPages = 8;
// Activations of int8 linears are rounded to 12 bits where the sum of products allows: they stay exact in int32.
constexpr int64_t kTopActivation = 2047;

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
void make_tiles(int64_t rows, std::vector<Tile>& tiles) {
    tiles.clear();
    const int64_t count = (rows + kMaxRows - 1) / kMaxRows;
    for (int64_t index = 0; index < count; ++index) {
        const int64_t begin = rows * index / count, end = rows * (index + 1) / count;
        tiles.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end - begin)});
    }
}

template <typename Body>
void for_each(int64_t count, bool few, Body&& body) {
    if (few)
        for (int64_t index = 0; index < count; ++index) body(index, 0);
    else
        team().each(count, body);
}

int32_t top_activation(int64_t columns) {
    const int64_t exact = 2147483647 / (127 * (columns + 1));
    return static_cast<int32_t>(exact < kTopActivation ? exact : kTopActivation);
}

class Runner {
  public:
    explicit Runner(const Kernels& kernels) : kernels_(kernels) {}

    void step(const Model& model, const Step& step);
    void linear(const Linear& weight, const float* x, int64_t rows, float* out);
    void attend(const Model& model, const Layer& layer, int64_t index, const Step& step, const float* qkv,
                float* tiled);

  private:
    void embed(const Model& model, const Step& step);
    void norm(const float* weight, float eps, int64_t columns, const float* x);
    void rotate(const Model& model, const Layer& layer, int64_t index, const Step& step);
    void multiply(const Linear& weight, float* out, int64_t stride, Epilogue epilogue);
    void plan_attention(const Model& model, const Layer& layer, const Step& step);
    void merge(const Model& model, int64_t unit, float* tiled);

    struct Unit {  // queries of one sequence and KV head, over all its pages in `splits` pieces
        int64_t sequence, head, begin, end, page_begin, page_end, splits, partial;
    };
    struct Work {
        int64_t unit, split;
    };

    const Kernels& kernels_;
    std::vector<Tile> tiles_;
    std::vector<int32_t> tile_of_;  // of each row
    std::vector<Unit> units_;
    std::vector<Work> works_;
    Scratch<float> x_, tiled_, wide_, qkv_, scales_, angles_, partial_, top_, sum_, picked_;
    Scratch<int32_t> pairs_;
    float *input_ = nullptr;  // tiled: what the next linear reads
    int64_t input_rows_ = 0;
    Timer timer_;

    void set_rows(int64_t rows) {
        make_tiles(rows, tiles_);
        tile_of_.resize(rows);
        for (size_t index = 0; index < tiles_.size(); ++index)
            for (int32_t row = 0; row < tiles_[index].rows; ++row) tile_of_[tiles_[index].row + row] = static_cast<int32_t>(index);
        input_rows_ = rows;
    }
    bool few() const { return input_rows_ <= kFewRows; }
};

void Runner::norm(const float* weight, float eps, int64_t columns, const float* x) {
    input_ = tiled_.take(input_rows_ * columns);
    for_each(static_cast<int64_t>(tiles_.size()), few(),
             [&](int64_t index, int) { kernels_.norm(x, weight, eps, columns, tiles_[index], input_); });
}

void Runner::multiply(const Linear& weight, float* out, int64_t stride, Epilogue epilogue) {
    Gemm work = {&weight, input_, nullptr, tiles_.data(), static_cast<int64_t>(tiles_.size()), out, stride, epilogue};
    int64_t row_bytes = weight.k * 2;
    if (weight.kind == kInt8) {
        row_bytes = weight.k;
        int32_t* pairs = pairs_.take(input_rows_ * ((weight.k + 1) / 2));
        float* scales = scales_.take(input_rows_);
        const int32_t top = top_activation(weight.k);
        for_each(work.tile_count, few(),
                 [&](int64_t index, int) { kernels_.quantise(input_, weight.k, top, tiles_[index], pairs, scales); });
        work.a = pairs, work.a_scales = scales;
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

inline bf16 round_to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<bf16>((bits >> 16) | 64);  // stays a NaN
    return static_cast<bf16>((bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16);
}

void rotate_head(float* head, const float* norm, float eps, const float* angles, int64_t dim, float scale) {
    if (norm != nullptr) {
        float squares = 0;
        for (int64_t at = 0; at < dim; ++at) squares += head[at] * head[at];
        const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
        for (int64_t at = 0; at < dim; ++at) head[at] *= inverse * norm[at];
    }
    const int64_t half = dim / 2;
    for (int64_t at = 0; at < half; ++at) {
        const float low = head[at], high = head[half + at], cos = angles[at], sin = angles[half + at];
        head[at] = (low * cos - high * sin) * scale;
        head[half + at] = (high * cos + low * sin) * scale;
    }
}

// Rotates queries in place (scaled for the dot product) and keys into their pages, values beside them.
void Runner::rotate(const Model& model, const Layer& layer, int64_t index, const Step& step) {
    const int64_t dim = model.head_dim, width = (model.heads + 2 * model.kv_heads) * dim;
    const int64_t plane = model.kv_heads * kPageTokens * dim;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    float* qkv = qkv_.take(step.tokens * width);
    const float* angles = angles_.take(step.tokens * dim);
    const auto one = [&](int64_t sequence, int64_t row) {
        float* from = qkv + row * width;
        const float* turn = angles + row * dim;
        for (int64_t head = 0; head < model.heads; ++head)
            rotate_head(from + head * dim, layer.query_norm, model.norm_eps, turn, dim, scale);
        const int64_t position = step.positions[row];
        const int64_t page = step.pages[step.first_pages[sequence] + position / kPageTokens];
        bf16* keys = reinterpret_cast<bf16*>(step.pool + page * step.page_bytes) + index * 2 * plane;
        keys += position % kPageTokens * dim;
        for (int64_t head = 0; head < model.kv_heads; ++head) {
            float* key = from + (model.heads + head) * dim;
            const float* value = from + (model.heads + model.kv_heads + head) * dim;
            rotate_head(key, layer.key_norm, model.norm_eps, turn, dim, 1.0f);
            bf16* to = keys + head * kPageTokens * dim;
            for (int64_t at = 0; at < dim; ++at) to[at] = round_to_bf16(key[at]), to[plane + at] = round_to_bf16(value[at]);
        }
    };
    for (int64_t sequence = 0; sequence < step.sequences; ++sequence) {
        const int64_t first = step.first_rows[sequence], rows = step.first_rows[sequence + 1] - first;
        for_each(rows, rows <= kFewRows, [&](int64_t row, int) { one(sequence, first + row); });
    }
}

void Runner::plan_attention(const Model& model, const Layer& layer, const Step& step) {
    const int64_t group = model.heads / model.kv_heads;
    const int64_t block = kAttentionRows / group < 1 ? 1 : kAttentionRows / group;
    units_.clear();
    works_.clear();
    for (int64_t sequence = 0; sequence < step.sequences; ++sequence) {
        const int64_t first = step.first_rows[sequence], tokens = step.first_rows[sequence + 1] - first;
        const int64_t position = step.positions[first];
        for (int64_t begin = (tokens - 1) / block * block; begin >= 0; begin -= block) {  // the longest first
            const int64_t end = begin + block < tokens ? begin + block : tokens;
            const int64_t seen = layer.window ? position + begin + 1 - layer.window : 0;
            const int64_t page_begin = seen > 0 ? seen / kPageTokens : 0;
            const int64_t page_end = (position + end - 1) / kPageTokens + 1;
            for (int64_t head = 0; head < model.kv_heads; ++head)
                units_.push_back({sequence, head, begin, end, page_begin, page_end, 1, 0});
        }
    }
    int64_t rows = 0;
    const bool short_of_work = static_cast<int64_t>(units_.size()) < 2 * team().size() && team().size() > 1;
    for (size_t index = 0; index < units_.size(); ++index) {
        Unit& unit = units_[index];
        if (short_of_work) {
            unit.splits = (unit.page_end - unit.page_begin) / kSplitPages;
            unit.splits = unit.splits < 1 ? 1 : unit.splits > 4 * team().size() ? 4 * team().size() : unit.splits;
        }
        unit.partial = rows;
        rows += unit.splits * (unit.end - unit.begin) * group;
        for (int64_t split = 0; split < unit.splits; ++split) works_.push_back({static_cast<int64_t>(index), split});
    }
    partial_.take(rows * model.head_dim);
    top_.take(rows);
    sum_.take(rows);
}

// Puts the pieces of one unit together and divides; the result goes where the output projection reads it.
void Runner::merge(const Model& model, int64_t index, float* tiled) {
    const Unit& unit = units_[index];
    const int64_t group = model.heads / model.kv_heads, dim = model.head_dim, columns = model.heads * dim;
    const int64_t rows = (unit.end - unit.begin) * group;
    float* partial = partial_.take(0) + unit.partial * dim;
    const float *top = top_.take(0) + unit.partial, *sum = sum_.take(0) + unit.partial;
    for (int64_t row = 0; row < rows; ++row) {
        float best = top[row], total = 0;
        for (int64_t split = 1; split < unit.splits; ++split)
            best = top[split * rows + row] > best ? top[split * rows + row] : best;
        for (int64_t split = 0; split < unit.splits; ++split) {
            const float weight = std::exp(top[split * rows + row] - best);
            total += weight * sum[split * rows + row];
            if (unit.splits == 1) continue;
            float* from = partial + (split * rows + row) * dim;
            for (int64_t at = 0; at < dim; ++at)
                partial[row * dim + at] = (split ? partial[row * dim + at] : 0.0f) + weight * from[at];
        }
        const int64_t token = unit.sequence + unit.begin + row / group;  // `sequence` is its first row here
        const Tile tile = tiles_[tile_of_[token]];
        float* to = tiled + tile.row * columns + (unit.head * group + row % group) * dim * tile.rows + token - tile.row;
        for (int64_t at = 0; at < dim; ++at) to[at * tile.rows] = partial[row * dim + at] / total;
    }
}

void Runner::attend(const Model& model, const Layer& layer, int64_t index, const Step& step, const float* qkv,
                    float* tiled) {
    const int64_t dim = model.head_dim, width = (model.heads + 2 * model.kv_heads) * dim;
    const int64_t group = model.heads / model.kv_heads, plane = model.kv_heads * kPageTokens * dim;
    plan_attention(model, layer, step);
    float *partial = partial_.take(0), *top = top_.take(0), *sum = sum_.take(0);
    for_each(static_cast<int64_t>(works_.size()), false, [&](int64_t number, int) {
        const Unit& unit = units_[works_[number].unit];
        const int64_t split = works_[number].split, pages = unit.page_end - unit.page_begin;
        const int64_t first = step.first_rows[unit.sequence], rows = (unit.end - unit.begin) * group;
        const bf16* keys = reinterpret_cast<const bf16*>(step.pool) + index * 2 * plane + unit.head * kPageTokens * dim;
        const Attention work = {
            qkv + first * width + unit.head * group * dim,
            width,
            step.positions[first],
            step.pages + step.first_pages[unit.sequence],
            reinterpret_cast<const char*>(keys),
            reinterpret_cast<const char*>(keys + plane),
            step.page_bytes,
            static_cast<int32_t>(group),
            static_cast<int32_t>(dim),
            layer.window,
        };
        const int64_t at = unit.partial + split * rows;
        kernels_.attend(work, unit.begin, unit.end, unit.page_begin + pages * split / unit.splits,
                        unit.page_begin + pages * (split + 1) / unit.splits, partial + at * dim, top + at, sum + at);
    });
    for (Unit& unit : units_) unit.sequence = step.first_rows[unit.sequence];
    for_each(static_cast<int64_t>(units_.size()), few(), [&](int64_t unit, int) { merge(model, unit, tiled); });
}

void Runner::step(const Model& model, const Step& step) {
    const int64_t width = (model.heads + 2 * model.kv_heads) * model.head_dim;
    timer_ = Timer();
    set_rows(step.tokens);
    embed(model, step);
    float *x = x_.take(0), *qkv = qkv_.take(step.tokens * width);
    float* wide = wide_.take(step.tokens * model.inner);
    timer_.stop(kEmbed);
    for (int64_t index = 0; index < model.layer_count; ++index) {
        const Layer& layer = model.layers[index];
        norm(layer.attention_norm, model.norm_eps, model.hidden, x);
        timer_.stop(kNorm);
        multiply(layer.qkv, qkv, width, kStore);
        timer_.stop(kQkv);
        rotate(model, layer, index, step);
        timer_.stop(kRope);
        input_ = tiled_.take(step.tokens * model.heads * model.head_dim);
        attend(model, layer, index, step, qkv, input_);
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

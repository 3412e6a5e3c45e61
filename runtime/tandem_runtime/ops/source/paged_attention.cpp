#include "paged_attention.h"

#include <cmath>

#include "threads.h"

namespace tandem {

namespace {

// Pages of one piece of a long context, when there are fewer sequences than threads.
constexpr int64_t kSplitPages = 8;

}  // namespace

void PagedAttention::plan(const Model& model, const Layer& layer, const Step& step) {
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
void PagedAttention::merge(const Model& model, int64_t index, const std::vector<Tile>& tiles,
                           const std::vector<int32_t>& tile_of, float* tiled) {
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
        const Tile tile = tiles[tile_of[token]];
        float* to = tiled + tile.row * columns + (unit.head * group + row % group) * dim * tile.rows + token - tile.row;
        for (int64_t at = 0; at < dim; ++at) to[at * tile.rows] = partial[row * dim + at] / total;
    }
}

void PagedAttention::run(const Model& model, const Layer& layer, int64_t index, const Step& step, const float* qkv,
                         const std::vector<Tile>& tiles, const std::vector<int32_t>& tile_of, float* tiled) {
    const int64_t dim = model.head_dim, width = (model.heads + 2 * model.kv_heads) * dim;
    const int64_t group = model.heads / model.kv_heads;
    const int32_t kind = static_cast<int32_t>(step.kv_kind);
    const int64_t plane = plane_bytes(dim, kind);
    plan(model, layer, step);
    float *partial = partial_.take(0), *top = top_.take(0), *sum = sum_.take(0);
    for_each(static_cast<int64_t>(works_.size()), false, [&](int64_t number, int) {
        const Unit& unit = units_[works_[number].unit];
        const int64_t split = works_[number].split, pages = unit.page_end - unit.page_begin;
        const int64_t first = step.first_rows[unit.sequence], rows = (unit.end - unit.begin) * group;
        const char* keys = step.pool + (index * 2 * model.kv_heads + unit.head) * plane;
        const Attention work = {
            qkv + first * width + unit.head * group * dim,
            width,
            step.positions[first],
            step.pages + step.first_pages[unit.sequence],
            keys,
            keys + model.kv_heads * plane,
            step.page_bytes,
            kind,
            static_cast<int32_t>(group),
            static_cast<int32_t>(dim),
            layer.window,
        };
        const int64_t at = unit.partial + split * rows;
        kernels_.attend(work, unit.begin, unit.end, unit.page_begin + pages * split / unit.splits,
                        unit.page_begin + pages * (split + 1) / unit.splits, partial + at * dim, top + at, sum + at);
    });
    for (Unit& unit : units_) unit.sequence = step.first_rows[unit.sequence];
    for_each(static_cast<int64_t>(units_.size()), step.tokens <= kFewRows,
             [&](int64_t unit, int) { merge(model, unit, tiles, tile_of, tiled); });
}

}  // namespace tandem

// What a layer does with its queries, keys and values: rotation, storing in pages, and attention over the pages.
#pragma once

#include <vector>

#include "model.h"
#include "scratch.h"

namespace tandem {

// Rotates queries in place (scaled for the dot product) and keys into their pages, values beside them.
void rotate(const Model& model, const Layer& layer, int64_t index, const Step& step, const float* angles, float* qkv);

class PagedAttention {
  public:
    explicit PagedAttention(const Kernels& kernels) : kernels_(kernels) {}

    // Layer `index` of a step, of rotated queries; the result is tiled as the output projection reads it.
    void run(const Model& model, const Layer& layer, int64_t index, const Step& step, const float* qkv,
             const std::vector<Tile>& tiles, const std::vector<int32_t>& tile_of, float* tiled);

  private:
    void plan(const Model& model, const Layer& layer, const Step& step);
    void merge(const Model& model, int64_t unit, const std::vector<Tile>& tiles, const std::vector<int32_t>& tile_of,
               float* tiled);

    struct Unit {  // queries of one sequence and KV head, over all its pages in `splits` pieces
        int64_t sequence, head, begin, end, page_begin, page_end, splits, partial;
    };
    struct Work {
        int64_t unit, split;
    };

    const Kernels& kernels_;
    std::vector<Unit> units_;
    std::vector<Work> works_;
    Scratch<float> partial_, top_, sum_;
};

}  // namespace tandem

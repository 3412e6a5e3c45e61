// Tokens from logits without sorting a vocabulary: thresholds by selection, weights in double, blocks that cannot matter
// passed by. Sums run in another order than the reference's, so every comparison is made with the bound of what rounding
// may do on both sides; where it would decide, the row is left to the reference: what is chosen here is what it chooses.

#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "threads.h"

namespace tandem {

namespace {

constexpr int64_t kUndecided = -1;
// A flat vocabulary of 152k puts some 700 logits into the fullest of them; all fit the L1 cache.
constexpr int kBuckets = 4096;
// Beyond these the reference's own exponents are coarse, or all alike.
constexpr double kLeastTemperature = 1e-9, kMostTemperature = 1e9;
// Of a weight: two roundings of an exponent up to 50 on both sides, and both exponential functions.
constexpr double kWeightError = 4e-14;
// Of a running sum, for each of its terms: one rounding.
constexpr double kSumError = 1.2e-16;
// Of an exponent, for two logits that are to have different weights on both sides.
constexpr double kExponentError = 1e-15;

// Rounds a product before it is added to: no machine may fuse the two, as the law rounds twice.
inline double rounded(double product) {
    volatile double kept = product;
    return kept;
}

// Memory of one thread, from row to row.
struct Desk {
    std::vector<float> changed, tops, own_tops, values;
    std::vector<double> sums, masses;
    std::vector<int32_t> seen;
    std::vector<std::pair<float, int64_t>> likeliest;
    double weights[kSampleBlock];
    int32_t buckets[kSampleBlock];
};

class Row {
  public:
    Row(const Kernels& kernels, Desk& desk, const float* logits, int64_t count, const Choice& choice)
        : kernels_(kernels), desk_(desk), logits_(logits), own_(logits), count_(count), choice_(choice),
          blocks_((count + kSampleBlock - 1) / kSampleBlock),
          error_(kWeightError + kSumError * static_cast<double>(count + 1024)) {}

    int64_t choose();
    // After choose: of the logits as the model gave them. False where they are no numbers.
    bool report(int64_t id, double& logprob, int64_t most, int64_t* others, double* other_logprobs);

  private:
    void change();
    bool look(const float* logits, std::vector<float>& tops, double& top);
    int64_t first_of(float value) const;
    bool filter_top_k();
    bool filter_min_p(float& floor) const;
    bool filter_top_p();
    bool find_floor(double before, double wanted, double margin);
    double mass_of(const float* values, int64_t count);
    double add_up(const float* logits, const std::vector<float>& tops, double top, double inverse, float floor);
    void fill_buckets();
    int64_t draw();

    int64_t begin_of(int64_t block) const { return block * kSampleBlock; }
    int64_t size_of(int64_t block) const { return std::min<int64_t>(kSampleBlock, count_ - begin_of(block)); }
    int bucket_of(float logit) const {
        return static_cast<int>(std::min((static_cast<float>(top_) - logit) * scale_, kBuckets - 1.0f));
    }

    const Kernels& kernels_;
    Desk& desk_;
    const float* logits_;  // as penalties, bias and least length leave them
    const float* own_;     // the model's
    const int64_t count_;
    const Choice& choice_;
    const int64_t blocks_;
    const double error_;  // of a running sum, as a share of it
    double top_ = 0, inverse_ = 0;
    float floor_ = -INFINITY;  // the least logit that is kept
    float scale_ = 0;          // buckets for each unit of a logit
};

int64_t Row::choose() {
    change();
    if (!look(logits_, desk_.tops, top_)) return kUndecided;
    if (choice_.temperature <= 0) return first_of(static_cast<float>(top_));
    if (choice_.temperature < kLeastTemperature || choice_.temperature > kMostTemperature) return kUndecided;
    inverse_ = 1 / choice_.temperature;
    float least_p = -INFINITY;
    if (!filter_top_k() || !filter_min_p(least_p) || !filter_top_p()) return kUndecided;
    floor_ = std::max(floor_, least_p);
    return draw();
}

bool Row::look(const float* logits, std::vector<float>& tops, double& top) {
    tops.resize(blocks_);
    if (!kernels_.scan(logits, count_, tops.data())) return false;
    top = *std::max_element(tops.begin(), tops.end());
    return std::isfinite(top);
}

int64_t Row::first_of(float value) const {
    const int64_t block = std::find(desk_.tops.begin(), desk_.tops.end(), value) - desk_.tops.begin();
    return std::find(logits_ + begin_of(block), logits_ + count_, value) - logits_;
}

// The same arithmetic as the law's: double, each change rounded to float.
void Row::change() {
    const Choice& how = choice_;
    if (!how.token_count && !how.biased_count && !how.barred_count) return;
    desk_.changed.assign(logits_, logits_ + count_);
    logits_ = desk_.changed.data();
    float* const row = desk_.changed.data();
    auto& seen = desk_.seen;
    if (how.token_count) seen.resize(std::max<size_t>(seen.size(), count_));  // 0 wherever nothing is being counted
    if (how.repetition != 1.0)
        for (int64_t at = 0; at < how.token_count; ++at) {
            float& logit = row[how.tokens[at]];
            if (seen[how.tokens[at]]++ == 0)
                logit = static_cast<float>(logit > 0 ? logit / how.repetition : logit * how.repetition);
        }
    for (int64_t at = 0; at < how.token_count; ++at) seen[how.tokens[at]] = 0;
    const int64_t* const answer = how.tokens + (how.token_count - how.answered);
    for (int64_t at = 0; at < how.answered; ++at) ++seen[answer[at]];
    for (int64_t at = 0; at < how.answered; ++at)
        if (const int32_t times = seen[answer[at]]) {
            const double penalty = rounded(how.frequency * times) + how.presence;
            row[answer[at]] = static_cast<float>(row[answer[at]] - penalty);
            seen[answer[at]] = 0;
        }
    for (int64_t at = 0; at < how.biased_count; ++at)
        row[how.biased[at]] = static_cast<float>(row[how.biased[at]] + how.biases[at]);
    for (int64_t at = 0; at < how.barred_count; ++at) row[how.barred[at]] = -INFINITY;
}

// The k-th largest logit. So many blocks whose largest reaches a bound hold at least so many that do.
bool Row::filter_top_k() {
    const int64_t k = choice_.top_k;
    if (k <= 0 || k >= count_) return true;
    auto& values = desk_.values;
    float bound = -INFINITY;
    if (k <= blocks_) {
        values.assign(desk_.tops.begin(), desk_.tops.end());
        std::nth_element(values.begin(), values.begin() + (k - 1), values.end(), std::greater<float>());
        bound = values[k - 1];
    }
    values.clear();
    for (int64_t block = 0; block < blocks_; ++block)
        if (desk_.tops[block] >= bound)
            std::copy_if(logits_ + begin_of(block), logits_ + begin_of(block) + size_of(block),
                         std::back_inserter(values), [bound](float logit) { return logit >= bound; });
    std::nth_element(values.begin(), values.begin() + (k - 1), values.end(), std::greater<float>());
    floor_ = values[k - 1];
    return true;
}

// The least logit whose weight reaches min_p; false when one lies where rounding decides.
bool Row::filter_min_p(float& floor) const {
    if (choice_.min_p < std::exp(kLowestExponent)) return true;  // drops what is never drawn for certain
    const double exponent = std::log(choice_.min_p), bound = top_ + choice_.temperature * exponent;
    const double error = choice_.temperature * kWeightError * (1 + std::fabs(exponent)) +
                         kExponentError * (std::fabs(top_) + std::fabs(bound));
    const auto first_from = [](double value) {
        const float near = static_cast<float>(value);
        return near < value ? std::nextafter(near, INFINITY) : near;
    };
    floor = first_from(bound - error);
    if (choice_.min_p >= 1) return floor == static_cast<float>(top_);  // whose weight is 1 exactly
    return floor == first_from(bound + error);
}

double Row::mass_of(const float* values, int64_t count) {
    double mass = 0;
    for (int64_t at = 0; at < count; at += kSampleBlock)
        mass += kernels_.weigh(values + at, std::min<int64_t>(kSampleBlock, count - at), top_, inverse_, -INFINITY,
                               desk_.weights);
    return mass;
}

// Mass of the kept logits by how far they are from the largest.
void Row::fill_buckets() {
    scale_ = static_cast<float>(kBuckets / -kLowestExponent * inverse_);
    desk_.masses.assign(kBuckets, 0.0);
    double* const masses = desk_.masses.data();
    for (int64_t block = 0; block < blocks_; ++block) {
        if (desk_.tops[block] < floor_ || bucket_of(desk_.tops[block]) == kBuckets - 1) continue;
        const float* const logits = logits_ + begin_of(block);
        const int64_t size = size_of(block);
        kernels_.weigh(logits, size, top_, inverse_, floor_, desk_.weights);
        for (int64_t at = 0; at < size; ++at) desk_.buckets[at] = bucket_of(logits[at]);
        for (int64_t at = 0; at < size; ++at) masses[desk_.buckets[at]] += desk_.weights[at];
    }
}

// The logit at which the mass of the likeliest reaches top_p; false when rounding would decide which.
bool Row::filter_top_p() {
    if (choice_.top_p >= 1) return true;
    fill_buckets();
    double total = 0;
    for (const double mass : desk_.masses) total += mass;
    const double wanted = choice_.top_p * total, margin = 2 * error_ * total;
    double before = 0;
    int bucket = 0;
    while (bucket < kBuckets && before + desk_.masses[bucket] < wanted) before += desk_.masses[bucket++];
    if (bucket >= kBuckets - 1) return false;
    auto& values = desk_.values;
    values.clear();
    for (int64_t block = 0; block < blocks_; ++block) {
        if (desk_.tops[block] < floor_ || bucket_of(desk_.tops[block]) > bucket) continue;
        for (int64_t at = begin_of(block), end = at + size_of(block); at < end; ++at)
            if (logits_[at] >= floor_ && bucket_of(logits_[at]) == bucket) values.push_back(logits_[at]);
    }
    return find_floor(before, wanted, margin);
}

// Selects among desk_.values, which have `before` above them: halves by a pivot until it is the one.
bool Row::find_floor(double before, double wanted, double margin) {
    float *begin = desk_.values.data(), *end = begin + desk_.values.size();
    while (begin < end) {
        const float a = begin[0], b = begin[(end - begin) / 2], c = end[-1];
        const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
        float* const equal = std::partition(begin, end, [pivot](float value) { return value > pivot; });
        const double above = before + mass_of(begin, equal - begin);
        if (std::fabs(above - wanted) <= margin) return false;
        if (above > wanted) {
            end = equal;
            continue;
        }
        float* const below = std::partition(equal, end, [pivot](float value) { return value == pivot; });
        const double reached = above + mass_of(equal, below - equal);
        if (std::fabs(reached - wanted) <= margin) return false;
        if (reached > wanted) {
            // Neighbours that the reference might take for its equals: no logit must be that near.
            const double gap = std::min(pivot - std::nextafter(pivot, -INFINITY), std::nextafter(pivot, INFINITY) - pivot);
            floor_ = pivot;
            return gap * inverse_ > kExponentError * (4 + (top_ - pivot) * inverse_);
        }
        before = reached;
        begin = below;
    }
    return false;
}

// Sums of blocks into desk_.sums; returns that of all.
double Row::add_up(const float* logits, const std::vector<float>& tops, double top, double inverse, float floor) {
    desk_.sums.assign(blocks_, 0.0);
    double total = 0;
    for (int64_t block = 0; block < blocks_; ++block) {
        if (tops[block] < floor || (tops[block] - top) * inverse < kLowestExponent) continue;
        desk_.sums[block] =
            kernels_.weigh(logits + begin_of(block), size_of(block), top, inverse, floor, desk_.weights);
        total += desk_.sums[block];
    }
    return total;
}

// By the inverse distribution function over what is kept, in order of the ids.
int64_t Row::draw() {
    const double total = add_up(logits_, desk_.tops, top_, inverse_, floor_);
    const double target = choice_.number * total, margin = 2 * error_ * total;
    double before = 0;
    int64_t block = 0;
    while (block < blocks_ && before + desk_.sums[block] <= target) before += desk_.sums[block++];
    if (block == blocks_) return kUndecided;
    const int64_t first = begin_of(block), size = size_of(block);
    kernels_.weigh(logits_ + first, size, top_, inverse_, floor_, desk_.weights);
    for (int64_t at = 0; at < size; ++at) {
        const double reached = before + desk_.weights[at];
        if (reached > target) {
            const bool begins = target - before > margin || first + at == 0;  // nothing is before the first
            return begins && reached - target > margin ? first + at : kUndecided;
        }
        before = reached;
    }
    return kUndecided;
}

bool Row::report(int64_t id, double& logprob, int64_t most, int64_t* others, double* other_logprobs) {
    auto& tops = desk_.own_tops;
    double top;
    if (!look(own_, tops, top)) return false;
    const double log_total = top + std::log(add_up(own_, tops, top, 1, -INFINITY));
    logprob = own_[id] - log_total;
    const int64_t wanted = std::min(most, count_);
    if (wanted < 1) return true;
    auto& values = desk_.values;
    float bound = -INFINITY;
    if (wanted <= blocks_) {
        values.assign(tops.begin(), tops.end());
        std::nth_element(values.begin(), values.begin() + (wanted - 1), values.end(), std::greater<float>());
        bound = values[wanted - 1];
    }
    auto& likeliest = desk_.likeliest;
    likeliest.clear();
    for (int64_t block = 0; block < blocks_; ++block) {
        if (tops[block] < bound) continue;
        for (int64_t at = begin_of(block), end = at + size_of(block); at < end; ++at)
            if (own_[at] >= bound) likeliest.emplace_back(own_[at], at);
    }
    std::partial_sort(likeliest.begin(), likeliest.begin() + wanted, likeliest.end(), [](auto& a, auto& b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
    });
    for (int64_t place = 0; place < wanted; ++place) {
        others[place] = likeliest[place].second;
        other_logprobs[place] = likeliest[place].first - log_total;
    }
    return true;
}

}  // namespace

void choose_rows(const Kernels& kernels, const float* logits, int64_t rows, int64_t count, const Choice* choices,
                 const Chosen& chosen) {
    static std::vector<Desk> desks;  // of the threads; one call at a time
    desks.resize(std::max<size_t>(desks.size(), team().size()));
    auto piece = [&](int64_t index, int thread) {
        const Choice& choice = choices[index];
        Row row(kernels, desks[thread], logits + index * count, count, choice);
        int64_t id = row.choose();
        if (id != kUndecided && choice.alternatives >= 0 &&
            !row.report(id, chosen.logprobs[index], choice.alternatives, chosen.others + index * chosen.most,
                        chosen.other_logprobs + index * chosen.most))
            id = kUndecided;
        chosen.ids[index] = id;
    };
    if (rows == 1) return piece(0, 0);
    team().begin();
    team().each(rows, piece);
    team().end();
}

}  // namespace tandem

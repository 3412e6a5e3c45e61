#include "threads.h"

#include <condition_variable>
#include <mutex>
#include <sched.h>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tandem {

namespace {

constexpr int kCountBits = 20;
constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
// Looks before a thread lets others run: some 20 microseconds, longer than nearly every phase's last piece.
constexpr int kLooks = 1000;

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

struct Team::Helpers {
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::condition_variable wake;
};

Team& team() {
    static Team* only = new Team;  // never destroyed: helpers may still look at it while the process ends
    return *only;
}

void Team::resize(int threads) {
    if (helpers_ != nullptr) {
        {
            std::lock_guard<std::mutex> lock(helpers_->mutex);
            stopping_ = true;
        }
        helpers_->wake.notify_all();
        for (auto& thread : helpers_->threads) thread.join();
        delete helpers_;
        helpers_ = nullptr;
        stopping_ = false;
    }
    size_ = threads < 1 ? 1 : threads;
    if (size_ == 1) return;
    helpers_ = new Helpers;
    for (int index = 1; index < size_; ++index) helpers_->threads.emplace_back([this, index] { help(index); });
}

void Team::begin() {
    if (helpers_ == nullptr) return;
    {
        std::lock_guard<std::mutex> lock(helpers_->mutex);
        active_.store(1, std::memory_order_release);
    }
    helpers_->wake.notify_all();
}

void Team::end() { active_.store(0, std::memory_order_release); }

bool Team::work(int thread) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
        const uint64_t next = ticket & kCountMask;
        if (next >= ((ticket >> kCountBits) & kCountMask)) return false;
        const Piece piece = piece_.load(std::memory_order_relaxed);
        void* const context = context_.load(std::memory_order_relaxed);
        if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire))
            continue;
        piece(context, static_cast<int64_t>(next), thread);
        done_.fetch_add(1, std::memory_order_acq_rel);
        return true;
    }
}

void Team::run(int64_t count, Piece piece, void* context) {
    if (size_ == 1 || count <= 1) {
        for (int64_t index = 0; index < count; ++index) piece(context, index, 0);
        return;
    }
    piece_.store(piece, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const uint64_t phase = (ticket_.load(std::memory_order_relaxed) >> (2 * kCountBits)) + 1;
    ticket_.store((phase << (2 * kCountBits)) | (static_cast<uint64_t>(count) << kCountBits), std::memory_order_release);
    while (work(0)) {
    }
    for (int looks = 0; done_.load(std::memory_order_acquire) < count;) {
        if (++looks < kLooks)
            pause();
        else
            sched_yield();
    }
}

void Team::help(int thread) {
    for (;;) {
        int looks = 0;
        while (active_.load(std::memory_order_acquire) != 0 || looks < kLooks) {
            if (stopping_) return;
            if (work(thread))
                looks = 0;
            else if (++looks < kLooks)
                pause();
            else
                sched_yield();
        }
        std::unique_lock<std::mutex> lock(helpers_->mutex);
        helpers_->wake.wait(lock, [this] { return stopping_ || active_.load(std::memory_order_acquire) != 0; });
        if (stopping_) return;
    }
}

}  // namespace tandem

// A team of threads that shares the pieces of one phase after another. A thread that the system does not run holds
// nobody up: pieces are claimed one by one, and a phase ends when all pieces are done, not when all threads came by.
#pragma once

#include <atomic>
#include <cstdint>

namespace tandem {

using Piece = void (*)(void* context, int64_t index, int thread);

class Team {
  public:
    // `threads` in all, the caller included; what is there before is ended first.
    void resize(int threads);
    int size() const { return size_; }
    // Between begin and end the helpers look for work without sleeping.
    void begin();
    void end();
    // Calls piece(context, 0 .. count - 1, thread), returns when all are done. count < 2^20.
    void run(int64_t count, Piece piece, void* context);

    template <typename Body>
    void each(int64_t count, Body& body) {
        run(count, [](void* context, int64_t index, int thread) { (*static_cast<Body*>(context))(index, thread); }, &body);
    }

    ~Team() { resize(1); }

  private:
    void help(int thread);
    bool work(int thread);

    alignas(64) std::atomic<uint64_t> ticket_{0};  // phase | count | next piece, so that one comparison checks all
    alignas(64) std::atomic<int64_t> done_{0};
    alignas(64) std::atomic<Piece> piece_{nullptr};
    std::atomic<void*> context_{nullptr};
    alignas(64) std::atomic<uint32_t> active_{0};  // odd: a step runs
    std::atomic<bool> stopping_{false};
    int size_ = 1;
    struct Helpers;
    Helpers* helpers_ = nullptr;
};

Team& team();

// Work below this many rows is done by the caller: waking the others costs more.
constexpr int64_t kFewRows = 8;

template <typename Body>
void for_each(int64_t count, bool few, Body&& body) {
    if (few)
        for (int64_t index = 0; index < count; ++index) body(index, 0);
    else
        team().each(count, body);
}

}  // namespace tandem

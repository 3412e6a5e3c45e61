// Memory that lasts from step to step: grown, never shrunk, in huge pages.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <sys/mman.h>

namespace tandem {

template <typename T>
class Scratch {
  public:
    T* take(size_t count) {
        const size_t bytes = count * sizeof(T);
        if (bytes > bytes_) {
            std::free(data_);
            bytes_ = (bytes + kHuge - 1) / kHuge * kHuge;
            data_ = static_cast<T*>(std::aligned_alloc(kHuge, bytes_));
            if (data_ == nullptr) std::abort();  // the caller reserved for it; there is nobody to tell here
            madvise(data_, bytes_, MADV_HUGEPAGE);
        }
        return data_;
    }

  private:
    static constexpr size_t kHuge = size_t{2} << 20;
    T* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace tandem

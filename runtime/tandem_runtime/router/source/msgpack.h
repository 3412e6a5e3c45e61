// The part of MessagePack that a Step is made of. Nothing is copied: texts are views into the frame.
#pragma once

#include <cstdint>
#include <string_view>

class Reader {
 public:
  Reader(const uint8_t* at, const uint8_t* end) : at_(at), end_(end) {}

  bool bad() const { return bad_; }
  bool finished() const { return !bad_ && at_ == end_; }

  uint32_t map() { return length(0x80, 0x0f, 0xde); }
  uint32_t array() { return length(0x90, 0x0f, 0xdc); }

  std::string_view text() {
    uint8_t tag = byte();
    if ((tag & 0xe0) == 0xa0) return view(tag & 0x1f);
    if (tag == 0xd9) return view(number(1));
    if (tag == 0xda) return view(number(2));
    if (tag == 0xdb) return view(number(4));
    bad_ = true;
    return {};
  }

  int64_t integer() {
    uint8_t tag = byte();
    if (tag < 0x80) return tag;
    if (tag >= 0xe0) return static_cast<int8_t>(tag);
    switch (tag) {
      case 0xcc: return static_cast<int64_t>(number(1));
      case 0xcd: return static_cast<int64_t>(number(2));
      case 0xce: return static_cast<int64_t>(number(4));
      case 0xd0: return static_cast<int8_t>(number(1));
      case 0xd1: return static_cast<int16_t>(number(2));
      case 0xd2: return static_cast<int32_t>(number(4));
      case 0xd3: return static_cast<int64_t>(number(8));
      case 0xcf: {
        uint64_t value = number(8);
        bad_ |= value > INT64_MAX;
        return static_cast<int64_t>(value);
      }
    }
    bad_ = true;
    return 0;
  }

  // Passes over one value of any kind; true when it was nil.
  bool skip(int depth = 0) {
    if (depth > 16) bad_ = true;
    if (bad_ || at_ == end_) {
      bad_ = true;
      return false;
    }
    uint8_t tag = *at_;
    if (tag == 0xc0) {
      ++at_;
      return true;
    }
    if ((tag & 0xf0) == 0x90 || tag == 0xdc || tag == 0xdd) {
      for (uint32_t left = array(); left && !bad_; --left) skip(depth + 1);
    } else if ((tag & 0xf0) == 0x80 || tag == 0xde || tag == 0xdf) {
      for (uint64_t left = 2ull * map(); left && !bad_; --left) skip(depth + 1);
    } else if ((tag & 0xe0) == 0xa0 || (tag >= 0xd9 && tag <= 0xdb)) {
      text();
    } else if (tag < 0x80 || tag >= 0xe0 || (tag >= 0xcc && tag <= 0xd3)) {
      integer();
    } else if (tag == 0xc2 || tag == 0xc3) {
      ++at_;
    } else if (tag == 0xca || tag == 0xcb) {
      ++at_;
      view(tag == 0xca ? 4 : 8);
    } else {
      bad_ = true;  // bytes and extensions stand in no Delta
    }
    return false;
  }

 private:
  uint8_t byte() {
    if (bad_ || at_ == end_) {
      bad_ = true;
      return 0xc1;  // which begins nothing
    }
    return *at_++;
  }

  uint64_t number(int bytes) {
    uint64_t value = 0;
    for (; bytes; --bytes) value = value << 8 | byte();
    return value;
  }

  std::string_view view(uint64_t size) {
    if (bad_ || size > static_cast<uint64_t>(end_ - at_)) {
      bad_ = true;
      return {};
    }
    std::string_view found(reinterpret_cast<const char*>(at_), size);
    at_ += size;
    return found;
  }

  uint32_t length(uint8_t fixed, uint8_t mask, uint8_t wide) {
    uint8_t tag = byte();
    if ((tag & 0xf0) == fixed) return tag & mask;
    if (tag == wide) return static_cast<uint32_t>(number(2));
    if (tag == wide + 1) return static_cast<uint32_t>(number(4));
    bad_ = true;
    return 0;
  }

  const uint8_t* at_;
  const uint8_t* end_;
  bool bad_ = false;
};

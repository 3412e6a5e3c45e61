// Text as the JSON strings of answers, byte for byte as msgspec writes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

// Strict UTF-8 as Python reads it: no surrogates, nothing overlong, nothing above U+10FFFF.
inline bool is_utf8(std::string_view text) {
  const auto* at = reinterpret_cast<const uint8_t*>(text.data());
  const auto* end = at + text.size();
  while (at < end) {
    uint8_t lead = *at++;
    if (lead < 0x80) continue;
    int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || end - at < more) return false;
    uint8_t low = 0x80, high = 0xbf;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    if (*at < low || *at > high) return false;
    for (++at, --more; more; --more, ++at)
      if ((*at & 0xc0) != 0x80) return false;
  }
  return true;
}

inline void append_json(std::string& out, std::string_view text) {
  static const char* hex = "0123456789abcdef";
  out += '"';
  size_t from = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    auto code = static_cast<uint8_t>(text[at]);
    if (code >= 0x20 && code != '"' && code != '\\') continue;
    out.append(text, from, at - from);
    from = at + 1;
    out += '\\';
    switch (code) {
      case '"':
      case '\\': out += static_cast<char>(code); break;
      case '\b': out += 'b'; break;
      case '\t': out += 't'; break;
      case '\n': out += 'n'; break;
      case '\f': out += 'f'; break;
      case '\r': out += 'r'; break;
      default:
        out += "u00";
        out += hex[code >> 4];
        out += hex[code & 15];
    }
  }
  out.append(text, from);
  out += '"';
}

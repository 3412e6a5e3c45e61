// From a pod's Step to the sockets of clients, without Python in between: only deltas that continue a stream that is
// known here, carry nothing but tokens and text, and only to sockets that take all of it. lanes.py tells the rules.
#include <sys/socket.h>
#include <time.h>

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "json_text.h"
#include "msgpack.h"

namespace {

struct Stream {
  std::string id;
  int64_t number, attempt, next;  // `next`: output index of the delta that continues it
  int socket;
  std::string before, after;
  std::vector<int64_t> ids;
  double last_at = 0;  // monotonic seconds of the last token
  std::string unsent;  // what the socket did not take; then nothing more goes here
  bool stuck = false;
};

struct Plain {
  std::string_view id, text;
  int64_t attempt, index;
  size_t ids_from, ids_count;
  bool plain;
};

struct Table {
  std::unordered_map<std::string_view, std::unique_ptr<Stream>> streams;
  std::vector<Plain> deltas;
  std::vector<int64_t> ids;
  std::string chunk;
};

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// All or nothing: false for what is no Step, or is damaged.
bool read_step(Table& table, Reader reader) {
  table.deltas.clear();
  table.ids.clear();
  if (reader.map() != 2 || reader.text() != "type" || reader.text() != "step" || reader.text() != "deltas")
    return false;
  for (uint32_t left = reader.array(); left && !reader.bad(); --left) {
    Plain delta;
    uint32_t fields = reader.array();
    if (fields < 5) return false;
    delta.id = reader.text();
    delta.attempt = reader.integer();
    delta.index = reader.integer();
    delta.ids_from = table.ids.size();
    for (uint32_t more = reader.array(); more && !reader.bad(); --more) table.ids.push_back(reader.integer());
    delta.ids_count = table.ids.size() - delta.ids_from;
    delta.text = reader.text();
    delta.plain = true;
    for (uint32_t more = fields - 5; more && !reader.bad(); --more) delta.plain &= reader.skip();
    if (!reader.bad() && !is_utf8(delta.text)) return false;
    table.deltas.push_back(delta);
  }
  return reader.finished();
}

void write_text(Stream& stream, std::string& chunk, std::string_view text) {
  chunk.assign(10, ' ');  // room for the size, which is known at the end
  chunk += stream.before;
  append_json(chunk, text);
  chunk += stream.after;
  char size[11];
  int digits = std::snprintf(size, sizeof size, "%zx\r\n", chunk.size() - 10);
  size_t from = 10 - static_cast<size_t>(digits);
  chunk.replace(from, static_cast<size_t>(digits), size, static_cast<size_t>(digits));
  chunk += "\r\n";
  size_t bytes = chunk.size() - from;
  ssize_t sent = send(stream.socket, chunk.data() + from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(bytes)) return;
  stream.stuck = true;
  stream.unsent.assign(chunk, from + static_cast<size_t>(sent < 0 ? 0 : sent));
}

}  // namespace

extern "C" {

struct Left {
  const int64_t* ids;
  int64_t ids_count;
  double last_at;
  const char* unsent;
  int64_t unsent_bytes;
};

Table* lanes_new() { return new Table; }

void lanes_free(Table* table) { delete table; }

void lanes_enter(Table* table, int64_t number, const char* id, int64_t attempt, int64_t next, int socket,
                 const char* before, int64_t before_bytes, const char* after, int64_t after_bytes) {
  auto stream = std::make_unique<Stream>();
  stream->id = id;
  stream->number = number;
  stream->attempt = attempt;
  stream->next = next;
  stream->socket = socket;
  stream->before.assign(before, static_cast<size_t>(before_bytes));
  stream->after.assign(after, static_cast<size_t>(after_bytes));
  table->streams.erase(stream->id);
  std::string_view key = stream->id;
  table->streams.emplace(key, std::move(stream));
}

// Number of deltas of the frame that Python has to take, their places in `left`; -1: all of the frame is Python's.
// `stuck` gets the numbers of streams whose socket did not take all.
int64_t lanes_deliver(Table* table, const uint8_t* frame, int64_t bytes, int32_t* left, int64_t* stuck,
                      int64_t capacity, int64_t* stuck_count) {
  *stuck_count = 0;
  if (!read_step(*table, Reader(frame, frame + bytes))) return -1;
  if (static_cast<int64_t>(table->deltas.size()) > capacity) return -1;
  int64_t left_count = 0;
  int32_t place = -1;
  for (const Plain& delta : table->deltas) {
    ++place;
    auto found = table->streams.find(delta.id);
    Stream* stream = found == table->streams.end() ? nullptr : found->second.get();
    if (!stream || stream->stuck || !delta.plain || stream->attempt != delta.attempt || stream->next != delta.index) {
      left[left_count++] = place;
      if (stream && stream->attempt == delta.attempt) stream->stuck = true;  // what follows it is Python's too
      continue;
    }
    const int64_t* ids = table->ids.data() + delta.ids_from;
    stream->ids.insert(stream->ids.end(), ids, ids + delta.ids_count);
    stream->next += static_cast<int64_t>(delta.ids_count);
    if (delta.ids_count) stream->last_at = now();
    if (delta.text.empty()) continue;
    write_text(*stream, table->chunk, delta.text);
    if (stream->stuck) stuck[(*stuck_count)++] = stream->number;
  }
  return left_count;
}

// What the stream got since it entered; valid until `lanes_leave`. False for one that is not here.
bool lanes_look(Table* table, const char* id, Left* out) {
  auto found = table->streams.find(id);
  if (found == table->streams.end()) return false;
  const Stream& stream = *found->second;
  *out = {stream.ids.data(), static_cast<int64_t>(stream.ids.size()), stream.last_at, stream.unsent.data(),
          static_cast<int64_t>(stream.unsent.size())};
  return true;
}

void lanes_leave(Table* table, const char* id) { table->streams.erase(id); }

}  // extern "C"

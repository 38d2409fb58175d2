// A load generator for WebSocket servers on 127.0.0.1, with the modes that the rows of `scripts/bench` need.
//
//   client PORT stream CLIENTS                  read on each connection until the server ends it
//   client PORT echo CLIENTS SECONDS WINDOW     keep WINDOW messages in transit on each connection to a program that echoes
//   client PORT connect CLIENTS COUNT           connect, wait for the first message, disconnect: COUNT times, CLIENTS at once
//   client PORT hold CLIENTS                    open the connections, wait for a message on each, report, stay until stdin ends
//   client PORT fanout CLIENTS SECONDS SETTLE   subscribe; SETTLE seconds after the last subscription, receive stamped messages
//   client PORT verify CLIENTS SECONDS          subscribe, and receive numbered messages up to the END, at most for SECONDS
//
// It prints one JSON object: messages, seconds, and the median and the 99th percentile of the latencies in microseconds. A latency
// is a round trip in `echo`, the time from a message's stamp to its arrival in `fanout`, and the time from connect() to the first
// message in the other modes.
// `busy` is the part of the time in which this process ran or waited for a processor. Near 1, the result describes the generator
// or other load on the machine, not the server.
// `verify` ends at the first message that is out of sequence. `whole` is the number of connections that received every message
// from their first up to the END. `late_us` is the delay of the last message at the slowest of them.
//
// It has one thread. Only the last two modes parse payloads. It answers no pings, since no run lasts as long as a server's timeout.
// It exits with 1 and a message if the server refuses or breaks a connection.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "message.h"

enum {
  SIZE = 64,               // bytes of a message that `echo` sends
  FRAME = 2 + 4 + SIZE,    // head, mask and payload
  MAX_WINDOW = 128,        // 128 frames fit into any socket's buffer, so that a send never waits
  MAX_OPENING = 64,        // simultaneous handshakes: fewer than the shortest accept queue, so that connect() never waits
  DEADLINE_S = 120,        // a longer run is stuck
  TEXT = END_SIZE,         // bytes of a payload that are parsed
  BUCKET_NS = 100,         // the resolution of a latency
  BUCKETS = 20000000,      // … two seconds in total: a longer latency counts as two seconds
};

struct connection {
  int fd;
  bool upgraded, greeted, closing;    // the 101, the first message, the server's close frame has arrived
  bool broken;                        // a message out of sequence has arrived
  char head[4096];                    // the response's header, then each frame's header
  size_t head_size;
  uint64_t payload_left;              // of the frame whose header is complete
  char text[TEXT];                    // the beginning of the payload
  size_t text_size;
  uint64_t next;                      // the number of the next message
  uint64_t begun;                     // the time of connect()
  uint64_t sent[MAX_WINDOW];          // the send times of the messages in transit, a ring
  unsigned next_sent, next_echo;
};

static enum { STREAM, ECHO, CONNECT, HOLD, FANOUT, VERIFY } mode;
static struct sockaddr_in server = {.sin_family = AF_INET};
static int events;
static unsigned window;
static unsigned begun, opening, ended, greeted;
static bool measuring;
static uint64_t messages, arrived;    // their number; the wall-clock time at which the current messages arrived
static unsigned whole;
static bool broken;
static uint64_t late;
static uint64_t latency_count;
static uint32_t latencies[BUCKETS];

static uint64_t now_ns(void) {
  return clock_ns(CLOCK_MONOTONIC);
}

static void note_latency(uint64_t from, uint64_t to) {
  if (!measuring) return;
  uint64_t bucket = to > from ? (to - from) / BUCKET_NS : 0;
  latencies[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
  latency_count++;
}

// Return a percentile of the latencies.
static double quantile_us(double part) {
  uint64_t left = (uint64_t)(part * (double)latency_count);
  size_t bucket = 0;
  if (!latency_count) return 0;
  while (latencies[bucket] <= left) left -= latencies[bucket++];
  return (double)bucket * BUCKET_NS / 1e3;
}

// Return the seconds in which this process has run, or waited for a processor.
static double busy_seconds(void) {
  unsigned long long ran = 0, waited = 0;
  FILE *file = fopen("/proc/self/schedstat", "r");
  if (!file || fscanf(file, "%llu %llu", &ran, &waited) != 2) errx(1, "cannot read /proc/self/schedstat");
  fclose(file);
  return (double)(ran + waited) / SECOND;
}

static void send_all(struct connection *c, const void *data, size_t size) {
  if (send(c->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) err(1, "send");
}

static void begin(struct connection *c) {
  static const char request[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n";
  *c = (struct connection){.fd = socket(AF_INET, SOCK_STREAM, 0), .begun = now_ns()};
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server)) err(1, "connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  // Edge-triggered, so that a wait does not check served connections again. This may miss an end; in `fanout`, no connection may end.
  struct epoll_event readable = {.events = mode == FANOUT ? EPOLLIN | EPOLLET : EPOLLIN, .data.ptr = c};
  if (epoll_ctl(events, EPOLL_CTL_ADD, c->fd, &readable)) err(1, "epoll_ctl");
  send_all(c, request, sizeof request - 1);
  begun++;
  opening++;
}

static void end(struct connection *c) {
  close(c->fd);
  c->fd = -1;
  ended++;
}

// Send some messages in one call. The mask, which is required, is zero, so that masking costs nothing.
static void send_messages(struct connection *c, unsigned count) {
  static char frames[MAX_WINDOW * FRAME];
  if (!frames[0])
    for (unsigned i = 0; i < MAX_WINDOW; i++) {
      char *frame = memset(frames + i * FRAME, 0, FRAME);
      frame[0] = (char)0x81;
      frame[1] = (char)(0x80 | SIZE);
      memset(frame + 6, 'm', SIZE);
    }
  uint64_t now = now_ns();
  for (unsigned i = 0; i < count; i++) c->sent[c->next_sent++ % MAX_WINDOW] = now;
  send_all(c, frames, count * FRAME);
}

// Read the response's header; return the number of its bytes.
static size_t take_response(struct connection *c, const char *data, size_t size) {
  size_t before = c->head_size, room = sizeof c->head - before;
  memcpy(c->head + before, data, size < room ? size : room);
  c->head_size += size < room ? size : room;
  char *blank_line = memmem(c->head, c->head_size, "\r\n\r\n", 4);
  if (!blank_line && c->head_size < sizeof c->head) return size;
  if (!blank_line || memcmp(c->head, "HTTP/1.1 101", 12)) errx(1, "the server refused the upgrade: %.40s", c->head);
  size_t taken = (size_t)(blank_line + 4 - c->head) - before;
  c->upgraded = true;
  c->head_size = 0;
  opening--;
  if (mode == ECHO) send_messages(c, window);
  return taken;
}

// Parse the beginning of a message.
static void on_text(struct connection *c) {
  if (c->text_size < DIGITS) errx(1, "a message of %zu bytes contains neither a number nor a timestamp", c->text_size);
  if (mode == FANOUT) {
    note_latency(read_number(c->text), arrived);
  } else if (!memcmp(c->text, END, END_WORD)) {
    uint64_t due = read_number(c->text + END_WORD), count = read_number(c->text + END_WORD + DIGITS);
    c->broken |= c->next != count;
    whole += !c->broken;
    if (arrived > due && arrived - due > late) late = arrived - due;
  } else {
    uint64_t number = read_number(c->text);
    c->broken |= c->next && number != c->next;
    c->next = number + 1;
  }
  broken |= c->broken;
}

static size_t head_length(const unsigned char *head) {
  return (head[1] & 127) == 127 ? 10 : (head[1] & 127) == 126 ? 4 : 2;
}

static uint64_t payload_length(const unsigned char *head) {
  size_t length = head_length(head);
  if (length == 2) return head[1];
  uint64_t value = 0;
  for (size_t i = 2; i < length; i++) value = value << 8 | head[i];
  return value;
}

// Read frames; return the number of messages that they complete.
static unsigned take_frames(struct connection *c, const char *data, size_t size) {
  unsigned char *head = (unsigned char *)c->head;
  unsigned complete = 0;
  bool looking = mode == FANOUT || mode == VERIFY;
  while (size && !c->closing) {
    if (!c->payload_left) {
      size_t missing = (c->head_size < 2 ? 2 : head_length(head)) - c->head_size;
      if (missing > size) missing = size;
      memcpy(head + c->head_size, data, missing);
      c->head_size += missing, data += missing, size -= missing;
      if (c->head_size < 2 || c->head_size < head_length(head)) continue;
      c->closing = (head[0] & 15) == 8;
      c->payload_left = payload_length(head);
    }
    size_t skipped = c->payload_left < size ? (size_t)c->payload_left : size;
    if (looking) {
      size_t room = TEXT - c->text_size, looked_at = skipped < room ? skipped : room;
      memcpy(c->text + c->text_size, data, looked_at);
      c->text_size += looked_at;
    }
    c->payload_left -= skipped, data += skipped, size -= skipped;
    if (!c->payload_left) {
      bool is_message = (head[0] & 0x80) && (head[0] & 15) <= 2;
      complete += is_message;
      if (looking && is_message) on_text(c);
      c->head_size = c->text_size = 0;
    }
  }
  return complete;
}

static void on_messages(struct connection *c, unsigned count) {
  uint64_t now = now_ns();
  messages += count;
  if (!c->greeted) {
    c->greeted = true;
    greeted++;
    if (mode != ECHO && mode != FANOUT) note_latency(c->begun, now);
  }
  if (mode == ECHO) {
    for (unsigned i = 0; i < count; i++) note_latency(c->sent[c->next_echo++ % MAX_WINDOW], now);
    send_messages(c, count);
  }
  if (mode == CONNECT) end(c);
}

static void on_readable(struct connection *c) {
  static char buffer[1 << 18];
  ssize_t size = recv(c->fd, buffer, sizeof buffer, 0);
  if (size < 0 && errno == EAGAIN) return;
  arrived = clock_ns(CLOCK_REALTIME);
  if (size > 0) {
    size_t taken = c->upgraded ? 0 : take_response(c, buffer, (size_t)size);
    unsigned complete = take_frames(c, buffer + taken, (size_t)size - taken);
    if (complete) on_messages(c, complete);
    if (!c->closing && mode == FANOUT && size == sizeof buffer) on_readable(c);  // more data may be available, without another event
    if (!c->closing) return;
  }
  if (mode != STREAM || !c->upgraded) errx(1, "the server closed a connection");
  end(c);
}

static bool finished(unsigned clients, unsigned count, uint64_t stop) {
  switch (mode) {
    case STREAM:
    case CONNECT: return ended == count;
    case HOLD: return greeted == clients;
    case VERIFY: return broken || whole == clients || now_ns() >= stop;
    case ECHO:
    case FANOUT: return now_ns() >= stop;
  }
  return true;
}

int main(int argc, char **argv) {
  static const char *const modes[] = {"stream", "echo", "connect", "hold", "fanout", "verify"};
  static const int words[] = {4, 6, 5, 4, 6, 5};
  while (argc > 2 && mode <= VERIFY && strcmp(argv[2], modes[mode])) mode++;
  if (argc < 3 || mode > VERIFY || argc != words[mode]) errx(2, "usage: client PORT stream|echo|connect|hold|fanout|verify CLIENTS … (see the source)");
  unsigned clients = (unsigned)atoi(argv[3]), count = mode == CONNECT ? (unsigned)atoi(argv[4]) : clients;
  bool is_timed = mode == ECHO || mode == FANOUT || mode == VERIFY;
  uint64_t duration = is_timed ? (uint64_t)(atof(argv[4]) * SECOND) : 0;
  uint64_t settling = mode == FANOUT ? (uint64_t)(atof(argv[5]) * SECOND) : 0;
  window = mode == ECHO ? (unsigned)atoi(argv[5]) : 0;
  if (!clients || window > MAX_WINDOW) errx(2, "use at least one client, and a window of at most %d", MAX_WINDOW);
  server.sin_port = htons((uint16_t)atoi(argv[1]));
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  events = epoll_create1(0);
  struct connection *connections = calloc(clients, sizeof *connections);
  for (unsigned i = 0; i < clients; i++) connections[i].fd = -1;

  uint64_t start = now_ns(), deadline = start + (uint64_t)DEADLINE_S * SECOND, stop = deadline, settled = 0;
  double before = 0;
  measuring = !is_timed;
  while (!measuring || !finished(clients, count, stop)) {
    if (now_ns() > deadline) errx(1, "%u of %u connections ended, %u opened: the server is stuck", ended, count, begun - opening);
    for (unsigned i = 0; i < clients && begun < count && opening < MAX_OPENING; i++)
      if (connections[i].fd < 0) begin(&connections[i]);
    struct epoll_event ready[256];
    int n = epoll_wait(events, ready, 256, 100);
    for (int i = 0; i < n; i++) on_readable(ready[i].data.ptr);
    if (measuring || begun < clients || opening) continue;
    if (!settled) settled = now_ns() + settling;
    if (now_ns() < settled) continue;
    measuring = true;  // the measurement of a timed mode begins here
    start = now_ns();
    stop = start + duration;
    before = busy_seconds();
    messages = 0;
  }
  double seconds = (double)(now_ns() - start) / SECOND, busy = (busy_seconds() - before) / seconds;
  printf("{\"messages\": %llu, \"seconds\": %.6f, \"median_us\": %.1f, \"p99_us\": %.1f, \"busy\": %.3f, \"whole\": %u, \"late_us\": %.0f}\n",
         (unsigned long long)messages, seconds, quantile_us(0.5), quantile_us(0.99), busy, whole, (double)late / 1e3);
  fflush(stdout);
  if (mode == HOLD)
    while (getchar() != EOF) {}
  return 0;
}

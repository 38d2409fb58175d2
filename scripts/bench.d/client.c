// A load generator for WebSocket servers on 127.0.0.1: what the rows of `scripts/bench` need, and no more.
//
//   client PORT stream CLIENTS                  read on each connection until the server ends it
//   client PORT echo CLIENTS SECONDS WINDOW     keep WINDOW messages on their way on each connection to a program that echoes
//   client PORT connect CLIENTS COUNT           connect, wait for the first message, leave: COUNT times, CLIENTS at once
//   client PORT hold CLIENTS                    open the connections, wait for a message on each, report, stay until stdin ends
//
// Prints one JSON object: messages, seconds, and the median of the latencies in microseconds: of a round trip in `echo`, from
// connect() to the first message elsewhere. One thread. Payloads are counted, not looked at; pings are not answered, for no run
// lasts as long as a server would wait. Exits 1 with a message when the server refuses or breaks a connection.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
  SIZE = 64,               // bytes of a message that `echo` sends
  FRAME = 2 + 4 + SIZE,    // head, mask and payload
  MAX_WINDOW = 128,        // 128 frames fit into any socket's buffer, so that a send never has to wait
  MAX_OPENING = 64,        // handshakes under way at once: fewer than the shortest accept queue, so that connect() never has to wait
  DEADLINE_S = 120,        // a run that has not ended by then is stuck
};

struct connection {
  int fd;
  bool upgraded, greeted, closing;    // the 101 has come; the first message has come; the server's close frame has come
  char head[4096];                    // the response's head, and after it each frame's head
  size_t head_size;
  uint64_t payload_left;              // of the frame whose head is complete
  uint64_t begun;                     // when connect() was called
  uint64_t sent[MAX_WINDOW];          // when the messages on their way were sent, a ring
  unsigned next_sent, next_echo;
};

static enum { STREAM, ECHO, CONNECT, HOLD } mode;
static struct sockaddr_in server = {.sin_family = AF_INET};
static int events;
static unsigned window;
static unsigned begun, opening, ended, greeted;
static bool sending = true;
static uint64_t messages;
static uint32_t *latencies;
static size_t latency_count, latency_room;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void note_latency(uint64_t from, uint64_t to) {
  if (latency_count == latency_room) {
    latency_room = latency_room ? 2 * latency_room : 65536;
    latencies = realloc(latencies, latency_room * sizeof *latencies);
    if (!latencies) err(1, "memory");
  }
  latencies[latency_count++] = (uint32_t)(to - from);
}

static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static double median_us(void) {
  if (!latency_count) return 0;
  qsort(latencies, latency_count, sizeof *latencies, ascending);
  return latencies[latency_count / 2] / 1e3;
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
  struct epoll_event readable = {.events = EPOLLIN, .data.ptr = c};
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

// Send some messages, in one piece. The mask is of zeros: it has to be there, and costs nothing.
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

// Take the response's head; return how many of the bytes belong to it.
static size_t take_response(struct connection *c, const char *data, size_t size) {
  size_t before = c->head_size, room = sizeof c->head - before;
  memcpy(c->head + before, data, size < room ? size : room);
  c->head_size += size < room ? size : room;
  char *blank_line = memmem(c->head, c->head_size, "\r\n\r\n", 4);
  if (!blank_line && c->head_size < sizeof c->head) return size;
  if (!blank_line || memcmp(c->head, "HTTP/1.1 101", 12)) errx(1, "refused: %.40s", c->head);
  size_t taken = (size_t)(blank_line + 4 - c->head) - before;
  c->upgraded = true;
  c->head_size = 0;
  opening--;
  if (mode == ECHO) send_messages(c, window);
  return taken;
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

// Take frames; return how many messages they complete.
static unsigned take_frames(struct connection *c, const char *data, size_t size) {
  unsigned char *head = (unsigned char *)c->head;
  unsigned complete = 0;
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
    c->payload_left -= skipped, data += skipped, size -= skipped;
    if (!c->payload_left) {
      complete += (head[0] & 0x80) && (head[0] & 15) <= 2;
      c->head_size = 0;
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
    if (mode != ECHO) note_latency(c->begun, now);
  }
  if (mode == ECHO) {
    for (unsigned i = 0; i < count; i++) note_latency(c->sent[c->next_echo++ % MAX_WINDOW], now);
    if (sending) send_messages(c, count);
  }
  if (mode == CONNECT) end(c);
}

static void on_readable(struct connection *c) {
  static char buffer[1 << 18];
  ssize_t size = recv(c->fd, buffer, sizeof buffer, 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size > 0) {
    size_t taken = c->upgraded ? 0 : take_response(c, buffer, (size_t)size);
    unsigned complete = take_frames(c, buffer + taken, (size_t)size - taken);
    if (complete) on_messages(c, complete);
    if (!c->closing) return;
  }
  if (mode != STREAM || !c->upgraded) errx(1, "the server ended a connection");
  end(c);
}

static bool finished(unsigned clients, unsigned count, uint64_t stop) {
  switch (mode) {
    case STREAM:
    case CONNECT: return ended == count;
    case HOLD: return greeted == clients;
    case ECHO: return now_ns() >= stop;
  }
  return true;
}

int main(int argc, char **argv) {
  static const char *const modes[] = {"stream", "echo", "connect", "hold"};
  static const int words[] = {4, 6, 5, 4};
  while (argc > 2 && mode <= HOLD && strcmp(argv[2], modes[mode])) mode++;
  if (argc < 3 || mode > HOLD || argc != words[mode]) errx(2, "usage: client PORT stream|echo|connect|hold CLIENTS … (see the source)");
  unsigned clients = (unsigned)atoi(argv[3]), count = mode == CONNECT ? (unsigned)atoi(argv[4]) : clients;
  double duration = mode == ECHO ? atof(argv[4]) : 0;
  window = mode == ECHO ? (unsigned)atoi(argv[5]) : 0;
  if (!clients || window > MAX_WINDOW) errx(2, "at least one client, and a window of at most %d", MAX_WINDOW);
  server.sin_port = htons((uint16_t)atoi(argv[1]));
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  events = epoll_create1(0);
  struct connection *connections = calloc(clients, sizeof *connections);
  for (unsigned i = 0; i < clients; i++) connections[i].fd = -1;

  uint64_t start = now_ns(), deadline = start + DEADLINE_S * 1000000000ull, stop = deadline;
  bool all_open = mode != ECHO;
  while (!finished(clients, count, stop)) {
    if (now_ns() > deadline) errx(1, "%u of %u connections ended, %u opened: the server is stuck", ended, count, begun - opening);
    for (unsigned i = 0; i < clients && begun < count && opening < MAX_OPENING; i++)
      if (connections[i].fd < 0) begin(&connections[i]);
    struct epoll_event ready[256];
    int n = epoll_wait(events, ready, 256, 100);
    for (int i = 0; i < n; i++) on_readable(ready[i].data.ptr);
    if (!all_open && begun == clients && !opening) {  // what `echo` measures begins here
      all_open = true;
      start = now_ns();
      stop = start + (uint64_t)(duration * 1e9);
      messages = latency_count = 0;
    }
  }
  double seconds = (double)(now_ns() - start) / 1e9;
  printf("{\"messages\": %llu, \"seconds\": %.6f, \"median_us\": %.1f}\n", (unsigned long long)messages, seconds, median_us());
  fflush(stdout);
  if (mode == HOLD)
    while (getchar() != EOF) {}
  return 0;
}

// The program that the servers of `scripts/bench` run. It is cheap, so that the result describes the server.
//
//   program lines COUNT                    print COUNT lines of 64 characters as fast as stdout accepts them
//   program hello                          print one line, then echo stdin up to its end
//   program stamped RATE SIZE              print RATE lines per second, each when it is due, beginning with its time
//   program post PORT RATE SIZE            the same, each as a POST to /publish on 127.0.0.1, on a few connections in turn
//   program numbered RATE SECONDS SIZE     print RATE lines per second, numbered from 0, then the due time of the last
//
// SIZE excludes the newline. The pace follows an absolute clock: after a wait that was too long, the next wait is shorter.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "message.h"

enum {
  TICK = SECOND / 1000,    // `numbered` prints the lines of a tick at once, like any program whose stdout is a pipe
  BLOCK = 1000,            // lines per write()
  POSTERS = 4,             // connections of `post`
};

static void sleep_until(uint64_t when) {
  struct timespec t = {.tv_sec = (time_t)(when / SECOND), .tv_nsec = (long)(when % SECOND)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL)) {}
}

// Return whether all data was accepted; otherwise, the reader has exited.
static bool write_all(int fd, const char *data, size_t size) {
  while (size) {
    ssize_t written = write(fd, data, size);
    if (written < 0) return false;
    data += written, size -= (size_t)written;
  }
  return true;
}

static int lines(long count) {
  static const char line[] = "wsbridge prints this line of sixty-four characters again, again.\n";
  for (; count > 0; count--) fwrite(line, 1, sizeof line - 1, stdout);
  return fflush(stdout) != 0;
}

static int hello(void) {
  char data[4096];
  ssize_t size;
  if (!write_all(1, "hello\n", 6)) return 1;
  while ((size = read(0, data, sizeof data)) > 0) {
    if (!write_all(1, data, (size_t)size)) return 1;
  }
  return 0;
}

// Wait until a line is due; return its due time or, if it is too late, the current time.
static uint64_t wait_until(uint64_t due) {
  sleep_until(due);
  uint64_t now = clock_ns(CLOCK_MONOTONIC);
  return now > due + CATCH_UP ? now : due;
}

static int stamped(double rate, char *line, size_t size) {
  for (uint64_t due = clock_ns(CLOCK_MONOTONIC);; due += (uint64_t)(SECOND / rate)) {
    due = wait_until(due);
    print_number(line, clock_ns(CLOCK_REALTIME));
    if (!write_all(1, line, size)) return 1;
  }
}

static int connect_to(int port) {
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server)) err(1, "connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  return fd;
}

// A connection receives its answer before its next request, because nginx serves all waiting requests of one connection first.
static int post(int port, double rate, const char *line, size_t size) {
  char request[256 + LONGEST], answer[4096];
  size_t head = (size_t)sprintf(request, "POST /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %zu\r\n\r\n", size);
  memcpy(request + head, line, size);
  int connections[POSTERS];
  for (int i = 0; i < POSTERS; i++) connections[i] = connect_to(port);
  uint64_t due = clock_ns(CLOCK_MONOTONIC);
  for (uint64_t i = 0;; i++, due += (uint64_t)(SECOND / rate)) {
    int fd = connections[i % POSTERS];
    if (i >= POSTERS && read(fd, answer, sizeof answer) <= 0) return 1;
    due = wait_until(due);
    print_number(request + head, clock_ns(CLOCK_REALTIME));
    if (!write_all(fd, request, head + size)) return 1;
  }
}

static int numbered(uint64_t rate, double seconds, const char *line, size_t size) {
  static char block[BLOCK * (LONGEST + 1)];
  for (size_t i = 0; i < BLOCK; i++) memcpy(block + i * size, line, size);
  uint64_t count = (uint64_t)((double)rate * seconds), sent = 0;
  uint64_t begun = clock_ns(CLOCK_MONOTONIC), end = clock_ns(CLOCK_REALTIME) + count * SECOND / rate;
  for (uint64_t tick = begun; sent < count; tick += TICK) {
    sleep_until(tick);
    uint64_t due = (clock_ns(CLOCK_MONOTONIC) - begun) * rate / SECOND;
    if (due > count) due = count;
    while (sent < due) {
      size_t some = due - sent < BLOCK ? (size_t)(due - sent) : BLOCK;
      for (size_t i = 0; i < some; i++) print_number(block + i * size, sent++);
      if (!write_all(1, block, some * size)) return 1;
    }
  }
  memcpy(block, END, END_WORD);
  print_number(block + END_WORD, end);
  print_number(block + END_WORD + DIGITS, count);
  return !write_all(1, block, size);
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  if (argc == 3 && !strcmp(what, "lines")) return lines(atol(argv[2]));
  if (argc == 2 && !strcmp(what, "hello")) return hello();

  // The other modes have SIZE as their last word.
  size_t size = argc > 3 ? (size_t)atol(argv[argc - 1]) : 0;
  if (size < END_SIZE || size > LONGEST)
    errx(2, "usage: program lines|hello|stamped|post|numbered … (see the source); SIZE is %d to %d", END_SIZE, LONGEST);
  char line[LONGEST + 1];
  memset(line, 'x', size);
  line[size] = '\n';
  prctl(PR_SET_TIMERSLACK, 1ul);
  if (argc == 4 && !strcmp(what, "stamped")) return stamped(atof(argv[2]), line, size + 1);
  if (argc == 5 && !strcmp(what, "post")) return post(atoi(argv[2]), atof(argv[3]), line, size);
  if (argc == 5 && !strcmp(what, "numbered")) return numbered((uint64_t)atol(argv[2]), atof(argv[3]), line, size + 1);
  errx(2, "usage: program lines|hello|stamped|post|numbered … (see the source)");
}

// The lower bound of any server that sends each message separately: one thread, and one send() per subscriber and message.
//
//   floor PORT RATE SIZE     send RATE messages per second of SIZE bytes to every WebSocket client on 127.0.0.1
//
// It has no queues: its sockets block, so a client that does not read delays all others. It does not parse requests, and its answer
// is valid only for client.c's key. A message begins with the time of its first send(), so that the delay of the program behind
// its own pace does not count.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "message.h"

enum {
  MOST = 65536,    // descriptors
  READY = 64,      // events per call
};

static int subscribers[MOST], places[MOST];    // all descriptors, and the place of each in that list, counted from 1
static int count;
static int events;

static void watch(int fd) {
  struct epoll_event readable = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(events, EPOLL_CTL_ADD, fd, &readable)) err(1, "epoll_ctl");
}

static int listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, SOMAXCONN)) err(1, "port %d", port);
  return fd;
}

static int start_timer(double rate) {
  uint64_t period = (uint64_t)(SECOND / rate);
  struct timespec t = {.tv_sec = (time_t)(period / SECOND), .tv_nsec = (long)(period % SECOND)};
  int fd = timerfd_create(CLOCK_MONOTONIC, 0);
  if (timerfd_settime(fd, 0, &(struct itimerspec){.it_interval = t, .it_value = t}, NULL)) err(1, "timer");
  return fd;
}

static void accept_all(int listener) {
  for (int fd; (fd = accept(listener, NULL, NULL)) >= 0;) {
    if (fd >= MOST) errx(1, "more than %d descriptors", MOST);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    watch(fd);
  }
  if (errno == EMFILE) err(1, "accept");
}

static void leave(int fd) {
  if (places[fd]) {
    int last = subscribers[--count];
    subscribers[places[fd] - 1] = last;
    places[last] = places[fd];
    places[fd] = 0;
  }
  close(fd);
}

// The first data of a connection is its request.
static void on_readable(int fd) {
  static const char response[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: BACScCJPNqyz+UBoqMH89VmURoA=\r\n\r\n";
  char ignored[4096];
  if (recv(fd, ignored, sizeof ignored, 0) <= 0) {
    leave(fd);
  } else if (!places[fd]) {
    send(fd, response, sizeof response - 1, MSG_NOSIGNAL);
    subscribers[count++] = fd;
    places[fd] = count;
  }
}

int main(int argc, char **argv) {
  size_t size = argc == 4 ? (size_t)atol(argv[3]) : 0;
  double rate = argc == 4 ? atof(argv[2]) : 0;
  if (size < DIGITS || size > LONGEST || rate <= 0) errx(2, "usage: floor PORT RATE SIZE; SIZE is %d to %d", DIGITS, LONGEST);
  events = epoll_create1(0);
  int listener = listen_on(atoi(argv[1])), timer = start_timer(rate);
  watch(listener);
  watch(timer);
  char frame[2 + LONGEST];
  memset(frame, 'x', sizeof frame);
  frame[0] = (char)0x81;
  frame[1] = (char)size;

  uint64_t most_due = 1 + (uint64_t)(rate * CATCH_UP / SECOND), due = 0, expired;
  for (;;) {
    struct epoll_event ready[READY];
    int n = epoll_wait(events, ready, READY, due ? 0 : -1);
    for (int i = 0; i < n; i++) {
      int fd = ready[i].data.fd;
      if (fd == listener) accept_all(listener);
      else if (fd != timer) on_readable(fd);
      else if (read(timer, &expired, sizeof expired) == sizeof expired) due += expired;
    }
    if (due > most_due) due = most_due;
    if (!due) continue;
    due--;
    print_number(frame + 2, clock_ns(CLOCK_REALTIME));
    for (int i = 0; i < count; i++) send(subscribers[i], frame, 2 + size, MSG_NOSIGNAL);
  }
}

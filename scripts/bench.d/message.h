// What program.c and floor.c put at the head of a message and client.c reads there: a number of DIGITS decimal digits, either
// the message's own or the time at which it was sent, in nanoseconds of the wall clock. Padding makes it as long as it is to be.
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum {
  DIGITS = 20,                 // as many as a uint64_t has at most
  LONGEST = 125,               // bytes of a message here at most: a frame's head is then two bytes
  SECOND = 1000000000,         // in nanoseconds
  PATIENCE = SECOND / 10,      // what a sender is behind its pace by more than this, it does not make up for
};

// The message after the last numbered one: this word, when that one was due, and how many there were.
static const char END[] = "end ";
enum { END_WORD = sizeof END - 1, END_SIZE = END_WORD + 2 * DIGITS };

static inline uint64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static inline void print_number(char *text, uint64_t number) {
  for (int i = DIGITS - 1; i >= 0; i--, number /= 10) text[i] = (char)('0' + number % 10);
}

static inline uint64_t read_number(const char *text) {
  uint64_t number = 0;
  for (int i = 0; i < DIGITS; i++) number = number * 10 + (uint64_t)(text[i] - '0');
  return number;
}

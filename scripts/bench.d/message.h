// The beginning of a message, which program.c and floor.c write and client.c reads: a number of DIGITS decimal digits. It is the
// number of the message, or the time of its sending in nanoseconds of the wall clock. Padding fills the message to its size.
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum {
  DIGITS = 20,                 // the most that a uint64_t has
  LONGEST = 125,               // the most bytes of a message, so that a frame's header has two bytes
  SECOND = 1000000000,         // in nanoseconds
  CATCH_UP = SECOND / 10,      // a sender catches up with its pace by at most this much
};

// The message after the last numbered message: this word, the due time of the last message, and the count.
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

// What the bridges of `scripts/bench` run: as cheap as can be, so that the bridge is what is measured.
//
//   program lines COUNT    print COUNT lines of 64 characters as fast as stdout takes them
//   program hello          print one line, then wait for the end of stdin
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "lines")) {
    static const char line[] = "wsbridge prints this line of sixty-four characters again, again.\n";
    for (long count = atol(argv[2]); count > 0; count--) fwrite(line, 1, sizeof line - 1, stdout);
    return fflush(stdout) != 0;
  }
  if (argc == 2 && !strcmp(argv[1], "hello")) {
    char ignored[64];
    if (write(1, "hello\n", 6) != 6) return 1;
    while (read(0, ignored, sizeof ignored) > 0) {}
    return 0;
  }
  fprintf(stderr, "usage: program lines COUNT | hello\n");
  return 2;
}

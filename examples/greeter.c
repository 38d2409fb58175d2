/* The greeter in C.
 *
 *     cc -O2 -o greeter greeter.c
 *     wsbridge --port 8080 --devconsole ./greeter
 *
 * C buffers stdout if it is a pipe; setvbuf() selects line buffering, and must come before the first output. (For a program
 * that you cannot change, `stdbuf -oL program` or `wsbridge --pty` does the same.)
 */

#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *name = NULL;
    size_t room = 0;
    ssize_t length;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int number = 1; (length = getline(&name, &room, stdin)) > 0; number++) {
        if (name[length - 1] == '\n')
            name[length - 1] = '\0';
        printf("Hello, %s! You are number %d.\n", name, number);
    }
    free(name);
    return 0;
}

#!/bin/bash
# Reads a name per line and greets each: a message from the browser is a line on stdin.
#
#     wsbridge --port 8080 --devconsole examples/greeter.sh
#
# In bash, `IFS=` keeps the spaces around a line and `-r` its backslashes. printf also prints a name like -n, which echo would
# treat as an option. bash's own echo and printf do not buffer lines, but a filter such as grep, sed or sort does: use its own
# flag (grep --line-buffered, sed -u) or start it with `stdbuf -oL`.

number=0
while IFS= read -r name; do
    printf 'Hello, %s! You are number %d.\n' "$name" $((++number))
done
# When the browser disconnects, stdin ends, and so does the script.

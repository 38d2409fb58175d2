#!/bin/bash
# Reads a name a line, greets each: a message from the browser is a line on stdin.
#
#     wsbridge --port 8080 --devconsole examples/greeter.sh
#
# What to know in bash: `IFS=` keeps the spaces round a line, `-r` its backslashes, and printf prints what echo would take for
# an option (a visitor called -n). bash's own echo and printf never wait: each line leaves at once. A filter such as grep, sed
# or sort does wait; give it its own switch (grep --line-buffered, sed -u) or start it with `stdbuf -oL`.

number=0
while IFS= read -r name; do
    printf 'Hello, %s! You are number %d.\n' "$name" $((++number))
done
# The browser has gone: stdin is at its end, and so is the script.

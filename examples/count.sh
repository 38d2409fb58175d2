#!/bin/bash
# Counts to ten, one number per second: each line that a program prints is one message to the browser.
#
#     wsbridge --port 8080 --devconsole examples/count.sh
#     wsbridge --port 8080 --devconsole examples/count.sh 100 0.1     # to 100, ten a second
#
# Words after the program on the command line are its arguments. When the program exits, wsbridge closes the connection: with
# 1000 after `exit 0`, otherwise with 1011 and the reason.

limit=${1:-10} interval=${2:-1}

for ((number = 1; number <= limit; number++)); do
    echo "$number"
    sleep "$interval"
done

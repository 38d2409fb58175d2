#!/bin/sh
# The greeter in awk.
#
#     wsbridge --port 8080 --devconsole examples/greeter-awk.sh
#
# What to know in awk: print into a pipe waits for a full buffer, so every answer needs fflush(). And mawk, which is Debian's
# awk, waits for a full buffer of input as well, where no fflush() helps: it wants `-W interactive`, which other awks do not
# know. This is why a shell starts it.

case $(awk -W version 2>&1 </dev/null) in
    mawk*) set -- -W interactive ;;
    *) set -- ;;
esac

exec awk "$@" '{
    print "Hello, " $0 "! You are number " NR "."
    fflush()
}'

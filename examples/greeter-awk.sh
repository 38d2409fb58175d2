#!/bin/sh
# The greeter in awk.
#
#     wsbridge --port 8080 --devconsole examples/greeter-awk.sh
#
# awk buffers its output if stdout is a pipe, so every answer needs fflush(). mawk, which is Debian's awk, also buffers its
# input, and needs `-W interactive`. Other awks do not know this option, so a shell starts awk.

case $(awk -W version 2>&1 </dev/null) in
    mawk*) set -- -W interactive ;;
    *) set -- ;;
esac

exec awk "$@" '{
    print "Hello, " $0 "! You are number " NR "."
    fflush()
}'

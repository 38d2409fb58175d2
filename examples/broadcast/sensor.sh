#!/bin/bash
# The sensor in bash, with one reading per second: the processor's temperature or the load.
#
#     wsbridge broadcast --port 8080 --exchange temps --join history --staticdir examples/broadcast examples/broadcast/sensor.sh
#     (then open http://localhost:8080/plot.html in any number of browsers)
#
# The arguments are the seconds between two readings, and the file of another sensor in thousandths of a degree.
#
# Each line goes to every browser. It contains the time of the reading, since a browser that joins later also gets older lines.

export LC_ALL=C # decimal points in any locale
period=${1:-1} sensor=${2:-/sys/class/thermal/thermal_zone0/temp}

while :; do
    if { read -r thousandths <"$sensor" && printf -v celsius %.1f "${thousandths}e-3"; } 2>/dev/null; then
        printf '{"time": %s, "celsius": %s}\n' "$EPOCHREALTIME" "$celsius"
    else
        read -r load _ </proc/loadavg
        printf '{"time": %s, "load": %s}\n' "$EPOCHREALTIME" "$load"
    fi
    sleep "$period"
done

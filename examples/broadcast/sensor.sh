#!/bin/bash
# The sensor in bash: one reading a second, the processor's temperature or the load.
#
#     wsbridge broadcast --port 8080 --exchange temps --join history --staticdir examples/broadcast examples/broadcast/sensor.sh
#     (then open http://localhost:8080/plot.html, on as many screens as you like)
#
# Arguments are the seconds between two readings, and the file of another sensor that holds thousandths of a degree.
#
# Each line goes to every browser. The time of a reading is in it, since a browser that joins later is given older lines too.

export LC_ALL=C # decimal points, whatever language the system speaks
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

#!/bin/bash
# Processor load and temperature, once a second, as JSON lines.
#
#     wsbridge --port 8080 --address 127.0.0.1 --sameorigin --dir examples/plugins --staticdir examples/plugins
#     (then open http://localhost:8080/cpu/)
#
# To the page    {"type":"machine", …}  once: what this machine is, and what it lacks
#                {"type":"sample", …}   every second; what cannot be read is null
# From the page  any line asks for a sample now
#
# `read -t` waits for a line and keeps the time at once. When the browser goes, stdin ends, and with it the loop. No process is
# started on the way: bash reads the kernel's files itself, which matters on a small machine that is asked for its own load.

export LC_ALL=C               # decimal points and bytes, whatever language the system speaks
root=${PLUGIN_ROOT:-}         # the tests put a made-up machine here
thermal=$root/sys/class/thermal

# json TEXT: sets $json to TEXT as a JSON string.
json() {
    json=${1//\\/\\\\}
    json=${json//\"/\\\"}
    json=\"${json//[[:cntrl:]]/ }\"
}

# array ITEM…: sets $array to the JSON array of items that are JSON already.
array() {
    local IFS=,
    array="[$*]"
}

# lack PART WORDS: notes, for machine(), which part of the page has nothing to show, and why.
lack() {
    json "$2"
    lacks+=("\"$1\":$json")
}

# machine: prints what this machine is and what it lacks, and sets $sensors to the files that hold a temperature.
machine() {
    local model='' key value zone name names=() lacks=() message

    # A Raspberry Pi says what it is in the device tree, with a zero byte at the end; a PC says it in cpuinfo.
    if [[ -r $root/proc/device-tree/model ]]; then
        IFS= read -r -d '' model <"$root/proc/device-tree/model"
    elif [[ -r $root/proc/cpuinfo ]]; then
        while IFS=: read -r key value; do
            [[ $key == "model name"* ]] && model=${value# } && break
        done <"$root/proc/cpuinfo"
    fi

    for zone in "$thermal"/thermal_zone*; do
        [[ -r $zone/temp && -r $zone/type ]] || continue
        read -r name <"$zone/type"
        json "$name"
        names+=("$json") sensors+=("$zone/temp")
    done

    [[ -r $root/proc/stat ]] || lack busy "no processor figures found at $root/proc/stat"
    [[ -r $root/proc/loadavg ]] || lack load "no load average found at $root/proc/loadavg"
    ((${#sensors[@]})) || lack warm "no temperature sensor found at $thermal"

    json "$HOSTNAME" && message="\"host\":$json"
    json "$model" && message+=",\"model\":$json"
    array "${names[@]}" && message+=",\"sensors\":$array"
    array "${lacks[@]}"
    echo "{\"type\":\"machine\",$message,\"lacks\":{${array:1:-1}}}"
}

# processors: sets $array to how busy, in percent, all processors together and then each of them were since the last call.
# The kernel counts ticks since it started; what matters is by how much the counts have grown.
processors() {
    local name user nice system idle iowait irq softirq steal rest total ticks share shares=()
    while read -r name user nice system idle iowait irq softirq steal rest; do
        [[ $name == cpu* ]] || break
        ((idle += iowait, total = user + nice + system + idle + irq + softirq + steal))
        ((ticks = total - ${total_before[$name]:-$total}))
        if ((ticks > 0)); then
            ((share = 1000 * (ticks - idle + idle_before[$name]) / ticks))
            ((share = share < 0 ? 0 : share > 1000 ? 1000 : share))    # the kernel may correct its idle count downwards
            printf -v share %.1f "${share}e-1"
        else
            share=null
        fi
        shares+=("$share") total_before[$name]=$total idle_before[$name]=$idle
    done <"$root/proc/stat"
    array "${shares[@]}"
}

# temperatures: sets $array to the degrees Celsius of the sensors. One may be there and refuse to be read: null, for now.
temperatures() {
    local sensor millidegrees degrees list=()
    for sensor in "${sensors[@]}"; do
        degrees=null
        { read -r millidegrees <"$sensor" && printf -v degrees %.1f "${millidegrees}e-3"; } 2>/dev/null || degrees=null
        list+=("$degrees")
    done
    array "${list[@]}"
}

# sample: prints all figures of this moment.
sample() {
    local message one five fifteen rest
    [[ -r $root/proc/stat ]] && processors && message="\"busy\":$array" || message='"busy":[]'
    temperatures && message+=",\"celsius\":$array"
    [[ -r $root/proc/loadavg ]] && read -r one five fifteen rest <"$root/proc/loadavg" && message+=",\"load\":[$one,$five,$fifteen]"
    echo "{\"type\":\"sample\",$message}"
}

declare -a sensors
declare -A total_before idle_before

machine
[[ -r $root/proc/stat ]] && processors
pause=0.25    # the first figures come soon, the others by the second
while true; do
    read -r -t "$pause" || (($? > 128)) || exit 0    # above 128: the time was up; otherwise the browser has gone
    pause=1
    sample
done

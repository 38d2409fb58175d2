#!/bin/bash
# Processor load and temperature, once per second, as JSON lines.
#
#     wsbridge --port 8080 --address 127.0.0.1 --sameorigin --dir examples/plugins --staticdir examples/plugins
#     (then open http://localhost:8080/cpu/)
#
# To the page    {"type":"machine", …}  once: the machine's name and processor, and its missing parts
#                {"type":"sample", …}   every second; an unreadable value is null
# From the page  any line requests a sample now
#
# `read -t` waits for a line or a timeout. When the browser disconnects, stdin ends, and so does the loop. The script starts no
# process: bash reads the kernel's files itself, so that it hardly adds to the load of a small machine.

export LC_ALL=C               # decimal points and bytes in any locale
root=${PLUGIN_ROOT:-}         # the tests put a fake machine here
thermal=$root/sys/class/thermal

# json TEXT: set $json to TEXT as a JSON string.
json() {
    json=${1//\\/\\\\}
    json=${json//\"/\\\"}
    json=\"${json//[[:cntrl:]]/ }\"
}

# array ITEM…: set $array to the JSON array of items that are already JSON.
array() {
    local IFS=,
    array="[$*]"
}

# lack PART WORDS: record, for machine(), a part of the page without data, and the reason.
lack() {
    json "$2"
    lacks+=("\"$1\":$json")
}

# machine: print the machine's description and its missing parts, and set $sensors to the files with a temperature.
machine() {
    local model='' key value zone name names=() lacks=() message

    # A Raspberry Pi has its model in the device tree, with a zero byte at the end; a PC has it in cpuinfo.
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

# processors: set $array to the load in percent, of all processors together and then of each, since the last call.
# The kernel counts ticks since its start, so the load is the growth of the counts.
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

# temperatures: set $array to the degrees Celsius of the sensors; an unreadable sensor is null.
temperatures() {
    local sensor millidegrees degrees list=()
    for sensor in "${sensors[@]}"; do
        degrees=null
        { read -r millidegrees <"$sensor" && printf -v degrees %.1f "${millidegrees}e-3"; } 2>/dev/null || degrees=null
        list+=("$degrees")
    done
    array "${list[@]}"
}

# sample: print all current figures.
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
pause=0.25    # the first figures come soon, then one sample per second
while true; do
    read -r -t "$pause" || (($? > 128)) || exit 0    # above 128: the timeout; otherwise, the browser has disconnected
    pause=1
    sample
done

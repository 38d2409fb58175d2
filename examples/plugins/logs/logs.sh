#!/bin/bash
# Follows a log, filtered, as JSON lines.
#
#     wsbridge --port 8080 --address 127.0.0.1 --sameorigin --dir examples/plugins --staticdir examples/plugins
#     (then open http://localhost:8080/logs/)
#
# To the page    {"type":"logs", …}       once: what may be followed, and what of it is missing here
#                {"type":"following", …}  from here on come the lines of this log with this filter
#                {"type":"line", …}       one line of it
#                {"type":"ended", …}      no more lines will come
#                {"type":"refused", …}    what the page asked for is not in the list
# From the page  follow NAME FILTER       NAME from the list, FILTER any text, or none
#
# The filter is applied here and not in the page: so it also finds the lines that the page has dropped or never had, and of a
# log that floods only what is wanted goes over the network.
#
# What the page sends is a stranger's text. It says which entry of the list below is meant, never a path; and the filter is
# grep's pattern by `-F` (no regular expression that could run for ever) and `-e` (not an option, whatever it begins with).
# Always "quoted", and never near eval, it stays text.

export LC_ALL=C.UTF-8      # large and small letters are told apart in every alphabet, whatever language the system speaks
root=${PLUGIN_ROOT:-}      # the tests put a made-up machine here
past=500                   # lines that are already in the log and are searched first
longest=1500               # characters of a line that are shown

# What may be followed: a name, and its file. Add yours; the page knows only what stands here.
names=(journal syslog auth kernel packages)
declare -A files=(
    [syslog]=$root/var/log/syslog
    [auth]=$root/var/log/auth.log
    [kernel]=$root/var/log/kern.log
    [packages]=$root/var/log/dpkg.log
)

# json TEXT: sets $json to TEXT as a JSON string.
json() {
    json=${1//\\/\\\\}
    json=${json//\"/\\\"}
    json=${json//$'\t'/\\t}
    json=\"${json//[[:cntrl:]]/ }\"
}

# lack NAME: sets $lack to why this log cannot be followed, or to nothing.
lack() {
    local file=${files[$1]:-}
    lack=
    if [[ $1 == journal ]]; then
        if ! type -P journalctl >/dev/null; then
            lack="there is no journalctl on this machine"
        # Asked for one line, a journal that may not be read, or is not there, has none.
        elif [[ -z $(journalctl --quiet --lines=1 2>&1 </dev/null) ]]; then
            lack="there is no journal, or user $(id -un) may not read it (members of the group systemd-journal may)"
        fi
    elif [[ ! -e $file ]]; then
        lack="there is no $file"
    elif [[ ! -r $file || ! -f $file ]]; then
        lack="user $(id -un) may not read $file"
    fi
}

# logs: prints the list.
logs() {
    local name items=''
    for name in "${names[@]}"; do
        lack "$name"
        json "$name" && items+=",{\"name\":$json"
        json "${files[$name]:-the journal of systemd}" && items+=",\"what\":$json"
        json "$lack" && items+=",\"lack\":$json}"
    done
    echo "{\"type\":\"logs\",\"logs\":[${items:1}]}"
}

# is_listed NAME
is_listed() {
    local name
    for name in "${names[@]}"; do
        [[ $1 == "$name" ]] && return
    done
    return 1
}

# follow NAME FILTER: prints the lines of a log that hold the filter, from now on and beside the loop below.
follow() {
    local name=$1 filter=$2 command
    if ! is_listed "$name"; then
        json "$name" && echo "{\"type\":\"refused\",\"log\":$json}"
        return
    fi

    stop
    if [[ $name == journal ]]; then
        command=(journalctl --quiet --follow --lines="$past" --output=short-iso)
    else
        command=(tail --lines="$past" --follow=name --retry -- "${files[$name]}")
    fi
    # The follower in a process substitution, so that $! is its process: ended, it takes grep and the printer with it.
    exec {lines}< <(exec "${command[@]}" 2>/dev/null </dev/null)
    follower=$!
    show "$name" "$filter" <&"$lines" &
    printer=$!
    exec {lines}<&-
}

# show NAME FILTER: stdin as messages.
show() {
    local line log
    json "$1" && log=$json
    json "$2" && echo "{\"type\":\"following\",\"log\":$log,\"filter\":$json}"
    # --text, or a zero byte would make grep take the log for a binary file, and be silent.
    grep --fixed-strings --ignore-case --text --line-buffered -e "$2" | while IFS= read -r line; do
        ((${#line} <= longest)) || line="${line:0:longest} …"
        json "$line" && echo "{\"type\":\"line\",\"text\":$json}"
    done
    echo "{\"type\":\"ended\",\"log\":$log}"
}

# stop: ends what follow() started, and waits until it has printed its last: only one process prints at a time, so that no two
# messages can get mixed.
stop() {
    [[ $follower ]] || return 0
    kill "$follower" 2>/dev/null
    wait "$printer"
    follower=
}

follower=
logs
while IFS= read -r line; do
    case $line in
        "follow "*)
            line=${line#follow }
            name=${line%% *}
            filter=${line#"$name"}
            follow "$name" "${filter# }"
            ;;
        *) echo '{"type":"refused","log":""}' ;;
    esac
done
# The browser has gone. What still follows the log need not be ended here: wsbridge ends a script with all that it has started.

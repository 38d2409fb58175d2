#!/bin/bash
# Follows a log, filtered, as JSON lines.
#
#     wsbridge --port 8080 --address 127.0.0.1 --sameorigin --dir examples/plugins --staticdir examples/plugins
#     (then open http://localhost:8080/logs/)
#
# To the page    {"type":"logs", …}       once: the list of logs, and the reason why a log is missing
#                {"type":"following", …}  the next lines are from this log, with this filter
#                {"type":"line", …}       one line of the log
#                {"type":"ended", …}      no more lines will come
#                {"type":"refused", …}    the requested log is not in the list
# From the page  follow NAME FILTER       NAME from the list, FILTER any text, or none
#
# The script filters instead of the page, so that the filter also finds lines that the page has dropped or never had. Of a log
# that floods, only the matching lines go over the network.
#
# The page's text is untrusted. It selects an entry of the list below, never a path. The filter is grep's pattern with `-F` (no
# slow regular expression) and `-e` (not an option, whatever its beginning). It is always "quoted" and never reaches eval.

export LC_ALL=C.UTF-8      # upper and lower case of every alphabet in any locale
root=${PLUGIN_ROOT:-}      # the tests put a fake machine here
past=500                   # lines at the end of the log that are searched first
longest=1500               # the most characters of a line that the page shows

# The list: a name, and its file. Add your logs; the page shows this list only.
names=(journal syslog auth kernel packages)
declare -A files=(
    [syslog]=$root/var/log/syslog
    [auth]=$root/var/log/auth.log
    [kernel]=$root/var/log/kern.log
    [packages]=$root/var/log/dpkg.log
)

# json TEXT: set $json to TEXT as a JSON string.
json() {
    json=${1//\\/\\\\}
    json=${json//\"/\\\"}
    json=${json//$'\t'/\\t}
    json=\"${json//[[:cntrl:]]/ }\"
}

# lack NAME: set $lack to the reason why this log cannot be followed, or to "".
lack() {
    local file=${files[$1]:-}
    lack=
    if [[ $1 == journal ]]; then
        if ! type -P journalctl >/dev/null; then
            lack="there is no journalctl on this machine"
        # A journal that is missing or unreadable returns no line.
        elif [[ -z $(journalctl --quiet --lines=1 2>&1 </dev/null) ]]; then
            lack="there is no journal, or user $(id -un) may not read it (members of the group systemd-journal may)"
        fi
    elif [[ ! -e $file ]]; then
        lack="there is no $file"
    elif [[ ! -r $file || ! -f $file ]]; then
        lack="user $(id -un) may not read $file"
    fi
}

# logs: print the list.
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

# follow NAME FILTER: print the matching lines of a log in the background, from now on.
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
    # The follower is a process substitution, so that $! is its process; when it ends, grep and the printer end too.
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
    # Without --text, a zero byte would make grep treat the log as a binary file, and print nothing.
    grep --fixed-strings --ignore-case --text --line-buffered -e "$2" | while IFS= read -r line; do
        ((${#line} <= longest)) || line="${line:0:longest} …"
        json "$line" && echo "{\"type\":\"line\",\"text\":$json}"
    done
    echo "{\"type\":\"ended\",\"log\":$log}"
}

# stop: end the process of follow(), and wait until its output ends: only one process prints at a time, so that messages cannot
# mix.
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
# The browser has disconnected. The script need not end the follower: wsbridge ends a script with all of its processes.

#!/bin/bash
# Starts and stops systemd's services, as far as the list below allows, with JSON lines.
#
#     wsbridge --port 8080 --address 127.0.0.1 --sameorigin --dir examples/plugins --staticdir examples/plugins
#     (then open http://localhost:8080/services/)
#
# Every user who can open the page can press its buttons. So restrict it to this machine (--address), or put it behind a proxy
# with authentication, and exclude the pages of other sites (--sameorigin).
#
# To the page    {"type":"rights", …}    once: the user of the script, and whether systemd is likely to obey
#                {"type":"services", …}  the state of all services, at first and after each change
#                {"type":"result", …}    the result of a button
# From the page  start UNIT
#                stop UNIT
#
# The page's text is untrusted, and is never executed: the script compares it with the list, and passes the list's own words to
# systemctl. Without systemd, the script reports this and exits.
#
# systemd obeys root. It also obeys the user of wsbridge for each unit that polkit permits, in a file such as
# /etc/polkit-1/rules.d/50-wsbridge.rules:
#
#     polkit.addRule(function (action, subject) {
#         if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "wsbridge" &&
#             action.lookup("unit") == "cron.service") return polkit.Result.YES;
#     });

export LC_ALL=C            # systemctl's answers in English in any locale
root=${PLUGIN_ROOT:-}      # the tests put a fake machine here

# The list: unit | permitted actions | the reason why other actions are not permitted. Change it to your needs.
list=(
    'cron.service|start stop|'
    'ssh.service|start|Stopping it could shut you out of this machine.'
    'bluetooth.service|start stop|'
    'cups.service|start stop|'
    'systemd-timesyncd.service|start stop|'
    'systemd-journald.service||The system cannot do without it.'
)

# json TEXT: set $json to TEXT as a JSON string.
json() {
    json=${1//\\/\\\\}
    json=${json//\"/\\\"}
    json=${json//$'\n'/\\n}
    json=\"${json//[[:cntrl:]]/ }\"
}

# rights: print whether systemd is likely to obey.
rights() {
    local user lack='' words
    user=$(id -un)
    if [[ ! -d $root/run/systemd/system ]]; then
        lack=systemd
        words="systemd does not run on this machine, so there are no services to show."
    elif (($(id -u) == 0)); then
        words="The script runs as root: systemd does what the list allows."
    elif [[ ! -e $root/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service ]]; then
        lack=permission
        words="The script runs as user $user, not as root, and polkit, which could give it permission, is not installed: it may only look."
    else
        words="The script runs as user $user, not as root: at each button systemd asks polkit, which may refuse."
    fi
    json "$words" && echo "{\"type\":\"rights\",\"lack\":\"$lack\",\"text\":$json}"
    [[ $lack != systemd ]]
}

# services: set $services to a message with the state of all services in the list.
services() {
    local units=("${list[@]%%|*}") show key value unit may why item items='' number=0
    local -A property
    if ! show=$(systemctl show --property=Description,LoadState,ActiveState,SubState -- "${units[@]}" 2>&1 </dev/null); then
        json "$show" && services="{\"type\":\"services\",\"services\":[],\"lack\":$json}"
        return
    fi
    # A block of KEY=VALUE lines for each unit, in the requested order, separated by empty lines.
    while IFS='=' read -r key value; do
        if [[ $key ]]; then
            property[$key]=$value
            continue
        fi
        IFS='|' read -r unit may why <<<"${list[number++]}"
        item=
        json "$unit" && item+="\"unit\":$json"
        json "${property[Description]}" && item+=",\"description\":$json"
        json "${property[LoadState]}" && item+=",\"load\":$json"
        json "${property[ActiveState]}" && item+=",\"active\":$json"
        json "${property[SubState]}" && item+=",\"sub\":$json"
        json "$may" && item+=",\"may\":$json"
        json "$why" && item+=",\"why\":$json"
        items+=",{$item}"
    done <<<"$show"$'\n'
    services="{\"type\":\"services\",\"services\":[${items:1}],\"lack\":\"\"}"
}

# order VERB UNIT: perform the page's request if the list allows it, and report the result.
order() {
    local entry unit may why answer result
    for entry in "${list[@]}"; do
        IFS='|' read -r unit may why <<<"$entry"
        [[ $2 == "$unit" && " $may " == *" $1 "* ]] || continue
        # stdin has the browser's messages, so systemctl must not read it.
        if answer=$(systemctl --no-ask-password "$1" -- "$unit" 2>&1 </dev/null); then
            result=obeyed
        else
            result=failed
        fi
        report "$1" "$unit" "$result" "$answer"
        return
    done
    report "$1" "$2" refused "The list in the script does not allow this."
}

# report VERB UNIT RESULT WORDS
report() {
    local message
    json "$1" && message="\"verb\":$json"
    json "$2" && message+=",\"unit\":$json"
    json "$4" && message+=",\"text\":$json"
    echo "{\"type\":\"result\",\"result\":\"$3\",$message}"
}

rights || exit 0

shown=
while true; do
    services
    [[ $services == "$shown" ]] || echo "$services"
    shown=$services

    # A line from the page, or a timeout of two seconds. A status above 128 is the timeout; otherwise, the browser has disconnected.
    if read -r -t 2 verb unit; then
        case $verb in
            start | stop) order "$verb" "$unit" ;;
            *) report "$verb" "$unit" refused "There is only start and stop." ;;
        esac
    else
        (($? > 128)) || exit 0
    fi
done

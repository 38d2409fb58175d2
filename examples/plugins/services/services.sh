#!/bin/bash
# systemd's services, to be started and stopped as far as the list below allows, as JSON lines.
#
#     wsbridge --port 8080 --address 127.0.0.1 --sameorigin --dir examples/plugins --staticdir examples/plugins
#     (then open http://localhost:8080/services/)
#
# Whoever can open the page can press its buttons: so keep it on this machine (--address) or behind a proxy that asks who is
# there, and keep other sites' pages out (--sameorigin).
#
# To the page    {"type":"rights", …}    once: as whom the script runs, and what systemd will make of that
#                {"type":"services", …}  the state of all services, at first and whenever it has changed
#                {"type":"result", …}    what came of a button
# From the page  start UNIT
#                stop UNIT
#
# What the page sends is a stranger's text, and is never executed: it is compared with the list, and what systemctl gets is the
# list's own words. Without systemd there is nothing to do: the script says so and ends.
#
# systemd obeys root. It may also obey the user as whom wsbridge runs, if polkit is told so, unit by unit, in a file such as
# /etc/polkit-1/rules.d/50-wsbridge.rules:
#
#     polkit.addRule(function (action, subject) {
#         if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "wsbridge" &&
#             action.lookup("unit") == "cron.service") return polkit.Result.YES;
#     });

export LC_ALL=C            # systemctl's answers, whatever language the system speaks
root=${PLUGIN_ROOT:-}      # the tests put a made-up machine here

# The list: unit | what the page may do with it | why it may not do the rest. Change it to your needs.
list=(
    'cron.service|start stop|'
    'ssh.service|start|Stopping it could shut you out of this machine.'
    'bluetooth.service|start stop|'
    'cups.service|start stop|'
    'systemd-timesyncd.service|start stop|'
    'systemd-journald.service||The system cannot do without it.'
)

# json TEXT: sets $json to TEXT as a JSON string.
json() {
    json=${1//\\/\\\\}
    json=${json//\"/\\\"}
    json=${json//$'\n'/\\n}
    json=\"${json//[[:cntrl:]]/ }\"
}

# rights: prints whether systemd is likely to obey.
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

# services: sets $services to the state of all services in the list, as a message.
services() {
    local units=("${list[@]%%|*}") show key value unit may why item items='' number=0
    local -A property
    if ! show=$(systemctl show --property=Description,LoadState,ActiveState,SubState -- "${units[@]}" 2>&1 </dev/null); then
        json "$show" && services="{\"type\":\"services\",\"services\":[],\"lack\":$json}"
        return
    fi
    # A block of KEY=VALUE lines for each unit, in the order in which they were asked for, with an empty line between two.
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

# order VERB UNIT: does what the page asks for, if the list allows it, and says what came of it.
order() {
    local entry unit may why answer result
    for entry in "${list[@]}"; do
        IFS='|' read -r unit may why <<<"$entry"
        [[ $2 == "$unit" && " $may " == *" $1 "* ]] || continue
        # stdin belongs to the browser: systemctl must not read from it.
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

    # A line from the page, or two seconds without one. A status above 128 says that the time was up; else the browser has gone.
    if read -r -t 2 verb unit; then
        case $verb in
            start | stop) order "$verb" "$unit" ;;
            *) report "$verb" "$unit" refused "There is only start and stop." ;;
        esac
    else
        (($? > 128)) || exit 0
    fi
done

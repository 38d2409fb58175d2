#!/bin/bash
# Two nodes behind one RabbitMQ on this machine: a program runs on the first node, and the browsers of both get its messages.
#
#     examples/broadcast/two-nodes.sh [PORT PORT [COMMAND [ARGUMENT…]]]
#
# The script starts its own RabbitMQ on free ports (on Debian: apt-get install rabbitmq-server; its service need not run), or uses
# the broker in BROKER=amqp://user:password@host/. Ctrl-C ends all processes of the script. The broker's address is in
# WSBRIDGE_BROKER, so that `ps` does not show the password. The script runs these commands:
#
#     wsbridge broadcast --port 8080 --exchange two-nodes --replay … examples/broadcast/sensor.sh
#     wsbridge broadcast --port 8081 --exchange two-nodes --replay …
#
# The second node has no COMMAND, so it is a gateway. Any number of gateways can run, on any number of machines. A browser that
# loses its node continues on another, after its last message.

set -u
here=$(dirname "$(readlink -f "$0")")
case ${1:-} in
-h | --help)
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0" # the comment above
    exit
    ;;
*[!0-9]*)
    echo "$1 is not a port; see $0 --help." >&2
    exit 2
    ;;
esac
ports=("${1:-8080}" "${2:-8081}")
shift $(($# < 2 ? $# : 2))
(($#)) || set -- "$here/sensor.sh"
wsbridge=$(command -v wsbridge) || wsbridge=$here/../../scripts/wsbridge

home=$(mktemp -d)
nodes=() # their process ids

# The nodes shut down first. Then KILL ends the script's own broker, which has no data to save: while Erlang starts, it ignores
# other signals.
finish() {
    trap '' INT TERM HUP
    for node in "${nodes[@]}"; do kill "$node"; done
    for node in "${nodes[@]}"; do wait "$node"; done
    jobs -rp | xargs -r kill -KILL
    wait
    rm -rf "$home"
} 2>/dev/null
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# start COMMAND…: start COMMAND so that Ctrl-C does not reach it: this script ends the nodes first, then the broker.
start() {
    setsid "$@" </dev/null &
    started=$!
}

# listens PID PORT: succeed if this process listens on the port, and not another process.
listens() {
    local socket
    while read -r socket; do
        [[ -n $(find "/proc/$1/fd" -lname "socket:\\[$socket\\]" 2>/dev/null) ]] && return
    done < <(awk -v port="$(printf :%04X "$2")" '$4 == "0A" && $2 ~ port "$" { print $10 }' /proc/net/tcp{,6} 2>/dev/null)
    return 1
}

# wait_for PORT NAME: wait until the process that was started last listens on the port.
wait_for() {
    until listens "$started" "$1"; do
        kill -0 "$started" 2>/dev/null || fail "$2 has ended before it listened on port $1."
        sleep 0.1
    done
}

# free_port: print a free port that is not a node's, below the kernel's range for outgoing connections.
free_port() {
    local port
    while port=$((RANDOM % 20000 + 10000)); [[ " ${ports[*]} " == *" $port "* ]] || { : >"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; do :; done
    echo "$port"
}

start_broker() {
    local server=/usr/lib/rabbitmq/bin/rabbitmq-server port # only root can run Debian's script in /usr/sbin
    [[ -x $server ]] || server=$(command -v rabbitmq-server) || fail "There is no rabbitmq-server here; install it, or set BROKER."
    port=$(free_port)
    echo "[{rabbit, [{tcp_listeners, [{\"127.0.0.1\", $port}]}, {disk_free_limit, 1000000}]}]." >"$home/rabbit.config"
    echo "[]." >"$home/plugins"
    # Its own names, ports, folders and epmd, Erlang's directory of nodes, keep it apart from any other RabbitMQ on this machine.
    export ERL_EPMD_PORT ERL_EPMD_ADDRESS=127.0.0.1
    ERL_EPMD_PORT=$(free_port)
    start epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 >"$home/epmd" 2>&1
    wait_for "$ERL_EPMD_PORT" epmd
    # With RABBITMQ_ALLOW_INPUT, RabbitMQ's script becomes the server instead of waiting for it.
    start env HOME="$home" RABBITMQ_ALLOW_INPUT=1 RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$home/rabbit.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$home/plugins" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_MNESIA_BASE="$home/data" \
        RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_DIST_PORT="$(free_port)" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput -kernel inet_dist_use_interface {127,0,0,1}" "$server" >"$home/output" 2>&1
    echo "RabbitMQ is starting on port $port, which takes some seconds."
    wait_for "$port" RabbitMQ
    BROKER=amqp://guest:guest@127.0.0.1:$port/
}

# start_node PORT [COMMAND…]
start_node() {
    local port=$1
    shift
    start "$wsbridge" broadcast --loglevel error --port "$port" --exchange "${EXCHANGE:-two-nodes}" --replay --join history \
        --staticdir "$here" "$@"
    nodes+=("$started")
    wait_for "$port" "The node on port $port"
}

for port in "${ports[@]}"; do
    if { : >"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then fail "Port $port is taken; name two others: $0 PORT PORT"; fi
done
[[ -n ${BROKER:-} ]] || start_broker
export WSBRIDGE_BROKER=$BROKER
start_node "${ports[0]}" "$@"
start_node "${ports[1]}"

echo "Open both, side by side:
    http://localhost:${ports[0]}/plot.html
    http://localhost:${ports[1]}/plot.html?also=http://localhost:${ports[0]}/
The second page shows its node beside \"Live\". To move it to the first node without losing a reading: kill ${nodes[1]}
Ctrl-C ends everything."
wait "${nodes[0]}"
echo "The first node has ended; stopping the second node and the broker."

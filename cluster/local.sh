#!/usr/bin/env bash
# Run a Ray cluster whose nodes have separate disks on one machine; `cluster/local.sh help` describes it.
set -euo pipefail

print_help() {
    cat <<'HELP'
Run a Ray cluster on one machine to rehearse what a real one does: a head without CPUs and some workers. Each node has
its own /tmp, /dev/shm, HOME, process ids, host name and address (127.0.0.1, 127.0.0.2, ...); they share one folder, and
token authentication is on. Needs Linux, root, iproute2, util-linux, and splatfix in .venv (make setup) or in $PYTHON.

  cluster/local.sh start [--workers 2] [--cpus 1] [--gpus 0] [--shared DIR | --no-shared] [--alone NODE]... [--s3]
                         [--env NAME=VALUE]... [--ports BASE] [--timeout SECONDS]
                                    start the head and the workers w1, w2, ..., and wait until all are up
  cluster/local.sh run [--node NODE] COMMAND...
                                    run a command on the head or another node, in the current folder; Ctrl-C ends it
  cluster/local.sh status           list the nodes
  cluster/local.sh dashboard [PORT] make Ray's dashboard available at http://127.0.0.1:PORT of this machine (8265)
  cluster/local.sh kill NODE        switch a node off, as a lost machine
  cluster/local.sh add NODE [--cpus 1] [--gpus 0] [--alone] [--no-wait]
                                    add a worker, or switch one on again; its number gives its address (w3: 127.0.0.4)
  cluster/local.sh stop             end all nodes and delete their disks; the shared folder and the logs are kept

Every command takes --name NAME (default: splatfix), so that several clusters can run beside each other.

  --cpus, --gpus   of each worker. GPUs are only counted: there need not be any
  --shared         the folder that all nodes have (default: /var/tmp/splatfix-local/NAME/shared)
  --alone          a node that finds the shared folder empty, as if it was not mounted there
  --s3             also run an S3 server (moto) with the bucket s3://splatfix, and tell all nodes about it
  --env            an environment variable of all nodes; they get none of yours but PATH and LANG
  --ports          use this machine's own loopback interface instead of a network namespace: 1000 ports for each node from
                   BASE on, the head's at BASE + 10 and its dashboard's at BASE + 11. Other clusters must not use these
HELP
}

fail() {
    printf 'cluster/local.sh: %s\n' "$*" >&2
    exit 1
}

say() {
    printf '%s\n' "$*" >&2
}

# --- Processes, which are known by id and start time, because ids are used again

start_time() { # ID: ticks since the machine has started; nothing if there is no such process
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    read -ra stat <<<"${stat##*) }"
    [ "${stat[0]}" = Z ] || echo "${stat[19]}"
}

record_process() { # FILE ID
    printf '%s %s\n' "$2" "$(start_time "$2")" >"$1"
}

running() { # FILE: print the id of the recorded process; false if it has ended
    local pid ticks
    [ -s "$1" ] || return 1
    read -r pid ticks <"$1"
    [ -n "$ticks" ] && [ "$(start_time "$pid")" = "$ticks" ] && echo "$pid"
}

end_process() { # FILE
    local pid
    pid=$(running "$1") || return 0
    kill -KILL "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
        running "$1" >/dev/null || return 0
        sleep 0.1
    done
    say "process $pid does not end"
}

# --- One node

index_of() { # NODE: 0 for the head, 3 for w3
    case $1 in
    head) echo 0 ;;
    w[1-9] | w[1-9][0-9]) echo "${1#w}" ;;
    *) fail "node '$1': want head, w1, w2, ..." ;;
    esac
}

# The first process of a node, in its own namespaces; everything else in the node ends with it.
node_main() { # ROOT NODE shared|alone SHARED REPOSITORY COMMAND...
    set -eu
    local root=$1 node=$2 mode=$3 shared=$4 repository=$5 pid
    shift 5
    read -r pid _ </proc/self/stat # the id outside: this is still the outer /proc
    echo "$pid" >"$root/nodes/$node/id"
    mount --make-rprivate /
    mount -t proc proc /proc
    echo "$node" >/proc/sys/kernel/hostname
    mount --bind "$root/hosts" /etc/hosts
    exec 7<"$root/nodes/$node/tmp" 8<"$repository" 9<"${shared:-/}"
    mount -t tmpfs -o size=2g tmpfs /dev/shm
    mount -t tmpfs -o size=1m tmpfs "$root" # the other nodes' disks
    mount --no-canonicalize --bind /proc/self/fd/7 /tmp
    chmod 1777 /tmp
    if [ ! -d "$repository/splatfix" ]; then # it was in the /tmp of this machine
        mkdir -p "$repository"
        mount --no-canonicalize --bind /proc/self/fd/8 "$repository"
    fi
    if [ -n "$shared" ]; then
        mkdir -p "$shared"
        if [ "$mode" = shared ]; then
            mount --no-canonicalize --bind /proc/self/fd/9 "$shared"
        else
            mount -t tmpfs -o size=64m tmpfs "$shared"
        fi
    fi
    exec 7<&- 8<&- 9<&-
    cd /
    "$@" &
    wait $! # and not exec: as process 1 this shell collects the processes that lose their parents
}

launch() { # NODE CPUS GPUS MODE
    local node=$1 cpus=$2 gpus=$3 mode=$4 index first own
    index=$(index_of "$node")
    first=$((${BASE:-20000} + 1000 * index)) own=$ROOT/nodes/$node
    (umask 077 && mkdir -p "$own/tmp/home/.ray" && cp "$ROOT/token" "$own/tmp/home/.ray/auth_token")
    # The label tells this launch from an earlier one at the same address, which Ray takes a while to give up.
    local label=$node.$EPOCHSECONDS.$RANDOM
    printf 'cpus=%s gpus=%s mode=%s label=%s\n' "$cpus" "$gpus" "$mode" "$label" >"$own/settings"
    local ray=(
        "$PYTHON" -m ray.scripts.scripts start --block --disable-usage-stats --node-ip-address "127.0.0.$((index + 1))"
        --num-cpus "$cpus" --num-gpus "$gpus" --object-store-memory 200000000
        --node-name "$node" --labels "launch=$label"
        --node-manager-port $((first + 1)) --object-manager-port $((first + 2)) --metrics-export-port $((first + 3))
        --dashboard-agent-listen-port $((first + 4)) --dashboard-agent-grpc-port $((first + 5))
        --runtime-env-agent-port $((first + 6)) --min-worker-port $((first + 100)) --max-worker-port $((first + 999))
    )
    if [ "$node" = head ]; then
        ray+=(--head --port "$GCS_PORT" --dashboard-host 127.0.0.1 --dashboard-port "$DASHBOARD_PORT")
    else
        ray+=(--address "127.0.0.1:$GCS_PORT")
    fi
    rm -f "$own/id" "$own/process"
    # Ray gives up an agent after 15 s: not enough where many processes share few cores. So a node starts with a higher
    # priority, and gets the usual one when it is up.
    setsid nice -n -10 "${IN_NETWORK[@]}" unshare --mount --uts --pid --fork --kill-child \
        env -i "PATH=$PATH" "LANG=${LANG:-C.UTF-8}" "${ENVIRONMENT[@]}" RAY_agent_register_timeout_ms=120000 \
        bash -c "$(declare -f node_main); node_main \"\$@\"" node \
        "$ROOT" "$node" "$mode" "$SHARED" "$REPOSITORY" "${ray[@]}" </dev/null >>"$ROOT/logs/$node.log" 2>&1 &
    for _ in $(seq 100); do
        [ -s "$own/id" ] && break
        sleep 0.1
    done
    [ -s "$own/id" ] || fail "$node: no namespaces: $(tail -n 1 "$ROOT/logs/$node.log")"
    record_process "$own/process" "$(cat "$own/id")"
}

list_alive() { # the labels of the nodes that Ray knows to be alive
    "${IN_NETWORK[@]}" "$PYTHON" - "http://127.0.0.1:$DASHBOARD_PORT/nodes?view=summary" "$ROOT/token" 2>/dev/null <<'PY'
import json, sys, urllib.request

token = open(sys.argv[2]).read().strip()
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {token}"})
for node in json.load(urllib.request.urlopen(request, timeout=10))["data"]["summary"]:
    if node["raylet"]["state"] == "ALIVE":
        print(node["raylet"]["labels"].get("launch"))
PY
}

use_usual_priority() { # NODE
    local namespace process
    namespace=$(readlink "/proc/$(running "$ROOT/nodes/$1/process")/ns/pid") || return 0
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/pid")" != "$namespace" ] || renice -n 0 -p "${process#/proc/}" >/dev/null 2>&1 || true
    done
}

read_settings() { # NODE: set cpus, gpus, mode and label as it was launched
    # shellcheck disable=SC1090
    source "$ROOT/nodes/$1/settings"
}

wait_for_nodes() { # NODE...: until Ray knows them; a node that has ended is launched again, at most four times
    local node missing alive deadline=$((SECONDS + TIMEOUT)) cpus gpus mode label
    local -A launches=()
    while true; do
        alive=$(list_alive || true) missing=()
        for node in "$@"; do
            read_settings "$node"
            if ! running "$ROOT/nodes/$node/process" >/dev/null; then
                launches[$node]=$((${launches[$node]:-0} + 1))
                if [ "${launches[$node]}" -gt 4 ]; then
                    tail -n 20 "$ROOT/logs/$node.log" >&2
                    say "$node ended five times; its log is $ROOT/logs/$node.log"
                    return 1
                fi
                say "$node has ended while it started; trying again (its log is $ROOT/logs/$node.log)"
                launch "$node" "$cpus" "$gpus" "$mode"
                missing+=("$node")
            elif ! grep -qx "$label" <<<"$alive"; then
                missing+=("$node")
            else
                use_usual_priority "$node"
            fi
        done
        [ ${#missing[@]} -gt 0 ] || return 0
        if [ "$SECONDS" -gt "$deadline" ]; then
            tail -n 20 "$ROOT/logs/${missing[0]}.log" >&2
            say "not up after $TIMEOUT s: ${missing[*]}; the logs are in $ROOT/logs (--timeout waits longer)"
            return 1
        fi
        sleep 0.5
    done
}

# --- The S3 server

start_s3() {
    setsid "${IN_NETWORK[@]}" "$PYTHON" -m moto.server -H 127.0.0.1 -p "$S3_PORT" </dev/null >"$ROOT/logs/s3.log" 2>&1 &
    record_process "$ROOT/s3.process" $!
    local url=http://127.0.0.1:$S3_PORT/splatfix deadline=$((SECONDS + 60))
    until "${IN_NETWORK[@]}" "$PYTHON" -c 'import sys, urllib.request as u
u.urlopen(u.Request(sys.argv[1], method="PUT"), timeout=10)' "$url" 2>/dev/null; do
        running "$ROOT/s3.process" >/dev/null || fail "the S3 server has ended: $(tail -n 1 "$ROOT/logs/s3.log")"
        [ "$SECONDS" -lt "$deadline" ] || fail "the S3 server does not answer; its log is $ROOT/logs/s3.log"
        sleep 0.5
    done
}

# --- Commands

require_machine() {
    [ "$(uname)" = Linux ] || fail "needs Linux: namespaces give the nodes separate disks"
    [ "$(id -u)" = 0 ] || fail "needs root, to make namespaces and to mount; try sudo"
    local tool package
    for tool in ip:iproute2 unshare:util-linux nsenter:util-linux mount:mount setsid:util-linux; do
        package=${tool#*:}
        command -v "${tool%:*}" >/dev/null || fail "needs ${tool%:*}: apt-get install $package"
    done
    "$PYTHON" -c 'import ray' 2>/dev/null || fail "$PYTHON has no Ray; run make setup, or set PYTHON"
}

set_network() { # from BASE: how processes get into the cluster's network, and its ports
    if [ -n "$BASE" ]; then
        IN_NETWORK=(env) GCS_PORT=$((BASE + 10)) DASHBOARD_PORT=$((BASE + 11)) S3_PORT=$((BASE + 12))
    else
        IN_NETWORK=(ip netns exec "splatfix-$NAME") GCS_PORT=6379 DASHBOARD_PORT=8265 S3_PORT=5555
    fi
}

load_settings() {
    [ -s "$ROOT/settings" ] || fail "no cluster named '$NAME' runs; start it with: cluster/local.sh start$NAME_OPTION"
    # shellcheck disable=SC1091
    source "$ROOT/settings"
    set_network
}

end_all() {
    local file
    for file in "$ROOT"/nodes/*/process "$ROOT/s3.process"; do
        end_process "$file"
    done
    ip netns del "splatfix-$NAME" 2>/dev/null || true
    rm -rf "$ROOT/nodes" "$ROOT/token" "$ROOT/hosts" "$ROOT/s3.process" "$ROOT/settings"
}

start() {
    local workers=2 cpus=1 gpus=0 s3=no alone=() node number mode
    BASE='' SHARED=$ROOT/shared TIMEOUT=300 ENVIRONMENT=()
    while [ $# -gt 0 ]; do
        case $1 in
        --workers) workers=$2 && shift ;;
        --cpus) cpus=$2 && shift ;;
        --gpus) gpus=$2 && shift ;;
        --shared) SHARED=$(realpath -m "$2") && shift ;;
        --no-shared) SHARED='' ;;
        --alone) alone+=("$2") && shift ;;
        --s3) s3=yes ;;
        --env) ENVIRONMENT+=("$2") && shift ;;
        --ports) BASE=$2 && shift ;;
        --timeout) TIMEOUT=$2 && shift ;;
        *) fail "start: unknown option '$1'; see: cluster/local.sh help" ;;
        esac
        shift
    done
    require_machine
    for node in "$ROOT"/nodes/*/process; do
        ! running "$node" >/dev/null || fail "the cluster '$NAME' runs already; first: cluster/local.sh stop$NAME_OPTION"
    done
    end_all # what a restart of the machine has left
    rm -rf "$ROOT/logs"
    mkdir -p "$ROOT/logs" "$ROOT/nodes" "${SHARED:-$ROOT}"
    (umask 077 && "$PYTHON" -c 'import secrets; print(secrets.token_hex(32))' >"$ROOT/token")
    # All names have one address: Ray takes 127.0.0.1, where the head is, to be the address of a node's own name.
    echo "127.0.0.1 localhost head $(seq -s ' ' -f 'w%g' 99)" >"$ROOT/hosts"
    set_network
    ENVIRONMENT+=(HOME=/tmp/home RAY_AUTH_MODE=token)
    if [ $s3 = yes ]; then
        ENVIRONMENT+=("AWS_ENDPOINT_URL=http://127.0.0.1:$S3_PORT" AWS_ALLOW_HTTP=true AWS_REGION=us-east-1)
        ENVIRONMENT+=(AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local)
    fi
    declare -p BASE SHARED ENVIRONMENT TIMEOUT PYTHON | sed 's/^declare -[-a]*/declare -g/' >"$ROOT/settings"
    trap 'end_all; exit 1' EXIT INT TERM # until everything is up
    [ -n "$BASE" ] || { ip netns add "splatfix-$NAME" && ip -n "splatfix-$NAME" link set lo up; }
    [ $s3 = no ] || start_s3
    # One after the other: where cores are few, nodes that start together exceed the time that Ray gives each.
    say "starting a head and $workers workers (20 to 60 s) ..."
    launch head 0 0 shared
    wait_for_nodes head || fail "the head does not start"
    for number in $(seq "$workers"); do
        node=w$number mode=shared
        [[ " ${alone[*]} " != *" $node "* ]] || mode=alone
        launch "$node" "$cpus" "$gpus" "$mode"
        wait_for_nodes "$node" || fail "$node does not start"
    done
    trap - EXIT INT TERM
    print_next $s3
}

print_next() { # yes|no: with an S3 server
    local local_sh="cluster/local.sh" s3='' out=${SHARED:-s3://BUCKET}
    [ "$1" = no ] || s3="
S3 bucket      s3://splatfix" out=s3://splatfix
    cat <<NEXT
The cluster '$NAME' is up: $(list_alive | wc -l) nodes, each with its own disk.
shared folder  ${SHARED:-none}$s3
logs           $ROOT/logs, and of Ray $ROOT/nodes/NODE/tmp/ray/session_latest/logs

submit a job   $local_sh run$NAME_OPTION splatfix submit generate CAPTURE --out $out/pairs --config configs/generate_rehearsal.yaml --follow
look at it     $local_sh dashboard$NAME_OPTION, then http://127.0.0.1:8265 with the token in $ROOT/token
list nodes     $local_sh status$NAME_OPTION
lose a node    $local_sh kill$NAME_OPTION w1; $local_sh add$NAME_OPTION w1 switches it on again
stop           $local_sh stop$NAME_OPTION
NEXT
}

add() {
    local cpus=1 gpus=0 mode=shared wait=yes node=${1:?add: which node? w1, w2, ...}
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --cpus) cpus=$2 && shift ;;
        --gpus) gpus=$2 && shift ;;
        --alone) mode=alone ;;
        --no-wait) wait=no ;;
        *) fail "add: unknown option '$1'; see: cluster/local.sh help" ;;
        esac
        shift
    done
    load_settings
    [ "$(index_of "$node")" -gt 0 ] || fail "add: the head starts with the cluster"
    ! running "$ROOT/nodes/$node/process" >/dev/null || fail "$node runs already; first: cluster/local.sh kill $node"
    launch "$node" "$cpus" "$gpus" "$mode"
    [ $wait = no ] || wait_for_nodes "$node" || fail "$node does not start"
}

kill_node() {
    load_settings
    index_of "${1:?kill: which node? w1, w2, ...}" >/dev/null
    running "$ROOT/nodes/$1/process" >/dev/null || fail "$1 does not run; see: cluster/local.sh status"
    end_process "$ROOT/nodes/$1/process"
}

run() {
    local node=head pid
    if [ "${1-}" = --node ]; then
        node=$2
        shift 2
    fi
    [ $# -gt 0 ] || fail "run: which command?"
    load_settings
    pid=$(running "$ROOT/nodes/$node/process") || fail "$node does not run; its log is $ROOT/logs/$node.log"
    # shellcheck disable=SC2016
    exec nsenter --target "$pid" --mount --net --uts --pid -- env "${ENVIRONMENT[@]}" "PATH=$(dirname "$PYTHON"):$PATH" \
        "RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD_PORT" \
        bash -c 'cd "$1" 2>/dev/null || { echo "cluster/local.sh: the nodes do not have $1: it is in /tmp" >&2; exit 1; }
            shift; exec "$@"' _ "$PWD" "$@"
}

status() {
    load_settings
    local alive folder node address state cpus gpus mode label
    alive=$(list_alive || true)
    for folder in "$ROOT"/nodes/*/; do
        node=$(basename "$folder") state='off'
        read_settings "$node"
        address=127.0.0.$(($(index_of "$node") + 1))
        if running "$folder/process" >/dev/null; then
            state='starts'
            ! grep -qx "$label" <<<"$alive" || state='up'
        fi
        printf '%-5s %-10s %-7s %s CPUs, %s GPUs%s\n' "$node" "$address" "$state" "$cpus" "$gpus" \
            "$([ "$mode" = shared ] || echo ', without the shared folder')"
    done
}

dashboard() {
    load_settings
    [ -z "$BASE" ] || { say "http://127.0.0.1:$DASHBOARD_PORT; it asks for the token in $ROOT/token" && return; }
    # The relay listens in this machine's network and connects in the cluster's.
    exec "$PYTHON" - "${1:-8265}" "$DASHBOARD_PORT" "$ROOT/token" "${IN_NETWORK[@]}" <<'PY'
import os, socket, sys

RELAY = """
import asyncio, socket, sys

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def serve(reader, writer):
    try:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    except OSError:
        return writer.close()
    await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))

async def main():
    server = await asyncio.start_server(serve, sock=socket.socket(fileno=int(sys.argv[1])))
    await server.serve_forever()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
"""
port, dashboard_port, token, *in_network = sys.argv[1:]
server = socket.create_server(("127.0.0.1", int(port)))
server.set_inheritable(True)
print(f"http://127.0.0.1:{port} until Ctrl-C; it asks for the token in {token}", file=sys.stderr, flush=True)
os.execvp(in_network[0], [*in_network, sys.executable, "-c", RELAY, str(server.fileno()), dashboard_port])
PY
}

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NAME=splatfix NAME_OPTION=''
COMMAND=${1:-help}
[ $# -eq 0 ] || shift
words=()
while [ $# -gt 0 ]; do # --name may be anywhere before the command that "run" runs
    case $COMMAND:$1 in
    *:--name)
        NAME=${2:?--name: which name?}
        NAME_OPTION=" --name $NAME"
        shift
        ;;
    run:--node)
        words+=("$1" "${2:?--node: which node?}")
        shift
        ;;
    run:*) break ;;
    *) words+=("$1") ;;
    esac
    shift
done
set -- "${words[@]}" "$@"
case $COMMAND:$# in
kill:0 | kill:1 | dashboard:0 | dashboard:1 | status:0 | stop:0) ;;
kill:* | dashboard:* | status:* | stop:*) fail "$COMMAND: too many arguments: $*" ;;
esac
[[ $NAME =~ ^[a-z0-9_-]{1,20}$ ]] || fail "--name '$NAME': want up to 20 small letters, digits, - and _"
ROOT=/var/tmp/splatfix-local/$NAME
if [ -z "${PYTHON-}" ]; then
    PYTHON=$REPOSITORY/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=$(command -v python3) || fail "no python3 in PATH"
fi
PATH=$(dirname "$PYTHON"):$PATH

case $COMMAND in
start) start "$@" ;;
add) add "$@" ;;
kill) kill_node "$@" ;;
run) run "$@" ;;
status) status ;;
dashboard) dashboard "$@" ;;
stop)
    require_machine
    [ -d "$ROOT" ] || fail "no cluster named '$NAME'"
    end_all
    ;;
help | --help | -h) print_help ;;
*) fail "unknown command '$COMMAND'; see: cluster/local.sh help" ;;
esac

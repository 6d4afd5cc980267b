#!/bin/bash
# A Ray cluster on plain machines that you reach by ssh without a password:
#   cluster/ssh/cluster.sh start HEAD WORKER...     starts a node on each machine, and prints the submit address
#   cluster/ssh/cluster.sh status HEAD WORKER...    which of them run
#   cluster/ssh/cluster.sh stop HEAD WORKER...      ends these nodes, and no other Ray of these machines
# splatfix is installed at the same path on all of them (SPLATFIX_FOLDER, with .venv in it). The head runs the drivers
# and no tasks. The token is made here (~/.splatfix/token) and sent through ssh, never on a command line.
set -euo pipefail
umask 077
folder="${SPLATFIX_FOLDER:-splatfix}" # relative to the home folder there
port="${SPLATFIX_PORT:-6379}"
dashboard="${SPLATFIX_DASHBOARD_PORT:-8265}"
token="${SPLATFIX_TOKEN:-$HOME/.splatfix/token}"
ssh="${SPLATFIX_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=15}"

on() { # MACHINE SCRIPT [ARGUMENTS...]: a script there, with the rest of our standard input
    local machine="$1" script="$2"
    shift 2
    # shellcheck disable=SC2086
    $ssh "$machine" "bash -c $(printf '%q' "$script") _ $(printf '%q ' "$folder" "$@")"
}

# What runs on a machine; $1 is the folder. A node is known by the file of its process id
# shellcheck disable=SC2016
START='set -eu; umask 077; state="$HOME/.splatfix"; mkdir -p "$state"; cat >"$state/token"; cd "$1"; shift
pid=$(cat "$state/node.pid" 2>/dev/null || true)
if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then echo "runs already ($pid)"; exit 0; fi
export RAY_AUTH_TOKEN_PATH="$state/token" SPLATFIX_PYTHON="$PWD/.venv/bin/python"
setsid nohup cluster/ray_node.sh "$@" >"$state/node.log" 2>&1 </dev/null &
echo $! >"$state/node.pid"; sleep 3
kill -0 "$!" 2>/dev/null || { tail -n 5 "$state/node.log" >&2; exit 1; }
echo "started ($!)"'
# shellcheck disable=SC2016
STATUS='pid=$(cat "$HOME/.splatfix/node.pid" 2>/dev/null || true)
if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then echo "runs ($pid)"; else echo "does not run"; exit 1; fi'
# shellcheck disable=SC2016
STOP='file="$HOME/.splatfix/node.pid"; pid=$(cat "$file" 2>/dev/null || true)
if [ -z "$pid" ] || ! kill -TERM "$pid" 2>/dev/null; then echo "did not run"; rm -f "$file"; exit 0; fi
for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
if kill -0 "$pid" 2>/dev/null; then kill -KILL -- "-$pid"; fi
rm -f "$file" "$HOME/.splatfix/token"; echo stopped'

usage() { sed -n '2,6p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
verb="$1" head="$2"
address="${SPLATFIX_HEAD_IP:-${head#*@}}" # as the workers reach it
shift 2
case "$verb" in
start)
    "$(dirname "$0")/../ray_node.sh" token "$token"
    echo "$head (head): $(on "$head" "$START" head "$port" --num-cpus 0 --num-gpus 0 --dashboard-port "$dashboard" <"$token")"
    for worker in "$@"; do
        echo "$worker: $(on "$worker" "$START" worker "$address:$port" <"$token")"
    done
    echo
    echo "ssh -N -L $dashboard:127.0.0.1:$dashboard $head &   # then submit to http://127.0.0.1:$dashboard with"
    echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token"
    ;;
status | stop)
    code=0
    for machine in "$@" "$head"; do
        if [ "$verb" = stop ]; then script="$STOP"; else script="$STATUS"; fi
        said=$(on "$machine" "$script" </dev/null) || code=1
        echo "$machine: ${said:-no answer}"
    done
    exit "$code"
    ;;
*) usage ;;
esac

#!/bin/bash
# Runs a Ray node in the foreground until it gets SIGTERM, with token auth; Slurm, SkyPilot and plain machines use it.
#   ray_node.sh head PORT [options of ray start]
#   ray_node.sh worker HEAD:PORT [options of ray start]
#   ray_node.sh wait HEAD:PORT NODES [SECONDS]    until the cluster has NODES nodes, at most SECONDS (300)
#   ray_node.sh token FILE                        makes a token, if the file has none
# The token is in RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
set -euo pipefail
umask 077
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 # a worker without a share of a GPU sees none
python="${SPLATFIX_PYTHON:-python3}"
ray=(ray)
if [ -n "${SPLATFIX_PYTHON:-}" ]; then ray=("$(dirname "$SPLATFIX_PYTHON")/ray"); fi

stop() { echo "ray_node.sh: $*" >&2; exit 1; }

need_token() {
    local file="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
    [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -s "$file" ] || stop "no token in RAY_AUTH_TOKEN or $file; 'ray_node.sh token $file' makes one"
}

wait_for_nodes() { # HEAD:PORT NODES SECONDS
    local until=$((SECONDS + $3)) seen=0
    while [ "$SECONDS" -lt "$until" ]; do
        if seen=$("$python" - "$1" 2>/dev/null <<'PYTHON'
import sys
import ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
PYTHON
        ) && [ "$seen" -ge "$2" ]; then
            echo "ray_node.sh: $seen nodes"
            return 0
        fi
        sleep 2
    done
    stop "$1 has ${seen:-no} nodes after $3 s, wanted $2"
}

verb="${1:-}"
case "$verb" in
token)
    file="${2:?file of the token}"
    mkdir -p "$(dirname "$file")"
    [ -s "$file" ] || "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$file"
    ;;
head)
    port="${2:?port of the head}"
    shift 2
    need_token
    exec "${ray[@]}" start --head --block --port "$port" --dashboard-host 127.0.0.1 --disable-usage-stats "$@"
    ;;
worker)
    head="${2:?address of the head, HOST:PORT}"
    shift 2
    need_token
    until=$((SECONDS + ${RAY_NODE_WAIT:-300}))
    until (exec 3<>"/dev/tcp/${head%:*}/${head##*:}") 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || stop "$head does not answer after ${RAY_NODE_WAIT:-300} s"
        sleep 2
    done
    exec "${ray[@]}" start --block --address "$head" --disable-usage-stats "$@"
    ;;
wait)
    need_token
    wait_for_nodes "${2:?address of the head, HOST:PORT}" "${3:?number of nodes}" "${4:-300}"
    ;;
*) stop "wanted head, worker, wait or token, not '$verb'" ;;
esac

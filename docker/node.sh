#!/usr/bin/env bash
# One node of a Ray cluster: `node head`, `node worker`, `node health`, and `node leave` before the node is stopped, which lets packs write
# their checkpoints. `node watch aws` and `node watch gcp` wait until the provider announces that it takes the machine back, then leave and
# stop Ray. Anything else is run as it is, such as `node kd-ray status`.
#
# Environment:
#   RAY_AUTH_TOKEN_PATH, or RAY_AUTH_TOKEN   the token; without one nothing starts
#   HEAD_ADDRESS       HOST:PORT of the head's GCS (default head:6379); the head listens on its port
#   NODE_IP            address of this node that the others reach (default: Ray finds it)
#   DASHBOARD_HOST     where the head's dashboard and jobs listen (default 0.0.0.0: inside the container; publish it on 127.0.0.1 only)
#   METRICS_PORT       Prometheus metrics of this node (default 8080)
#   AGENT_PORT         Ray's agent of this node, which `health` asks (default 52365)
#   HEAD_CPUS          CPUs of the head for packs (default 0: it has enough to do, and a pack could take its memory)
#   LEAVE_S            longest that `leave` waits, in seconds (default 40)
#   METADATA_URL       what `watch` asks (default: the provider's own address)
#   NODE_OPTIONS       more options of `ray start`, as --num-gpus=1
#   NAME_FILE          for NAME among AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, KD_RAY_SERVE_TOKEN: a file to take it from, as of a secret
set -euo pipefail

# A frozen node is given up after 9 s instead of a minute.
export RAY_health_check_period_ms="${RAY_health_check_period_ms:-1000}"
export RAY_health_check_timeout_ms="${RAY_health_check_timeout_ms:-2000}"
export RAY_health_check_failure_threshold="${RAY_health_check_failure_threshold:-3}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY KD_RAY_SERVE_TOKEN; do
    file="${name}_FILE"
    if [ -n "${!file:-}" ]; then
        value="$(<"${!file}")"
        export "${name}=${value}"
    fi
done

require_token() {
    if [ -z "${RAY_AUTH_TOKEN:-}" ] && ! { [ -n "${RAY_AUTH_TOKEN_PATH:-}" ] && [ -s "$RAY_AUTH_TOKEN_PATH" ]; }; then
        echo "node: no token: set RAY_AUTH_TOKEN_PATH to a file that holds one (ray get-auth-token --generate), or RAY_AUTH_TOKEN" >&2
        exit 2
    fi
}

# The processes in which packs train. Ray would kill them as soon as it is told to stop.
packs() {
    local file
    for file in /proc/[0-9]*/cmdline; do
        if [[ "$(tr '\0' ' ' 2>/dev/null <"$file")" == ray::*Trainable* ]]; then
            basename "$(dirname "$file")"
        fi
    done
}

leave() {
    local pids
    mapfile -t pids < <(packs)
    if [ "${#pids[@]}" -gt 0 ]; then
        kill -TERM "${pids[@]}" || true
    fi
    for ((tenths = 0; tenths < 10 * ${LEAVE_S:-40}; tenths++)); do
        if [ -z "$(packs)" ]; then
            return
        fi
        sleep 0.1
    done
    echo "node: some packs have not ended within ${LEAVE_S:-40} s; they lose what they did since their last checkpoint" >&2
}

# Returns when the provider has announced the end of this spot machine: AWS two minutes before, GCP thirty seconds.
wait_for_notice() {
    python - "$1" "${METADATA_URL:-}" <<'PYTHON'
import sys
import time
import urllib.error
import urllib.request

provider, url = sys.argv[1:]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(path, method="GET", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with direct.open(urllib.request.Request(url + path, method=method, headers=names), timeout=5) as answer:
        return answer.read().decode()


def aws():
    token = ask("/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    try:
        return ask("/latest/meta-data/spot/instance-action", X_aws_ec2_metadata_token=token)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return ""


def gcp():
    return ask("/computeMetadata/v1/instance/preempted", Metadata_Flavor="Google").strip() == "TRUE"


look, default = {"aws": (aws, "http://169.254.169.254"), "gcp": (gcp, "http://metadata.google.internal")}[provider]
url = url or default
said = None
while True:
    try:
        if look():
            sys.exit()
        problem = None
    except OSError as error:
        problem = f"node: {url} does not say whether this machine is taken back: {error}; asking again"
    if problem and problem != said:
        print(problem, file=sys.stderr, flush=True)
    said = problem
    time.sleep(2)
PYTHON
}

start() {
    require_token
    local options=(
        "--metrics-export-port=${METRICS_PORT:-8080}" "--dashboard-agent-listen-port=${AGENT_PORT:-52365}" --disable-usage-stats
    )
    if [ -n "${NODE_IP:-}" ]; then
        options+=("--node-ip-address=${NODE_IP}")
    fi
    # shellcheck disable=SC2206 # several options in one variable
    options+=(${NODE_OPTIONS:-})
    exec ray start --block "$@" "${options[@]}"
}

case "${1:-}" in
    head)
        port="${HEAD_ADDRESS:-:6379}"
        start --head "--port=${port##*:}" "--num-cpus=${HEAD_CPUS:-0}" "--dashboard-host=${DASHBOARD_HOST:-0.0.0.0}"
        ;;
    worker)
        start "--address=${HEAD_ADDRESS:-head:6379}"
        ;;
    health)
        # Ray's agent knows whether the node still belongs to the cluster. `ray health-check` would cost 1.5 s of CPU each time, this 0.05 s.
        exec python -c 'import sys, urllib.request; sys.exit(urllib.request.urlopen(sys.argv[1], timeout=10).read() != b"success")' \
            "http://${NODE_IP:-127.0.0.1}:${AGENT_PORT:-52365}/api/local_raylet_healthz"
        ;;
    leave)
        leave
        ;;
    watch)
        case "${2:-}" in
            aws | gcp) ;;
            *)
                echo "node: watch ${2:-}: valid: aws, gcp" >&2
                exit 2
                ;;
        esac
        wait_for_notice "$2"
        echo "node: this machine is taken back; its packs write checkpoints and go on elsewhere"
        leave
        ray stop
        ;;
    *)
        exec "$@"
        ;;
esac

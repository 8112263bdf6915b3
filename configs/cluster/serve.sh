#!/bin/sh
# Several services over one store in PostgreSQL, behind HAProxy, all on this machine, until Ctrl-C:
#     sh configs/cluster/serve.sh SERVICE DIR [SERVICES] [PORT] [OPTION=VALUE …]
# SERVICE is the folder of pipeline.service; DIR keeps the database and the logs. Debian: apt-get install postgresql haproxy.
# Ask any of them at PORT (8000); each alone at PORT + 1, PORT + 2, … On several machines, take docs/serving.md instead.
set -eu
service=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
services=${3:-2}
port=${4:-8000}
[ $# -gt 4 ] && shift 4 || shift $#
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
command -v haproxy > /dev/null && [ -n "$bin" ] || { echo "this needs PostgreSQL and HAProxy; Debian: apt-get install postgresql haproxy"; exit 1; }
as=""  # PostgreSQL does not run as root
if [ "$(id -u)" = 0 ]; then as="runuser -u postgres --"; fi

if [ ! -f "$dir/postgres/ready" ]; then  # one that was stopped half-way is made anew
    rm -rf "$dir/postgres"
    mkdir -m 700 "$dir/postgres"
    [ -z "$as" ] || chown postgres "$dir/postgres"
    $as "$bin/initdb" -D "$dir/postgres/data" -U firstplay -A trust -E UTF8 --locale=C > "$dir/initdb.log"
    # no port: only who may enter the folder can connect
    printf "listen_addresses = ''\nunix_socket_directories = '%s'\nmax_connections = %s\n" "$dir/postgres" $((20 + 10 * services)) | $as tee -a "$dir/postgres/data/postgresql.conf" > /dev/null
    $as touch "$dir/postgres/ready"
fi
pids="" proxy=""
stop() {
    trap - EXIT
    trap '' INT TERM # a second Ctrl-C would leave the database behind
    # shellcheck disable=SC2086  # several
    kill $pids $proxy 2> /dev/null || true
    wait
    $as "$bin/pg_ctl" -D "$dir/postgres/data" -m fast -w -s stop || true
}
# before stop is armed: a server that another run has started is not ours to stop
$as "$bin/pg_ctl" -D "$dir/postgres/data" -l "$dir/postgres/log" -w -s start || { echo "the database of $dir does not start: is another run using it?"; exit 1; }
trap 'stop; exit 0' INT TERM
trap stop EXIT
store="postgresql://firstplay@/postgres?host=$dir/postgres"

{
    printf 'defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  timeout check 5s\n'
    # a request that has reached no service goes to another; so does one that only reads, where a service died over it
    printf '  option redispatch\n  retries 3\n  retry-on conn-failure empty-response\n'
    printf 'frontend all\n  bind 127.0.0.1:%s\n  http-request disable-l7-retry unless METH_GET\n  default_backend services\n' "$port"
    printf 'backend services\n  balance leastconn\n  option httpchk\n'
    printf '  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host 127.0.0.1\n  default-server check inter 500ms fall 2 rise 1\n'
    for number in $(seq "$services"); do printf '  server service%s 127.0.0.1:%s\n' "$number" $((port + number)); done
} > "$dir/haproxy.cfg"
for number in $(seq "$services"); do
    python -m serving model="$service" store="$store" port=$((port + number)) "$@" > "$dir/service$number.log" 2>&1 &
    pids="$pids $!"
done
haproxy -db -f "$dir/haproxy.cfg" > "$dir/haproxy.log" 2>&1 &
proxy=$!
echo "$services services over one store; logs in $dir. Ask http://127.0.0.1:$port as soon as http://127.0.0.1:$port/readyz answers"
left() {
    for pid in $pids; do kill -0 "$pid" 2> /dev/null && return; done
    return 1
}
while left; do sleep 1; done
tail -n 1 "$dir"/service*.log
exit 1

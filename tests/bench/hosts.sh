#!/bin/bash
# Hosts h1..hN on this one machine, as root, on links of a given speed and delay.
#   tests/bench/hosts.sh start N BITS_A_SECOND SECONDS | exec HOST COMMAND... | stop
# Each host is a network, host name and /dev/shm of its own (namespaces), so that MPI sees hosts on
# a wire; links.py is the switch between them. As MPICH's -launcher-exec it stands in for ssh:
# `hosts.sh h2 COMMAND`.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
DIR=${HOSTS_DIR:-/tmp/ensync-hosts}
HERE=$(dirname "$(readlink -f "$0")")
MTU=60000   # long frames, of which the switch in user space can pass enough

enter() {
    local host=$1; shift
    exec nsenter -t "$(cat "$DIR/$host.pid")" -n -u -i -m --wd="$PWD" -- "$@"
}

boot() {
    local host=$1 i=${1#h} holder
    unshare -n -u -i -m sh -c "hostname $host; mount --make-rprivate /
        mount -t tmpfs tmpfs /dev/shm; mount --bind $DIR/hosts /etc/hosts
        touch $DIR/$host.up; exec sleep infinity" </dev/null >/dev/null 2>&1 &
    holder=$!
    echo $holder >"$DIR/$host.pid"
    until [ -e "$DIR/$host.up" ]; do sleep 0.01; done
    ip link add "eh-$host" mtu $MTU type veth peer name eth0 mtu $MTU netns $holder
    ip link set "eh-$host" up
    nsenter -t $holder -n sh -c "ip link set lo up; ip addr add 10.79.0.$i/24 dev eth0
        ip link set eth0 up; python3 '$HERE/links.py' --no-offload eth0"
}

start() {
    local i
    mkdir -p "$DIR"
    { echo 127.0.0.1 localhost; for i in $(seq "$1"); do echo "10.79.0.$i h$i"; done; } \
        >"$DIR/hosts"
    for i in $(seq "$1"); do boot "h$i"; done
    # shellcheck disable=SC2046
    python3 "$HERE/links.py" "$2" "$3" $(seq -f 'eh-h%g' "$1") </dev/null >"$DIR/log" 2>&1 &
    echo $! >"$DIR/switch.pid"
}

stop() {
    local file link
    for file in "$DIR"/*.pid; do
        [ ! -s "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
    done
    for link in $(ip -o link | sed -n 's/^[0-9]*: \(eh-h[0-9]*\)@.*/\1/p'); do
        ip link del "$link" 2>/dev/null || true
    done
    rm -rf "$DIR"
}

while [[ ${1:-} == -* ]]; do shift; done   # ssh's own options
case ${1:-} in
start | stop) "$@" ;;
exec) shift; enter "$@" ;;
h[0-9]*) host=$1; shift; enter "$host" sh -c "$*" ;;
*) sed -n '2,7p' "$0"; exit 2 ;;
esac

#!/bin/bash
# A throw-away Slurm on this one machine, from Debian's packages, as root, without systemd.
#   tests/slurm/cluster.sh start [NODES [MORE]] | kill NODE | revive NODE | stop
# Each node n1..nN is a network, host name and /dev/shm of its own (namespaces) with one slurmd: MPI
# sees separate hosts on a wire. A node claims CPUS_PER_NODE cores, whatever the machine has.
# Partitions: debug, and urgent, whose jobs send those of debug away; beside has MORE nodes.
set -euo pipefail
# where Debian keeps daemons, and not every user has them
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
DIR=${SLURM_CLUSTER_DIR:-/tmp/ensync-slurm}; CPUS=${CPUS_PER_NODE:-2}
CONTROL=10.78.0.254   # the bridge's address, where slurmctld listens; node nX is 10.78.0.X

start() {
    local nodes=${1:-3} all=$((${1:-3} + ${2:-0})) i
    install_packages
    mkdir -p "$DIR/state" "$DIR/log" /run/munge /etc/slurm
    chown munge: /run/munge
    bridge "$all"
    configure "$nodes" "$all"
    # so that srun, sbatch and the jobs need no SLURM_CONF
    ln -sfn "$DIR/slurm.conf" /etc/slurm/slurm.conf
    runuser -u munge -- munged --force
    slurmctld -c -f "$DIR/slurm.conf"
    for i in $(seq "$all"); do revive "n$i"; done
    for _ in $(seq 200); do
        [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$all" ] && return
        sleep 0.1
    done
    tail -n 20 "$DIR"/log/*
    return 1
}

install_packages() {
    local program
    # one by one: `command -v` is content with any of several
    for program in slurmctld slurmd munged ip runuser; do
        command -v "$program" >/dev/null && continue
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            slurm-wlm munge iproute2 util-linux libpmix2 >/dev/null
        break
    done
    # Slurm opens the unversioned name, which only libpmix-dev ships
    local pmix; pmix=$(echo /usr/lib/*/pmix2/lib/libpmix.so.2)
    [ ! -e "$pmix" ] || [ -e "${pmix%.2}" ] || ln -s libpmix.so.2 "${pmix%.2}"
}

configure() {
    cat >"$DIR/slurm.conf" <<EOF
ClusterName=ensync
SlurmctldHost=$(hostname -s)($CONTROL)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a requeued job starts again after this many seconds instead of 120
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmdTimeout=20
MinJobAge=86400
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool-%n
TmpFS=$DIR/tmp-%n
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd-%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n[1-$2] NodeAddr=10.78.0.[1-$2] Port=17001 CPUs=$CPUS RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=n[1-$1] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=n[1-$1] MaxTime=INFINITE State=UP PriorityTier=10
EOF
    [ "$2" -eq "$1" ] ||
        echo "PartitionName=beside Nodes=n[$(($1 + 1))-$2] MaxTime=INFINITE State=UP" \
            >>"$DIR/slurm.conf"
}

bridge() {
    local i
    ip link add es-br type bridge
    ip addr add "$CONTROL/24" dev es-br
    ip link set es-br up
    {
        echo 127.0.0.1 localhost
        echo "$CONTROL $(hostname -s)"
        for i in $(seq "$1"); do echo "10.78.0.$i n$i"; done
    } >"$DIR/hosts"
}

# Boot a node: namespaces held by a sleeping process, a cable to the bridge, a slurmd.
revive() {
    local node=$1 i=${1#n} holder
    mkdir -p "$DIR/tmp-$node" "$DIR/spool-$node"
    rm -f "$DIR/$node.up"
    unshare -n -u -i -m sh -c "hostname $node; mount --make-rprivate /
        mount -t tmpfs tmpfs /dev/shm; mount --bind $DIR/hosts /etc/hosts
        touch $DIR/$node.up; exec sleep infinity" </dev/null >/dev/null 2>&1 &
    holder=$!
    echo $holder >"$DIR/node-$node.pid"
    until [ -e "$DIR/$node.up" ]; do sleep 0.01; done
    ip link del "es-$node" 2>/dev/null || true
    ip link add "es-$node" type veth peer name eth0 netns $holder
    ip link set "es-$node" master es-br up
    nsenter -t $holder -n \
        sh -c "ip link set lo up; ip addr add 10.78.0.$i/24 dev eth0; ip link set eth0 up"
    nsenter -t $holder -n -u -i -m -- slurmd -N "$node" -f "$DIR/slurm.conf"
}

# Cut a node's power: first the cable, so that nobody hears of it, then its processes.
kill_node() {
    local node=$1 net process
    net=$(readlink "/proc/$(cat "$DIR/node-$node.pid")/ns/net")
    ip link set "es-$node" down
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/net" 2>/dev/null)" != "$net" ] ||
            kill -9 "${process#/proc/}" 2>/dev/null || true
    done
}

stop() {
    local file process link
    scancel --user=root 2>/dev/null && sleep 0.5 || true
    for file in "$DIR"/slurmctld.pid "$DIR"/slurmd-*.pid /run/munge/munged.pid; do
        process=$(cat "$file" 2>/dev/null) && kill "$process" 2>/dev/null || continue
        for _ in $(seq 100); do   # else the next start finds its port taken
            grep -qs '^State:.[^Z]' "/proc/$process/status" || break
            sleep 0.05
        done
    done
    for file in "$DIR"/node-*.pid; do
        [ -e "$file" ] || continue
        kill_node "$(basename "${file%.pid}" | sed s/node-//)" 2>/dev/null || true
    done
    for link in $(ip -o link show master es-br 2>/dev/null |
        sed 's/^[0-9]*: \([^@:]*\).*/\1/') es-br; do ip link del "$link" 2>/dev/null || true; done
    [ "$(readlink /etc/slurm/slurm.conf)" != "$DIR/slurm.conf" ] || rm -f /etc/slurm/slurm.conf
    rm -rf "$DIR"
}

case ${1:-} in
    start) stop; shift; start "$@" || { stop; exit 1; } ;;
    kill) kill_node "$2" ;;
    revive) revive "$2" ;;
    stop) stop ;;
    *) sed -n 2,6p "$0"; exit 2 ;;
esac

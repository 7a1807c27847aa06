# What the batch scripts share: checks before any rank starts, the launch line, signals, requeueing.
# Exit code 75 of `ensync train` (EX_TEMPFAIL of sysexits.h) means: stopped by a signal after a
# checkpoint, run again to continue.
STOPPED=75

say() { echo "$(date +%T) slurm: $*"; }
# die GIVEN EXPECTED ACTION: end with one sentence.
die() { echo "ensync: $1; expected $2; $3." >&2; exit 2; }

cd "${SLURM_SUBMIT_DIR:-$PWD}" || die \
    "the directory $SLURM_SUBMIT_DIR does not exist on $(hostname)" \
    "the one with slurm/environment.sh" "submit from a file system that the nodes share"
[ -r slurm/environment.sh ] || \
    die "no slurm/environment.sh in $PWD" "Ensync's directory" "submit from there"
source slurm/environment.sh
[ -x "$VENV/bin/ensync" ] || die "no command 'ensync' in $VENV/bin on $(hostname)" \
    "the environment with Ensync in VENV" "install it there or edit slurm/environment.sh"

# Set $mpi to the MPI library's name and version, and check that $LAUNCHER can start ranks that find
# each other.
check_launcher() {
    mpi=$(python -c '
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
name, version = MPI.get_vendor()
print(name, *version)' 2>&1) || die "mpi4py finds no MPI library ($(tail -n 1 <<<"$mpi"))" \
        "the one that Ensync was installed with" "load its module in slurm/environment.sh"
    case $LAUNCHER in
        srun) check_srun ;;
        mpirun) check_mpirun ;;
        *) die "LAUNCHER=$LAUNCHER" "srun or mpirun" "correct it in slurm/environment.sh" ;;
    esac
}

check_srun() {
    local offered known plugin
    offered=$(srun --mpi=list 2>&1 | tr '\n\t,' '   ')
    known=$(plugins_of "$mpi")
    for plugin in ${SRUN_MPI:-$known}; do
        case " $known " in
            *" ${plugin%%_v[0-9]*} "*) ;;
            *) die "$mpi does not understand srun --mpi=$plugin" "$known" \
                "unset SRUN_MPI or take LAUNCHER=mpirun" ;;
        esac
        case " $offered " in *" $plugin "*) SRUN_MPI=$plugin; return ;; esac
    done
    plugin=${SRUN_MPI:-$known}
    die "$mpi needs srun --mpi=$plugin, which this Slurm lacks (it has: ${offered##*are...})" \
        "a fitting plugin" "take LAUNCHER=mpirun"
}

check_mpirun() {
    local version
    version=$(mpirun --version 2>&1) || die "no mpirun on $(hostname)" "that of $mpi" \
        "load its module in slurm/environment.sh or take LAUNCHER=srun"
    case $mpi/$version in
        "Open MPI"*/*"Open MPI"* | "Open MPI"*/*PRRTE*) ;;
        MPICH*/*HYDRA* | Intel*/*Intel* | MVAPICH*/*HYDRA*) ;;
        *) die "$(command -v mpirun) belongs to another MPI than mpi4py's ($mpi)" "its own mpirun" \
            "load that module in slurm/environment.sh or take LAUNCHER=srun" ;;
    esac
}

# Set $tasks to the number of ranks: what was asked for, unless the job was restarted on another
# number of nodes.
count_ranks() {
    local per_node=${SLURM_NTASKS_PER_NODE:-0} all
    all=$((SLURM_JOB_NUM_NODES * per_node))
    tasks=$SLURM_NTASKS
    if [ "$per_node" -gt 0 ] &&
        { [ "$tasks" -gt "$all" ] || [ "$tasks" -le $((all - per_node)) ]; }; then
        tasks=$all
    fi
}

# launch COMMAND...: run it on all ranks of the allocation.
launch() {
    local cores=${SLURM_CPUS_PER_TASK:-1}
    case $LAUNCHER/$mpi in
        srun/*)
            # --cpus-per-task: srun no longer takes it from sbatch.
            # --kill-on-bad-exit: otherwise a dead rank leaves the others waiting.
            exec srun --mpi="$SRUN_MPI" --ntasks="$tasks" --cpus-per-task="$cores" \
                --cpu-bind=cores --kill-on-bad-exit=1 "$@" ;;
        mpirun/"Open MPI"*)
            # PE: cores of a rank. Its daemons must not be bound to the one core that srun gives.
            export SLURM_CPU_BIND=none
            exec mpirun -n "$tasks" --map-by "slot:PE=$cores" --bind-to core "$@" ;;
        mpirun/*)
            export SLURM_CPU_BIND=none
            exec mpirun -n "$tasks" -ppn "${SLURM_NTASKS_PER_NODE:-$tasks}" "$@" ;;
    esac
}

# output_directory JOB.toml [--set SECTION.KEY=VALUE ...]: print where the job writes.
# It comes by a channel of its own: what a site's Python says at start or end must not become part
# of a path.
output_directory() {
    python - "$@" 3>&1 >&2 <<'END'
import os, sys
from ensync.core.errors import EnsyncError
from ensync.core.config.job import load_job
try:
    given = [value for option, value in zip(sys.argv, sys.argv[1:]) if option == "--set"]
    job = load_job(sys.argv[1], given)
    os.write(3, job.output.directory.encode())
except EnsyncError as error:
    sys.exit(f"ensync: {error}")
END
}

# swept JOB.toml SECTION.KEY=VALUE,VALUE,... [--set SECTION.KEY=VALUE ...]: print three lines for
# each value, as `ensync sweep` has them:
# the value, its run's directory, and the setting that says so.
swept() {
    python - "$@" 3>&1 >&2 <<'END'
import json, os, sys
from ensync.core.errors import EnsyncError
from ensync.runs.sweeping import swept
try:
    given = [value for option, value in zip(sys.argv, sys.argv[1:]) if option == "--set"]
    for text, _, job in swept(*sys.argv[1:3], given):
        directory = job.output.directory
        os.write(3, f"{text}\n{directory}\noutput.directory={json.dumps(directory)}\n".encode())
except EnsyncError as error:
    sys.exit(f"ensync: {error}")
END
}

# studied JOB.toml [OPTION OF ensync compare ...]: print a line for each task of a study: the last
# cell of those it runs. Nothing for a job that is no study.
studied() {
    python - "$@" 3>&1 >&2 <<'END'
import os, sys
import mpi4py
mpi4py.rc.initialize = False   # one process asks, outside of any launcher
from ensync.cli.compare import last_cells
from ensync.core.errors import EnsyncError
try:
    nodes, each = os.environ.get("SLURM_JOB_NUM_NODES"), os.environ.get("SLURM_NTASKS_PER_NODE")
    ranks = int(nodes) * int(each) if nodes and each else None
    os.write(3, "\n".join(last_cells(sys.argv[1:], ranks)).encode())
except EnsyncError as error:
    sys.exit(f"ensync: {error}")
END
}

# submit ROLE OPTION... SCRIPT ARGUMENT...: submit a job and print its number. Inside a job it
# inherits what that was given.
submit() {
    local name inherited=()
    [ -z "${SLURM_JOB_ID:-}" ] || inherited=(
        --partition="$SLURM_JOB_PARTITION" --time="$(squeue -h -j "$SLURM_JOB_ID" -o %l)"
        --ntasks-per-node="$SLURM_NTASKS_PER_NODE" --cpus-per-task="$SLURM_CPUS_PER_TASK"
        ${SLURM_JOB_ACCOUNT:+--account="$SLURM_JOB_ACCOUNT"})
    (
        # this job's own sizes would confuse the new one
        for name in "${!SLURM_@}"; do [ "$name" = SLURM_CONF ] || unset "$name"; done
        ENSYNC_ROLE=$1 sbatch --parsable "${inherited[@]}" "${@:2}"
    )
}

# run COMMAND [ARGUMENT...]: launch it, hand the signals on that Slurm gives this script, and return
# its exit code.
run() {
    check_launcher
    count_ranks
    local where="$mpi on $SLURM_JOB_NODELIST by $LAUNCHER${SRUN_MPI:+ --mpi=$SRUN_MPI}"
    local which="job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0}"
    say "$where: ranks $tasks, cores of each ${SLURM_CPUS_PER_TASK:-1}, $which"
    signalled= asking= started=$(mktemp)
    trap 'forward USR1' USR1
    trap 'forward TERM' TERM
    # by its whole path: an mpirun puts its own directory in front of the nodes' PATH
    launch "$(command -v "$1")" "${@:2}" &
    ranks=$!
    local code last
    # a signal ends `wait` early: wait again
    while wait "$ranks"; code=$?; kill -0 "$ranks" 2>/dev/null; do :; done
    wait "$ranks" 2>/dev/null; last=$?
    [ "$last" = 127 ] || code=$last   # 127: the first wait had the answer already
    # the ranks' process number may soon be another's
    [ -z "$asking" ] || kill "$asking" 2>/dev/null
    return "$code"
}

# Both signals reach the ranks as USR1, so that they stop after the step at hand: the launchers end
# them at once on TERM.
# It is repeated, because a launcher that is still starting the ranks loses it.
forward() {
    say "signal $1: the ranks are asked for a checkpoint"
    [ "$signalled" ] || { while kill -USR1 "$ranks" 2>/dev/null; do sleep 5; done & asking=$!; }
    signalled=$1
}

# finish CODE RESULT: end the job, or have it started again when it was stopped with its work
# unfinished.
finish() {
    local code=$1
    trap '' USR1 TERM   # requeueing ends this script with a signal
    # Open MPI's leaves with 0 when Slurm ends its daemons
    if [ "$LAUNCHER$code" = mpirun0 ] && ! [ "$2" -nt "$started" ]; then code=$STOPPED; fi
    rm -f "$started"
    if [ "$code" = 0 ]; then
        say "done"
    elif [ "$code" != $STOPPED ] && { [ "$code" = 2 ] || [ -z "$signalled" ]; }; then
        # with a signal the ranks may have been too young to save: those start again
        say "ended with exit code $code"
    elif [ "$signalled" = TERM ]; then   # scancel, or a preemption, after which Slurm requeues
        say "ended by Slurm; \`ensync resume\` continues"
    elif [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
        say "requeued $MAX_RESTARTS times already, so not again: give it more --time;" \
            "\`ensync resume\` continues"
    elif scontrol requeue "$SLURM_JOB_ID"; then
        say "requeued; it continues from its checkpoint"
    else
        say "this Slurm does not requeue; submit the same line again to continue"
    fi
    exit "$code"
}

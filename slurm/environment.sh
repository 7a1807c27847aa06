# The one file that a site edits: where Ensync lives, which MPI starts the ranks and how.
# The scripts beside it read it.
# Everything here may also be set for one job: `LAUNCHER=mpirun sbatch slurm/train.sbatch JOB.toml`.

# A site's own modules, before everything else:
# module purge
# module load python/3.12 openmpi/5.0

# The virtual environment that `make` made (or any other place with bin/ensync); one that is active
# in the shell does not count.
VENV=${VENV:-$PWD/.venv}
PATH=$VENV/bin:$PATH

# srun: Slurm starts the ranks, binds them to cores and ends all when one dies. The first choice.
# mpirun: the MPI's own launcher inside the allocation, where Slurm was built without the plugin
# that the MPI needs.
LAUNCHER=${LAUNCHER:-srun}

# What MPI each rank speaks with srun; `srun --mpi=list` shows what this Slurm offers. Empty: chosen
# by the table below.
SRUN_MPI=${SRUN_MPI:-}

# A job that was requeued this often makes no progress: it is left alone.
MAX_RESTARTS=${MAX_RESTARTS:-50}

# MPI library -> plugins of srun that it understands, the best first. With any other, each rank
# would think it is alone, or fail. A site whose MPI was built otherwise (MPICH with PMIx, an old
# Open MPI with PMI-2) edits its line.
plugins_of() {
    case $1 in
        "Open MPI"*) echo "pmix" ;;
        *Cray*) echo "cray_shasta pmi2" ;;
        *) echo "pmi2" ;;   # MPICH, Intel MPI, MVAPICH
    esac
}

# Compute nodes may not see the home directory, or share it slowly: compiled kernels then belong
# elsewhere.
# export NUMBA_CACHE_DIR=$PWD/.cache/numba

"""Memory and CPU time that a process may use, read from trees of files as Linux, Docker and
Slurm make them.
"""

import math

import pytest

from ensync.core import resources

GB = 10**9
V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n36 31 0:33 {root} "
    "/sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


@pytest.fixture
def machine(tmp_path):
    """Return what writes files below a root that stands for a machine with 20 GB available."""

    def write(files):
        for name, content in {
            "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {20 * GB >> 10} kB\n",
            **files,
        }.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
        return tmp_path

    return write


def free(root, **environment):
    return resources.node_memory(root, environment)


def test_without_limits_it_is_the_node(machine):
    root = machine({})
    assert free(root) == resources.Memory(20 * GB >> 10 << 10, "the node")
    assert resources.cpu_quota(root) == math.inf


def test_the_least_of_nested_groups_of_version_2(machine):
    """Of a group without a limit, its parent with one, of which a neighbour uses much, and files
    in the cache that can be dropped.
    """
    group = "sys/fs/cgroup/slice/job"
    root = machine(
        {
            "proc/self/cgroup": "0::/slice/job/task\n",
            "proc/self/mountinfo": V2.format(root="/"),
            f"{group}/task/memory.max": "max\n",
            f"{group}/task/memory.current": 10**8,
            f"{group}/task/cpu.max": "max 100000\n",
            f"{group}/memory.max": 3 * GB,
            f"{group}/memory.current": 2 * GB,
            f"{group}/memory.stat": f"anon {GB}\ninactive_file {GB // 2}\nactive_file {GB // 4}\n",
            f"{group}/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/slice/memory.max": 5 * GB,
            "sys/fs/cgroup/slice/memory.current": GB,
        }
    )
    assert free(root) == resources.Memory(3 * GB - 2 * GB + 3 * GB // 4, "the control group job")
    assert resources.cpu_quota(root) == 1.5


def test_the_bound_from_which_a_group_is_throttled_counts(machine):
    root = machine(
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2.format(root="/"),
            "sys/fs/cgroup/memory.max": 9 * GB,
            "sys/fs/cgroup/memory.high": GB,
        }
    )
    assert free(root).bytes == GB


@pytest.mark.parametrize("mounted", ["/", "/docker/abc"])
def test_version_1_in_a_container(machine, mounted):
    """A container may see its own group at the top, although its processes are told the path
    outside.
    """
    inside = "docker/abc/" if mounted == "/" else ""
    memory, cpu = f"sys/fs/cgroup/memory/{inside}", f"sys/fs/cgroup/cpu,cpuacct/{inside}"
    root = machine(
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n0::/\n",
            "proc/self/mountinfo": V1.format(root=mounted),
            f"{memory}memory.limit_in_bytes": GB // 2,
            f"{memory}memory.usage_in_bytes": GB // 4,
            f"{memory}memory.stat": "cache 7\ninactive_file 1\nactive_file "
            "2\ntotal_inactive_file 1000\ntotal_active_file 500\n",
            f"{cpu}cpu.cfs_quota_us": 50000,
            f"{cpu}cpu.cfs_period_us": 100000,
        }
    )
    assert free(root).bytes == GB // 2 - GB // 4 + 1500
    assert resources.cpu_quota(root) == 0.5


def test_version_1_without_limits(machine):
    root = machine(
        {
            "proc/self/cgroup": "4:memory:/\n5:cpu,cpuacct:/\n",
            "proc/self/mountinfo": V1.format(root="/"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": -1,
        }
    )
    assert free(root).bound == "the node" and resources.cpu_quota(root) == math.inf


def test_what_slurm_granted(machine):
    root = machine({})
    assert free(root, SLURM_MEM_PER_NODE="1000") == resources.Memory(
        1000 << 20, "SLURM_MEM_PER_NODE"
    )
    assert free(root, SLURM_MEM_PER_CPU="100", SLURM_CPUS_ON_NODE="4").bytes == 400 << 20
    assert free(root, SLURM_MEM_PER_NODE="", SLURM_MEM_PER_CPU="100").bound == "the node"


def test_garbage_is_no_limit(machine):
    root = machine(
        {
            "proc/self/cgroup": "\n:\n0:\n",
            "proc/self/mountinfo": "x\n - \n" + V2.format(root="/"),
            "sys/fs/cgroup/cpu.max": "many 0\n",
        }
    )
    assert free(root).bound == "the node" and resources.cpu_quota(root) == math.inf


def test_the_limits_of_a_process():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, before[1]))
    try:
        left = resources.process_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert 0 < left.bytes < 1 << 40 and "ulimit -" in left.bound

"""What a result says about the machine it was made on."""

import pytest

from ensync.runs import launch


@pytest.mark.parametrize(
    "generation,named", [("znver5", "AMD EPYC (znver5)"), ("generic", "AMD EPYC")]
)
def test_a_processor_is_named_with_its_generation(generation, named, monkeypatch):
    """Two generations of servers are both an "AMD EPYC" to a virtual machine."""
    monkeypatch.setattr(launch, "_system_name", lambda: "AMD EPYC")
    monkeypatch.setattr(launch.threads, "processor", lambda: generation)
    assert launch.cpu_name() == named

"""The machines that a plan is for, and the numbers that are assumed of them."""

from __future__ import annotations

from dataclasses import dataclass

from reftcli.errors import UsageError
from reftcli.planning.units import GIB

GPUS_PER_MACHINE = 8


@dataclass(frozen=True, slots=True)
class Hardware:
    """GPUs of one kind. The defaults are those of an A100-80GB (NVIDIA's data sheet) in a DGX; all can be set.

    Rates are per GPU and second: ``tflops`` in 10^12 operations (dense bf16), bandwidths in bytes. ``context`` and
    ``fragmentation`` are what PyTorch does not count: CUDA's and NCCL's own memory, and the allocator's unused blocks.
    """

    gpus: int
    machines: int = 1
    gpu_memory: int = 80 * GIB
    host_memory: int | None = None
    """Bytes of main memory per machine; None: not checked."""
    tflops: float = 312.0
    fp32_tflops: float = 19.5
    utilisation: float = 0.35
    """Share of ``tflops`` that training reaches. Published runs of plain PyTorch on 7B models: 0.3 to 0.5."""
    memory_bandwidth: float = 2.0e12
    bandwidth_use: float = 0.6
    """Share of a bandwidth (memory, links) that is reached."""
    link: float = 300e9
    """Between GPUs of one machine, one direction (NVLink 3)."""
    network: float = 25e9
    """Between machines, for each GPU (HDR InfiniBand, one card per GPU)."""
    pcie: float = 25e9
    host_bandwidth: float = 100e9
    """Main memory of a machine, where the offloaded optimizer steps."""
    launch_s: float = 0.7e-3
    """Per layer and decoded token: eager PyTorch starts some 25 kernels. About 40 tokens/s for 32 layers, however few
    rows; assumed, not measured here."""
    grading_per_s: float = 730.0
    """Programs graded per machine and second: a process for each, 2 cores (``docs/benchmarks.md``)."""
    price: float = 2.0
    """USD per GPU-hour."""
    context: int = 3 * GIB // 2
    fragmentation: float = 0.05

    def __post_init__(self) -> None:
        if self.gpus % self.machines:
            raise UsageError(f"--gpus {self.gpus} counts those of all machines: a multiple of --machines, please")

    @property
    def gpus_per_machine(self) -> int:
        return self.gpus // self.machines

    @property
    def collective_bandwidth(self) -> float:
        """Bytes per second that a ring over all GPUs moves: all network cards of a machine carry it together."""
        across = self.gpus_per_machine * self.network if self.machines > 1 else self.link
        return min(self.link, across) * self.bandwidth_use

    def needed(self, peak: int) -> int:
        """Bytes of the card that a peak of PyTorch's own needs."""
        return round(peak * (1 + self.fragmentation)) + self.context


def machines_for(gpus: int) -> int:
    """As many as machines of eight GPUs are needed."""
    return 1 if gpus <= GPUS_PER_MACHINE or gpus % GPUS_PER_MACHINE else gpus // GPUS_PER_MACHINE

"""Launch profiles: how the weights, gradients and moments of a stage are dealt out to processes.

Each becomes a configuration of accelerate and, for the ``zero`` ones, of DeepSpeed. Torch-free.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

Profile = Literal["single", "multi", "zero1", "zero2", "zero3", "zero3-offload"]
"""One process; copies of everything on all (DDP); or DeepSpeed's ZeRO, which divides the optimizer's moments (1), also
gradients (2), also weights (3), and keeps what is divided in main memory (offload)."""

PROFILES: tuple[Profile, ...] = get_args(Profile)
_STAGES: dict[str, int] = {"zero1": 1, "zero2": 2, "zero3": 3, "zero3-offload": 3}


def zero_stage(profile: str) -> int:
    """Of DeepSpeed's ZeRO; 0 where DeepSpeed has no part."""
    return _STAGES.get(profile, 0)


def deepspeed_config(profile: Profile, *, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's JSON. Sizes are "auto": the stage knows them, and fills them in.

    With ``bf16`` weights and gradients travel in bf16, while the master weights and Adam's moments stay fp32.
    """
    zero: dict[str, Any] = {"stage": zero_stage(profile), "contiguous_gradients": True, "overlap_comm": False}
    if zero_stage(profile) == 3:
        zero |= {
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_param_persistence_threshold": 0 if profile == "zero3-offload" else "auto",
        }
    if profile == "zero3-offload":
        zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "steps_per_print": 1_000_000_000,  # it would print beside our own lines
    }


def accelerate_config(
    profile: Profile,
    *,
    processes: int,
    machines: int,
    machine_rank: int,
    main_address: tuple[str, int] | None,
    cpu: bool,
    deepspeed_file: str | None,
) -> dict[str, Any]:
    """Accelerate's YAML. ``processes`` counts those of all machines."""
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        # Also on CPUs: with MULTI_CPU accelerate starts one process and says nothing.
        "distributed_type": "DEEPSPEED" if zero_stage(profile) else "MULTI_GPU",
        "num_processes": processes,
        "num_machines": machines,
        "machine_rank": machine_rank,
        "main_process_port": main_address[1] if main_address else 0,  # 0: a free one
        "same_network": True,
        "rdzv_backend": "static",
        "use_cpu": cpu,
    }
    if deepspeed_file is None:
        config["mixed_precision"] = "no"  # ours: see reftcli.models.precision
    if main_address:
        config["main_process_ip"] = main_address[0]
    if deepspeed_file is not None:
        config["deepspeed_config"] = {
            "deepspeed_config_file": deepspeed_file,
            "zero3_init_flag": False,
            "deepspeed_multinode_launcher": "standard",
        }
    return config

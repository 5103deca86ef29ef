"""Our settings in TRL's words."""

from __future__ import annotations

from pathlib import Path

from reftcli.models.precision import device_arguments
from reftcli.recipe.schema import ModelSettings, RlSettings
from reftcli.training.trl_seam import PPOConfig


def ppo_config(
    folder: Path,
    settings: RlSettings,
    model_settings: ModelSettings,
    updates: int,
    seed: int,
    eos_token_id: int,
    processes: int,
) -> PPOConfig:
    """What differs from TRL's defaults differs because the paper does."""
    return PPOConfig(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=settings.batch_size // processes,
        gradient_accumulation_steps=1,
        num_mini_batches=settings.batch_size // (settings.mini_batch_size or settings.batch_size),
        num_ppo_epochs=settings.ppo_epochs,
        total_episodes=updates * settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        kl_coef=settings.kl_coef,
        kl_estimator=settings.kl_estimator,
        cliprange=settings.clip_range,
        cliprange_value=settings.value_clip_range,
        vf_coef=settings.vf_coef,
        gamma=settings.gamma,
        lam=settings.lam,
        temperature=settings.temperature,
        stop_token_id=eos_token_id,
        num_sample_generations=0,
        gradient_checkpointing=model_settings.gradient_checkpointing,
        bf16=False,  # autocast is ours: see reftcli.models.precision
        **device_arguments(),
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        seed=seed,
    )

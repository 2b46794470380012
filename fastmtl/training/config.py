"""How a model is trained (`FitConfig`, which changes numbers) and on which hardware (`Hardware`, which does not)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from fastmtl.errors import UserError
from fastmtl.identity import LATER
from fastmtl.options import Count, Fraction, Natural, NonNegative, OptionError, Portion, Rate, options


@options
class FitConfig:
    """Everything about a fit that changes its numbers. The defaults are FastMTL's but for the precision.

    Args:
        epochs: Passes over the rows.
        batch_size: Rows per optimizer step, over all devices.
        learning_rate: Peak learning rate; null takes the one that suits the encoder.
        weight_decay: Of AdamW.
        warmup: Share of all steps in which the learning rate rises.
        max_grad_norm: Gradients are clipped to this norm; 0 never clips.
        precision: fp32, bf16, fp16, or auto, which takes half precision where the device is fast at it.
        dropout: Before the heads.
        freeze_layers: The embeddings and the first so many encoder layers stay as they are; their dropout stays on.
        freeze_embeddings: The embeddings alone stay as they are.
        schedule: After the warm-up the learning rate falls linearly to zero, or stays constant.
        optimizer: AdamW, or Adadelta (Zeiler 2012, with its constants), whose own step `learning_rate` scales: 0.1 and
            constant in Bingel & Søgaard 2017. It starts slowly and needs thousands of steps.
        max_steps: Training ends after so many optimizer steps; null: after all epochs.
        layer_decay: The rate of a layer as a share of that of the layer above, of the embeddings as of a lowest layer.
        probing: Share of all steps in which the heads alone are trained (Kumar et al. 2022).
        pull: Each step takes the encoder back by the share learning rate x `pull` of its way from where the fit started
            (L2-SP, Li et al. 2018).
        early_stopping: Training ends when the rows that choose the epoch have not improved for so many epochs.
        callbacks: Lightning callbacks by name, each `{_target_: class path, option: value}`.
    """

    epochs: Count = 3
    batch_size: Count = 32
    learning_rate: Portion | None = None
    weight_decay: NonNegative = 0.0
    warmup: Fraction = 0.0
    max_grad_norm: NonNegative = 1.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    dropout: Rate = 0.1
    freeze_layers: Natural = 0
    freeze_embeddings: bool = False
    schedule: Literal["linear", "constant"] = "linear"
    optimizer: Literal["adamw", "adadelta"] = "adamw"
    max_steps: Count | None = None
    early_stopping: Count | None = None
    callbacks: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    layer_decay: Portion = field(default=1.0, metadata=LATER)
    probing: Rate = field(default=0.0, metadata=LATER)
    pull: NonNegative = field(default=0.0, metadata=LATER)

    def resolved(self, hardware: Hardware, encoder: Any, follows: bool = False) -> FitConfig:
        """The same with what this encoder and hardware make of null and auto: keys say what was used.

        A fit that `follows` training on auxiliary rows has a rate of its own, for the sake of what they taught.
        """
        gentle = getattr(encoder, "finetune_learning_rate", None) if follows else None
        rate = self.learning_rate or gentle or encoder.learning_rate
        return replace(self, learning_rate=rate, precision=resolve_precision(self.precision, hardware))


def by_batches(epochs: None = None, **options: Any) -> FitConfig:
    """A fit whose length is a number of batches, which it passes in one epoch.

    Raises:
        OptionError: `epochs` is set, which could change nothing, or another option does not fit.
    """
    if epochs is not None:
        problem = f"={epochs!r} does not apply; use null, and set bandit.rounds or relations.batches"
        raise OptionError("epochs", problem)
    return FitConfig(epochs=1, **options)


@options
class Hardware:
    """Where fits run. It is in no cache key: rounding aside, it changes no number.

    Args:
        accelerator: auto, cpu or gpu.
        devices: Devices of each machine, or auto for all of its GPUs.
        strategy: Of several devices: ddp copies the weights to each, fsdp shards them.
        accumulate: Micro-batches per device that a batch is cut into, to save memory.
        num_nodes: Machines, which must share `paths.artifacts`.
        launcher: With several machines, a command that starts what follows it once on each, with the fields
            {num_nodes} and {devices}; without it the user starts the other machines by hand.
        rendezvous: HOST:PORT at which machines meet; HOST is one of them, and without it the machine of the command.
        profiler: Lightning's simple or advanced profiler, whose report is written to the log.
        checkpoint_minutes: Minutes between two checkpoints inside a fit, from which a killed one resumes; null: none.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Literal["auto"] | Count = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    accumulate: Count = 1
    num_nodes: Count = 1
    launcher: str | None = None
    rendezvous: Annotated[str, Field(pattern=r"^\S+:\d+$", description="HOST:PORT")] | None = None
    profiler: Literal["simple", "advanced"] | None = None
    checkpoint_minutes: NonNegative | None = 10.0

    def __post_init__(self) -> None:
        try:
            self.launch_prefix()
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"trainer.launcher={self.launcher!r} is no command line with the fields {{num_nodes}} and {{devices}} "
                f"({error}); write, say, 'srun --nodes={{num_nodes}} --ntasks-per-node=1'"
            ) from error

    def launch_prefix(self) -> list[str]:
        """The launcher's words with its fields filled in; none without a launcher."""
        return shlex.split((self.launcher or "").format(num_nodes=self.num_nodes, devices=self.devices))

    def resolved(self) -> Hardware:
        """`auto` replaced by what this machine has."""
        import torch

        has_gpu = torch.cuda.is_available()
        accelerator = self.accelerator if self.accelerator != "auto" else ("gpu" if has_gpu else "cpu")
        if accelerator == "gpu" and not has_gpu:
            raise UserError("trainer.accelerator='gpu', but this machine has no CUDA device; use trainer=cpu")
        devices = self.devices
        if devices == "auto":
            devices = torch.cuda.device_count() if accelerator == "gpu" else 1
        if accelerator == "gpu" and devices > torch.cuda.device_count():
            raise UserError(f"trainer.devices={devices}, but this machine has {torch.cuda.device_count()} CUDA devices")
        return replace(self, accelerator=accelerator, devices=int(devices))

    @property
    def world(self) -> int:
        """Devices on all machines together."""
        return int(self.resolved().devices) * self.num_nodes

    @property
    def is_distributed(self) -> bool:
        """Whether there are several devices, and so work runs in processes of its own, one per device."""
        return self.world > 1

    @property
    def device(self) -> Any:
        """The `torch.device` of single-device work such as scoring."""
        import torch

        return torch.device("cuda" if self.resolved().accelerator == "gpu" else "cpu")


def resolve_precision(precision: str, hardware: Hardware) -> Literal["fp32", "bf16", "fp16"]:
    """`auto`: bf16 on GPUs that have it (else fp16) and on CPUs with AVX512-BF16 or AMX; elsewhere bf16 is emulated
    and many times slower than fp32."""
    if precision != "auto":
        return precision  # type: ignore[return-value]
    import torch

    if hardware.resolved().accelerator == "gpu":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has = torch.cpu.get_capabilities()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"

"""What the machine can do, and what to call it beside a timing."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import TrainingArguments


def runs_on_cpu(use_cpu: bool) -> bool:
    """Whether a run takes the CPU: told to, by ``--use_cpu`` or accelerate's config, or for want
    of a CUDA device."""
    told = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    return use_cpu or told or not torch.cuda.is_available()


def has_fast_bf16(*, on_cpu: bool) -> bool:
    """Whether bfloat16 arithmetic is native, on the CPU or on the GPU.

    On a CPU with AVX-512 BF16 or AMX a small encoder trains about twice as fast in it; on others
    it is emulated and slower.
    """
    if not on_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def machine() -> str:
    """Describe the hardware in the words that matter for a timing."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def choose_precision(args: TrainingArguments) -> None:
    """Train in bfloat16 where ``args.bf16`` is None and the hardware has it.

    Before `TrainingArguments` checks itself: it wants to be told that bfloat16 on the CPU is meant.
    """
    on_cpu = runs_on_cpu(args.use_cpu)
    if args.bf16 is None:
        args.bf16 = has_fast_bf16(on_cpu=on_cpu) and not args.fp16
    args.use_cpu = args.use_cpu or (args.bf16 and on_cpu)

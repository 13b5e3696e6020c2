"""What the machine can do, and what to call it beside a timing."""

import os
import platform

import torch


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

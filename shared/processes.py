"""What the processes of a launch decide together."""

import torch


def highest(number: int) -> int:
    """Return the highest number any process holds: none may go alone, the others would wait."""
    if not torch.distributed.is_initialized():
        return number
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    agreed = torch.tensor(number, device=device)
    torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
    return int(agreed)

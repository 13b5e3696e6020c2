"""What the processes of a launch decide together, and how one leaves the others."""

import sys


def highest(number: int) -> int:
    """Return the highest number any process holds: none may go alone, the others would wait."""
    import torch  # here, for recipes that do without it import this module, too

    if not torch.distributed.is_initialized():
        return number
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    agreed = torch.tensor(number, device=device)
    torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
    return int(agreed)


def leave_processes() -> None:
    """Leave the group of a distributed run, where there is one, before the interpreter ends.

    A group that is still there then can abort the process in its last moment, with all it did well
    (pytorch/pytorch#190489), and the launcher ends the other processes for it.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()

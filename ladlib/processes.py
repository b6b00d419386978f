"""How many processes share a stage's work."""

from ladlib.config import Parallel


def count_processes(parallel: Parallel) -> int:
    """As many as the profile says; where it says 0, one for each GPU, or one in all."""
    import torch

    return parallel.processes or max(1, torch.cuda.device_count())

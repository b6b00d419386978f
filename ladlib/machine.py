"""What a number was computed with: versions, commit and hardware."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill", "pillow", "numpy", "pandas")


def versions() -> dict[str, str]:
    """Python's version and those of the packages a result depends on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("ladlib", *PACKAGES)}


def commit() -> str:
    """The commit of the checkout this code lies in, "+" added where files differ; "" outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head, status = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if status else "")


def hardware() -> dict[str, str | int | float]:
    """Processor, cores and memory (GiB). Accelerators are added by the stages that use torch."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(memory, 1),
    }

"""The machine and the versions that a result or a bug report depends on. Names no user, path or token."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from seq2seq_cli import __version__

_PACKAGES = (
    "torch",
    "tokenizers",
    "safetensors",
    "accelerate",
    "datasets",
    "huggingface_hub",
    "pydantic",
    "typer",
    "rich",
    "pyyaml",
    "sacrebleu",
    "rouge-score",
    "transformers",
)
#: Settings that change what s2s does and hold no secrets.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "NO_COLOR",
    "TERM",
)


def describe() -> dict[str, Any]:
    """Versions, processors, devices and thread counts; None = not installed."""
    facts: dict[str, Any] = {
        "s2s": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "stdout_encoding": sys.stdout.encoding,
        "cpu_count": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    facts |= {name: _version(name) for name in _PACKAGES}
    if facts["torch"] is not None:
        facts |= _torch()
    return facts | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "devices": devices,
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
    }

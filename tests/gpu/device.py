"""The device of these tests: a GPU; or the CPU where `KD_RAY_GPU_REHEARSAL` is set, which tries the tests themselves."""

import os

import torch

REHEARSAL = "KD_RAY_GPU_REHEARSAL" in os.environ
DEVICE = torch.device("cpu" if REHEARSAL else "cuda")
PLACED = f"placement.gpus_per_pack={0 if REHEARSAL else 1}"

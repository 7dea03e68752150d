"""Where and how trials run, as a sweep file says it; never part of a trial's identity."""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt
from pydantic_core import PydanticCustomError

from kd_ray.sweep.fields import Config


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise PydanticCustomError("gpus", "must be a fraction below 1 or a whole number")
    return gpus


Gpus = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
Gigabytes = Annotated[float, Field(ge=0)]
CustomResources = dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]*$")], PositiveFloat]


class TeacherPlacement(Config):
    """Resources of a pack with a teacher, where they differ from those of a pack of students."""

    cpus_per_pack: PositiveInt | None = None
    """CPUs, and threads."""
    gpus_per_pack: Gpus | None = None
    """GPUs; fractions are allowed below 1."""
    memory_gb_per_pack: Gigabytes | None = None
    """Memory of the node in GB; 0 reserves none."""
    resources_per_pack: CustomResources | None = None
    """Resources of your own."""


class Placement(Config):
    """Where and how trials run. Never part of a trial's identity."""

    cpus_per_pack: PositiveInt = 1
    """CPUs, and threads, of one pack. On the CPU the last bits of a result follow it: keep it the same within a sweep."""
    gpus_per_pack: Gpus = 0.0
    """GPUs of one pack; fractions are allowed below 1."""
    memory_gb_per_pack: Gigabytes = 0.0
    """Memory of the node, in GB, that one pack reserves, so that no more packs are placed on a node than it holds; 0 reserves none."""
    resources_per_pack: CustomResources = Field(default_factory=dict)
    """Resources of your own that one pack takes, by the names with which nodes were started (`ray start --resources='{"a100": 8}'`); so
    packs are kept to one type of GPU."""
    teacher: TeacherPlacement | None = None
    """Resources of packs with a teacher; fields that are left out are as for students."""
    pack_size: PositiveInt | Literal["auto"] = 8
    """Most students trained side by side on one batch stream; `auto` follows a short measurement of their time and memory on a worker, and
    the number of workers."""
    data_root: str = "./data"
    """Folder with the data sets, the same path on every node."""
    data_url: str | None = None
    """Where `kd-ray data push` has put the data sets: `s3://`, `gs://`, `az://`, or a folder that all nodes see; `hf://datasets/` for
    such a folder in a repository of the Hugging Face hub. Each node fetches what the sweep needs to `<data_root>/fetched`, once."""
    data_cache_gb: PositiveFloat = 200.0
    """Most disk space, on each node, for fetched data sets and what is made of them, in GB. To make room, those that were not used for
    longest are deleted, and none that is in use."""
    checkpoint_interval_s: Annotated[float, Field(ge=0)] = 30.0
    """Least time in seconds between two checkpoints of a trial; 0 writes one after every epoch."""
    checkpoint_every_epochs: PositiveInt | None = None
    """Write a checkpoint after so many epochs too, however little time they took."""
    view_table_gb: Annotated[float, Field(ge=0)] = 4.0
    """Most disk space, on each node, for one teacher's logits of the augmented views, in GB; where the table would take more, as with 0,
    the teacher runs for every batch. Results are the same."""
    resident_gb: Annotated[float, Field(ge=0)] = 16.0
    """Most memory for the images of one data set, in GB; images in files of their own that would take more are decoded for every batch.
    Results are the same."""
    loader_threads: PositiveInt = 2
    """Threads of one pack that decode images ahead of training, where these are not in memory or have endless views. Results are the
    same."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a pack whose worker died is started again within one launch."""

    @property
    def resident_bytes(self) -> int:
        """`resident_gb` in bytes."""
        return int(self.resident_gb * 1e9)

    def of(self, *, is_teacher: bool) -> "Placement":
        """Of a pack with a teacher, or of one with students."""
        if self.teacher is None:
            return self
        own = self.teacher.model_dump(exclude_none=True) if is_teacher else {}
        return self.model_copy(update={"teacher": None, **own})


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

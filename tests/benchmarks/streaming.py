"""Memory and time of a data set that is streamed, beside the same one in memory: `python -m tests.benchmarks.streaming FOLDER`.

FOLDER holds `train/<class>/<image>` and `val/<class>/<image>`, a few thousand JPEG files. Each form runs in a process of its own, from
nothing: list and check the files, then an epoch's first batches of 64 images at 224 pixels, without any network. Memory is PSS: pages that
are mapped from a file count, divided by the number of processes that map them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_BATCHES = 30


def pss_mib() -> float:
    """Proportional set size of this process in MiB."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Pss")


def measure(root: Path, form: str, threads: int) -> dict[str, Any]:
    """One form in this process: `resident`, `streamed` (crop and flip of the resized image) or `resized_crop` (from the original)."""
    import torch

    from kd_ray.data.families import fingerprint
    from kd_ray.distill.batches import batches, epoch_draw
    from kd_ray.distill.dataset_cache import load_data
    from kd_ray.distill.image_loader import Loader
    from kd_ray.sweep.datasets import ImagenetDataset

    torch.set_num_threads(1)
    empty_mib, started = pss_mib(), time.perf_counter()
    classes = len(list((root / "set" / "train").iterdir()))
    resident_gb = 1000.0 if form == "resident" else 0.0
    dataset = ImagenetDataset(name="imagenet", folder="set", num_classes=classes, size=224)
    version = fingerprint(dataset, root, processes=threads, resident_bytes=int(resident_gb * 1e9))
    dataset = dataset.model_copy(update={"version": version})
    loader = Loader(threads=threads)
    data = load_data(dataset, root, torch.device("cpu"), processes=threads, resident_gb=resident_gb, loader=loader)
    train = data.resident.train
    draw = epoch_draw(len(train), "resized_crop" if form == "resized_crop" else "crop_flip", seed=0, epoch=0)
    most_mib, first_s, seen = 0.0, 0.0, 0
    for number, batch in enumerate(batches(train, draw, batch_size=64)):
        seen += len(batch.labels_B)
        if number == 0:
            first_s, loop_started = time.perf_counter() - started, time.perf_counter()
        most_mib = max(most_mib, pss_mib() - empty_mib)
        if number + 1 == _BATCHES:
            break
    return {
        "form": form,
        "threads": threads,
        "files": len(train) + len(data.resident.test),
        "first_batch_s": round(first_s, 2),
        "pss_mib": round(most_mib),
        "images_per_s": round((seen - 64) / (time.perf_counter() - loop_started)),
    }


def main() -> None:
    """Print a line of JSON for each form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--form")
    arguments = parser.parse_args()
    if arguments.form:
        print(json.dumps(measure(arguments.folder, arguments.form, arguments.threads)))
        return
    for form in ("streamed", "resized_crop", "resident"):
        with tempfile.TemporaryDirectory() as root:
            (Path(root) / "set").symlink_to(arguments.folder.resolve())
            command = [sys.executable, "-m", "tests.benchmarks.streaming", root]
            subprocess.run([*command, "--form", form, "--threads", str(arguments.threads)], check=True)


if __name__ == "__main__":
    main()

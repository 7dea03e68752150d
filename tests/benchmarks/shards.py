"""How large the shards of a data set should be: `python -m tests.benchmarks.shards [--files N] [--latency S]`.

N small image files (8,000 of 10 KB unless told otherwise) are fetched from S3 through a proxy that adds latency to every request: each file
as an object of its own, 16 at once, and as shards of several sizes, as `placement.data_url` fetches them. Only a quarter of the objects is
fetched, because all take the same time.
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kd_ray.cluster.shared_data.fetch_data import FoundSet, fetch
from kd_ray.cluster.shared_data.push_data import push
from kd_ray.cluster.shared_data.set_files import sets_of
from kd_ray.results.store import open_store
from kd_ray.sweep.load import parse_dataset
from tests.benchmarks.far import Distance, far_store
from tests.benchmarks.scale import environment
from tests.datasets import encoded
from tests.s3 import BUCKET, s3_server, settings_for

_FILE_BYTES = 10_000
_SIZES_MIB = (1, 4, 16, 64)


def write_images(root: Path, count: int) -> None:
    """ImageNet's layout; the images differ in their last bytes, which no decoder reads."""
    for split, share in (("train", 0.9), ("val", 0.1)):
        for n in range(round(count * share)):
            folder = root / "imagenet" / split / f"class{n % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            head = encoded(seed=n % 10)
            (folder / f"{n}.jpeg").write_bytes(head + os.urandom(_FILE_BYTES - len(head)))


def main() -> None:
    """Print one line for each form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=8000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    asked = parser.parse_args()
    print(environment())
    (wanted,) = sets_of(parse_dataset("imagenet", ["size=16", "num_classes=10"]))
    with TemporaryDirectory() as folder, s3_server() as server:
        root = Path(folder, "data")
        write_images(root, asked.files)
        os.environ.update(settings_for(server))
        near = open_store(f"s3://{BUCKET}/data")
        paths = sorted(path for path in root.rglob("*.jpeg"))[::4]
        near.at_once(lambda path: near.put(f"objects/{path.name}-{path.parent.name}", path.read_bytes()), paths)
        reports = {size: push(wanted, root, near, shard_bytes=size * 2**20) for size in _SIZES_MIB}
        with far_store(Distance(name="far", latency_s=asked.latency), server):
            far = open_store(f"s3://{BUCKET}/data")
            keys = [entry.key for entry in far.entries("objects")]
            started = time.monotonic()
            far.at_once(far.get, keys)
            elapsed_s = time.monotonic() - started
            print(f"objects: {len(keys) / elapsed_s:,.0f} files/s, {len(keys)} requests for {len(keys):,} files")
            for size, report in reports.items():
                parts = [Path(folder, f"{size}-{name}") for name in ("files", "done")]
                for part in parts:
                    part.mkdir()
                started = time.monotonic()
                fetch(FoundSet(url=far.url, what="imagenet", index=report.index), parts[0], parts[1])
                elapsed_s = time.monotonic() - started
                speed = f"{asked.files / elapsed_s:,.0f} files/s, {report.index.size_bytes / elapsed_s / 1e6:.0f} MB/s"
                print(f"shards of {size} MiB: {speed}, {len(report.index.shards)} requests for {asked.files:,} files")


if __name__ == "__main__":
    main()

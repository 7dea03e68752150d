"""Original files of data sets: fetched where that is allowed, else what to put where.

Addresses and checksums of what is fetched are torchvision's, and of Adult UCI's. A transfer that was cut short goes on where it stopped; a
file counts only once its checksum is right.
"""

import hashlib
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd_ray.data import adult, celeba, cifar10, cifar100, hatexplain, imagenet, svhn, tiny_imagenet
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import Cifar10Dataset, Cifar100Dataset, Dataset, ImagenetDataset, SvhnDataset
from kd_ray.sweep.row_datasets import AdultDataset

OnBytes = Callable[[str, int, int], None]
"""Called with (file name, bytes there, bytes in all)."""

_BLOCK = 1 << 18
_TIMEOUT_S = 60.0


def fetch(dataset: Dataset, root: Path, *, on_bytes: OnBytes | None = None) -> None:
    """Make sure that the original files of CIFAR-10, CIFAR-100, SVHN or Adult are below `root`; other sets are left as they are.

    Raises:
        DataError: a file cannot be fetched or written, or is not the published one.
    """
    match dataset:
        case Cifar10Dataset():
            _fetch_cifar("CIFAR10", root, cifar10.FOLDER, tuple(cifar10.ORIGINAL_MD5), on_bytes)
        case Cifar100Dataset():
            _fetch_cifar("CIFAR100", root, cifar100.FOLDER, tuple(cifar100.ORIGINAL_MD5), on_bytes)
        case AdultDataset():
            for name, md5 in adult.ORIGINAL_MD5.items():
                if not (root / adult.FOLDER / name).is_file():
                    download(adult.URL + name, root / adult.FOLDER / name, md5=md5, on_bytes=on_bytes)
        case SvhnDataset():
            published = _torchvision("SVHN").split_list
            for split in ("train", "test", *(("extra",) if dataset.extra else ())):
                url, name, md5 = published[split]
                if not (root / svhn.FOLDER / name).is_file():
                    download(url, root / svhn.FOLDER / name, md5=md5, on_bytes=on_bytes)


def what_to_put_where(dataset: Dataset, root: Path) -> str | None:
    """Which files a set needs, from where, if it may not be fetched or need not be. None for the others."""
    folder = root / (dataset.folder if isinstance(dataset, ImagenetDataset) else dataset.name)
    match dataset.name:
        case "tiny_imagenet":
            folder = root / tiny_imagenet.FOLDER
            return (
                "Tiny ImageNet holds images of ImageNet, whose terms of access you have to accept yourself. Unpack "
                f"tiny-imagenet-200.zip of Stanford's course CS231n in {root}, so that these exist:\n"
                f"  {folder}/wnids.txt\n  {folder}/words.txt\n  {folder}/train/<wnid>/images/*.JPEG\n"
                f"  {folder}/val/val_annotations.txt\n  {folder}/val/images/*.JPEG"
            )
        case "adult":
            return (
                f"Adult is free (CC BY 4.0) and is fetched from {adult.URL}; where that does not do, put its two files there:\n"
                f"  {folder}/adult.data\n  {folder}/adult.test"
            )
        case "imagenet":
            return (
                "ImageNet has terms of access that you have to accept yourself, at image-net.org. Unpack ILSVRC2012_img_train.tar and "
                "ILSVRC2012_img_val.tar into a folder for each class, so that these exist:\n"
                f"  {folder}/train/<wnid>/<image>   for example {folder}/train/n01440764/n01440764_10026.JPEG\n"
                f"  {folder}/val/<wnid>/<image>\n"
                f"Files that count end with {', '.join(imagenet.SUFFIXES)}."
            )
        case "celeba":
            names = "\n".join(f"  {folder}/{name}" for name in celeba.ORIGINAL_MD5)
            return (
                "CelebA is for non-commercial research, by agreement with its authors, so it is not fetched. From the folders Anno, Eval "
                f"and Img (img_align_celeba.zip, unpacked) of its project page, put these:\n{names}\n"
                f"  {folder}/{celeba.IMAGES}/000001.jpg … 202599.jpg"
            )
        case "hatexplain":
            names = "\n".join(f"  {folder}/{name}" for name in (hatexplain.DATASET, hatexplain.DIVISIONS))
            return (
                "HateXplain (MIT licence) holds offensive texts, and nobody publishes checksums of it, so it is not fetched. From the "
                f"folder Data of the repository hate-alert/HateXplain, put these:\n{names}"
            )
        case _:
            return None


def download(url: str, path: Path, *, md5: str, on_bytes: OnBytes | None = None) -> None:
    """Fetch a file beside its place, going on where an earlier attempt stopped, and put it there once its checksum is right.

    Raises:
        DataError: it cannot be fetched or written, or the checksum is another.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, path.name, on_bytes)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            part.unlink()
            raise DataError(
                f"{url}: its MD5 is {found}, published is {md5}; nothing is kept, the same command fetches it again"
            )
        part.replace(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{url}: cannot be fetched to {path}: {error}; the same command goes on where it stopped"
        ) from error


def _transfer(url: str, part: Path, name: str, on_bytes: OnBytes | None) -> None:
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 (torchvision's addresses)
    except urllib.error.HTTPError as error:
        if there and error.code == 416:  # nothing is left to send
            return
        raise
    with answer, part.open("ab") as file:
        if answer.status != 206:
            # The server sends all of it again.
            file.truncate(0)
            there = 0
        total = there + int(answer.headers.get("Content-Length") or 0)
        while block := answer.read(_BLOCK):
            file.write(block)
            there += len(block)
            if on_bytes:
                on_bytes(name, there, total)
        if there < total:
            raise OSError(f"the connection ended after {there:,} of {total:,} bytes")


def _fetch_cifar(class_name: str, root: Path, folder: str, names: tuple[str, ...], on_bytes: OnBytes | None) -> None:
    if all((root / folder / name).is_file() for name in names):
        return
    published = _torchvision(class_name)
    archive = root / published.filename
    if not archive.is_file():
        download(published.url, archive, md5=published.tgz_md5, on_bytes=on_bytes)
    unpack(archive, root / folder, names)


def unpack(archive: Path, folder: Path, names: tuple[str, ...]) -> None:
    """The files `names` of the archive's folder of the same name, and nothing else of it.

    Raises:
        DataError: the archive is damaged or lacks one.
    """
    try:
        with tarfile.open(archive) as tar:
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                member = tar.extractfile(f"{folder.name}/{name}")
                part = folder / f"{name}.part"
                # None for what is no file: an empty one, whose checksum is refused when it is read.
                part.write_bytes(member.read() if member else b"")
                part.replace(folder / name)
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(
            f"{archive} is damaged or not the published one: {error}; remove it, and the same command fetches it"
        ) from error


def _torchvision(class_name: str) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise DataError(
            "torchvision knows where the files are and is not installed; `pip install 'kd_ray[models]'`"
        ) from error
    return getattr(datasets, class_name)

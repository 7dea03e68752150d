"""Tiny synthetic data sets in the layouts of the real ones: random pixels, and labels that are known."""

import gzip
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

from kd_ray.data.utkface import write_list
from kd_ray.sweep.datasets import CELEBA_ATTRIBUTES


def pixels(*shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(width: int = 64, height: int = 64, *, seed: int = 0, mode: str = "RGB", suffix: str = "jpeg") -> bytes:
    """A random image file."""
    buffer = io.BytesIO()
    # Blocks, because JPEG makes little of noise.
    small = Image.fromarray(pixels(4, 4, 3, seed=seed)).resize((width, height), Image.Resampling.NEAREST)
    small.convert(mode).save(buffer, format=suffix)
    return buffer.getvalue()


def write_cifar100(root: Path, *, num_train: int = 200, num_test: int = 100, **replaced: Any) -> Path:
    """Labels go round the classes; superclass = class // 5."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)

    def split(count: int, seed: int) -> dict[str, Any]:
        fine = [n % 100 for n in range(count)]
        return {
            "filenames": [f"{n}.png" for n in range(count)],
            "batch_label": "some",
            "fine_labels": fine,
            "coarse_labels": [label // 5 for label in fine],
            "data": pixels(count, 3072, seed=seed),
        }

    contents: dict[str, Any] = {
        "train": split(num_train, 0),
        "test": split(num_test, 1),
        "meta": {
            "fine_label_names": [f"fine {c}" for c in range(100)],
            "coarse_label_names": [f"coarse {c}" for c in range(20)],
        },
    }
    for name, content in {**contents, **replaced}.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return root


def write_cifar10(root: Path, *, num_train: int = 40, num_test: int = 20) -> Path:
    """Labels go round the classes; the training samples lie in five batches of equal size."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{n}" for n in range(1, 6)]
    for seed, (name, count) in enumerate([*((name, num_train // 5) for name in names), ("test_batch", num_test)]):
        content = {
            "batch_label": name,
            "labels": [n % 10 for n in range(count)],
            "data": pixels(count, 3072, seed=seed),
            "filenames": [f"{n}.png" for n in range(count)],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    labels = [f"class {c}" for c in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": labels, "num_vis": 3072}, protocol=2))
    return root


def write_svhn(root: Path, **counts: int) -> Path:
    """Digits go round 1, 2, … 9, 10, and 10 stands for 0; compressed as the original files are."""
    folder = root / "svhn"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": 40, "test": 20, **counts}.items()):
        arrays = {
            "X": pixels(32, 32, 3, count, seed=seed),
            "y": (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None],
        }
        savemat(folder / f"{split}_32x32.mat", arrays, do_compression=True)
    return root


def write_tiny_imagenet(
    root: Path, *, num_classes: int = 4, train_per_class: int = 6, test_per_class: int = 3, image: bytes | None = None
) -> Path:
    """Classes n0000, n0001, … listed in falling order; `image` stands for all images."""
    folder = root / "tiny-imagenet-200"
    wnids = [f"n{c:04}" for c in reversed(range(num_classes))]
    annotations = []
    for c, wnid in enumerate(wnids):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True, exist_ok=True)
        for n in range(train_per_class):
            (images / f"{wnid}_{n}.JPEG").write_bytes(image or encoded(seed=100 * c + n))
    (folder / "val" / "images").mkdir(parents=True, exist_ok=True)
    for n in range(num_classes * test_per_class):
        name, wnid = f"val_{n}.JPEG", wnids[n % num_classes]
        (folder / "val" / "images" / name).write_bytes(image or encoded(seed=10_000 + n, mode="L"))
        annotations.append(f"{name}\t{wnid}\t0\t0\t62\t62\n")
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    (folder / "words.txt").write_text("".join(f"{wnid}\tthing {wnid[1:]}, object\n" for wnid in wnids[1:]))
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    return root


def write_imagenet(
    root: Path, *, folder: str = "imagenet", num_classes: int = 3, train_per_class: int = 6, test_per_class: int = 2
) -> Path:
    """Images of several sizes, 70 × 80 pixels and more."""
    for split, count in (("train", train_per_class), ("val", test_per_class)):
        for c in range(num_classes):
            images = root / folder / split / f"n{c:08}"
            images.mkdir(parents=True, exist_ok=True)
            for n in range(count):
                content = encoded(70 + 10 * c, 80, seed=1000 * c + n + (500 if split == "val" else 0))
                (images / f"{n}.JPEG").write_bytes(content)
    return root


def write_celeba(root: Path, *, count: int = 60) -> Path:
    """A third of the images each for train, validation and test; every attribute is random, Smiling the rarer the later."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    has_NA = random.random((count, 40)) < 0.5
    has_NA[:, CELEBA_ATTRIBUTES.index("Smiling")] = np.arange(count) % 4 == 0
    names = [f"{n + 1:06}.jpg" for n in range(count)]
    for n, name in enumerate(names):
        (folder / "img_align_celeba" / name).write_bytes(encoded(178, 218, seed=n))
    rows = [
        f"{name} " + " ".join(" 1" if has else "-1" for has in row) for name, row in zip(names, has_NA, strict=True)
    ]
    (folder / "list_attr_celeba.txt").write_text(
        "\n".join([str(count), " ".join(CELEBA_ATTRIBUTES) + " ", *rows]) + "\n"
    )
    partition = "".join(f"{name} {3 * n // count}\r\n" for n, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_bytes(partition.encode())
    return root


def write_people(root: Path, *, count: int = 48, header: str = "file,label,split,race,age", **changed: str) -> Path:
    """`people/people.csv` with images of mixed sizes, modes and formats beside it; `changed` gives other values for "row_column"."""
    folder = root / "people"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    kinds = [("RGB", "jpeg"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "jpeg"), ("1", "bmp")]
    lines = [header]
    for n in range(count):
        mode, suffix = kinds[n % len(kinds)]
        name = f"images/{n}.{suffix}"
        (folder / name).write_bytes(encoded(20 + n, 60 - n % 30, seed=n, mode=mode, suffix=suffix))
        row = {
            "file": name,
            "label": ("no", "yes")[n // 2 % 2],
            "split": ("train", "train", "test")[n % 3],
            "race": ("a", "b", "a;b", "")[n % 4],
            "age": str(2 * n),
        }
        row |= {column: changed[f"row{n}_{column}"] for column in row if f"row{n}_{column}" in changed}
        lines.append(",".join(row[column] for column in header.split(",")))
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return root


def write_utkface(root: Path, *, count: int = 60) -> Path:
    """Faces without faces: ages 0 to 88, both genders, five races; and the list of them."""
    folder = root / "utkface" / "UTKFace"
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        name = f"{3 * n % 89}_{n % 2}_{n // 2 % 5}_20170101{n:09}.jpg.chip.jpg"
        (folder / name).write_bytes(encoded(40, 40, seed=n))
    write_list(root)
    return root


def write_adult(root: Path, *, num_train: int = 120, num_test: int = 60, **changed: str) -> Path:
    """People with ages from 17 to 86, of both sexes and two races. People with much education earn much. `changed` gives other
    values for "train3_age". Both files look as UCI's do: no head, a remark first in adult.test, full stops after its labels."""
    folder = root / "adult"
    folder.mkdir(parents=True, exist_ok=True)
    for split, name, count in (("train", "adult.data", num_train), ("test", "adult.test", num_test)):
        lines = ["|1x3 Cross validator"] if split == "test" else []
        for n in range(count):
            row = {
                "age": str(17 + 7 * n % 70), "workclass": ("Private", "State-gov", "Private", "?")[n % 4], "fnlwgt": str(1000 + n),
                "education": ("HS-grad", "Masters")[n // 3 % 2], "education_num": str((9, 14)[n // 3 % 2]), "marital": "Divorced",
                "occupation": ("Sales", "Tech-support")[n % 2], "relationship": "Unmarried", "race": ("White", "Black")[n // 2 % 2],
                "sex": ("Male", "Female")[n // 5 % 2], "gain": str(100 * (n % 3)), "loss": "0", "hours": str(20 + n % 30),
                "country": "United-States", "income": ("<=50K", ">50K")[n // 3 % 2],
            }  # fmt: skip
            row |= {column: changed[f"{split}{n}_{column}"] for column in row if f"{split}{n}_{column}" in changed}
            lines.append(", ".join(row.values()) + ("." if split == "test" else ""))
        (folder / name).write_text("\n".join(lines) + "\n\n")
    return root


def write_table(root: Path, *, count: int = 36, **changed: str) -> Path:
    """`table/loans.csv`: numbers and categories, no images; `changed` gives other values for "row3_income"."""
    folder = root / "table"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["income,job,age,sex,label,split"]
    for n in range(count):
        row = {
            "income": f"{1000 + 37 * n % 500}.5",
            "job": ("cook", "pilot", "clerk")[n % 3],
            "age": str(20 + 11 * n % 50),
            "sex": ("f", "m")[n // 2 % 2],
            "label": ("no", "yes")[37 * n % 500 > 250],
            "split": ("train", "train", "test")[n // 3 % 3],
        }
        row |= {column: changed[f"row{n}_{column}"] for column in row if f"row{n}_{column}" in changed}
        lines.append(",".join(row.values()))
    (folder / "loans.csv").write_text("\n".join(lines) + "\n")
    return root


WORDS = ("good", "bad", "they", "are", "we", "people", "day", "night", "sun", "moon", "tree", "house")
COMMUNITIES = ("Men", "Women", "African", "Asian", "Islam", "Jewish", "Refugee", "None")


def hatexplain_posts(count: int, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Posts of harmless words in the published form; the first word tells the label, which a third annotator may not share."""
    random = np.random.default_rng(seed)
    posts = {}
    for n in range(count):
        label = ("normal", "hatespeech", "offensive")[n % 3]
        first = {"normal": "good", "hatespeech": "bad", "offensive": "they"}[label]
        words = [first, *(str(word) for word in random.choice(WORDS[3:], size=3 + n % 20))]
        own = COMMUNITIES[n % len(COMMUNITIES)]
        targets = [[own], [own, COMMUNITIES[(n + 1) % len(COMMUNITIES)]], ["Women" if n % 5 == 0 else own, "Women"]]
        last = "normal" if n % 4 == 0 else label
        posts[f"{seed}_{n}_gab"] = {
            "post_id": f"{seed}_{n}_gab",
            "annotators": [
                {"label": each, "annotator_id": a, "target": target}
                for a, (each, target) in enumerate(zip((label, label, last), targets, strict=True))
            ],
            "rationales": [],
            "post_tokens": words,
        }
    return posts


def write_hatexplain(root: Path, *, num_train: int = 60, num_test: int = 40, train_is_there: bool = True) -> Path:
    """HateXplain's layout, with as many validation posts as test posts, and the substitute file for the training posts beside it."""
    folder = root / "hatexplain"
    (folder / "Data").mkdir(parents=True, exist_ok=True)
    splits = {"train": num_train, "val": num_test, "test": num_test}
    posts = {name: hatexplain_posts(count, seed=seed) for seed, (name, count) in enumerate(splits.items())}
    written = {
        key: post for name, each in posts.items() if train_is_there or name != "train" for key, post in each.items()
    }
    (folder / "Data" / "dataset.json").write_text(json.dumps(written))
    (folder / "Data" / "post_id_divisions.json").write_text(
        json.dumps({name: list(each) for name, each in posts.items()})
    )
    lines = []
    for key, post in posts["train"].items():
        labels = [each["label"] for each in post["annotators"]]
        union = sorted({name for each in post["annotators"] for name in each["target"]})
        row = {"post_id": key, "split": "train", "post_tokens": post["post_tokens"], "labels": labels}
        lines.append(json.dumps({**row, "majority": labels[0], "target_union": union, "target_first": None}))
    lines.append(
        json.dumps({"post_id": "x", "split": "undecided", "post_tokens": ["x"], "labels": [], "majority": None})
    )
    (folder / "train_partial.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return root


def write_bert(
    root: Path, name: str = "tiny-bert", *, kind: str = "bert", layers: int = 4, weights: bool = True
) -> Path:
    """A BERT or DistilBERT of 16 units per layer with random weights, and a vocabulary of `WORDS`; below `root`/models."""
    folder = root / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    common: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 32,
        "pad_token_id": 0,
    }
    sizes: dict[str, Any] = {
        "bert": {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32},
        "distilbert": {"dim": 16, "n_layers": layers, "n_heads": 2, "hidden_dim": 32},
    }[kind]
    (folder / "config.json").write_text(json.dumps({**common, **sizes}))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    if weights:
        import torch
        from safetensors.torch import save_file
        from transformers import AutoConfig, AutoModel

        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(**common, **sizes))  # type: ignore[no-untyped-call]
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    return root

"""`kd-ray data`: describe data sets and download their files."""

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kd_ray.cli.base import JSON_OPTION, Command, console, say, write
from kd_ray.cli.json_text import json_text
from kd_ray.cli.tables import render, table_of
from kd_ray.errors import DataError, InvalidInputError, count_of

if TYPE_CHECKING:
    from kd_ray.data.describe import Description, Examined
    from kd_ray.data.modalities import Data

_SHOWN = 30
"""Most classes in a list; further ones are only counted."""
_CAPTIONS = 4
"""Most features in a caption of a contact sheet; CelebA has 39."""
_SET = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="A field of the sweep file's dataset section."
)
_ROOT = click.option(
    "--data-root", type=click.Path(path_type=Path, file_okay=False), default=Path("./data"), show_default=True
)


@click.group("data")
def data_group() -> None:
    """Describe data sets and download their files."""


_SET_OF_FIELD = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="A field of the sweep file, or, with a NAME, of its dataset section.",
)
_ROOT_OF_SWEEP = click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="[default: the sweep file's placement.data_root, or ./data]",
)


@data_group.command("show", cls=Command, example="kd-ray data show trifeature --set size=64 -o sheet.png")
@click.argument("name")
@_SET
@_ROOT
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG file to write."
)
def show_command(name: str, overrides: tuple[str, ...], data_root: Path, output: Path) -> None:
    """Draw a contact sheet: a row for each class, captions with the groups of the sensitive features."""
    from kd_ray.sweep.load import parse_dataset

    dataset = parse_dataset(name, overrides)
    data = _examine(dataset, data_root).data
    _write_sheet(data, dataset.sensitive_feature_names, output)
    say(f"{len(data.test):,} test images in {len(data.class_names)} classes; sheet written to {output}")


@data_group.command("check", cls=Command, example="kd-ray data check sweeps/celeba-young.yaml -o sheet.png")
@click.argument("what", metavar="SWEEP.yaml|NAME")
@_SET_OF_FIELD
@_ROOT_OF_SWEEP
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write a contact sheet, PNG.")
@JSON_OPTION
def check_command(
    what: str, overrides: tuple[str, ...], data_root: Path | None, output: Path | None, as_json: bool
) -> None:
    """Describe the data set of a sweep, or the one called NAME: samples by split, class and group, and the difference of the labels.

    The exit code is 1 when a launch would refuse the files.
    """
    from kd_ray.cluster.display import TextDisplay
    from kd_ray.cluster.shared_data.find_sets import with_local_data
    from kd_ray.data.describe import describe
    from kd_ray.sweep.datasets import table_name
    from kd_ray.sweep.load import load_sweep, parse_dataset

    if what.endswith((".yaml", ".yml")):
        file = load_sweep(what, overrides)
        # A folder that the user names is looked at as it is.
        sweep = (file if data_root else with_local_data(file, display=TextDisplay(console()))).sweep
        dataset, features, intersections = sweep.dataset, sweep.sensitive_features, sweep.intersections
        data_root = data_root or Path(sweep.placement.data_root)
        resident_bytes = sweep.placement.resident_bytes
    else:
        dataset = parse_dataset(what, overrides)
        features, intersections, resident_bytes = dataset.sensitive_feature_names, (), None
    examined = _examine(dataset, data_root or Path("./data"), resident_bytes)
    description = describe(examined.data, features, intersections, least_joint_group=dataset.least_joint_group)
    if output is not None:
        _write_sheet(examined.data, features, output)
    if as_json:
        words = {"dataset": dataset.model_dump(mode="json"), "fingerprint": examined.fingerprint}
        say(json_text({**words, "refusal": examined.refusal, **description.to_dict()}))
    else:
        say(_described(table_name(dataset), examined, description))
    sys.exit(1 if examined.refusal else 0)


@data_group.command("prepare", cls=Command, example="kd-ray data prepare cifar100 --data-root ./data")
@click.argument("name")
@_SET
@_ROOT
def prepare_command(name: str, overrides: tuple[str, ...], data_root: Path) -> None:
    """Download the files of a data set, or say where to put them when a download is not allowed; decode its images.

    NAME is a dataset of a sweep file, or utkface: for utkface a list is written that the dataset `manifest` reads. After an interruption
    the same command continues.
    """
    from kd_ray.data.families import family_of
    from kd_ray.data.utkface import FOLDER, LIST, write_list
    from kd_ray.sweep.load import parse_dataset

    if name == "utkface":
        if overrides:
            raise InvalidInputError("--set has no effect with utkface; its settings are those of the dataset manifest")
        count, unknown = write_list(data_root)
        say(f"{count:,} images listed in {data_root / FOLDER / LIST}")
        if unknown:
            say(f"left out, because their names do not say age, gender and race: {', '.join(unknown)}")
        return
    dataset = parse_dataset(name, overrides)
    family = family_of(dataset)
    try:
        family.fetch(dataset, data_root, _download_bars())
        examined = _examine(dataset, data_root)
    except DataError as error:
        advice = family.advice(dataset, data_root)
        raise DataError(f"{error}\n{advice}" if advice else str(error)) from error
    sizes = f"{len(examined.data.train):,} training and {len(examined.data.test):,} test {dataset.modality}"
    say(f"{name}: {sizes}; {_version(examined)}")
    sys.exit(1 if examined.refusal else 0)


@data_group.command("push", cls=Command, example="kd-ray data push sweeps/celeba-young.yaml s3://lab/data")
@click.argument("what", metavar="SWEEP.yaml|NAME")
@click.argument("url")
@_SET_OF_FIELD
@_ROOT_OF_SWEEP
def push_command(what: str, url: str, overrides: tuple[str, ...], data_root: Path | None) -> None:
    """Put the data of a sweep, or the set called NAME, at a URL, from where nodes fetch them (placement.data_url).

    URL is s3://, gs:// or az://, or a folder that all nodes see. A shard that the URL has is not sent again, and nothing there is deleted.
    """
    from kd_ray.cluster.display import TextDisplay
    from kd_ray.cluster.shared_data.places import open_writable_place
    from kd_ray.cluster.shared_data.push_data import push
    from kd_ray.cluster.shared_data.set_files import sets_of, wanted_sets
    from kd_ray.sweep.load import load_sweep, parse_dataset

    if what.endswith((".yaml", ".yml")):
        file = load_sweep(what, overrides)
        sets, data_root = wanted_sets(file), data_root or Path(file.sweep.placement.data_root)
    else:
        sets = sets_of(parse_dataset(what, overrides))
    if not sets:
        raise InvalidInputError(f"{what}: there is nothing to push: its data are drawn, or a function makes them")
    store, display = open_writable_place(url), TextDisplay(console())
    for wanted in sets:
        root = (data_root or Path("./data")).expanduser()
        done = push(wanted, root, store, on_progress=display.preparing(f"{wanted.what} (shards)"))
        index = done.index
        size = f"{count_of(index.num_files, 'file')} in {count_of(len(index.shards), 'shard')}, {index.size_bytes / 1e6:,.1f} MB"
        sent = f"{count_of(done.num_sent, 'shard')} sent, {done.sent_bytes / 1e6:,.1f} MB"
        say(f"{wanted.what} at {store.url}: {f'version {index.version}; ' if index.version else ''}{size}; {sent}")


def _examine(dataset: Any, data_root: Path, resident_bytes: int | None = None) -> "Examined":
    """The data set as a launch would load it. Images that need more than `resident_bytes` (default: that of sweeps) stay encoded."""
    from kd_ray.cluster.display import TextDisplay
    from kd_ray.data.describe import examine
    from kd_ray.data.family import Loading
    from kd_ray.sweep.placement import Placement

    loading = Loading(
        root=data_root,
        processes=os.cpu_count() or 1,
        on_progress=TextDisplay(console()).preparing(dataset.name),
        resident_bytes=Placement().resident_bytes if resident_bytes is None else resident_bytes,
    )
    return examine(dataset, loading)


def _write_sheet(data: "Data", features: Sequence[str], output: Path) -> None:
    """Write a contact sheet of the test split, with captions for the first few features. Raises InvalidInputError without images."""
    from kd_ray.data.image_data import contact_sheet

    if data.modality != "images":
        raise InvalidInputError(f"-o {output} has no effect: a contact sheet shows images, and this data set has none")
    shown = {name: data.test.sensitive_features[name] for name in features[:_CAPTIONS]}
    buffer = io.BytesIO()
    contact_sheet(replace(data.test, sensitive_features=shown), data.class_names).save(buffer, format="PNG")
    write(buffer.getvalue(), output)


def _version(examined: "Examined") -> str:
    if examined.refusal:
        return f"a launch would refuse them: {examined.refusal}"
    return f"fingerprint {examined.fingerprint}" if examined.fingerprint else "generated, no files"


def _described(name: str, examined: "Examined", found: "Description") -> str:
    """The data set in words and tables of counts."""
    splits = list(found.splits)
    counts = ", ".join(f"{count:,} {split}" for split, count in found.splits.items())
    side = found.image_size
    what = {
        "images": f"images of {side} × {side} pixels",
        "rows": f"rows of {count_of(found.num_columns or 0, 'number')}",
        "texts": f"texts of at most {found.num_tokens} tokens",
    }[found.modality]
    lines = [f"{name}: {counts} {what} in {len(found.classes)} classes", _version(examined)]
    lines += [f"leak: {leak.sentence(found.modality)}" for leak in found.leaks]
    lines += [f"note: {note}" for note in found.notes]
    rows = [[name, *(f"{counts[split]:,}" for split in splits)] for name, counts in found.classes.items()]
    lines += ["", _counts_table(["class", *splits], rows[:_SHOWN])]
    if len(rows) > _SHOWN:
        extremes = ", ".join(
            f"{min(n[split] for n in found.classes.values()):,} to {max(n[split] for n in found.classes.values()):,} {split}"
            for split in splits
        )
        lines.append(f"… and {len(rows) - _SHOWN} more; every class has {extremes}")
    for feature in found.features:
        difference = feature.label_demographic_parity_difference
        gap = "undefined" if difference is None else f"{100 * difference:.2f} %"
        lines += ["", f"{feature.feature}: DPD of the test labels {gap}, one-vs-rest mean over classes"]
        rows = []
        for group in feature.groups:
            smallest = min(group.test_by_class, key=lambda c: group.test_by_class[c])
            cell = f"{group.test_by_class[smallest]:,} ({smallest})"
            rows.append([group.group, *(f"{group.n[split]:,}" for split in splits), cell])
        lines.append(_counts_table(["group", *splits, "smallest test cell"], rows))
        if feature.num_without_group:
            lines.append(f"{feature.num_without_group:,} test {found.modality} are in no group")
    return "\n".join(lines)


def _counts_table(columns: list[str], rows: list[list[str]]) -> str:
    """Names on the left, counts on the right."""
    table = table_of(columns, right=range(1, len(columns)))
    for row in rows:
        table.add_row(*row)
    return render(table)


def _download_bars() -> Any:
    """Progress of downloads, one bar for each file."""
    from kd_ray.cluster.display import TextDisplay

    display = TextDisplay(console())
    bars: dict[str, Any] = {}

    def show(name: str, done: int, total: int) -> None:
        if name not in bars:
            bars[name] = display.preparing(name)
        bars[name](done, total)

    return show

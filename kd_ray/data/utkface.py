"""UTKFace (Zhang, Song and Qi 2017) as a list for the data set `manifest`: its file names say age, gender and race."""

import csv
import io
from pathlib import Path

from kd_ray.errors import DataError

FOLDER, LIST = "utkface", "utkface.csv"
GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "Others")
"""In the order of the codes in file names."""


def write_list(root: Path) -> tuple[int, list[str]]:
    """Write `root`/utkface/utkface.csv with columns file, age, gender and race; the number of rows, and the images whose names do not say.

    Raises:
        DataError: there are no images, or the list cannot be written.
    """
    folder = root / FOLDER
    rows, unknown = [], []
    for path in sorted(folder.rglob("*.jpg")):
        name = path.relative_to(folder).as_posix()
        age, gender, race, *rest = [*path.name.split("_"), "", ""]
        if rest[0] and age.isdigit() and gender in ("0", "1") and race in ("0", "1", "2", "3", "4"):
            rows.append((name, int(age), GENDERS[int(gender)], RACES[int(race)]))
        else:
            unknown.append(name)
    if not rows:
        raise DataError(
            "UTKFace is for non-commercial research and is not fetched. Unpack the aligned and cropped faces of its project page below "
            f"{folder}, so that files such as {folder}/UTKFace/25_0_2_20170116174525125.jpg.chip.jpg exist"
        )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([("file", "age", "gender", "race"), *rows])
    try:
        part = folder / f".{LIST}.part"
        part.write_text(buffer.getvalue(), encoding="utf-8")
        part.replace(folder / LIST)
    except OSError as error:
        raise DataError(f"{folder / LIST} cannot be written: {error}") from error
    return len(rows), unknown

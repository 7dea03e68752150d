"""The layout of a store, and the only place that spells its keys. A key is made, and read back, by the forms below.

    <store>/trials/<trial_id>/   lease/000001.json  checkpoint/…  weights-000001.safetensors  record.parquet  error.json
                                 stop-000010.parquet                    how a candidate of a search did after epoch 10
    <store>/datasets/<id>/       samples.parquet                        labels and sensitive features of the test samples
    <store>/datasets/features/<16 hex digits of content>.parquet        sensitive features that were added to finished sweeps
    <store>/weights/<sha256>     pretrained weights, unchanged
    <store>/teachers/<trial_id>/ a teacher's logits of augmented images (a cache: anything in it may be deleted)
    <store>/probes/<id>.json     measured time and memory of students side by side
    <store>/sweeps/<name>/       sweep.yaml  manifest/000001.json       what was asked for, resolved
                                 folded.json                            what its tables were aggregated from
    <store>/tables/<table>/<name>/part-00000.parquet                    what people query
    <store>/schema/tables.json                                          which columns the parts of all tables have
    <store>/reports/<name>/      index.html  figures/  tables/          what a sweep means, for people
    <store>/proof/               store.json  <16 hex digits>            shows that the store creates an object only once
    <store>/damaged/<key>-<16 hex digits of content>                    quarantine: what was found damaged

A listing may also hold files that kd_ray did not write: copies by a sync tool, `.DS_Store`, backups of an editor. For their keys
`parse_key` returns None, and `inventory.py` keeps them apart, so that they never count as data.

The folder of a table part is not of the form `key=value`, because readers such as pandas take that for a second column `sweep`, whose type
they guess from the text. It is the sweep's name, but a word that Hugging Face `datasets` takes for a split has a capital: `Test-run`.
"""

import re
from enum import StrEnum
from hashlib import sha256
from string import Formatter
from typing import NamedTuple

from kd_ray.results.object_listing import StoredObject
from kd_ray.results.objects import SCHEMES, Store, open_store

__all__ = ["SCHEMES", "Store", "StoredObject", "open_store"]

TRIALS = "trials"
DATASETS = "datasets"
PRETRAINED = "weights"
TEACHERS = "teachers"
PROBES = "probes"
SWEEPS = "sweeps"
TABLES_FOLDER = "tables"
REPORTS = "reports"
DAMAGED = "damaged"
PROOFS = "proof"
SCHEMA = "schema"


class Kind(StrEnum):
    """What an object of the store is, by its key."""

    RECORD = "record"
    STOP = "stop"
    ERROR = "error"
    LEASE = "lease"
    CHECKPOINT = "checkpoint"
    WEIGHTS = "weights"
    SAMPLES = "samples"
    FEATURES = "added features"
    PRETRAINED = "pretrained weights"
    LOGITS = "logits"
    PROBE = "probe"
    SWEEP_FILE = "sweep file"
    MANIFEST = "manifest"
    PLAN_MARK = "mark of a plan"
    TABLE_INDEX = "table index"
    TABLE_PART = "table part"
    FORMER_PART = "table part of kd_ray 0.1"
    TABLE_COLUMNS = "columns of the tables"
    REPORT = "report"
    QUARANTINED = "quarantined"
    PROOF = "proof"
    WITNESS = "witness"


_FORMS: dict[Kind, str] = {
    Kind.RECORD: f"{TRIALS}/{{trial_id}}/record.parquet",
    Kind.STOP: f"{TRIALS}/{{trial_id}}/stop-{{number:06d}}.parquet",
    Kind.ERROR: f"{TRIALS}/{{trial_id}}/error.json",
    Kind.LEASE: f"{TRIALS}/{{trial_id}}/lease/{{number:06d}}.json",
    Kind.CHECKPOINT: f"{TRIALS}/{{trial_id}}/checkpoint/{{number:06d}}-{{step:09d}}-{{digest}}.safetensors",
    Kind.WEIGHTS: f"{TRIALS}/{{trial_id}}/weights-{{number:06d}}.safetensors",
    Kind.SAMPLES: f"{DATASETS}/{{dataset_id}}/samples.parquet",
    Kind.FEATURES: f"{DATASETS}/features/{{digest}}.parquet",
    Kind.PRETRAINED: f"{PRETRAINED}/{{sha256}}",
    Kind.LOGITS: f"{TEACHERS}/{{trial_id}}/{{logits_id}}/{{digest}}.safetensors",
    Kind.PROBE: f"{PROBES}/{{probe_id}}.json",
    Kind.SWEEP_FILE: f"{SWEEPS}/{{sweep}}/sweep.yaml",
    Kind.MANIFEST: f"{SWEEPS}/{{sweep}}/manifest/{{number:06d}}.json",
    Kind.PLAN_MARK: f"{SWEEPS}/{{sweep}}/planned.json",
    Kind.TABLE_INDEX: f"{SWEEPS}/{{sweep}}/folded.json",
    Kind.TABLE_PART: f"{TABLES_FOLDER}/{{table}}/{{folder}}/part-{{number:05d}}.parquet",
    Kind.FORMER_PART: f"{TABLES_FOLDER}/{{table}}/sweep={{sweep}}/part-{{number:05d}}.parquet",
    Kind.TABLE_COLUMNS: f"{SCHEMA}/tables.json",
    Kind.REPORT: f"{REPORTS}/{{sweep}}/{{path}}",
    Kind.QUARANTINED: f"{DAMAGED}/{{path}}-{{digest}}",
    Kind.PROOF: f"{PROOFS}/store.json",
    Kind.WITNESS: f"{PROOFS}/{{witness_id}}",
}
"""The key of every kind of object. No other name is written by kd_ray, but for a former part, which the next aggregation replaces."""

_ID = r"[0-9a-f]{16}"
_TRIAL_ID = re.compile(_ID)
_FIELDS = {
    "trial_id": _ID,
    "dataset_id": _ID,
    "logits_id": _ID,
    "probe_id": _ID,
    "witness_id": _ID,
    "digest": _ID,
    "sha256": r"[0-9a-f]{64}",
    "sweep": r"[a-z0-9][a-z0-9._-]{0,99}",
    "folder": r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    "table": r"\w+",
    "path": r".+",
}
"""What each part of a key may be; numbers are padded with zeros to the width that their form gives."""


class ParsedKey(NamedTuple):
    """A key that kd_ray writes, taken apart. Parts that this kind of object does not have are empty."""

    # A tuple, because a listing makes one for each object, and a frozen dataclass takes three times as long.

    kind: Kind
    trial_id: str = ""
    dataset_id: str = ""
    sweep: str = ""
    table: str = ""
    number: int = 0
    """Generation of a lease, of weights, of a checkpoint or of a manifest; epoch of a stop; place of a table part."""
    step: int = 0
    """Optimiser steps before a checkpoint."""
    digest: str = ""
    """First 16 hex digits of the content's SHA-256, where the key names it."""
    sha256: str = ""
    logits_id: str = ""
    probe_id: str = ""
    witness_id: str = ""
    path: str = ""
    """File of a report below its folder; the former key of a quarantined object."""


def parse_key(key: str) -> ParsedKey | None:
    """The parts of a key, or None when kd_ray does not write such a key."""
    for kind, pattern in _PATTERNS.get(key.split("/", 1)[0], ()):
        if match := pattern.fullmatch(key):
            parts = match.groupdict()
            number, step = int(parts.pop("number", 0)), int(parts.pop("step", 0))
            if folder := parts.pop("folder", ""):
                parts["sweep"] = folder.lower()
                if _folder_of(parts["sweep"]) != folder:
                    return None
            return ParsedKey(kind=kind, number=number, step=step, **parts)
    return None


def _pattern(form: str) -> re.Pattern[str]:
    """The regular expression of the keys of a form."""
    parts = []
    for literal, name, width, _ in Formatter().parse(form):
        parts.append(re.escape(literal))
        if name:
            digits = int(width[:-1]) if width else 0
            parts.append(f"(?P<{name}>{rf'[0-9]{{{digits},}}' if digits else _FIELDS[name]})")
    return re.compile("".join(parts))


_PATTERNS = {
    folder: [(kind, _pattern(form)) for kind, form in _FORMS.items() if form.startswith(f"{folder}/")]
    for folder in (
        TRIALS,
        DATASETS,
        PRETRAINED,
        TEACHERS,
        PROBES,
        SWEEPS,
        TABLES_FOLDER,
        REPORTS,
        DAMAGED,
        PROOFS,
        SCHEMA,
    )
}


# --- keys -----------------------------------------------------------------------------------------------------------------------------


def record_key(trial_id: str) -> str:
    """The commit point of a trial."""
    return _FORMS[Kind.RECORD].format(trial_id=trial_id)


def is_trial_id(text: str) -> bool:
    """Whether a folder of trials has a name that kd_ray gives."""
    return _TRIAL_ID.fullmatch(text) is not None


def stop_key(trial_id: str, epoch: int) -> str:
    """How a trial did after this epoch, where a search stopped it for now."""
    return _FORMS[Kind.STOP].format(trial_id=trial_id, number=epoch)


def error_key(trial_id: str) -> str:
    """The cause of a trial's failure."""
    return _FORMS[Kind.ERROR].format(trial_id=trial_id)


def lease_key(trial_id: str, generation: int) -> str:
    """One lease; its number is the fencing token."""
    return _FORMS[Kind.LEASE].format(trial_id=trial_id, number=generation)


def checkpoint_key(trial_id: str, generation: int, step: int, digest: str) -> str:
    """A checkpoint: generation of the lease of its writer, optimiser steps done, and 16 hex digits of its content's SHA-256."""
    return _FORMS[Kind.CHECKPOINT].format(trial_id=trial_id, number=generation, step=step, digest=digest[:16])


def weights_key(trial_id: str, generation: int) -> str:
    """Final weights; the record names the generation that committed."""
    return _FORMS[Kind.WEIGHTS].format(trial_id=trial_id, number=generation)


def pretrained_key(sha256: str) -> str:
    """Pretrained weights, by their content."""
    return _FORMS[Kind.PRETRAINED].format(sha256=sha256)


def logits_key(trial_id: str, logits_id: str, digest: str) -> str:
    """Some of a teacher's logits of augmented images, by 16 hex digits of their content's SHA-256."""
    return _FORMS[Kind.LOGITS].format(trial_id=trial_id, logits_id=logits_id, digest=digest[:16])


def probe_key(probe_id: str) -> str:
    """A measurement of students side by side."""
    return _FORMS[Kind.PROBE].format(probe_id=probe_id)


def samples_key(dataset_id: str) -> str:
    """Labels and sensitive features of the test samples of a data set."""
    return _FORMS[Kind.SAMPLES].format(dataset_id=dataset_id)


def features_key(digest: str) -> str:
    """Groups of samples by the names of the samples, which `kd-ray regroup` has added."""
    return _FORMS[Kind.FEATURES].format(digest=digest)


def sweep_key(sweep: str) -> str:
    """The sweep file, overrides applied."""
    return _FORMS[Kind.SWEEP_FILE].format(sweep=sweep)


def manifest_key(sweep: str, generation: int) -> str:
    """What a sweep asked for, trial by trial; the highest generation holds."""
    return _FORMS[Kind.MANIFEST].format(sweep=sweep, number=generation)


def plan_mark_key(sweep: str) -> str:
    """Which manifest lists what this kd_ray plans."""
    return _FORMS[Kind.PLAN_MARK].format(sweep=sweep)


def table_index_key(sweep: str) -> str:
    """What the parts of a sweep's tables were aggregated from; can be deleted."""
    return _FORMS[Kind.TABLE_INDEX].format(sweep=sweep)


def part_key(table: str, sweep: str, part: int) -> str:
    """One part of a sweep's rows of a table."""
    return _FORMS[Kind.TABLE_PART].format(table=table, folder=_folder_of(sweep), number=part)


def table_columns_key() -> str:
    """Which columns the parts of all tables have; can be deleted."""
    return _FORMS[Kind.TABLE_COLUMNS]


_SPLIT_WORDS = re.compile("train|valid|val|test|dev|eval")


def _folder_of(sweep: str) -> str:
    """The folder of a sweep's table parts. Names of sweeps are lower case, so lower case gives the name back."""
    return _SPLIT_WORDS.sub(lambda word: word[0].capitalize(), sweep)


def quarantine_key(key: str, data: bytes) -> str:
    """Where an object with this content goes that was found damaged."""
    return _FORMS[Kind.QUARANTINED].format(path=key, digest=sha256(data).hexdigest()[:16])


def proof_key() -> str:
    """What the store remembers of its proof, see `store_proof.py`."""
    return _FORMS[Kind.PROOF]


def witness_key(witness_id: str) -> str:
    """An object with which the store is put to the proof; 16 hex digits."""
    return _FORMS[Kind.WITNESS].format(witness_id=witness_id)


# --- folders, to list -----------------------------------------------------------------------------------------------------------------


def trial_folder(trial_id: str) -> str:
    """Everything of a trial."""
    return f"{TRIALS}/{trial_id}"


def lease_folder(trial_id: str) -> str:
    """The numbered leases of a trial."""
    return _folder(lease_key(trial_id, 0))


def checkpoint_folder(trial_id: str) -> str:
    """The checkpoints of a trial."""
    return _folder(checkpoint_key(trial_id, 0, 0, ""))


def logits_folder(trial_id: str, logits_id: str) -> str:
    """What is known of a teacher's logits for the augmented images of a data set."""
    return _folder(logits_key(trial_id, logits_id, ""))


def sweep_folder(sweep: str) -> str:
    """Everything of a sweep but its tables and its report."""
    return f"{SWEEPS}/{sweep}"


def manifest_folder(sweep: str) -> str:
    """The numbered manifests of a sweep."""
    return _folder(manifest_key(sweep, 0))


def table_folder(table: str) -> str:
    """All parts of a table."""
    return f"{TABLES_FOLDER}/{table}"


def sweep_parts(sweep: str) -> str:
    """All parts of a sweep's tables together, for messages."""
    return _folder(part_key("*", sweep, 0))


def report_folder(sweep: str) -> str:
    """The report of a sweep: a page, its figures and its tables; can be deleted."""
    return f"{REPORTS}/{sweep}"


def _folder(key: str) -> str:
    return key.rsplit("/", 1)[0]


# --- quarantine -----------------------------------------------------------------------------------------------------------------------


def quarantine(store: Store, key: str, data: bytes) -> str | None:
    """Move a damaged object into quarantine, where a person can look at it; returns its new key.

    `data` is the content that was found damaged. An object that holds something else by now stays where it is, and None is returned.
    """
    if store.get(key) != data:
        return None
    kept = quarantine_key(key, data)
    store.put(kept, data)
    store.delete(key)
    return kept

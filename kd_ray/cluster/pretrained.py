"""Pretrained weights and logits that a sweep gives: downloaded by the launching process only, and checked before anything is written."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from kd_ray.cluster.launch_request import LaunchRequest
from kd_ray.data.families import load_dataset, training_ids
from kd_ray.data.modalities import Data
from kd_ray.distill.logits_file import read_logits
from kd_ray.errors import SweepError
from kd_ray.results.launch_plan import Plan, file_digest
from kd_ray.results.store import pretrained_key
from kd_ray.sweep.architectures import is_text_model
from kd_ray.sweep.datasets import Dataset, input_size
from kd_ray.sweep.encoders import read_encoder
from kd_ray.sweep.initial import LOGITS_FIELD, named_values, pretrained_files
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import is_file
from kd_ray.sweep.spec import Encoder, Role, TrialSpec


def fetch_pretrained_files(file: SweepFile, known: Mapping[str, str] | None) -> None:
    """Download weights of libraries and of the Hub that the sweep needs and this machine lacks. Workers never download.

    Raises:
        SweepError: a download fails; the message names the file that can be put in its place.
    """
    for path, wanted in pretrained_files(file).items():
        if path in (known or {}) or Path(path).exists():
            continue
        from kd_ray.models.initial_weights import fetch_from_hub, fetch_pretrained

        try:
            if wanted.repository is not None:
                fetch_from_hub(wanted.repository, path=Path(path))
            else:
                fetch_pretrained(wanted.model, image_size=wanted.image_size, path=Path(path))
        except ValueError as error:
            raise SweepError(f"{file.source}: {wanted.field}: {error}") from error


def check_pretrained_weights(request: LaunchRequest, plan: Plan) -> None:
    """Check that each weights file which the store lacks can be read and fits the networks that start from it.

    Raises:
        SweepError: a file cannot be read, or does not hold weights of such a network.
    """
    for path, digest in plan.weights.items():
        if not is_file(path) or request.store.exists(pretrained_key(digest)):
            continue
        file_digest(path, request.file)
        specs = [trial.spec for trial in plan.planned if trial.spec.initial_weights == digest]
        for spec in {
            (spec.model, spec.dataset.num_classes, spec.role is Role.TEACHER): spec for spec in specs
        }.values():
            _check_weights(request, Path(path).expanduser(), spec)


def check_given_logits(request: LaunchRequest, dataset: Dataset, data: Data) -> None:
    """Check that each file of a teacher's logits fits the training split. What an earlier launch has stored is read from the store.

    Raises:
        DataError: a file does not fit.
    """
    placement = request.local_file.sweep.placement
    for path in dict(named_values(request.file.raw)).get(LOGITS_FIELD, ()):
        digest = request.weights.get(path)
        stored = request.store.get(pretrained_key(digest)) if digest else None
        read_logits(
            Path(path).read_bytes() if stored is None else stored,
            source=f"{request.file.source}: {LOGITS_FIELD}: {path}",
            num_samples=len(data.train),
            class_names=data.class_names,
            ids=partial(training_ids, dataset, Path(placement.data_root), resident_bytes=placement.resident_bytes),
        )


def _check_weights(request: LaunchRequest, path: Path, spec: TrialSpec) -> None:
    # The driver imports torch only for weights that the store lacks.
    from kd_ray.distill.checkpoint import from_weights
    from kd_ray.models import build_model
    from kd_ray.models.initial_weights import load_initial
    from kd_ray.models.mlp import mlp
    from kd_ray.models.text_classifier import text_classifier

    dataset, num_classes = spec.dataset, spec.dataset.num_classes

    def root() -> Path:
        return Path(request.local_file.sweep.placement.data_root).expanduser()

    field = "student.init" if spec.role is not Role.TEACHER else "teacher.init" if spec.training else "teacher.weights"
    if dataset.modality == "rows":
        model = mlp(spec.model, num_classes, load_dataset(dataset, root()).train.num_inputs)
    elif is_text_model(spec.model):
        start = Encoder(version=read_encoder(spec.model, root()).version, init="random")
        model = text_classifier(spec.model, start, num_classes, root())
    else:
        model = build_model(spec.model, num_classes=num_classes, image_size=input_size(dataset))
    try:
        weights = from_weights(path.read_bytes(), source=str(path))
        if spec.training is None:
            model.load_state_dict(weights)
            return
        other = load_initial(model, weights)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()
        raise SweepError(
            f"{request.file.source}: {field}: {path} does not fit {spec.model} with {num_classes} classes: "
            + " ".join(line.strip() for line in reason[:4])
        ) from error
    if other is not None:
        request.warnings.add(
            f"{field}: {path} has a head for {other:,} classes; one for {num_classes:,} is drawn from each trial's seed instead"
        )

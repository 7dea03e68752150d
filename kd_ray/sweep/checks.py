"""Checks that the parts of a sweep fit together. Settings that cannot work or have no effect are refused before anything runs."""

from kd_ray.groups import joint_name
from kd_ray.sweep.architectures import ARCHITECTURES, is_text_model, library_of, modality_of, own_network
from kd_ray.sweep.classification import Modality
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.distillation import OBJECTIVES, Distillation
from kd_ray.sweep.fields import refuse
from kd_ray.sweep.networks import (
    INIT_WORDS,
    PRETRAINED,
    LogitsTeacher,
    PretrainedTeacher,
    StudentSettings,
    TrainedTeacher,
)
from kd_ray.sweep.parts import Parts
from kd_ray.sweep.training import Training


def check_initial(sweep: Parts) -> None:
    """Refuse pretrained weights of a network that no library publishes."""
    teacher = sweep.teacher
    wanted = {"student.init": (sweep.student.model, sweep.student.init)}
    if isinstance(teacher, PretrainedTeacher):
        wanted["teacher.weights"] = (teacher.model, teacher.weights)
    elif isinstance(teacher, TrainedTeacher):
        wanted["teacher.init"] = (teacher.model, teacher.init)
    for field, (model, value) in wanted.items():
        if value == PRETRAINED and library_of(model) is None:
            raise refuse(
                field,
                f"no library publishes weights of {model}; give the path of a file, or a timm: or torchvision: network",
            )


def check_features(sweep: Parts) -> None:
    """Refuse sensitive features that the data set does not have, and intersections of features that are not listed."""
    valid = sweep.dataset.sensitive_feature_names
    for feature in sweep.sensitive_features:
        if feature not in valid:
            choices = ", ".join(valid) or "none"
            where = f"{sweep.dataset.name} with target {sweep.dataset.target!r}"
            raise refuse("sensitive_features", f"{feature!r} is not a sensitive feature of {where}; valid: {choices}")
    if len(set(sweep.sensitive_features)) != len(sweep.sensitive_features):
        raise refuse("sensitive_features", f"repeats a value: {list(sweep.sensitive_features)}")
    for features in sweep.intersections:
        if len(set(features)) != len(features) or not set(features) <= set(sweep.sensitive_features):
            valid_list = list(sweep.sensitive_features)
            raise refuse(
                "intersections", f"must name different entries of sensitive_features {valid_list}, got {list(features)}"
            )
    names = [*sweep.sensitive_features, *map(joint_name, sweep.intersections)]
    for name in names:
        if names.count(name) > 1:
            raise refuse(
                "intersections", f"{name!r} would name two features in the tables; each needs a name of its own"
            )


def check_models(sweep: Parts) -> None:
    """Refuse networks that cannot take the samples, settings without a meaning for them, and grouped execution where it is impossible."""
    users: dict[str, tuple[StudentSettings | TrainedTeacher | PretrainedTeacher, Training | None]] = {
        "student": (sweep.student, sweep.training)
    }
    if isinstance(sweep.teacher, TrainedTeacher):
        users["teacher"] = (sweep.teacher, sweep.teacher.training or sweep.training)
    elif isinstance(sweep.teacher, PretrainedTeacher):
        users["teacher"] = (sweep.teacher, None)
    for user, (network, training) in users.items():
        name = network.model
        known, size = ARCHITECTURES.get(name), sweep.dataset.image_size
        _check_modality(user, name, sweep.dataset)
        if not isinstance(network, PretrainedTeacher):
            _check_init(user, network)
        if known and size is not None and size < known.min_image_size:
            least = known.min_image_size
            raise refuse(
                f"{user}.model",
                f"{name} needs images of at least {least} pixels, and those of the data set have {size}",
            )
        if training and training.execution == "grouped" and not (known and known.can_be_grouped):
            valid = ", ".join(other for other, each in ARCHITECTURES.items() if each.can_be_grouped)
            raise refuse("training.execution", f"{name} cannot be grouped; use loop, or one of {valid}")
        where = "training" if training is sweep.training else "teacher.training"
        if (
            training
            and training.precision == "tf32"
            and not sweep.placement.of(is_teacher=user == "teacher").gpus_per_pack
        ):
            raise refuse(f"{where}.precision", "tf32 is arithmetic of GPUs; set placement.gpus_per_pack, or use fp32")
        if training and sweep.dataset.modality != "images":
            _check_no_images(where, training, sweep.dataset.modality)
    if sweep.evaluation and sweep.evaluation.pgd and sweep.dataset.modality != "images":
        raise refuse("evaluation.pgd", f"is for images, and {sweep.dataset.name} holds {sweep.dataset.modality}")
    _check_start(sweep)


def _check_modality(user: str, name: str, dataset: Dataset) -> None:
    """Refuse a network that takes another kind of samples."""
    takes = modality_of(name)
    if own_network(name) is not None and dataset.modality != "texts":
        return
    if takes != dataset.modality:
        valid = {
            "images": f"{', '.join(ARCHITECTURES)}, timm:NAME or torchvision:NAME",
            "rows": "mlp-WIDTHS, as in mlp-64-32",
            "texts": "hf:NAME",
        }[dataset.modality]
        words = {"images": "images", "rows": "rows of numbers", "texts": "texts"}
        message = f"{name} takes {words[takes]}, and {dataset.name} holds {words[dataset.modality]}; use {valid}"
        raise refuse(f"{user}.model", message)


def _check_init(user: str, network: StudentSettings | TrainedTeacher) -> None:
    """Refuse an `init` or `layers` that this kind of network does not support."""
    name, init = network.model, network.init
    if is_text_model(name):
        words = INIT_WORDS if user == "student" else INIT_WORDS[:2]
        if init is not None and init not in words:
            message = f"must be one of {', '.join(words)} for {name}, whose weights are in its folder, got {init!r}"
            raise refuse(f"{user}.init", message)
        return
    if network.layers is not None:
        raise refuse(f"{user}.layers", f"has no effect with {name}; it is for hf:NAME")
    if init in INIT_WORDS[1:]:
        raise refuse(
            f"{user}.init", f"{init} is for hf:NAME; for {name}, a path of weights or pretrained, or leave it out"
        )


def _check_no_images(where: str, training: Training, modality: Modality) -> None:
    """Refuse settings that only images can have."""
    words = {"images": "images", "rows": "rows of numbers", "texts": "texts"}[modality]
    if training.augmentation != "none":
        raise refuse(f"{where}.augmentation", f"{training.augmentation} is for images; {words} have none")
    if training.mixes:
        raise refuse(f"{where}.{'mixup' if training.mixup else 'cutmix'}", f"is for images; {words} have none")
    if training.compile and modality == "texts":
        raise refuse(f"{where}.compile", "is for inputs of one shape; texts have many lengths")


def _check_start(sweep: Parts) -> None:
    """Refuse repeated layers, and a student that cannot start from the weights of its teacher."""
    for user in ("teacher", "student"):
        layers = getattr(getattr(sweep, user), "layers", None)
        if layers is not None and list(layers) != sorted(set(layers)):
            raise refuse(f"{user}.layers", f"must increase, got {list(layers)}")
    if sweep.student.init != "teacher":
        return
    teacher = sweep.teacher
    if not isinstance(teacher, TrainedTeacher) or teacher.model != sweep.student.model:
        found = teacher.model if isinstance(teacher, TrainedTeacher) else "none that the sweep trains"
        raise refuse("student.init", f"teacher needs a trained teacher of the model {sweep.student.model}, got {found}")
    if sweep.distillation is not None and not sweep.distillation.NEEDS_TEACHER:
        raise refuse("student.init", f"teacher needs a teacher, and objective {sweep.distillation.objective} has none")
    if "scratch" in sweep.baselines and teacher.seed != "paired" and len(teacher.seed) > 1:
        message = (
            "teacher with several teachers per seed leaves open where a scratch student starts; use one, or paired"
        )
        raise refuse("student.init", message)
    if teacher.layers is not None and sweep.student.layers and not set(sweep.student.layers) <= set(teacher.layers):
        valid = f"the teacher has {list(teacher.layers)}, got {list(sweep.student.layers)}"
        raise refuse("student.layers", f"must be among the teacher's layers; {valid}")


def check_objective(sweep: Parts) -> None:
    """Refuse an objective that does not fit the teacher or the data set, and a teacher or an objective without the other."""
    settings, teacher = sweep.distillation, sweep.teacher
    if settings is None:
        if teacher is not None:
            raise refuse(
                "teacher", "has no effect without distillation; give both, or neither for scratch students only"
            )
        return
    name = settings.objective
    if settings.NEEDS_TEACHER and teacher is None:
        raise refuse("distillation", "has no effect without teacher; give both, or neither for scratch students only")
    if settings.needs_held_out and not sweep.dataset.has_validation:
        message = f"objective {name} needs held-out data to judge the teacher by"
        field, advice = sweep.dataset.ASK_FOR_VALIDATION
        raise refuse(f"dataset.{field}", f"{message}; {advice}")
    if settings.needs_held_out and isinstance(teacher, PretrainedTeacher):
        message = (
            f"objective {name} judges the teacher on the validation split, which a given teacher may have been trained on; "
            "let the sweep train the teacher, or choose another objective"
        )
        raise refuse("teacher.weights", message)
    settings.check_dataset(sweep.dataset)
    if isinstance(teacher, LogitsTeacher):
        _check_given_logits(settings, sweep)
    _check_training_of(settings, sweep)


def _check_given_logits(settings: Distillation, sweep: Parts) -> None:
    """Refuse what needs more of a teacher than one row of logits for each training sample."""
    training = sweep.training
    if training.augmentation != "none":
        message = "teacher.logits has one row for each sample, so each has one view; valid: none"
        raise refuse("training.augmentation", f"{message}, got {training.augmentation}")
    if training.mixes:
        raise refuse(
            f"training.{'mixup' if training.mixup else 'cutmix'}",
            "teacher.logits has no rows of mixed images; leave it out",
        )
    if settings.needs_network:
        message = f"{settings.objective} needs the teacher's network, and teacher.logits has none"
        raise refuse(
            "distillation.objective", f"{message}; give teacher.weights, or use an objective of its logits, as kd"
        )
    if sweep.evaluation and sweep.evaluation.gradient_rescaling:
        message = "needs the teacher's logits of the test split, and teacher.logits has none"
        raise refuse("evaluation.gradient_rescaling", f"{message}; leave it out")


def _check_training_of(settings: Distillation, sweep: Parts) -> None:
    """Refuse training options that this objective does not allow."""
    if sweep.training.label_smoothing and not settings.ALLOWS_LABEL_SMOOTHING:
        valid = " and ".join(name for name, model in OBJECTIVES.items() if model.ALLOWS_LABEL_SMOOTHING)
        message = f"objective {settings.objective} makes its own use of labels; valid with {valid}"
        raise refuse("training.label_smoothing", f"{message}, got {sweep.training.label_smoothing}")
    if settings.takes_steps_of_its_own:
        if sweep.training.execution == "grouped":
            raise refuse(
                "training.execution", f"{settings.objective} takes steps of its own and cannot be grouped; use loop"
            )
        if sweep.training.compile:
            raise refuse("training.compile", f"{settings.objective} takes steps of its own and cannot be compiled")
        if sweep.training.mixes:
            field = "mixup" if sweep.training.mixup else "cutmix"
            raise refuse(
                f"training.{field}", f"{settings.objective} takes steps of its own, which do not support mixed images"
            )

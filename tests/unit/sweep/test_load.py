"""What a sweep file is refused for: every message names the line, the field, the value and what is valid."""

import re
from pathlib import Path

import pytest

from kd_ray.errors import SweepError
from kd_ray.sweep.architectures import ARCHITECTURES
from kd_ray.sweep.datasets import Cifar10Dataset, TrifeatureDataset
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.load import load_sweep, parse_dataset, parse_sweep
from kd_ray.sweep.networks import PretrainedTeacher
from tests.fakes import SWEEP_YAML, make_sweep, plan_trials

TRAINING_KEYS = (
    "augmentation, batch_size, clip_norm, compile, cutmix, ema_decay, epochs, execution, label_smoothing, mixup, "
    "optimizer, precision, schedule"
)
SWEEP_KEYS = (
    "baselines, claims, dataset, distillation, evaluation, grid, intersections, name, placement, sensitive_features, "
    "student, teacher, training, tune, tuned"
)
MODELS = (
    ", ".join(ARCHITECTURES)
    + ", mlp-WIDTHS (as in mlp-64-32), a network of yours (as in my_models.wide:build), timm:NAME, torchvision:NAME or hf:NAME"
)
STEP = "schedule: {name: step, milestones: [2]}"
TEMPERATURES = "  temperature: [1, 4]\n"
TEACHER = "teacher: {model: resnet20}"


def changed(*changes: tuple[str, str]) -> str:
    """The sweep file with texts replaced."""
    text = SWEEP_YAML
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(SweepError) as caught:
        parse_sweep(text, source="demo.yaml", overrides=overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  epochs: 4",
            "  epochs: 4\n  batchsize: 3",
            f"9: training.batchsize: unknown or without effect here; did you mean batch_size? valid: {TRAINING_KEYS}",
        ),
        (
            "student:",
            "zzz: 1\nstudent:",
            f"6: zzz: unknown or without effect here; valid: {SWEEP_KEYS}",
        ),
        ("epochs: 4", "epochs: four", "8: training.epochs: should be a valid integer, got 'four'"),
        ("epochs: 4", "epochs: 4.0", "8: training.epochs: should be a valid integer, got 4.0"),
        ("epochs: 4", "epochs: true", "8: training.epochs: should be a valid integer, got True"),
        (
            "t_squared: true",
            "t_squared: 1",
            "12: distillation.t_squared: should be a valid boolean (true or false), got 1",
        ),
        ("epochs: 4", "epochs: 0", "8: training.epochs: should be greater than 0, got 0"),
        ("lr: 0.1", "lr: .nan", "10: training.optimizer.lr: should be a finite number, got nan"),
        ("lr: 0.1", "lr: .inf", "10: training.optimizer.lr: should be a finite number, got inf"),
        ("alpha: 0.9", "alpha: 1.5", "12: distillation.alpha: should be less than or equal to 1, got 1.5"),
        ("alpha: 0.9", "alpha: -0.1", "12: distillation.alpha: should be greater than or equal to 0, got -0.1"),
        ("size: 16", "size: 8", "2: dataset.size: should be greater than or equal to 16, got 8"),
        (
            "milestones: [2]",
            "milestones: [4]",
            "11: training.schedule.milestones: a milestone at or after epochs = 4 has no effect, got [4]",
        ),
        ("milestones: [2]", "milestones: [3, 2]", "11: training.schedule.milestones: must increase, got [3, 2]"),
        (
            "milestones: [2]",
            "milestones: [2], warmup_epochs: 4",
            "11: training.schedule.warmup_epochs: must be below epochs = 4, got 4",
        ),
        (
            STEP,
            "schedule: {name: cosine, gamma: 0.1}",
            "11: training.schedule.gamma: unknown or without effect here; valid: final_lr, name, warmup_epochs",
        ),
        (
            STEP,
            "schedule: {name: cosine, final_lr: 0.5}",
            "11: training.schedule.final_lr: must be below optimizer.lr = 0.1, got 0.5",
        ),
        (
            STEP,
            "schedule: {name: exponential}",
            "11: training.schedule.name: must be one of 'constant', 'step', 'cosine', 'linear', got 'exponential'",
        ),
        (STEP, "schedule: {}", "11: training.schedule.name: must be one of 'constant', 'step', 'cosine', 'linear'"),
        (
            "lr: 0.1",
            "lr: 0.1, momentum: 0, nesterov: true",
            "10: training.optimizer.nesterov: has no effect with momentum 0; set momentum > 0 or nesterov: false",
        ),
        (
            "name: trifeature",
            "name: mnist",
            "2: dataset.name: must be one of 'trifeature', 'cifar10', 'cifar100', 'svhn', "
            "'tiny_imagenet', 'imagenet', 'celeba', 'adult', 'hatexplain', 'manifest', 'factory', got 'mnist'",
        ),
        (TEACHER, "teacher: {model: vgg}", f"5: teacher.model: should be {MODELS}, got 'vgg'"),
        (
            TEACHER,
            "teacher: {model: resnet20, weights: w.pt, seed: [0]}",
            "5: teacher.seed: unknown or without effect here; valid: model, weights",
        ),
        (TEACHER, "teacher: {model: resnet20, seed: [1, 1]}", "5: teacher.seed: repeats a value: [1, 1]"),
        (
            "alpha: 0.9",
            "alpha: 0.9, temperature: 2",
            "12: distillation.temperature: has no effect: grid.temperature sets it; remove one of them "
            "(--set distillation.temperature=null removes this one)",
        ),
        ("alpha: 0.9, ", "", "12: distillation.alpha: is required"),
        (
            "name: demo",
            "name: Demo",
            "1: name: String should match pattern '^[a-z0-9][a-z0-9._-]{0,99}$', got 'Demo'",
        ),
        (
            "sensitive_features: [color, texture]",
            "sensitive_features: [color, shape]",
            "3: sensitive_features: 'shape' is not a sensitive feature of trifeature with target 'shape'; valid: texture, color",
        ),
        (
            "sensitive_features: [color, texture]",
            "sensitive_features: [color, texture, color]",
            "3: sensitive_features: repeats a value: ['color', 'texture', 'color']",
        ),
        (
            "sensitive_features: [color, texture]",
            "sensitive_features: [color]",
            "4: intersections: must name different entries of sensitive_features ['color'], got ['color', 'texture']",
        ),
        (
            "intersections: [[color, texture]]",
            "intersections: [[color, texture], [color, texture]]",
            "4: intersections: 'color & texture' would name two features in the tables; each needs a name of its own",
        ),
        (
            "grid:",
            "baselines: [scratch, scratch]\ngrid:",
            "13: baselines: repeats a value: ['scratch', 'scratch']",
        ),
        (
            "grid:",
            "placement: {gpus_per_pack: 1.5}\ngrid:",
            "13: placement.gpus_per_pack: must be a fraction below 1 or a whole number, got 1.5",
        ),
        # The grid itself.
        (TEMPERATURES, "  temperature: []\n", "15: grid.temperature: must be a list with at least one value, got []"),
        (TEMPERATURES, "  temperature: 4\n", "15: grid.temperature: must be a list with at least one value, got 4"),
        (TEMPERATURES, "  temperature: [1, 4, 1]\n", "15: grid.temperature[2]: repeats the value 1"),
        (TEMPERATURES, "  temperature: [1, 1.0]\n", "15: grid.temperature[1]: repeats the value 1.0"),
        (TEMPERATURES, "  temperature:\n  - 4\n  - 0\n", "17: grid.temperature[1]: should be greater than 0, got 0"),
        (TEMPERATURES, "  temperature: [4, -1]\n", "15: grid.temperature[1]: should be greater than 0, got -1"),
        (TEMPERATURES, "  temperature: [4, hot]\n", "15: grid.temperature[1]: should be a valid number, got 'hot'"),
        (TEMPERATURES, "  temperature: [4, .nan]\n", "15: grid.temperature[1]: should be a finite number, got nan"),
        ("seed: [0, 1]", "seed: [0, -1]", "14: grid.seed[1]: must be an integer from 0 to 2**31 - 1, got -1"),
        ("seed: [0, 1]", "seed: [0, true]", "14: grid.seed[1]: must be an integer from 0 to 2**31 - 1, got True"),
        ("seed: [0, 1]", "seed: [0, 1.5]", "14: grid.seed[1]: must be an integer from 0 to 2**31 - 1, got 1.5"),
        (
            "seed: [0, 1]",
            "seed: [2147483648]",
            "14: grid.seed[0]: must be an integer from 0 to 2**31 - 1, got 2147483648",
        ),
        (
            "  seed: [0, 1]\n",
            "",
            "13: grid: has no `seed` axis; every student needs a seed, as in `seed: [0, 1]`",
        ),
        (
            "  seed: [0, 1]\n  temperature: [1, 4]\n",
            "",
            "13: grid: must map axes to lists of values, as in `seed: [0, 1]`, got None",
        ),
        (
            "alpha: 0.9",
            "alpha: 0",
            "15: grid.temperature: has no effect at alpha = 0, where the distillation term is off; "
            "use baselines: [scratch], or alpha > 0",
        ),
        (
            TEMPERATURES,
            TEMPERATURES + "  placement.pack_size: [1, 2]\n",
            "16: grid.placement.pack_size: cannot be an axis; axes are seed, temperature, alpha, t_squared, objective and settings",
        ),
        (
            TEMPERATURES,
            TEMPERATURES + "  training.epoch: [2]\n",
            f"16: grid.training.epoch[0]: unknown or without effect here; did you mean epochs? valid: {TRAINING_KEYS}",
        ),
        (
            TEMPERATURES,
            TEMPERATURES + "  objective: [kd, other]\n",
            "16: grid.objective[1]: must be one of 'kd', 'kd_shuffled', 'label_smoothing', 'scratch_long', 'dkd', 'logit_standardization', "
            "'ltkd', 'kd_pt', 'kd_sim', 'kd_topk', 'iad', 'kd_groups', 'adversarial', 'ada_alpha', 'ada_margin', "
            "'package.module:function', got 'other'",
        ),
    ],
)
def test_bad_field_is_refused_with_line_field_and_value(old: str, new: str, message: str) -> None:
    assert refusal(changed((old, new))) == f"demo.yaml:{message}"


def test_grid_alpha_with_zero_and_several_temperatures_is_refused() -> None:
    text = changed(("alpha: 0.9, ", ""), (TEMPERATURES, TEMPERATURES + "  alpha: [0, 0.5]\n"))
    assert refusal(text).startswith("demo.yaml:15: grid.temperature: has no effect at alpha = 0")


def test_alpha_zero_with_one_temperature_is_accepted() -> None:
    file = make_sweep(changed(("alpha: 0.9", "alpha: 0"), ("temperature: [1, 4]", "temperature: [4]")))
    assert isinstance(file.sweep.distillation, KnowledgeDistillation)
    assert file.sweep.distillation.alpha == 0.0


def test_every_problem_is_named_in_one_message() -> None:
    message = refusal(changed(("epochs: 4", "epochs: 0"), ("alpha: 0.9", "alpha: 2"), ("size: 16", "size: 1")))
    assert message.splitlines() == [
        "demo.yaml:2: dataset.size: should be greater than or equal to 16, got 1",
        "demo.yaml:8: training.epochs: should be greater than 0, got 0",
        "demo.yaml:12: distillation.alpha: should be less than or equal to 1, got 2",
    ]


def test_missing_field_points_to_the_enclosing_mapping() -> None:
    assert refusal(changed(("  epochs: 4\n", ""))) == "demo.yaml:7: training.epochs: is required"
    assert refusal(changed(("student: {model: lenet5}\n", ""))) == "demo.yaml: student: is required"


def test_teacher_without_distillation_is_refused() -> None:
    text = changed(("distillation: {alpha: 0.9, t_squared: true}\n", ""), (TEMPERATURES, ""))
    assert refusal(text) == (
        "demo.yaml:5: teacher: has no effect without distillation; give both, or neither for scratch students only"
    )


def test_distillation_without_teacher_is_refused() -> None:
    assert refusal(changed((TEACHER + "\n", ""))) == (
        "demo.yaml:11: distillation: has no effect without teacher; give both, or neither for scratch students only"
    )


def test_sweep_with_nothing_to_train_is_refused() -> None:
    text = changed(
        (TEACHER + "\n", "baselines: []\n"),
        ("distillation: {alpha: 0.9, t_squared: true}\n", ""),
        (TEMPERATURES, ""),
    )
    assert refusal(text) == (
        "demo.yaml:5: baselines: nothing to train: give teacher and distillation, or baselines: [scratch]"
    )


def test_split_seed_without_a_split_is_refused() -> None:
    text = changed(
        ("{name: trifeature, size: 16}", "{name: cifar10, split_seed: 3}"),
        ("sensitive_features: [color, texture]\n", ""),
        ("intersections: [[color, texture]]\n", ""),
    )
    assert refusal(text) == (
        "demo.yaml:2: dataset.split_seed: has no effect without validation_fraction > 0; remove it or set validation_fraction"
    )


def test_duplicate_key_is_refused_with_its_line() -> None:
    message = refusal(changed(("epochs: 4", "epochs: 4\n  epochs: 5")))
    assert message == 'demo.yaml:9: not valid YAML: found duplicate key "epochs" with value "5" (original value: "4")'


def test_text_that_is_not_yaml_is_refused_with_its_line() -> None:
    message = refusal("name: demo\ngrid: [1, 2")
    assert message == "demo.yaml:2: not valid YAML: expected ',' or ']', but got '<stream end>'"


def test_wrong_indentation_is_pointed_out() -> None:
    message = refusal("name: demo\ndataset: {name: trifeature}\ntraining:\n  epochs: 4\n    batch_size: 8\n")
    assert message == (
        "demo.yaml:5: not valid YAML: mapping values are not allowed here; look at the indentation here and in the line before"
    )


def test_misspelt_axis_is_refused_once_with_the_nearest_name() -> None:
    assert refusal(changed(("  temperature: [1, 4]", "  temperatur: [1, 4]"))) == (
        "demo.yaml:15: grid.temperatur: no such axis; did you mean temperature? "
        "valid: seed, temperature, alpha, t_squared, objective, or the dotted path of a setting"
    )


@pytest.mark.parametrize(
    ("text", "found"), [("- 1\n", "CommentedSeq"), ("", "nothing: the file is empty"), ("hello\n", "str")]
)
def test_document_that_is_no_mapping_is_refused(text: str, found: str) -> None:
    assert refusal(text) == f"demo.yaml: a sweep file is a mapping of fields, got {found}"


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(SweepError, match=re.escape(f"{path}: cannot read the sweep file: ") + ".*No such file"):
        load_sweep(path)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SweepError, match=re.escape(f"{path}: cannot read the sweep file: 'utf-8' codec")):
        load_sweep(path)


def test_loaded_file_is_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(changed(("epochs: 4", "epochs: 0")))
    with pytest.raises(SweepError, match=re.escape(f"{path}:8: training.epochs: should be greater than 0, got 0")):
        load_sweep(path)


def test_two_axes_that_do_not_fit_name_their_cell() -> None:
    """Each value fits the first cell; epochs 4 with a milestone at 6 does not."""
    text = changed(
        ("  epochs: 4\n", ""),
        (STEP, "schedule: {name: step}"),
        (TEMPERATURES, "  training.epochs: [8, 4]\n  training.schedule.milestones: [[2], [6]]\n"),
        ("alpha: 0.9", "alpha: 0.9, temperature: 4"),
    )
    with pytest.raises(SweepError) as caught:
        plan_trials(make_sweep(text))
    assert str(caught.value) == (
        "demo.yaml: in the cell training.epochs = 4, training.schedule.milestones = [6]: "
        "training.schedule.milestones: a milestone at or after epochs = 4 has no effect, got [6]"
    )


def test_axis_that_does_not_fit_a_fixed_setting_is_blamed_on_the_setting_it_breaks() -> None:
    text = changed(("  epochs: 4\n", ""), (TEMPERATURES, TEMPERATURES + "  training.epochs: [4, 2]\n"))
    assert refusal(text) == (
        "demo.yaml:10: training.schedule.milestones: a milestone at or after epochs = 2 has no effect, got [2]"
    )


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (
            "trainin.epochs: [2]",
            "grid.trainin.epochs[0]: unknown or without effect here; did you mean training? valid: " + SWEEP_KEYS,
        ),
        (
            "nothing: [2]",
            "grid.nothing: no such axis; valid: seed, temperature, alpha, t_squared, objective, or the dotted path of a setting",
        ),
    ],
)
def test_unknown_axis_is_refused(axis: str, message: str) -> None:
    assert message in refusal(changed((TEMPERATURES, f"{TEMPERATURES}  {axis}\n")))


def test_unknown_parent_of_an_axis_points_to_the_line_of_the_axis() -> None:
    message = refusal(changed((TEMPERATURES, f"{TEMPERATURES}  trainin.epochs: [2]\n")))
    assert message.startswith("demo.yaml:16: grid.trainin.epochs")


@pytest.mark.parametrize("value", ["0.5", "half"])
def test_alpha_axis_that_is_no_list_is_refused(value: str) -> None:
    text = changed(("alpha: 0.9, ", ""), (TEMPERATURES, f"{TEMPERATURES}  alpha: {value}\n"))
    assert refusal(text).startswith("demo.yaml:16: grid.alpha: must be a list with at least one value, got")


def test_two_axes_for_one_setting_are_refused() -> None:
    text = changed((TEMPERATURES, TEMPERATURES + "  distillation.temperature: [2, 8]\n"))
    assert "demo.yaml:16: grid.distillation.temperature: " in refusal(text)


def test_merge_key_is_understood_or_refused() -> None:
    text = changed(
        ("training:", "training: &students"),
        (TEACHER + "\n", ""),
        ("grid:", "teacher:\n  model: resnet20\n  training:\n    <<: *students\n    epochs: 8\ngrid:"),
    )
    try:
        file = make_sweep(text)
    except SweepError:
        return
    assert file.raw["teacher"]["training"]["epochs"] == 8
    assert file.raw["teacher"]["training"]["batch_size"] == 8


def test_yaml_alias_stands_for_a_copy() -> None:
    text = changed(
        (TEACHER + "\n", ""),
        ("training:", "training: &students"),
        ("grid:", "teacher: {model: resnet20, training: *students}\ngrid:"),
    )
    assert make_sweep(text).raw["teacher"]["training"] == make_sweep().raw["training"]


# --- YAML of this world ----------------------------------------------------------------------------------------------------------------


def test_exponent_without_a_dot_is_a_float() -> None:
    file = make_sweep(changed(("lr: 0.1", "lr: 5e-4")))
    assert file.sweep.training.optimizer.lr == 0.0005
    assert file.raw["training"]["optimizer"]["lr"] == 0.0005


def test_words_of_yaml_1_1_are_text() -> None:
    assert make_sweep(changed(("name: demo", "name: no"))).sweep.name == "no"


PYTHON_TAGS = [
    "!!python/object/apply:os.mkdir ['{marker}']",
    "!!python/object/new:os.mkdir ['{marker}']",
    "!!python/object/apply:os.mkdir {{args: ['{marker}']}}",
    "!!python/name:os.mkdir",
    "!!python/object:pathlib.Path {{}}",
]


def executes_nothing(tmp_path: Path, tag: str, where: str) -> None:
    marker = tmp_path / "marker"
    value = tag.format(marker=marker)
    text, overrides = (
        (changed(("lr: 0.1", f"lr: {value}")), ()) if where == "file" else (SWEEP_YAML, (f"name={value}",))
    )
    try:
        refusal(text, *overrides)
    finally:
        assert not marker.exists()


@pytest.mark.parametrize("where", ["file", "--set"])
@pytest.mark.parametrize("tag", PYTHON_TAGS[2:])
def test_yaml_that_constructs_python_objects_executes_nothing(tmp_path: Path, tag: str, where: str) -> None:
    executes_nothing(tmp_path, tag, where)


@pytest.mark.parametrize("where", ["file", "--set"])
@pytest.mark.parametrize("tag", PYTHON_TAGS[:2])
def test_yaml_that_calls_python_with_a_list_is_refused(tmp_path: Path, tag: str, where: str) -> None:
    executes_nothing(tmp_path, tag, where)


# --- what comes out --------------------------------------------------------------------------------------------------------------------


def test_axes_keep_the_order_of_the_file() -> None:
    file = make_sweep(changed(("  seed: [0, 1]\n", ""), (TEMPERATURES, "  temperature: [4, 1]\n  seed: [1, 0]\n")))
    assert list(file.axes.items()) == [("temperature", (4, 1)), ("seed", (1, 0))]


def test_cell_puts_values_in_their_places() -> None:
    cell = make_sweep().cell({"temperature": 7, "training.epochs": 9})
    assert isinstance(cell.distillation, KnowledgeDistillation)
    assert (cell.distillation.temperature, cell.training.epochs) == (7.0, 9)


def test_sweep_without_teacher_needs_no_distillation() -> None:
    text = changed((TEACHER + "\n", ""), ("distillation: {alpha: 0.9, t_squared: true}\n", ""), (TEMPERATURES, ""))
    file = make_sweep(text)
    assert file.sweep.teacher is None
    assert [trial.spec.describe() for trial in plan_trials(file)] == ["scratch lenet5 seed=0", "scratch lenet5 seed=1"]


def test_teacher_with_weights_is_given() -> None:
    file = make_sweep(changed((TEACHER, "teacher: {model: resnet20, weights: w.pt}")))
    assert isinstance(file.sweep.teacher, PretrainedTeacher)
    assert file.sweep.teacher.weights == "w.pt"


@pytest.mark.parametrize("name", ["demo", "1e5", "null.1", "2024-01-01", "on", "0x10"])
def test_to_yaml_round_trips_to_the_same_trials(name: str) -> None:
    file = make_sweep(overrides=[f"name='{name}'", "training.optimizer.lr=1e-5", "grid.temperature=[0.5, 3]"])
    again = make_sweep(file.to_yaml())
    assert again.sweep == file.sweep
    assert again.raw == file.raw
    assert [trial.spec for trial in plan_trials(again)] == [trial.spec for trial in plan_trials(file)]
    assert again.to_yaml() == file.to_yaml()


def test_parse_dataset_takes_defaults_and_settings() -> None:
    assert parse_dataset("cifar10") == Cifar10Dataset(name="cifar10")
    assert parse_dataset("trifeature", ["size=32", "target=color", "test_fraction=2.5e-1"]) == TrifeatureDataset(
        name="trifeature", size=32, target="color", test_fraction=0.25
    )


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        (
            "mnist",
            "size=3",
            "dataset.name: must be one of 'trifeature', 'cifar10', 'cifar100', 'svhn', 'tiny_imagenet', 'imagenet', 'celeba', 'adult', "
            "'hatexplain', 'manifest', 'factory', got 'mnist'",
        ),
        ("trifeature", "target=size", "dataset.target: should be 'shape', 'texture' or 'color', got 'size'"),
        (
            "cifar10",
            "size=32",
            "dataset.size: unknown or without effect here; "
            "valid: evaluated_on, long_tail, name, normalization, split_seed, target, validation_fraction, version",
        ),
        ("trifeature", "size=8", "dataset.size: should be greater than or equal to 16, got 8"),
        ("trifeature", "size", "--set size: expected KEY=VALUE, as in --set training.epochs=5"),
    ],
)
def test_parse_dataset_refuses(name: str, override: str, message: str) -> None:
    with pytest.raises(SweepError, match=re.escape(message) + "$"):
        parse_dataset(name, [override])

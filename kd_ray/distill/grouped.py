"""Students of one architecture as one network whose channels stand side by side, for many small networks.

A small network spends much of a step on the way into and out of each operation. Here the K students that take the same step share these
ways: convolutions have K groups, batch normalisation goes over all channels at once, linear layers are batched matrix products, and one
optimiser updates the stacked weights. The first convolution is a plain one, because all students see the same images.

The stacked tensors own the memory. Each student's weights, buffers and averages of gradients are views of them, so `Student.state()`,
evaluation and even a step of a single student work as before, and nothing is copied back.

The same members in the same order give the same bits. In float32 on the CPU a student's last bits may depend on the other members,
though no number of one student enters another's: kernels are chosen by the number of channels, and handle the ends of rows apart. Found
with torch 2.15 (AVX-512, one thread, ten classes, six steps): K = 1 differs from every larger K. With LeNet-5 (batches of 64, images of
16 and 32 pixels) K = 2, 3, 4 and 8 agree to the last bit, with any other members. With ResNet-20 (batches of 16) so do K = 4 and 8, but in
K = 2 and 3 the last student differs. With three classes the place in the group counts too. None of this is promised by the kernels.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd_ray.distill.batches import Batch
from kd_ray.distill.device import arithmetic_of
from kd_ray.distill.objectives import Context, objective_of, student_loss, term_names
from kd_ray.distill.student import Student, forward_of, learning_rate, optimizer_of, set_rate
from kd_ray.errors import TrialError
from kd_ray.models.resnet_cifar import BasicBlock, ResNetCifar
from kd_ray.sweep.distillation import Distillation
from kd_ray.sweep.training import Sgd

_GROUPABLE = (
    *(nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU, nn.MaxPool2d, nn.Flatten),
    *(ResNetCifar, BasicBlock),
)


class GroupedStudents:
    """Students trained as one network. Make a new object whenever the members change."""

    def __init__(self, students: Sequence[Student]) -> None:
        """Stack what the students are made of; from here on their tensors are views of the stacked ones.

        Raises:
            ValueError: there is no student, or they differ in architecture, training settings or step.
            TrialError: networks of this kind cannot be grouped.
        """
        _check_alike(students)
        self.students = tuple(students)
        self.model = grouped_model([student.model for student in students], name=students[0].spec.model)
        self._forward = forward_of(self.model, students[0].training, students[0].sums.device)
        self.optimizer, self._counts_KP = _grouped_optimizer(self.model, students)
        self._loss = GroupLoss([student.spec.distillation for student in students])
        self._sums_KS = _stacked_sums(students)

    def step(self, batch: Batch, teacher_BC: Sequence[Tensor | None], *, steps: int) -> None:
        """One optimiser step of every student on the same batch; `teacher_BC` has an entry for each, an epoch has `steps` of them."""
        rate = learning_rate(self.students[0].training, self.students[0].step, steps)
        for optimizer in (self.optimizer, *(student.optimizer for student in self.students)):
            set_rate(optimizer, rate)
        self.compute(batch, teacher_BC)
        for student in self.students:
            student.step += 1

    def compute(self, batch: Batch, teacher_BC: Sequence[Tensor | None]) -> None:
        """Forward, loss, backward, update, and the sums of the epoch, of every student."""
        with arithmetic_of(self.students[0].training.precision):
            self._compute(batch, teacher_BC)

    def _compute(self, batch: Batch, teacher_BC: Sequence[Tensor | None]) -> None:
        labels_B = batch.labels_B
        logits_KCB = self.logits(batch.images_BCHW)
        contexts = [student.context(batch) for student in self.students]
        losses_KL = self._loss(logits_KCB, teacher_BC, labels_B, contexts)
        self.optimizer.zero_grad(set_to_none=True)
        losses_KL[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._counts_KP[1:] += 1
        with torch.no_grad():
            sums_KL = losses_KL.double() * len(labels_B)
            correct_K1 = (logits_KCB.argmax(1) == labels_B).sum(1, keepdim=True)
            self._sums_KS += torch.cat([sums_KL[:, :1], correct_K1, sums_KL[:, 1:]], dim=1)

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """Logits of every student for the same images: (K, C, B)."""
        return _by_student(self._forward(images_BCHW), len(self.students))


class GroupLoss:
    """Losses of K students, in a handful of operations where all of them have an objective with such a form."""

    def __init__(self, settings: Sequence[Distillation | None]) -> None:
        self._settings = tuple(settings)
        self._num_columns = 1 + max(len(term_names(each)) for each in settings)
        forms = {objective_of(each).of_group if each else None for each in settings}
        form = forms.pop() if len(forms) == 1 else None
        self._of_group = form(self._settings) if form else None

    def __call__(
        self,
        logits_KCB: Tensor,
        teacher_BC: Sequence[Tensor | None],
        labels_B: Tensor,
        contexts: Sequence[Context | None] | None = None,
    ) -> Tensor:
        """Total and terms of each student as `objectives.student_loss` has them, (K, L), with zeros where a student has fewer terms.

        Raises:
            ValueError: a distilled student has no teacher's logits, or they have another shape than the student's.
        """
        if self._of_group is None:
            return self._one_by_one(logits_KCB, teacher_BC, labels_B, contexts or [None] * len(self._settings))
        return self._of_group(logits_KCB, _side_by_side(teacher_BC, logits_KCB), labels_B)

    def _one_by_one(
        self,
        logits_KCB: Tensor,
        teacher_BC: Sequence[Tensor | None],
        labels_B: Tensor,
        contexts: Sequence[Context | None],
    ) -> Tensor:
        rows = []
        for logits_CB, teacher, settings, context in zip(logits_KCB, teacher_BC, self._settings, contexts, strict=True):
            loss = student_loss(logits_CB.t(), teacher, labels_B, settings, context)
            row_L = torch.stack([loss.total, *loss.terms.values()])
            rows.append(functional.pad(row_L, (0, self._num_columns - len(row_L))))
        return torch.stack(rows)


def _side_by_side(teacher_BC: Sequence[Tensor | None], logits_KCB: Tensor) -> Tensor:
    """The teachers' logits as (K, C, B), or (1, C, B) where all students have the same."""
    known = [each for each in teacher_BC if each is not None]
    if len(known) != len(logits_KCB):
        raise ValueError(f"{len(logits_KCB)} students with objective kd, but the teacher's logits for {len(known)}")
    expected = logits_KCB.shape[:0:-1]
    for each in known:
        if each.shape != expected:
            raise ValueError(f"a teacher's logits have shape {tuple(each.shape)}, the students' {tuple(expected)}")
    if all(each is known[0] for each in known):
        return known[0].t().contiguous()[None]
    return torch.stack([each.t() for each in known])


def _check_alike(students: Sequence[Student]) -> None:
    if not students:
        raise ValueError("a group needs at least one student")
    first = students[0]
    for other in students[1:]:
        for what, a, b in (
            ("model", first.spec.model, other.spec.model),
            ("training", first.training, other.training),
            ("step", first.step, other.step),
        ):
            if a != b:
                raise ValueError(
                    f"trials {first.spec.trial_id} and {other.spec.trial_id} differ in {what}, so they cannot step together: {a} and {b}"
                )


# The network of a group. Between its layers stand (B, K · channels, H, W), then (B, K · features).


def grouped_model(models: Sequence[nn.Module], *, name: str) -> nn.Module:
    """One network for all of them: (B, 3, H, W) → (B, K · classes). Their weights and buffers become views of its own.

    Raises:
        TrialError: there is a layer that cannot be grouped, or the first layer with weights is not a convolution.
    """
    layers = list(models[0].modules())
    unknown = sorted({type(layer).__name__ for layer in layers if type(layer) not in _GROUPABLE})
    weighted = [layer for layer in layers if next(layer.parameters(recurse=False), None) is not None]
    if unknown or not weighted or not isinstance(weighted[0], nn.Conv2d):
        reason = f"it has {', '.join(unknown)}" if unknown else "it does not begin with a convolution"
        raise TrialError(
            f"model {name} cannot be trained as a group: {reason}; "
            "LeNet and the ResNets for CIFAR can, and what else is made of "
            f"{', '.join(kind.__name__ for kind in _GROUPABLE)}"
        )
    group = copy.deepcopy(models[0])
    _arrange(group, len(models))
    _stack_weights(group, models)
    return group


def _arrange(group: nn.Module, size: int) -> None:
    """Make the layers of a network those of a group of `size`; the names of weights and buffers stay."""
    first, *others = (layer for layer in group.modules() if isinstance(layer, nn.Conv2d))
    first.out_channels *= size
    for convolution in others:
        convolution.groups *= size
    for path, layer in list(group.named_modules()):
        if isinstance(layer, nn.Linear):
            _replace(group, path, _GroupedLinear(layer, size))
        if isinstance(layer, BasicBlock):
            _replace(group, path, _GroupedBlock(layer, size))


def _replace(root: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, layer)


class _GroupedLinear(nn.Module):
    """(B, K · in) → (B, K · out), in memory (K, out, B): what the matrix product of the next layer takes and gives without a copy."""

    def __init__(self, linear: nn.Linear, size: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.size = size

    def forward(self, x_BN: Tensor) -> Tensor:
        bias_KO1 = self.bias.view(self.size, -1, 1)
        weight_KOI = self.weight.view(self.size, -1, self.weight.shape[1])
        return torch.baddbmm(bias_KO1, weight_KOI, _by_student(x_BN, self.size)).flatten(0, 1).t()


def _by_student(x_BN: Tensor, size: int) -> Tensor:
    """(B, K · features) → (K, features, B), never a copy."""
    return x_BN.t().view(size, x_BN.shape[1] // size, x_BN.shape[0])


class _GroupedBlock(nn.Module):
    """`BasicBlock`, but with zeros around each student's channels of the shortcut, not around all of them."""

    def __init__(self, block: BasicBlock, size: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        self.stride, self.new_channels = block.stride, block.new_channels
        self.size = size

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.bn2(self.conv2(out))
        shortcut = x_BCHW
        if self.stride != 1 or self.new_channels:
            before = self.new_channels // 2
            x_BHWN = x_BCHW[:, :, :: self.stride, :: self.stride].permute(0, 2, 3, 1)
            x_BHWKC = x_BHWN.reshape(*x_BHWN.shape[:3], self.size, -1)
            shortcut = functional.pad(x_BHWKC, (before, self.new_channels - before)).flatten(3).permute(0, 3, 1, 2)
        return torch.relu(out + shortcut)


def _stack_weights(group: nn.Module, models: Sequence[nn.Module]) -> None:
    """Give the group the students' weights and buffers one after another, and the students their parts of them."""
    for name in dict(group.named_parameters()):
        own = [model.get_parameter(name) for model in models]
        _replace_tensor(group, name, nn.Parameter(_stacked([parameter.data for parameter in own])))
        for parameter, part in zip(own, _parts(group.get_parameter(name).data, own), strict=True):
            parameter.data, parameter.grad = part, None
    for name in dict(group.named_buffers()):
        buffers = [model.get_buffer(name) for model in models]
        _replace_tensor(group, name, _stacked(buffers))
        for model, part in zip(models, _parts(group.get_buffer(name), buffers), strict=True):
            _replace_tensor(model, name, part)


def _replace_tensor(root: nn.Module, path: str, tensor: Tensor) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, tensor)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """One after another along the first dimension; scalars become a vector. The layout of convolutions stays."""
    if tensors[0].ndim == 0:
        return torch.stack(list(tensors))
    stacked = torch.cat(list(tensors))
    if stacked.ndim == 4 and not (stacked.is_cuda and tensors[0].is_contiguous()):
        stacked = stacked.contiguous(memory_format=torch.channels_last)
    return stacked


def _parts(stacked: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each one's part of what `_stacked` gave."""
    return list(stacked.unbind() if tensors[0].ndim == 0 else stacked.chunk(len(tensors)))


def _grouped_optimizer(group: nn.Module, students: Sequence[Student]) -> tuple[torch.optim.Optimizer, Tensor]:
    """One optimiser over the stacked weights, and Adam's counters of steps, a row for each student.

    The students' averages of gradients become views of its own; one that has none yet starts from zero.
    """
    training, device = students[0].training, students[0].sums.device
    parameters = dict(group.named_parameters())
    optimizer = optimizer_of(parameters.values(), training, device, fused=True)
    averages, counts_KP = ["exp_avg", "exp_avg_sq"], torch.zeros(len(students), len(parameters), device=device)
    if isinstance(training.optimizer, Sgd):
        averages, counts_KP = ["momentum_buffer"] if training.optimizer.momentum else [], counts_KP[:, :0]
    for place, (name, parameter) in enumerate(parameters.items()):
        own = [student.model.get_parameter(name) for student in students]
        slots = [student.optimizer.state[each] for student, each in zip(students, own, strict=True)]
        mine = optimizer.state[parameter]
        for average in averages:
            before = [slot.get(average) for slot in slots]
            mine[average] = _stacked(
                [torch.zeros_like(each) if known is None else known for each, known in zip(own, before, strict=True)]
            )
            for slot, part in zip(slots, _parts(mine[average], own), strict=True):
                slot[average] = part
        if counts_KP.numel():
            for slot, counts_P in zip(slots, counts_KP, strict=True):
                counts_P[place] = slot.get("step", 0.0)
                slot["step"] = counts_P[place]
            # The optimiser counts in the first row.
            mine["step"] = counts_KP[0, place]
    return optimizer, counts_KP


def _stacked_sums(students: Sequence[Student]) -> Tensor:
    """The students' sums as rows, with zeros behind those that have fewer terms."""
    width = max(len(student.sums) for student in students)
    sums_KS = torch.stack([functional.pad(student.sums, (0, width - len(student.sums))) for student in students])
    for student, sums_S in zip(students, sums_KS, strict=True):
        student.sums = sums_S[: len(student.sums)]
    return sums_KS

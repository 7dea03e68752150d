import io

import pytest
import torch
from safetensors.torch import save

from kd_ray.distill import checkpoint
from kd_ray.distill.checkpoint import TrainingState
from kd_ray.results.record import Epoch


def make_state(step: int = 7) -> TrainingState:
    parameter = torch.nn.Parameter(torch.tensor([[1.5, -2.0]]))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return TrainingState(
        step=step,
        model={"weight": parameter.detach(), "bn.num_batches_tracked": torch.tensor(3)},
        optimizer=optimizer.state_dict(),
        sums=torch.tensor([0.1, 2.0, 0.3], dtype=torch.float64),
        history=(
            Epoch(
                epoch=1,
                loss=0.1 + 0.2,
                terms={"cross_entropy": 1 / 3},
                train_accuracy=0.5,
                validation_accuracy=None,
                lr=0.1,
                elapsed_s=1.25,
            ),
        ),
        elapsed_s=1.5,
        restarts=2,
    )


def test_state_survives_bytes_exactly() -> None:
    state = make_state()
    got = checkpoint.decode(checkpoint.encode(state))
    assert (got.step, got.history, got.elapsed_s, got.restarts) == (
        state.step,
        state.history,
        state.elapsed_s,
        state.restarts,
    )
    assert got.optimizer["param_groups"] == state.optimizer["param_groups"]
    assert torch.equal(got.optimizer["state"][0]["momentum_buffer"], state.optimizer["state"][0]["momentum_buffer"])
    assert torch.equal(got.sums, state.sums)
    assert got.model.keys() == state.model.keys()
    assert all(torch.equal(got.model[name], tensor) for name, tensor in state.model.items())


def test_damaged_state_is_refused_as_decode_says() -> None:
    """Guards the errors of `decode`, which `Checkpoints.load` takes for a checkpoint that is no use."""
    whole = checkpoint.encode(make_state())
    for damaged in (b"", whole[:7], whole[:40], whole[:-7], b"\x00\x01noise" * 50, save({"sums": torch.zeros(3)})):
        with pytest.raises((ValueError, KeyError, TypeError)):
            checkpoint.decode(damaged)


def test_weights_are_read_from_safetensors_and_from_pytorch_checkpoints() -> None:
    tensors = {"conv.weight": torch.arange(4.0)}
    assert torch.equal(checkpoint.from_weights(save(tensors), source="x")["conv.weight"], tensors["conv.weight"])
    buffer = io.BytesIO()
    torch.save({"state_dict": {"module.conv.weight": tensors["conv.weight"]}, "best_prec1": 93.0}, buffer)
    assert torch.equal(checkpoint.from_weights(buffer.getvalue(), source="x")["conv.weight"], tensors["conv.weight"])


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


def test_weights_that_would_execute_code_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": _Evil()}, buffer)
    with pytest.raises(ValueError, match=r"bad\.pt: neither safetensors nor a PyTorch checkpoint of plain tensors"):
        checkpoint.from_weights(buffer.getvalue(), source="bad.pt")
    assert "executed" not in capsys.readouterr().out


def test_noise_is_refused_as_weights() -> None:
    with pytest.raises(ValueError, match="noise: neither safetensors"):
        checkpoint.from_weights(b"\x00\x01noise" * 50, source="noise")

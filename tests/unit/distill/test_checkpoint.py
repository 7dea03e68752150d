import io

import pytest
import torch
from safetensors.torch import save

from kd_ray.distill import checkpoint
from kd_ray.distill.checkpoint import TrainingState
from kd_ray.results.record import Epoch
from kd_ray.results.store import Store, checkpoint_folder

TRIAL = "a" * 16


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


def keys(store: Store) -> list[str]:
    return sorted(item.key.rsplit("/", 1)[1][:16] for item in store.entries(checkpoint_folder(TRIAL)))


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


def test_latest_is_the_most_advanced_and_two_are_kept(store: Store) -> None:
    for step in (5, 10, 15):
        checkpoint.save(store, TRIAL, 1, make_state(step))
    assert keys(store) == ["000001-000000010", "000001-000000015"]
    latest = checkpoint.load_latest(store, TRIAL)
    assert latest is not None
    assert latest.step == 15


def test_damaged_checkpoint_is_passed_over_for_the_one_before(store: Store) -> None:
    checkpoint.save(store, TRIAL, 1, make_state(5))
    checkpoint.save(store, TRIAL, 1, make_state(9))
    newest = max(item.key for item in store.entries(checkpoint_folder(TRIAL)))
    whole = store.get(newest)
    assert whole
    for damaged in (whole[:-7], whole[:40], b"", whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        store.put(newest, damaged)
        latest = checkpoint.load_latest(store, TRIAL)
        assert latest is not None
        assert latest.step == 5


def test_a_late_writer_of_an_earlier_generation_deletes_nothing_of_its_successor(store: Store) -> None:
    checkpoint.save(store, TRIAL, 2, make_state(20))
    checkpoint.save(store, TRIAL, 2, make_state(30))
    for step in (21, 22, 23, 24):
        checkpoint.save(store, TRIAL, 1, make_state(step))
    assert {"000002-000000020", "000002-000000030"} <= set(keys(store))
    latest = checkpoint.load_latest(store, TRIAL)
    assert latest is not None
    assert latest.step == 30


def test_delete_all_leaves_no_checkpoint(store: Store) -> None:
    checkpoint.save(store, TRIAL, 1, make_state())
    checkpoint.delete_all(store, TRIAL)
    assert checkpoint.load_latest(store, TRIAL) is None


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

"""Trained networks, rebuilt from a store."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import kd_ray
from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.results.store import Store, record_key


def students_of(results: kd_ray.Results) -> list[str]:
    return [
        str(row["trial_id"]) for row in results.query("SELECT trial_id FROM trials ORDER BY role, trial_id").to_pylist()
    ]


def test_the_network_of_a_trial_predicts_what_its_record_says(finished_tiny: Store, trifeature_root: Path) -> None:
    results = kd_ray.open_store(finished_tiny.url)
    for trial_id in students_of(results)[::3]:
        trained = kd_ray.trained(trial_id, results, data_root=trifeature_root)
        stored = results.predictions(trial_id)
        logits_NC = trained.logits()
        assert logits_NC.shape == (len(stored), 10)
        assert not trained.model.training
        np.testing.assert_array_equal(
            [trained.data.test.labels_N.tolist(), logits_NC.argmax(1).tolist()],
            np.stack([it.cat.codes for it in (stored["label"], stored["predicted"])]),
        )
        probabilities_N = torch.softmax(torch.from_numpy(logits_NC), dim=1).max(1).values.numpy()
        np.testing.assert_allclose(probabilities_N, stored["confidence"], atol=1e-6)
        labels = torch.cat([labels_B for _, labels_B in trained.batches("train", size=64)])
        assert torch.equal(labels, trained.data.train.labels_N)
    with pytest.raises(InvalidInputError, match="there is no split 'validation', only train, test"):
        trained.logits("validation")


def test_what_is_not_complete_or_damaged_is_refused(
    finished_tiny: Store, trifeature_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_tiny.url, tmp_path / "store")
    results = kd_ray.open_store(tmp_path / "store")
    first, second, *_ = students_of(results)
    (tmp_path / "store" / record_key(first)).unlink()
    (weights,) = (tmp_path / "store" / record_key(second)).parent.glob("weights-*")
    weights.write_bytes(b"")
    with pytest.raises(InvalidInputError, match=f"trial '{first}' is not complete"):
        kd_ray.trained(first, results, data_root=trifeature_root)
    with pytest.raises(CorruptObjectError, match="does not hold the weights"):
        kd_ray.trained(second, results, data_root=trifeature_root)

import numpy as np
import torch

from rl8.env.adapters.arrays import ToDevice, with_rows


def test_rows_are_replaced_in_a_copy():
    batch = {"a": np.zeros((3, 2)), "b": (np.arange(3),)}
    after = with_rows(batch, np.array([0, 2]), [{"a": np.ones(2), "b": (7,)}, {"a": np.full(2, 2.0), "b": (8,)}])
    assert after["a"].tolist() == [[1, 1], [0, 0], [2, 2]]
    assert after["b"][0].tolist() == [7, 1, 8]
    assert batch["a"].sum() == 0


def test_on_a_cpu_nothing_is_copied_that_has_its_type():
    array = np.zeros((2, 3), dtype=np.float32)
    assert np.shares_memory(ToDevice(torch.device("cpu"))(array, torch.float32).numpy(), array)
    assert ToDevice(torch.device("cpu"))(array.astype(np.float64), torch.float32).dtype == torch.float32

import pytest
import torch

from rl8.devices import as_device


def test_devices_that_there_are_pass():
    assert as_device("device", "cpu") == as_device("device", torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", 1.5, None])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ValueError, match=r"^device\.device=.* is no device\. .* Try device='cpu'"):
        as_device("device.device", device)


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^device=cuda but torch .* sees no CUDA device\. Try device=cpu"):
        as_device("device", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert as_device("device", "cuda") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"^device=cuda:1 does not exist: torch sees 1 CUDA device"):
        as_device("device", "cuda:1")

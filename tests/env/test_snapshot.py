import itertools
import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rl8.env import snapshot as module
from rl8.env.snapshot import change, class_snapshot, snapshot


@dataclass
class Config:
    count: int = 0
    weights: list[float] = field(default_factory=lambda: [1.0, 2.0])


class Slotted:
    __slots__ = ("never_set", "value")

    def __init__(self):
        self.value = 1


class Holder:
    """Has one of everything that an environment may hide a change in."""

    limit = 3
    names = ("a",)

    def __init__(self):
        self.number = 1
        self.nothing = None
        self.text = "run"
        self.tensor = torch.tensor([1.0, float("nan")])
        self.array = np.arange(3)
        self.nan = float("nan")
        self.table = {"x": {"y": [1, 2]}}
        self.pair = (1, torch.zeros(2))
        self.queue = deque([1, 2])
        self.members = {1, 2}
        self.config = Config()
        self.slotted = Slotted()
        self.counter = itertools.count()
        self.empty: list[int] = []
        self.generator = torch.Generator().manual_seed(0)
        self.numpy_generator = np.random.default_rng(0)
        self.numpy_legacy = np.random.RandomState(0)
        self.python_generator = random.Random(0)
        self.nested = TensorDict({"a": {"b": torch.zeros(2)}}, [2])
        self.itself = self
        self.kind = Holder
        self.library = np

    def method(self):
        """Functions are not followed."""


CHANGES = {
    "self.number (1 became 2)": lambda h: setattr(h, "number", 2),
    "self.number (1 became True)": lambda h: setattr(h, "number", True),
    "self.number (1 became 1.0)": lambda h: setattr(h, "number", 1.0),
    "self.nothing (None became 0)": lambda h: setattr(h, "nothing", 0),
    "self.text ('run' became 'ran')": lambda h: setattr(h, "text", "ran"),
    "self.tensor": lambda h: h.tensor.add_(1),
    "self.array": lambda h: h.array.__setitem__(0, 7),
    "self.nan (nan became 0.0)": lambda h: setattr(h, "nan", 0.0),
    "self.table['x']['y'][1] (2 became 3)": lambda h: h.table["x"]["y"].__setitem__(1, 3),
    "self.table['x']['y'][2] (which is new)": lambda h: h.table["x"]["y"].append(3),
    "self.pair[1]": lambda h: h.pair[1].add_(1),
    "self.queue[1] (which is gone)": lambda h: h.queue.pop(),
    "self.members (\"['1', '2']\" became \"['1', '2', '3']\")": lambda h: h.members.add(3),
    "self.config.count (0 became 1)": lambda h: setattr(h.config, "count", 1),
    "self.config.weights[0] (1.0 became 5.0)": lambda h: h.config.weights.__setitem__(0, 5.0),
    "self.slotted.value (1 became 2)": lambda h: setattr(h.slotted, "value", 2),
    "self.counter ('count(0)' became 'count(1)')": lambda h: next(h.counter),
    "self.empty (which is gone)": lambda h: h.empty.append(1),
    "self.generator": lambda h: torch.rand(1, generator=h.generator),
    "self.numpy_generator": lambda h: h.numpy_generator.random(),
    "self.numpy_legacy": lambda h: h.numpy_legacy.rand(),
    "self.python_generator": lambda h: h.python_generator.random(),
    "self.nested['a']['b']": lambda h: h.nested["a", "b"].add_(1),
    "self.late (which is new)": lambda h: setattr(h, "late", 1),
    "self.tensor (which is gone)": lambda h: delattr(h, "tensor"),
}


@pytest.mark.parametrize("expected", CHANGES)
def test_every_kind_of_change_is_named(expected):
    holder = Holder()
    before = snapshot(holder, "self")
    assert change(before, snapshot(holder, "self")) is None
    CHANGES[expected](holder)
    assert change(before, snapshot(holder, "self")) == expected


def test_a_tensor_of_another_shape_or_type_has_changed():
    for other in (torch.zeros(3), torch.zeros(2, dtype=torch.float64), [0.0, 0.0]):
        before, after = snapshot({"x": torch.zeros(2)}, "self"), snapshot({"x": other}, "self")
        assert change(before, after).startswith("self['x']")


def test_a_long_value_is_not_shown():
    assert change({"self.x": "a" * 100}, {"self.x": "b"}) == "self.x"


def test_the_state_is_left_out_wherever_it_hangs():
    holder = Holder()
    holder.state = holder.alias = torch.zeros(2)
    before = snapshot(holder, "self", skip=holder.state)
    holder.state.add_(1)
    assert change(before, snapshot(holder, "self", skip=holder.state)) is None


def test_large_tensors_are_known_by_their_version(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_COPY", 8)
    values = {"large": torch.zeros(3)}
    before = snapshot(values, "self")
    assert before["self['large']"] == (values["large"].data_ptr(), values["large"]._version)
    assert change(before, snapshot(values, "self")) is None
    values["large"].add_(1)
    assert change(before, snapshot(values, "self")) == "self['large']"


def test_attributes_of_the_class_are_seen():
    class Child(Holder):
        total = 0

    before = class_snapshot(Child, object)
    assert before == {"Child.total": 0, "Holder.limit": 3, "Holder.names[0]": "a"}
    Child.total += 1
    assert change(before, class_snapshot(Child, object)) == "Child.total (0 became 1)"
    assert class_snapshot(Child, Holder) == {"Child.total": 1}

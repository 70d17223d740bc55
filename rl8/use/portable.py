"""A policy as a function of tensors alone, with names: what can be taken to places where rl8 is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rl8.policy.policy import Policy, reset_where
from rl8.rng import forked
from rl8.specs import Composite, Nested, Spec, leaves

ACTION: Final = "action"
AGE: Final = "state.age"


class PortablePolicy(nn.Module):
    """Maps observations, and what the policy remembers, to actions in the environment's units.

    Everything has a leading dimension n, which may be any. What is remembered starts as zeros where an episode begins;
    each `state.x` that goes in comes out as `next_state.x`.

    Args:
        policy: What was trained, in evaluation mode, on the CPU.
        sample: Whether actions are drawn, from noise that comes in, rather than the most probable ones.

    Attributes:
        inputs: Zeros `[1, ...]` for every input by name. First `obs`, or a Composite spec's leaves by dotted names.
            Then the state: `state.past.<name>` `[n, W - 1, ...]` the observations before, `state.<key>` of a recurrent
            model, `state.age` `[n]` observations since the episode's first. Then, to draw, `noise.uniform` `[n, k]` in
            [0, 1) and `noise.normal` `[n, k]` standard normal numbers, as many as an action takes.
        outputs: Names of what `forward` returns: `action`, or a Composite spec's leaves as `action.<name>`, then
            `next_state...` for every state.
    """

    def __init__(self, policy: Policy, *, sample: bool = False) -> None:
        super().__init__()
        self.policy, self.sample = policy, sample
        self._history = policy.views.history
        self._obs = {_name("obs", path): (path, leaf) for path, leaf in leaves(policy.spec_in_use)}
        state: Any = policy.initial_state(1)
        self._state_keys = [] if state is None else [str(key) for key in state.keys()]  # noqa: SIM118
        inputs: dict[str, Any] = {name: leaf.zeros(1) for name, (_, leaf) in self._obs.items()}
        if self._history:
            for name, (_, leaf) in self._obs.items():
                zeros = leaf.zeros(self._history)
                assert isinstance(zeros, Tensor)
                inputs[f"state.past.{name}"] = zeros.unsqueeze(0)
        if state is not None:
            inputs |= {f"state.{key}": state[key] for key in self._state_keys}
        if self._history or policy.steps_per_state_reset is not None:
            inputs[AGE] = torch.zeros(1, dtype=torch.int64)
        self.inputs: dict[str, Tensor] = inputs
        if sample:
            noise = _Noise({})
            with torch.no_grad():
                self._act(inputs, noise)
            inputs |= {f"noise.{kind}": torch.zeros(1, size) for kind, size in noise.taken.items()}
        actions = [_name(ACTION, path) for path, _ in leaves(policy.action_spec)]
        self.outputs = [*actions, *(f"next_{name}" for name in inputs if name.startswith("state."))]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for the inputs, in their order."""
        given = dict(zip(self.inputs, tensors, strict=True))
        return self._act(given, _Noise(given) if self.sample else nullcontext())

    def _act(self, given: Mapping[str, Tensor], drawing: AbstractContextManager[Any]) -> tuple[Tensor, ...]:
        n = next(iter(given.values())).shape[0]
        after: dict[str, Tensor] = {}
        obs = _nested({path: given[name] for name, (path, _) in self._obs.items()}, [n])
        age = given.get(AGE)
        seen = obs.unsqueeze(0)
        if self._history:
            rows = {}
            for name, (path, _) in self._obs.items():
                past = torch.cat([given[f"state.past.{name}"], given[name].unsqueeze(1)], dim=1)
                after[f"state.past.{name}"] = past[:, 1:]
                rows[path] = past.transpose(0, 1)
            assert age is not None
            stored = _nested(rows, [self._history + 1, n])
            seen = self.policy.views.step(stored, age.expand(self._history + 1, n), self._history)
        state: Any = None
        if self._state_keys:
            state = TensorDict({key: given[f"state.{key}"] for key in self._state_keys}, batch_size=[n])
            if age is not None and self.policy.steps_per_state_reset is not None:
                state = reset_where(age % self.policy.steps_per_state_reset == 0, state)
        with drawing:
            actions, state = self.policy.choose(seen, state, deterministic=not self.sample)
        if state is not None:
            after |= {f"state.{key}": state[key] for key in self._state_keys}
        if age is not None:
            after[AGE] = age + 1
        chosen: Any = actions
        results = [chosen[path] if path else chosen for path, _ in leaves(self.policy.action_spec)]
        return (*results, *(after[name] for name in self.inputs if name in after))

    def random(self, n: int) -> list[Tensor]:
        """Return n random inputs, always the same: observations of the spec, any state, any age."""
        with forked(self.policy.device):
            torch.manual_seed(0)
            obs: Any = _allowed(self.policy.spec_in_use, self.policy.spec_in_use.rand(n))
            drawn: dict[str, Tensor] = {}
            for name, (path, leaf) in self._obs.items():
                drawn[name] = obs[path] if path else obs
                if self._history:
                    past = leaf.rand(n * self._history)
                    assert isinstance(past, Tensor)
                    drawn[f"state.past.{name}"] = past.reshape(n, self._history, *leaf.shape)
            for key in self._state_keys:
                drawn[f"state.{key}"] = torch.randn(n, *self.inputs[f"state.{key}"].shape[1:])
            drawn[AGE] = torch.randint(0, 2 * max(self._history, self.policy.steps_per_state_reset or 1), (n,))
            drawn["noise.uniform"] = torch.rand(n, self._size("noise.uniform"))
            drawn["noise.normal"] = torch.randn(n, self._size("noise.normal"))
        return [drawn[name] for name in self.inputs]

    def _size(self, name: str) -> int:
        return self.inputs[name].shape[1] if name in self.inputs else 0


class _Noise(TorchFunctionMode):
    """Makes what is drawn in the block of noise that is given, `[n, k]` by kind; counts it where there is none.

    Attributes:
        taken: How many numbers of each environment were drawn so far, by kind.
    """

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.taken: dict[str, int] = {}
        self._given = given

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was called, drawing apart."""
        if func is torch.randn_like:
            return self._take("normal", args[0])
        if func is torch.rand_like:
            return self._take("uniform", args[0])
        if func is Tensor.exponential_:
            # The smallest positive float: a clock of exactly infinity would never ring.
            return -self._take("uniform", args[0]).clamp(min=torch.finfo(torch.float32).tiny).log()
        return func(*args, **(kwargs or {}))

    def _take(self, kind: str, like: Tensor) -> Tensor:
        """Return the next noise in the shape of `like` `[1, n, ...]`."""
        start, size = self.taken.get(kind, 0), like.shape[2:].numel()
        self.taken[kind] = start + size
        noise = self._given.get(f"noise.{kind}")
        if noise is None:
            return torch.full_like(like, 0.5)
        return noise[:, start : start + size].reshape(like.shape).to(like.dtype)


def _name(root: str, path: Sequence[str]) -> str:
    """Return a leaf's name: `root`, or in a Composite spec the path, for actions below the root."""
    if not path:
        return root
    return ".".join(path if root == "obs" else (root, *path))


def _nested(parts: Mapping[tuple[str, ...], Tensor], batch: list[int]) -> Nested:
    """Return leaves by their paths as the spec nests them."""
    if () in parts:
        return parts[()]
    children: dict[str, dict[tuple[str, ...], Tensor]] = {}
    for path, leaf in parts.items():
        children.setdefault(path[0], {})[path[1:]] = leaf
    return TensorDict({key: _nested(child, batch) for key, child in children.items()}, batch_size=batch)


def _allowed(spec: Spec, obs: Any) -> Any:
    """Return random observations whose masks allow at least the first choice."""
    from rl8.data import ACTION_MASK

    if isinstance(spec, Composite) and ACTION_MASK in spec:
        mask = obs[ACTION_MASK]
        for leaf in [mask] if isinstance(mask, Tensor) else mask.values(True, True):
            leaf[..., 0] = True
    return obs

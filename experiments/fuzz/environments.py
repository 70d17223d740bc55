"""Random environments, and the rule that each is trained in or refused by its class's name with the mend.

`environment` draws one, right or with one mistake; `attempt` trains in it; `faults` says how it broke the rule.
"""

from __future__ import annotations

import random as python_random
import re
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from typed import listed

import rl8
from rl8 import Algorithm
from rl8.env import Env
from rl8.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, Spec, Unbounded

FLOATS = (torch.float32, torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SHAPES = ((), (1,), (3,), (2, 2), (0,), (1, 1, 1))

# What an environment can get wrong; `step` and `reset` of `Drawn` know each by its name.
MISTAKES = listed(
    """
    obs_wider obs_flat obs_fewer obs_dtype obs_nan obs_inf obs_dict obs_none obs_numpy obs_list obs_renamed
    obs_missing rewards_wide rewards_scalar rewards_int rewards_nan rewards_missing rewards_list rewards_half
    rewards_renamed ends_int ends_column ends_scalar ends_done final_missing final_flat final_nan batch_none
    result_dict result_tuple result_none state_missing state_list state_grows state_dtype state_elsewhere counts
    counts_on_class draws_numpy draws_python writes_action reset_signature step_signature init_signature
    no_super no_spec spec_none spec_number mask_nothing mask_short mask_float metric_scalar metric_short
    metric_text metric_dict metric_reserved raises_late obs_late shape_late requires_grad obs_complex
    value_outside never_anew
    """
)


@dataclass
class Attempt:
    """What came of training in a random environment.

    Attributes:
        text: What was drawn.
        mistake: Its mistake, empty if it has none.
        kind: `trained`, `refused` or `traceback`.
        message: Of the error.
    """

    text: str
    mistake: str
    kind: str = "trained"
    message: str = ""
    trace: list[str] = field(default_factory=list)


def observation(random: Random, depth: int = 0) -> Spec:
    """Draw the spec of an observation."""
    kind = random.randrange(7 if depth < 2 else 5)
    shape = random.choice(SHAPES[:4]) if depth else random.choice(SHAPES)
    if kind in (0, 5) and (kind == 0 or depth):
        return Unbounded(shape, dtype=random.choice((*FLOATS, *INTEGERS)))
    if kind == 1:
        low = random.choice((-1.0, 0.0, -3.0))
        return Bounded(low, low + random.choice((0.0, 1.0, 5.0)), shape, dtype=random.choice((*FLOATS, *INTEGERS[:4])))
    if kind == 2:
        return Categorical(random.choice((1, 2, 5)), shape, dtype=random.choice(INTEGERS))
    if kind == 3:
        return MultiCategorical([random.choice((1, 2, 4)) for _ in range(random.choice((1, 2, 3)))])
    if kind == 4:
        return Binary(shape=shape, dtype=random.choice((torch.bool, torch.int8, torch.float32)))
    names = random.sample(("a", "b", "position", "état", "0"), random.choice((1, 2, 3)))
    return Composite({name: observation(random, depth + 1) for name in names})


def action(random: Random, depth: int = 0) -> Spec:
    """Draw the spec of an action."""
    kind = random.randrange(7 if depth == 0 else 5)
    shape = random.choice(SHAPES[:4])
    if kind == 0:
        return Categorical(random.choice((1, 2, 4)), shape, dtype=random.choice(INTEGERS))
    if kind == 1:
        return Unbounded(shape, dtype=random.choice(FLOATS))
    if kind == 2:
        return Bounded(-1.0, random.choice((1.0, 2.0, float("inf"), -1.0)), shape, dtype=random.choice(FLOATS))
    if kind == 3:
        return MultiCategorical([random.choice((1, 2, 3)) for _ in range(random.choice((1, 2, 3)))])
    if kind == 4:
        return Binary(shape=shape, dtype=random.choice((torch.bool, torch.int8)))
    if kind == 5:
        return Categorical(3)
    return Composite({name: action(random, depth + 1) for name in random.sample(("left", "right", "é"), 2)})


def choices(spec: Spec) -> int | None:
    """Return the width of an action mask, None where there is nothing to mask."""
    if isinstance(spec, Categorical):
        return spec.n * max(1, spec.shape.numel())
    if isinstance(spec, MultiCategorical):
        return sum(spec.nvec)
    return None


def environment(random: Random, mistake: str | None = None) -> tuple[type[Env], str, str]:
    """Draw a class of environments; return it with a description and the name of its mistake, perhaps empty."""
    wrong = random.choice(MISTAKES) if mistake is None and random.randrange(2) else mistake or ""
    acts, sees = action(random), observation(random)
    width = choices(acts)
    masked = width is not None and random.randrange(3) == 0
    if masked or (wrong.startswith("mask") and width is not None):
        size = 1 if wrong == "mask_short" and width > 1 else width
        kind = torch.float32 if wrong == "mask_float" else torch.bool
        mask = Unbounded(size, dtype=kind) if kind.is_floating_point else Binary(shape=(size,), dtype=kind)
        sees = Composite({"action_mask": mask, "seen": sees})
    ends = random.choice(((), (), ("terminated",), ("truncated",), ("terminated", "truncated")))
    if wrong.startswith(("ends", "final", "never")):
        ends = ("terminated", "truncated") if wrong.startswith("final") else ends or ("terminated",)
    metrics = wrong.startswith("metric") or random.randrange(4) == 0
    column, parts = random.randrange(2) == 0, random.randrange(2) == 0
    made = {"sees": sees, "acts": acts, "ends": ends, "metrics": metrics, "column": column, "parts": parts}
    text = ", ".join(f"{name}={value}" for name, value in made.items())
    return type("Drawn", (_Drawn,), {"wrong": wrong, "made": made}), text, wrong


class _Drawn(Env):
    """An environment of any specs: its state is the time and what is observed, drawn anew at each step."""

    wrong = ""
    made: dict[str, Any]
    ticks = 0

    def __init__(self, num_envs: int, /, horizon: int | None = None, *, device: Any = "cpu") -> None:
        if self.wrong != "no_super":
            super().__init__(num_envs, horizon, device=device)
        if self.wrong != "no_spec":
            self.action_spec = {"spec_none": None, "spec_number": 3}.get(self.wrong, self.made["acts"])
        self.observation_spec = self.made["sees"]

    def reset(self, *, config: dict[str, Any] | None = None) -> Any:
        self.time = torch.zeros(self.num_envs, dtype=torch.int64)
        return self._observe(self._save(self.time))

    def step(self, action: Any) -> Any:
        made, wrong, n = self.made, self.wrong, self.num_envs
        time = self._time() + 1
        if wrong == "counts":
            self.ticks += 1
        elif wrong == "counts_on_class":
            type(self).ticks += 1
        elif wrong == "draws_numpy":
            np.random.rand()  # noqa: NPY002 (the mistake itself)
        elif wrong == "draws_python":
            python_random.random()
        elif wrong == "writes_action" and isinstance(action, Tensor):
            action.zero_()
        late = bool((time > 6).any())
        if wrong == "raises_late" and late:
            raise RuntimeError("of the environment's own")
        ended = time >= 3 + torch.arange(n) % 3
        seen = self._seen(time)
        anew = time if wrong == "never_anew" else torch.where(ended, 0, time) if made["ends"] else time
        self._save(anew, stepped=True)
        rewards = torch.randn(n)
        result: dict[str, Any] = {
            "obs": self._observe(self.state),
            "rewards": rewards[:, None] if made["column"] else rewards,
        }
        if "terminated" in made["ends"]:
            result["terminated"] = ended & (torch.arange(n) % 2 == 0)
        if "truncated" in made["ends"]:
            result["truncated"] = ended & (torch.arange(n) % 2 == 1)
            result["final_obs"] = seen
        if made["metrics"]:
            result["metrics"] = {"distance": rewards.abs()}
        return self._wrong(result, late)

    # what is seen and kept

    def _time(self) -> Tensor:
        state: Any = self.state
        return state["time"] if self.made["parts"] else state[:, 0].long()

    def _save(self, time: Tensor, stepped: bool = False) -> Any:
        state: Any = TensorDict({"time": time}, [self.num_envs]) if self.made["parts"] else time[:, None].double()
        if self.wrong == "state_list":
            state = [state]
        elif self.wrong == "state_dtype" and stepped and isinstance(state, Tensor):
            state = state.float()
        elif self.wrong == "state_grows" and stepped and isinstance(state, Tensor):
            state = torch.cat([state, state], 1)
        if self.wrong != "state_missing":
            self.state = state
        if self.wrong == "state_elsewhere":
            self.hidden = time.clone() + python_random.choice((0, 0))
        return state

    def _seen(self, time: Tensor) -> Any:
        seen: Any = self.observation_spec.rand(self.num_envs)
        if "action_mask" in getattr(self.observation_spec, "keys", list)():
            mask = torch.ones_like(seen["action_mask"])
            if self.wrong == "mask_nothing":
                mask = torch.zeros_like(mask)
            elif mask.shape[-1] > 1 and isinstance(self.action_spec, Categorical) and self.action_spec.n > 1:
                mask.view(self.num_envs, -1, self.action_spec.n)[..., 0] = (time % 2 == 0).view(-1, 1).to(mask.dtype)
            seen["action_mask"] = mask
        return seen

    def _observe(self, state: Any) -> Any:
        seen = self._seen(state["time"] if isinstance(state, TensorDict) else torch.zeros(self.num_envs))
        leaf = isinstance(seen, Tensor)
        wrong = self.wrong
        if wrong == "obs_none":
            return None
        if wrong == "obs_wider" and leaf:
            return torch.cat([seen[..., None], seen[..., None]], -1)
        if wrong == "obs_flat" and leaf:
            return seen.reshape(-1)
        if wrong == "obs_fewer":
            return seen[:-1]
        if wrong == "obs_dtype" and leaf:
            return seen.to(torch.int16 if seen.dtype != torch.int16 else torch.float32)
        if wrong in ("obs_nan", "obs_inf") and leaf and seen.is_floating_point():
            return torch.full_like(seen, float(wrong[4:]))
        if wrong == "obs_dict":
            return dict(seen.items()) if not leaf else {"obs": seen}
        if wrong == "obs_numpy" and leaf and seen.dtype != torch.bfloat16:
            return seen.numpy()
        if wrong == "obs_list" and leaf:
            return seen.tolist()
        if wrong == "obs_complex" and leaf:
            return seen.to(torch.complex64)
        if wrong == "value_outside" and leaf and seen.dtype != torch.bool:
            return torch.full_like(seen, 100)
        if wrong == "requires_grad" and leaf and seen.is_floating_point():
            return seen.requires_grad_()
        return seen

    def _wrong(self, result: dict[str, Any], late: bool) -> Any:
        wrong, n = self.wrong, self.num_envs
        rewards = torch.randn(n)
        changes: dict[str, dict[str, Any]] = {
            "rewards_wide": {"rewards": rewards[:, None].repeat(1, 2)},
            "rewards_int": {"rewards": rewards.long()},
            "rewards_nan": {"rewards": rewards * float("nan")},
            "rewards_half": {"rewards": rewards.half()},
            "ends_int": {"terminated": torch.zeros(n, dtype=torch.int64)},
            "ends_column": {"terminated": torch.zeros(n, 1, dtype=torch.bool)},
            "ends_done": {"done": torch.zeros(n, dtype=torch.bool)},
            "metric_text": {"metrics": {"distance": "far"}},
            "metric_dict": {"metrics": {"distance": {"far": rewards}}},
            "metric_reserved": {"metrics": {"steps": rewards}},
            "metric_short": {"metrics": {"distance": rewards[:, None].repeat(1, 2)}},
        }
        result |= changes.get(wrong, {})
        if wrong in ("obs_missing", "rewards_missing"):
            del result[wrong.partition("_")[0]]
        elif wrong in ("obs_renamed", "rewards_renamed"):
            old = wrong.partition("_")[0]
            result[{"obs": "observation", "rewards": "reward"}[old]] = result.pop(old)
        elif wrong == "final_missing":
            del result["final_obs"]
        elif wrong == "final_flat" and isinstance(result["final_obs"], Tensor):
            result["final_obs"] = result["final_obs"].reshape(n, -1)[:, None]
        elif (
            wrong == "final_nan" and isinstance(result["final_obs"], Tensor) and result["final_obs"].is_floating_point()
        ):
            result["final_obs"] = torch.full_like(result["final_obs"], float("nan"))
        elif wrong == "obs_late" and late:
            del result["obs"]
        elif wrong == "shape_late" and late and isinstance(result["obs"], Tensor):
            result["obs"] = result["obs"][..., None]
        if wrong == "result_dict":
            return result
        if wrong == "result_tuple":
            return result.get("obs"), rewards
        if wrong == "result_none":
            return None
        if wrong == "rewards_scalar":
            return TensorDict(result | {"rewards": torch.tensor(1.0)}, [])
        if wrong == "rewards_list":
            return TensorDict(result | {"rewards": rewards.tolist()}, [])
        if wrong in ("ends_scalar", "metric_scalar"):
            key = {"ends_scalar": "terminated", "metric_scalar": "metrics"}[wrong]
            return TensorDict(
                result | {key: torch.tensor(True) if key == "terminated" else {"distance": torch.tensor(1.0)}}, []
            )
        if wrong == "batch_none":
            return TensorDict(result, [])
        return TensorDict(result, [n])


class _NoConfig:
    def reset(self) -> Any:
        return super().reset()  # type: ignore[misc]


class _NoAction:
    def step(self) -> Any:
        return None


class _NoHorizon:
    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)  # type: ignore[call-arg]


SIGNATURES = {"reset_signature": _NoConfig, "step_signature": _NoAction, "init_signature": _NoHorizon}


def attempt(random: Random, mistake: str | None = None) -> Attempt:
    """Draw an environment and train in it for two iterations."""
    cls, text, wrong = environment(random, mistake)
    if wrong in SIGNATURES:
        cls = type("Drawn", (SIGNATURES[wrong], cls), {})
    options = {
        "num_envs": random.choice((1, 2, 3, 5)),
        "horizon": random.choice((2, 4)),
        "num_sgd_iters": 1,
        "normalize_obs": random.randrange(3) == 0,
        "horizons_per_env_reset": random.choice((None, 1, 2, -1)),
    }
    done = Attempt(f"{text}, {', '.join(f'{name}={value}' for name, value in options.items())}", wrong)
    torch.manual_seed(random.randrange(2**31))
    try:
        algorithm = Algorithm(cls, model_config={"hiddens": [4]}, **options)
        for _ in range(2):
            algorithm.collect()
            metrics = algorithm.step()
        loss = metrics["losses/total"]
        if not bool(torch.isfinite(loss)):
            done.kind, done.message = "refused" if wrong else "traceback", f"Drawn: the loss is {loss}. Look at it."
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = Path(frames[-1].filename).is_relative_to(Path(rl8.__file__).parent)
        own = wrong == "raises_late" and "of the environment's own" in str(error)
        done.kind = "refused" if own or (ours and isinstance(error, (TypeError, ValueError))) else "traceback"
        done.message = str(error) if done.kind == "refused" else f"{type(error).__name__}: {error}"
        done.trace = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-4:]]
    return done


def faults(done: Attempt) -> list[str]:
    """Return how an attempt broke the rule."""
    if done.kind == "traceback":
        return ["traceback"]
    if done.kind == "refused" and done.mistake != "raises_late":
        found = [] if re.search("Drawn|spec|action_mask", done.message) else ["message without class"]
        found += [] if len(done.message.split(". ")) > 1 else ["message without mend"]
        return found
    return []

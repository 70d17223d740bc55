"""A run's policy in the run's environment, with what is typed now: what `rl8 eval` and `rl8 play` begin with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from rl8.config import catalog, compose
from rl8.config.overrides import check_single, parse
from rl8.config.schema import Plan, check
from rl8.launch import locate
from rl8.runs import Found, find
from rl8.settings import ORIGINS

if TYPE_CHECKING:
    from rl8.env import Env
    from rl8.policy.policy import Policy
    from rl8.specs import Spec

# What acts on an evaluation or a film; everything else is the training's alone.
KEYS = (
    "env",
    "device",
    "seed",
    "trainer.eval_num_envs",
    "trainer.eval_horizon",
    "trainer.eval_deterministic",
    "trainer.eval_env_config",
)
# Flags of the commands, each with the key in place of which it acts.
FLAGS = {
    "steps": "trainer.eval_horizon",
    "episodes": "trainer.eval_horizon",
    "sample": "trainer.eval_deterministic",
}
SEED = 1


@dataclass(frozen=True)
class Task:
    """A policy and what it is asked to do.

    Attributes:
        name: The run, as typed.
        found: Where its files are.
        plan: The run's own, with what is typed now.
        num_envs: Environments that were asked for; None leaves it to the command.
        seed: Of all random numbers, the same for every policy unless one is typed.
    """

    name: str
    found: Found
    plan: Plan
    num_envs: int | None
    seed: int

    def policy(self) -> Policy:
        """Return the policy, on its device."""
        from rl8.checkpoint import load_policy
        from rl8.execution.kinds import execution_for

        device = execution_for(self.plan.device).device
        return load_policy(self.found.file, device=device, allow=self.found.modules())

    def env(self, policy: Policy, num_envs: int, horizon: int, *, drawing: bool = False) -> Env:
        """Return new environments for the policy.

        Args:
            policy: What will act in them.
            num_envs: How many.
            horizon: Steps between resets.
            drawing: Whether those of another library are made to draw, which they weren't for training.

        Raises:
            ValueError: If they are other ones than the policy was trained in.
        """
        from rl8.env import Env
        from rl8.rng import forked

        cls = locate(self.plan.env, Env, "rl8.env.Env")
        options: Mapping[str, Any] = self.plan.env.options
        if drawing and isinstance(cls, type) and issubclass(cls, Env):
            options = cls.made_to_draw(options)
        if self.num_envs is None:
            num_envs = min(num_envs, getattr(cls, "max_num_envs", None) or num_envs)
        with forked(policy.device):  # a constructor may draw physical constants
            env: Env = cls(num_envs, horizon, device=policy.device, **options)
        for what in ("observation_spec", "action_spec"):
            ours, theirs = getattr(policy, what), getattr(env, what)
            if _layout(ours) != _layout(theirs):
                raise ValueError(
                    f"{self.plan.env.target} has the {what} {theirs}, the policy of {self.name} was trained with "
                    f"{ours}. Accepted: an environment with the same. Leave env=... out to take the run's own."
                )
        return env


def task(run: str, words: Sequence[str]) -> Task:
    """Return what is asked of a run's policy.

    Args:
        run: The run, as typed.
        words: Overrides, as typed.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If there is no such run, or an override names no key or one that has no effect here.
    """
    found = find(run, "policy")
    config = found.config()
    with compose.composer():
        overrides = [parse(word) for word in words]
        groups = [str(override.input_line) for override in overrides if override.key_or_group in catalog.GROUPS]
        for override in overrides:
            _check_effect(override)
        if config is not None:
            base = OmegaConf.create(config)
        elif any(word.startswith("env=") for word in groups):
            base = compose.checked([word for word in groups if word.startswith("env=")])[0]
        else:
            raise ValueError(
                f"{run} does not say which environment its policy was trained in. Accepted: the folder of a run that "
                "the command line started, or env=<option> besides. Try env=cartpole."
            )
        for word in groups:
            group = word.partition("=")[0]
            base[group] = compose.checked([word])[0][group]
        plan = check(_updated(base, overrides), base)
    typed = [override.get_key_element() for override in overrides]
    num_envs = plan.trainer.eval_num_envs if "trainer.eval_num_envs" in typed else None
    return Task(run, found, plan, num_envs, plan.seed if "seed" in typed else SEED)


def check_flags(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuse keys in place of which a flag of the command acts.

    Raises:
        ValueError: If there is one.
    """
    for flag, key in FLAGS.items():
        if getattr(args, flag, None) and any(word.lstrip("+").startswith(f"{key}=") for word in words):
            raise ValueError(f"--{flag} acts in place of {key}, which would have no effect. Try it without {key}.")


def horizon_of(plan: Plan) -> int:
    """Return the steps of an evaluation."""
    return int(plan.trainer.eval_horizon or plan.algorithm.options["horizon"])


def _updated(base: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    cfg = base.copy()
    for name in ORIGINS:  # what was trained is there
        OmegaConf.update(cfg, f"trainer.{name}", None, force_add=True)
    for override in overrides:
        key = override.key_or_group
        if key in catalog.GROUPS:
            continue
        check_single(override, base)
        OmegaConf.update(cfg, key, override.value(), merge=False, force_add=True)
    return cfg


def _check_effect(override: Override) -> None:
    """Refuse an override that would change nothing.

    Raises:
        ValueError: If it is one.
    """
    key, line = override.key_or_group, str(override.input_line)
    if override.is_sweep_override():
        raise ValueError(f"{line!r} gives several values. Accepted: one value. Call the command once for each.")
    if override.is_delete() or not any(key == known or key.startswith(f"{known}.") for known in KEYS):
        raise ValueError(
            f"{line!r} has no effect on a policy that is trained. Accepted: env.<constant>, device=..., "
            f"{', '.join(name for name in KEYS if '.' in name)}, seed. Try without it."
        )


def _layout(spec: Spec) -> list[Any]:
    """Return what must be the same for a policy to fit; limits may differ, as constants do."""
    from rl8.specs import leaves

    return [
        (path, tuple(leaf.shape), leaf.dtype, getattr(leaf, "n", None), getattr(leaf, "nvec", None))
        for path, leaf in leaves(spec)
    ]

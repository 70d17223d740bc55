"""Terms of the loss for tasks that look the same in a mirror: a robot's left and right.

```python
def mirror_obs(obs): return obs * torch.tensor([1.0, -1.0, 1.0, -1.0])
def mirror_actions(actions): return -actions

Trainer(Env, extra_losses={"mirror": (0.5, MirrorLoss(mirror_obs, mirror_actions))})
```

rsl_rl has both as `symmetry_cfg`: `use_mirror_loss` and `use_data_augmentation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rl8.ppo.losses import ppo_loss

Mirror = Callable[[Any], Any]


class MirrorLoss:
    """Asks for the mirrored action in the mirrored state: mean over samples and numbers of (f(M s) - M f(s))^2.

    f is what the policy's network gives, the mean of a normal distribution or logits; M f(s) is a constant target.
    Source: Yu et al. 2018, arXiv:1801.08093.

    Args:
        mirror_obs: Mirrors what the model sees, `[L, B, ...]`.
        mirror_actions: Mirrors what `feature` is, `[L, B, *shape]`.
        feature: Name of the feature; None takes the only one beside `log_std`.
    """

    def __init__(self, mirror_obs: Mirror, mirror_actions: Mirror, feature: str | None = None) -> None:
        self.mirror_obs, self.mirror_actions, self.feature = mirror_obs, mirror_actions, feature

    def __call__(self, policy: Any, batch: Any) -> Tensor:
        """Return the term for a `Minibatch`, 0-d."""
        features, _ = policy.outputs(batch.seen, batch.state, batch.is_last)
        mirrored, _ = policy.outputs(self.mirror_obs(batch.seen), batch.state, batch.is_last)
        names = [self.feature] if self.feature else [name for name in features if name != "log_std"]
        if len(names) != 1:
            raise ValueError(f"Features here are {', '.join(features)}. Give one of them as feature=...")
        target: Tensor = self.mirror_actions(features[names[0]].detach())
        loss: Tensor = (mirrored[names[0]].float() - target.float()).square().mean()
        return loss


class MirroredData:
    """PPO's loss on the mirrored samples, beside that on the collected ones: data augmentation.

    A mirrored sample keeps advantage, return and old log-probability of its original. With a weight of 1 it counts as
    much. For feedforward models.
    Source: Mittal et al. 2024, arXiv:2403.04359.

    Args:
        mirror_obs: Mirrors what the model sees, `[L, B, ...]`.
        mirror_actions: Mirrors stored actions, `[L, B, ...]`; for `SquashedNormal` those before squashing.
        clip_param: As `algo.clip_param`.
        vf_coeff: As `algo.vf_coeff`.
    """

    def __init__(
        self, mirror_obs: Mirror, mirror_actions: Mirror, clip_param: float = 0.2, vf_coeff: float = 1.0
    ) -> None:
        self.mirror_obs, self.mirror_actions = mirror_obs, mirror_actions
        self.clip_param, self.vf_coeff = clip_param, vf_coeff

    def __call__(self, policy: Any, batch: Any) -> Tensor:
        """Return the term for a `Minibatch`, 0-d."""
        logp, entropy, values = policy.evaluate(self.mirror_obs(batch.seen), self.mirror_actions(batch.actions))
        return ppo_loss(
            logp,
            entropy,
            values,
            old_logp=batch.logp,
            old_values=batch.values,
            advantages=batch.advantages,
            returns=batch.returns,
            clip_param=self.clip_param,
            vf_clip_param=None,
            dual_clip_param=None,
            vf_coeff=self.vf_coeff,
            entropy_coeff=0.0,
            weights=batch.weights,
        ).total

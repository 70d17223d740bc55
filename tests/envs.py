"""Small environments, each made to show one thing."""

from typing import ClassVar

import torch
from tensordict import TensorDict

from rl8.data import ACTION_MASK, FINAL_OBS, OBS, REWARDS, TERMINATED, TRUNCATED
from rl8.env import Env
from rl8.env.parameters import Parameter
from rl8.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded


class Episodes(Env):
    """Episodes of known length with random rewards: env i's end at every (3 + i % 3)-th step.

    Odd environments terminate and even ones are truncated. Observation: time in the episode / 10, env / 10, a random
    walk, the square of which is the cost. State: a TensorDict of the time and the walk.
    """

    ends: ClassVar[tuple[str, ...]] = (TERMINATED, TRUNCATED)

    def __init__(self, num_envs, /, horizon=None, *, noise=1.0, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(3)
        self.action_spec = Categorical(3)
        self.declare(noise=Parameter(noise, low=0.0))
        self.index = torch.arange(num_envs, device=self.device)
        self.lengths = 3 + self.index % 3
        self.terminates = self.index % 2 == 1

    def reset(self, *, config=None):
        self.configure(config)
        walk = self.noise * torch.randn(self.num_envs, device=self.device)
        self.state = TensorDict({"time": torch.zeros_like(self.index), "walk": walk}, [self.num_envs])
        return self._observe()

    def step(self, action):
        noise = self.noise * torch.randn(self.num_envs, device=self.device)
        time, walk = self.state["time"] + 1, 0.9 * self.state["walk"] + 0.3 * (action - 1) + noise
        self.state = TensorDict({"time": time, "walk": walk}, [self.num_envs])
        final_obs = self._observe()
        ended = (time >= self.lengths) & self._may_end()
        fresh = self.noise * torch.randn(self.num_envs, device=self.device)
        self.state = TensorDict(
            {"time": time.masked_fill(ended, 0), "walk": torch.where(ended, fresh, walk)}, [self.num_envs]
        )
        result = TensorDict({OBS: self._observe(), REWARDS: -walk.square().unsqueeze(-1)}, [self.num_envs])
        if TERMINATED in self.ends:
            result[TERMINATED] = ended & self.terminates
        if TRUNCATED in self.ends:
            result[TRUNCATED] = ended & ~self.terminates
            result[FINAL_OBS] = final_obs
        return result

    def _may_end(self):
        may_end = torch.zeros_like(self.terminates)
        if TERMINATED in self.ends:
            may_end = may_end | self.terminates
        if TRUNCATED in self.ends:
            may_end = may_end | ~self.terminates
        return may_end

    def _observe(self):
        time, walk = self.state["time"], self.state["walk"]
        return torch.stack([time / 10, self.index / 10, walk], dim=-1)


class Terminating(Episodes):
    """`Episodes` of which only the odd environments' end."""

    ends = (TERMINATED,)


class Truncating(Episodes):
    """`Episodes` of which only the even environments' end."""

    ends = (TRUNCATED,)


class Endless(Episodes):
    """`Episodes` that never end."""

    ends = ()


class Randomized(Endless):
    """`Endless` whose noise is drawn anew for each environment when it is built."""

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, noise={"low": 0.5, "high": 2.0}, device=device)


class MaskedBandit(Env):
    """Arms that are worth 0, 1, 2 and 3, of which some are forbidden at random; the reward is the shortfall.

    The optimum is 0. State: how many forbidden arms were pulled in each environment, and what is allowed now.
    """

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Composite({"allowed": Unbounded(4), ACTION_MASK: Binary(4, dtype=torch.bool)})
        self.action_spec = Categorical(4)
        self.worth = torch.arange(4.0, device=self.device)

    def reset(self, *, config=None):
        self.configure(config)
        pulled = torch.zeros(self.num_envs, device=self.device)
        self.state = TensorDict({"forbidden": pulled, "allowed": self._draw()}, [self.num_envs])
        return self._observe()

    def step(self, action):
        allowed = self.state["allowed"]
        legal = allowed.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        best = torch.where(allowed, self.worth, -1.0).amax(-1)
        self.state = TensorDict(
            {"forbidden": self.state["forbidden"] + ~legal, "allowed": self._draw()}, [self.num_envs]
        )
        return TensorDict({OBS: self._observe(), REWARDS: self.worth[action] - best}, [self.num_envs])

    def _draw(self):
        allowed = torch.rand(self.num_envs, 4, device=self.device) < 0.5
        sure = torch.randint(4, (self.num_envs, 1), device=self.device)
        return allowed.scatter(-1, sure, True)

    def _observe(self):
        allowed = self.state["allowed"]
        return TensorDict({"allowed": allowed.float(), ACTION_MASK: allowed}, [self.num_envs])


class Machine(Env):
    """Composite observations and actions of every kind, nested, with a mask for one component of the action.

    The reward is 1 for pressing the button when its lamp is on, less the size of the move.
    """

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Composite(
            arm=Composite(angle=Unbounded((2, 2)), load=Bounded(0.0, 50.0, shape=())),
            phase=Categorical(3),
            lamps=Binary(2),
            action_mask=Composite(gear=Binary(3, dtype=torch.bool)),
        )
        self.action_spec = Composite(
            move=Bounded(-2.0, 2.0, shape=(2,)),
            press=Binary(1),
            gear=Categorical(3),
            dials=MultiCategorical([2, 4]),
        )

    def reset(self, *, config=None):
        self.configure(config)
        self.state = torch.randint(12, (self.num_envs,), device=self.device)
        return self._observe()

    def step(self, action):
        due = self.state % 2 == 1
        rewards = (action["press"].squeeze(-1) == due).float() - action["move"].square().sum(-1)
        self.state = (self.state + 1 + action["gear"]) % 12
        return TensorDict({OBS: self._observe(), REWARDS: rewards}, [self.num_envs])

    def _observe(self):
        state = self.state
        arm = {"angle": torch.stack([state, -state], -1).float().unsqueeze(-1).expand(-1, 2, 2), "load": 4.0 * state}
        lamps = torch.stack([state % 2, state % 3 == 0], -1).to(torch.int8)
        choices = torch.arange(3, device=self.device)
        gear = choices != (state % 3).unsqueeze(-1)
        return TensorDict(
            {
                "arm": TensorDict(arm, [self.num_envs]),
                "phase": state % 3,
                "lamps": lamps,
                ACTION_MASK: TensorDict({"gear": gear}, [self.num_envs]),
            },
            [self.num_envs],
        )


class Steering(Env):
    """The reward is the action's distance from 0.5, for actions in [-1, 1]."""

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Bounded(-1.0, 1.0, shape=(1,))
        self.action_spec = Bounded(-1.0, 1.0, shape=(1,))

    def reset(self, *, config=None):
        self.configure(config)
        self.state = torch.zeros(self.num_envs, 1, device=self.device)
        return self.state

    def step(self, action):
        self.state = action.clone()
        return TensorDict({OBS: self.state, REWARDS: -(action - 0.5).abs()}, [self.num_envs])


class Drift(Env):
    """A dot in a picture of bytes moves to the left or to the right; the reward is 1 for saying where it came from.

    Where a lamp is on, the other side must be said. A single picture does not tell.
    """

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Composite(picture=Bounded(0, 255, (4, 6, 1), dtype=torch.uint8), lamp=Binary(1))
        self.action_spec = Categorical(2)

    def reset(self, *, config=None):
        self.configure(config)
        self.state = self._move(torch.randint(6, (self.num_envs,), device=self.device))
        return self._observe()

    def step(self, action):
        rewards = (action == (self.state["right"] ^ self.state["lamp"])).float()
        self.state = self._move(self.state["place"])
        return TensorDict({OBS: self._observe(), REWARDS: rewards}, [self.num_envs])

    def _move(self, place):
        right, lamp = torch.randint(2, (2, self.num_envs), device=self.device)
        place = (place + 2 * right - 1) % 6
        return TensorDict({"place": place, "right": right, "lamp": lamp}, [self.num_envs])

    def _observe(self):
        columns = torch.arange(6, device=self.device)
        row = (columns == self.state["place"].unsqueeze(1)).to(torch.uint8) * 255
        picture = row.reshape(self.num_envs, 1, 6, 1).expand(-1, 4, -1, -1)
        return TensorDict({"picture": picture, "lamp": self.state["lamp"].unsqueeze(1).to(torch.int8)}, [self.num_envs])


class GoesBad(Env):
    """Rewards become `reward` after 12 steps; they are 1 before."""

    reward = float("nan")

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(1)
        self.action_spec = Categorical(2)

    def reset(self, *, config=None):
        self.configure(config)
        self.state = torch.zeros(self.num_envs, 1, device=self.device)
        return self.state

    def step(self, action):
        self.state = self.state + 1
        rewards = torch.where(self.state.squeeze(-1) > 12, self.reward, 1.0)
        return TensorDict({OBS: self.state, REWARDS: rewards}, [self.num_envs])


class Syncing(Steering):
    """Reads a tensor on the host in every step, which no CUDA graph can hold."""

    def step(self, action):
        scale = 1.0 if self.state[0, 0].item() > -2 else 2.0
        return super().step(action * scale)

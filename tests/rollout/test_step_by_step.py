"""What is collected by tensors of all environments, against one environment at a time, one step after the other."""

import pytest
import torch
from envs import Episodes

from rl8 import Algorithm, RecurrentAlgorithm
from rl8.models import GRUModel, LSTMModel, MLPModel, TransformerModel
from rl8.specs import Unbounded
from rl8.use.deployed import DeployedPolicy

MODELS = {
    "mlp": (Algorithm, MLPModel, {"hiddens": [8]}),
    "window": (Algorithm, MLPModel, {"hiddens": [8], "window": 4}),
    "transformer": (Algorithm, TransformerModel, {"window": 5, "size": 8, "num_layers": 2}),
    "lstm": (RecurrentAlgorithm, LSTMModel, {"hidden_size": 8, "num_layers": 2}),
    "gru": (RecurrentAlgorithm, GRUModel, {"hidden_size": 8}),
}


class Drifting(Episodes):
    """`Episodes` whose actions are numbers: any difference in what the policy sees shows in them."""

    def __init__(self, num_envs, /, horizon=None, *, noise=1.0, device="cpu"):
        super().__init__(num_envs, horizon, noise=noise, device=device)
        self.action_spec = Unbounded(1)

    def step(self, action):
        return super().step(action.squeeze(-1))


@pytest.mark.parametrize("model", MODELS)
def test_collecting_acts_as_one_environment_does_step_by_step(model):
    algorithm_cls, model_cls, config = MODELS[model]
    options = {"num_envs": 4, "horizon": 8, "horizons_per_env_reset": -1, "normalize_obs": True}
    recurrent = {"seq_len": 4, "seqs_per_state_reset": -1} if algorithm_cls is RecurrentAlgorithm else {}
    algorithm = algorithm_cls(Drifting, model_cls=model_cls, model_config=config, **options, **recurrent)
    algorithm.collect()
    algorithm.step()  # statistics and weights that are not those of the start
    singles: dict[int, DeployedPolicy] = {}  # from each environment's first end on
    compared = 0
    for _ in range(2):
        algorithm.collect(deterministic=True)
        rollout = algorithm.rollout
        for t in range(8):
            for env, policy in singles.items():
                compared += 1
                seen = rollout.obs[rollout.history + t, env]
                torch.testing.assert_close(policy.predict(seen), rollout.actions[t, env], rtol=1e-4, atol=1e-5)
            for env in rollout.is_last[t].nonzero().flatten().tolist():
                singles[env] = DeployedPolicy(algorithm.policy)
    assert compared > 30

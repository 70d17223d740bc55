from rl8 import Trainer
from rl8.conditions import EnvSteps

QUIET = {"num_envs": 4, "horizon": 4, "track": False, "view": "none", "render": False, "eval_num_envs": 4}


def run(folder, env_cls, callback, steps=48, **options):
    """Return a trainer after some env steps, 16 an iteration."""
    options = {**QUIET, "output_dir": str(folder), **options}
    trainer = Trainer(env_cls, callbacks=[callback], seed=1, **options)
    trainer.run(stop_conditions=[EnvSteps(steps)])
    return trainer

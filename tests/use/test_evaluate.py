import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from envs import Episodes, GoesBad, Steering

import rl8
from rl8 import Algorithm, RecurrentAlgorithm, Trainer
from rl8.cli import main
from rl8.env import CartPole
from rl8.models import TransformerModel
from rl8.runs import Found
from rl8.tracking.store import open_store
from rl8.use import evaluate as evaluating
from rl8.use.evaluate import evaluate, summary

SMALL = {"num_envs": 6, "horizon": 8}


@pytest.mark.parametrize(
    ("algorithm_cls", "options"),
    [
        (Algorithm, {"model_config": {"hiddens": [16]}, "normalize_obs": True}),
        (Algorithm, {"model_cls": TransformerModel, "model_config": {"size": 8}}),
        (RecurrentAlgorithm, {"model_config": {"hidden_size": 8}}),
    ],
)
def test_steps_are_evaluated_as_in_training(algorithm_cls, options):
    algorithm = algorithm_cls(CartPole, **SMALL, **options)
    algorithm.collect()
    algorithm.step()
    trainer = Trainer(algorithm, eval_num_envs=5, eval_horizon=12, view="none", track=False)
    torch.manual_seed(7)
    expected = trainer.eval()
    sample = evaluate(algorithm.policy.eval(), CartPole(5, 12), steps=12, seed=7)
    assert sample.lengths == [12] * 5
    assert np.mean(sample.returns) == pytest.approx(expected["eval/returns/mean"], rel=1e-5)
    assert np.max(sample.returns) == pytest.approx(expected["eval/returns/max"], rel=1e-5)


def test_every_environment_gives_its_share_of_the_episodes():
    policy = Algorithm(Episodes, **SMALL).policy.eval()
    before = torch.get_rng_state()
    sample = evaluate(policy, Episodes(6), steps=1, episodes=13)  # env i's last 3 + i % 3 steps
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(sample.lengths) == [3] * 4 + [4] * 4 + [5] * 5
    assert len(sample.returns) == 13
    again = evaluate(policy, Episodes(6), steps=1, episodes=13)
    assert again == sample
    assert evaluate(policy, Episodes(6), steps=1, episodes=13, seed=2) != sample
    assert evaluate(policy, Episodes(6), steps=1, episodes=13, config={"noise": 0.0}).returns != sample.returns


def test_an_episode_that_is_cut_off_counts_as_in_training():
    algorithm = Algorithm(Episodes, **SMALL)
    trainer = Trainer(algorithm, eval_num_envs=6, eval_horizon=4, view="none", track=False)
    torch.manual_seed(7)
    expected = trainer.eval()
    sample = evaluate(algorithm.policy.eval(), Episodes(6), steps=1, episodes=6, most=4, seed=7)
    assert sorted(sample.lengths) == [3, 3, 4, 4, 4, 4]
    assert np.mean(sample.returns) == pytest.approx(expected["eval/returns/mean"], rel=1e-5)


def test_a_return_is_the_sum_of_an_episode_s_rewards():
    policy = Algorithm(Steering, **SMALL).policy.eval()
    sample = evaluate(policy, Steering(3), steps=4)
    action = policy.choose(torch.zeros(1, 1, 1), deterministic=True)[0].item()
    first = -abs(action - 0.5)
    assert evaluate(policy, Steering(3), steps=1).returns == pytest.approx([first] * 3)
    assert sample.returns == pytest.approx([4 * first] * 3, rel=0.05)  # the action hardly depends on the state


def test_actions_may_be_drawn():
    policy = Algorithm(Steering, **SMALL).policy.eval()
    assert len(set(evaluate(policy, Steering(20), steps=1).returns)) == 1
    assert len(set(evaluate(policy, Steering(20), steps=1, deterministic=False).returns)) == 20


def test_an_environment_without_ends_has_no_episodes():
    with pytest.raises(ValueError, match=r"--episodes=3: Steering reports neither .*Try --steps=1000"):
        evaluate(Algorithm(Steering, **SMALL).policy, Steering(2), steps=1, episodes=3)


def test_an_endless_episode_is_found_out(monkeypatch):
    monkeypatch.setattr("rl8.use.evaluate.MAX_STEPS", 4)
    with pytest.raises(ValueError, match=r"an episode of Episodes did not end in 4 steps"):
        evaluate(Algorithm(Episodes, **SMALL).policy, Episodes(6), steps=1, episodes=6)


def test_rewards_that_are_no_numbers_are_refused():
    policy = Algorithm(GoesBad, num_envs=2, horizon=4).policy
    with pytest.raises(ValueError, match=r"GoesBad gave rewards that are infinite or NaN"):
        evaluate(policy, GoesBad(2), steps=14)


def test_a_summary():
    found = summary([0.0, 1.0, 2.0, 3.0])
    assert found["mean"] == 1.5
    assert found["std"] == pytest.approx(1.25**0.5)  # of these four, not of what they were drawn from
    assert (found["min"], found["q25"], found["q50"], found["q75"], found["max"]) == (0.0, 0.75, 1.5, 2.25, 3.0)
    values = np.random.default_rng(1).normal(size=400)
    wide = summary(values.tolist())
    # the mean's standard error is std / sqrt(400), and the interval reaches 1.96 of it to either side
    assert wide["high"] - wide["low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert wide["low"] < values.mean() < wide["high"]


def test_policies_are_compared_in_one_table(train, capsys):
    for seed in (1, 2):
        train(f"run{seed}", "env=pendulum", f"seed={seed}")
    capsys.readouterr()
    assert main(["eval", "run1", "run2", "env.gravity=5", "trainer.eval_num_envs=3"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "return", "95%", "interval", "std", "5%", "median", "95%", "count", "per"]
    assert [row.split()[0] for row in rows] == ["run1", "run2"]
    assert all(row.endswith("3  8 steps") for row in rows)
    assert main(["eval", "run1", "run2/policy.pt", "--json", "--steps=3", "--sample"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["run"] for result in results] == ["run1", "run2/policy.pt"]
    assert (results[0]["count"], results[0]["per"], results[0]["deterministic"]) == (4, "3 steps", False)


def test_a_run_may_be_the_latest_or_named_by_its_id(empty_store, train, capsys):
    shutil.copyfile(empty_store, "mlflow.db")
    train("outputs/one", "env=pendulum", track=True)
    train("outputs/two", "env=cartpole")
    run_id = json.loads(Path("outputs/one/run.json").read_text())["run_id"]
    capsys.readouterr()
    assert main(["eval", "latest", run_id, "--json", "--no-log"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["policy"] for result in results] == ["outputs/two/policy.pt", "outputs/one/policy.pt"]
    assert [result["env"] for result in results] == ["rl8.env.CartPole", "rl8.env.Pendulum"]
    assert rl8.load_policy(run_id).action_spec.shape == (1,)


def test_constants_that_are_typed_act(train, capsys):
    train("run", "env=pendulum")
    means = []
    for words in ([], ["env.gravity=10"], ["env.gravity=0"], ["env.gravity={low: 0, high: 20}"], ["seed=2"]):
        capsys.readouterr()
        assert main(["eval", "run", "--json", "--no-log", *words]) == 0
        means.append(json.loads(capsys.readouterr().out)[0]["returns"]["mean"])
    assert means[0] == means[1]
    assert len(set(means)) == 4


def test_an_evaluation_is_kept_with_the_run(empty_store, train, workdir, capsys):
    shutil.copyfile(empty_store, "mlflow.db")
    train("run", "env=pendulum", track=True)
    capsys.readouterr()
    assert main(["eval", "run", "--json", "--no-log"]) == 0
    assert not (workdir / "run" / "evaluations.jsonl").exists()
    for _ in range(2):
        assert main(["eval", "run"]) == 0
    first, second = ((workdir / "run" / "evaluations.jsonl").read_text()).splitlines()
    client = open_store().client
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    mean = json.loads(second)["returns"]["mean"]
    assert json.loads(first)["returns"]["mean"] == mean
    assert run.data.metrics["evaluation/returns/mean"] == mean
    assert client.list_artifacts(run.info.run_id, "evaluations")


def test_no_secret_is_kept_with_the_run_and_a_failure_costs_no_other_result(workdir, monkeypatch, capsys):
    args = argparse.Namespace(words=["one", "two", "env.password=abc"], steps=None, episodes=None, no_log=False)

    def evaluated(each, *rest):
        if each.name == "two":
            raise ValueError("no luck")
        return {"run": each.name, "overrides": ["env.password=abc"]}

    monkeypatch.setattr(
        evaluating, "task", lambda name, words: SimpleNamespace(name=name, found=Found(workdir, workdir))
    )
    monkeypatch.setattr(evaluating, "_ready", lambda each, args: (each, None, None))
    monkeypatch.setattr(evaluating, "_evaluated", evaluated)
    with pytest.raises(ValueError, match="no luck"):
        evaluating.run(args)
    (line,) = (workdir / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line) == {"run": "one", "overrides": ["env.password=***"]}


def test_a_store_that_is_gone_costs_the_record_alone(empty_store, train, monkeypatch, capsys):
    shutil.copyfile(empty_store, "mlflow.db")
    train("run", "env=pendulum", track=True)
    capsys.readouterr()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["eval", "run"]) == 0
    out, err = capsys.readouterr()
    assert "return" in out
    assert "MLflow did not take the evaluation of run: The MLflow store at http://127.0.0.1:9 does not answer" in err


def test_a_store_is_found_from_the_run_and_created_nowhere(empty_store, train, workdir, monkeypatch, capsys):
    shutil.copyfile(empty_store, "mlflow.db")
    train("run", "env=pendulum", track=True)
    (workdir / "elsewhere").mkdir()
    monkeypatch.chdir(workdir / "elsewhere")
    capsys.readouterr()
    assert main(["eval", "../run"]) == 0
    assert "MLflow" not in capsys.readouterr().err
    (workdir / "mlflow.db").rename(workdir / "another.db")
    assert main(["eval", "../run"]) == 0
    assert "The MLflow store mlflow.db does not have the run" in capsys.readouterr().err
    assert list((workdir / "elsewhere").iterdir()) == []
    assert main(["export", "../run", "--format", "mlflow", "--register", "me"]) == 2
    assert "Set MLFLOW_TRACKING_URI to it, or start in the folder" in capsys.readouterr().err
    shutil.copyfile(empty_store, "mlflow.db")
    assert main(["eval", "../run"]) == 0
    assert "does not have the run" in capsys.readouterr().err


MISTAKES = {
    "eval": "rl8 eval needs a run. Accepted: its folder, ",
    "eval nowhere": "RUN=nowhere is no run.",
    "eval run --steps 0": "--steps=0 is out of range. Accepted: an integer >= 1",
    "eval run --episodes 3": "CartPole reports neither terminated nor truncated, so it has no episodes.",
    "eval run --steps 3 --episodes 3": "not allowed with argument --steps",
    "eval run --stepz 3": "Unknown flag '--stepz'. Did you mean '--steps'?",
    "eval run algo.gamma=0.9": "'algo.gamma=0.9' has no effect on a policy that is trained. Accepted: env.<constant>",
    "eval run model=gru": "'model=gru' has no effect",
    "eval run trainer.eval_horizn=3": "'trainer.eval_horizn=3' has no effect",
    "eval run --steps=9 trainer.eval_horizon=9": "--steps acts in place of trainer.eval_horizon",
    "eval run --sample trainer.eval_deterministic=true": "--sample acts in place of trainer.eval_deterministic",
    "eval run ~env.gravity": "'~env.gravity' has no effect",
    "eval run env.gravity=1,2": "'env.gravity=1,2' gives several values. Accepted: one value.",
    "eval run env.gravty=3": "Unknown key 'env.gravty'. Did you mean 'env.gravity'?",
    "eval run env.gravity=abc": "env.gravity=abc is of the wrong kind",
    "eval run env=pendulum": "the policy of run was trained with Unbounded(shape=(5,)",
    "eval run env=pendlum": "env=pendlum is unknown. Did you mean env=pendulum?",
    "eval run device=cuda": "device.device=cuda",
    "eval run run/checkpoint.pt lone/policy.pt": "lone/policy.pt does not say which environment",
}


def test_mistakes_are_one_message_and_leave_nothing(train, workdir, capsys):
    train("run", "env=cartpole")
    (workdir / "lone").mkdir()
    shutil.copy("run/policy.pt", "lone/policy.pt")
    files = sorted(workdir.glob("**/*"))
    for line, message in MISTAKES.items():
        if "device=cuda" in line and torch.cuda.is_available():
            continue
        capsys.readouterr()
        assert main(line.split()) == 2, line
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err, (line, err)
        assert err.count("\n") == 1
    assert sorted(workdir.glob("**/*")) == files


def test_a_policy_file_alone_needs_its_environment(train, capsys, workdir):
    train("run", "env=pendulum")
    (workdir / "lone").mkdir()
    shutil.copy("run/policy.pt", "lone/policy.pt")
    capsys.readouterr()
    assert main(["eval", "lone/policy.pt", "env=pendulum", "env.gravity=9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["env"] == "rl8.env.Pendulum"

"""The trading study: its dynamics, its bounds, its models, and its files as a user's own folder."""

import csv
import importlib
import itertools
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from rl8 import Algorithm, RecurrentAlgorithm
from rl8.cli import main
from rl8.config import catalog, compose
from rl8.config.schema import check

STUDY = Path(__file__).resolve().parents[2] / "experiments" / "algotrading"
MODULES = ("algotrading", "trading_bounds", "trading_models", "trading_plots", "trading_runs", "report")


@pytest.fixture(scope="module")
def study():
    """Import the study's modules by name, as in its folder; forget them afterwards: other studies have a report too."""
    hidden = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(STUDY))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(STUDY))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


@pytest.fixture
def trading(study):
    return study["algotrading"]


@pytest.fixture
def bounds(study):
    return study["trading_bounds"]


@pytest.fixture
def models(study):
    return study["trading_models"]


def fixed(trading, num_envs=1, **params):
    """Return environments of one known asset, reset."""
    env = trading.AlgoTrading(num_envs, **{"km": 0.01, "kc": 0.05, "f": 0.7, "y0": 100.0, **params})
    return env, env.reset()


def act(env, *actions):
    return env.step(torch.tensor(actions))


# ------------------------------------------------------------------------------------------------------ environment


def test_env_keeps_the_contract(trading):
    trading.AlgoTrading(5, 8).validate()


def test_price_follows_the_equation(trading):
    env, _ = fixed(trading)
    # y[k + 1] = (1 + km) (1 + kc sin(f k)) y[k] with km 0.01, kc 0.05, f 0.7, y[0] = 100:
    # k = 0: 100 * 1.01 * 1 = 101
    # k = 1: 101 * 1.01 * (1 + 0.05 * 0.644218) = 105.295837
    # k = 2: 105.295837 * 1.01 * (1 + 0.05 * 0.985450) = 111.588806
    prices = []
    for _ in range(3):
        act(env, trading.HOLD)
        prices.append(env.state["log_price"].exp().item())
    assert prices == pytest.approx([101.0, 105.295837, 111.588806], rel=1e-5)


def test_parameters_are_drawn_anew_for_each_env_at_every_reset(trading):
    env = trading.AlgoTrading(1000)
    env.reset()
    first = {name: getattr(env, name).clone() for name in trading.DRAWS}
    env.reset()
    for name, limits in trading.DRAWS.items():
        drawn = getattr(env, name)
        assert drawn.shape == (1000,)
        assert not torch.equal(drawn, first[name])
        width = limits["high"] - limits["low"]
        assert limits["low"] <= drawn.min() < limits["low"] + 0.01 * width
        assert limits["high"] - 0.01 * width < drawn.max() <= limits["high"]


def test_settings_of_a_reset_last(trading):
    env = trading.AlgoTrading(4)
    env.reset(config={"km": 0.0, "f": {"low": 0.5, "high": 0.6}})
    env.reset()
    assert env.km.tolist() == 0.0
    assert ((env.f >= 0.5) & (env.f <= 0.6)).all()
    with pytest.raises(ValueError, match="Did you mean 'km'"):
        env.reset(config={"kn": 0.0})
    env.reset()  # the refused setting left no trace


def test_a_seed_gives_the_same_assets_and_disturbs_nothing(trading):
    one, other = trading.AlgoTrading(8), trading.AlgoTrading(8)
    one.reset(config={"seed": 5})
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    other.reset(config={"seed": 5})
    assert torch.equal(torch.rand(3), expected)
    for name in trading.DRAWS:
        assert torch.equal(getattr(one, name), getattr(other, name))
    other.reset()
    assert not torch.equal(one.f, other.f)


def test_mask_allows_buying_or_selling_by_position(trading):
    env, obs = fixed(trading, num_envs=2)
    assert obs["action_mask"].tolist() == [[True, True, False]] * 2
    obs = act(env, trading.BUY, trading.HOLD)["obs"]
    assert obs["action_mask"].tolist() == [[True, False, True], [True, True, False]]
    assert obs["invested"].squeeze(-1).tolist() == [1, 0]
    obs = act(env, trading.SELL, trading.HOLD)["obs"]
    assert obs["action_mask"].tolist() == [[True, True, False]] * 2


def test_forbidden_actions_do_nothing(trading):
    env, _ = fixed(trading, num_envs=2)
    act(env, trading.BUY, trading.SELL)
    bought_at = env.state["log_price_at_buy"].clone()
    result = act(env, trading.BUY, trading.SELL)
    assert env.state["invested"].tolist() == [True, False]
    assert env.state["log_price_at_buy"][0] == bought_at[0]
    assert result["rewards"][1] == 0


def test_an_action_earns_the_change_that_follows(trading, bounds):
    env, obs = fixed(trading)
    c = bounds.price_changes(env, 5).squeeze(1).tolist()
    assert obs["log_change"].item() == 0  # nothing has changed yet
    actions = [trading.HOLD, trading.BUY, trading.HOLD, trading.SELL, trading.BUY]
    earned, seen, since_buy = [], [], []
    for action in actions:
        result = act(env, action)
        earned.append(result["rewards"].item())
        seen.append(result["obs"]["log_change"].item())
        since_buy.append(result["obs"]["log_change_since_buy"].item())
    assert earned == pytest.approx([0, c[1], c[2], 0, c[4]])
    assert seen == pytest.approx(c)  # after the action, and so before the next one only
    assert since_buy == pytest.approx([0, c[1], c[1] + c[2], 0, c[4]], abs=1e-5)  # prices are sums in float32


def test_observations_say_nothing_about_the_future(trading):
    # Three assets that are alike at k = 0 and k = 1: they differ in f, kc and y0, and sin(f * 0) = 0.
    env = trading.AlgoTrading(3, km=0.01, kc=[0.05, 0.09, 0.05], f=[0.7, 1.3, 0.7], y0=[100.0, 100.0, 60.0])
    first, second = env.reset(), act(env, 1, 1, 1)["obs"]
    for obs in (first, second):
        for leaf in obs.values():
            assert torch.allclose(leaf.float(), leaf[:1].float().expand_as(leaf), atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- bounds


def test_best_return_is_what_trying_all_action_sequences_finds(trading, bounds):
    steps = 6
    sequences = torch.tensor(list(itertools.product(range(3), repeat=steps)))  # [729, 6]
    num_assets = 5
    env = trading.AlgoTrading(num_assets * len(sequences))
    env.reset()
    for name in trading.DRAWS:  # every sequence meets each of the assets
        env.assign(name, getattr(env, name)[:num_assets].repeat_interleave(len(sequences)))
    obs, actions = env._observe(), sequences.repeat(num_assets, 1)
    total, legal = torch.zeros(env.num_envs), torch.ones(env.num_envs, dtype=torch.bool)
    for k in range(steps):
        legal &= obs["action_mask"].gather(1, actions[:, k : k + 1]).squeeze(1)
        result = env.step(actions[:, k])
        obs, total = result["obs"], total + result["rewards"]
    tried = total.masked_fill(~legal, -math.inf).view(num_assets, -1).amax(1)
    best = bounds.best_return(bounds.price_changes(env, steps)).view(num_assets, -1)[:, 0]
    assert legal.sum() == num_assets * 2**steps  # the mask leaves two actions at each step
    assert torch.allclose(best, tried, atol=1e-6)


def test_rules_look_at_past_changes_only(trading, bounds):
    env = trading.AlgoTrading(50)
    env.reset()
    changes = bounds.price_changes(env, 8)
    for rule in (bounds.follow, bounds.extrapolate):
        for k in range(8):
            later = changes.clone()
            later[k:] = -later[k:]
            assert torch.equal(rule(later)[: k + 1], rule(changes)[: k + 1])
    assert bounds.follow(torch.tensor([[1.0], [-1.0], [2.0]])).squeeze(1).tolist() == [False, True, False]
    assert bounds.extrapolate(torch.tensor([[1.0], [3.0], [-9.0]])).squeeze(1).tolist() == [False, True, True]
    assert bounds.buy_and_hold(changes).all()
    assert bounds.random(torch.zeros(100, 100)).float().mean() == pytest.approx(0.5, abs=0.03)


def test_best_without_hindsight_decides_by_expectation(trading, bounds):
    env = trading.AlgoTrading(400_000)
    env.reset()
    changes = bounds.price_changes(env, 5)
    invested = bounds.causal(changes[:, :2000], trading.DRAWS)
    assert torch.equal(invested[3:], changes[3:, :2000] > 0)
    # The third decision knows km and kc sin(f). Assets that look alike so far show what follows on average.
    drift, second = changes[0], torch.expm1(changes[1] - changes[0])
    third = changes[2] - drift
    checked = 0
    for asset in range(200):
        alike = (second - second[asset]).abs() < 5e-4
        mean, error = third[alike].mean(), third[alike].std() / alike.sum().sqrt()
        margin = drift[asset] + mean
        if margin.abs() > 4 * error + 1e-3:
            assert invested[2, asset] == (margin > 0)
            checked += 1
    assert checked > 100
    # The second decision knows km only.
    margin = drift[:2000] + (changes[1] - changes[0]).mean()
    clear = margin.abs() > 1e-3
    assert torch.equal(invested[1][clear], margin[clear] > 0)
    # Rises by km are as likely as falls, and the mean logarithm is slightly negative.
    assert not invested[0].any()


def test_best_without_hindsight_beats_the_rules_and_not_hindsight(trading, bounds):
    env = trading.AlgoTrading(4000)
    env.reset()
    changes = bounds.price_changes(env, 64)

    def mean(invested):
        return bounds.returns(changes, invested).mean()

    causal, best = mean(bounds.causal(changes, trading.DRAWS)), bounds.best_return(changes).mean()
    assert mean(bounds.hindsight(changes)) == best
    assert 0.97 * best < causal < best
    assert (
        mean(bounds.buy_and_hold(changes)) < mean(bounds.follow(changes)) < mean(bounds.extrapolate(changes)) < causal
    )


def test_best_without_hindsight_needs_assets_that_can_be_told_apart(trading, bounds):
    with pytest.raises(ValueError, match="0 < f < pi"):
        bounds.causal(torch.zeros(4, 2), {**trading.DRAWS, "f": {"low": 0.1, "high": 4.0}})


# ----------------------------------------------------------------------------------------------------------- models

SMALL = {"num_envs": 8, "horizon": 8, "sgd_minibatch_size": 32, "num_sgd_iters": 2, "normalize_obs": True}
CASES = [
    ("WindowedMLP", {"window": 4, "hiddens": [8]}, {}),
    ("TradingLSTM", {"hidden_size": 8, "hiddens": [8]}, {"seq_len": 4, "seqs_per_state_reset": -1}),
    ("TradingTransformer", {"window": 4, "size": 8, "num_layers": 1, "hiddens": [8]}, {}),
]


@pytest.mark.parametrize(("name", "config", "options"), CASES)
def test_model_trains_two_iterations_within_the_mask(trading, models, name, config, options):
    cls = RecurrentAlgorithm if options else Algorithm
    model_cls = getattr(models, name)
    algorithm = cls(trading.AlgoTrading, model_cls=model_cls, model_config=config, **SMALL, **options)
    before = [parameter.clone() for parameter in algorithm.parameters]
    for _ in range(2):
        algorithm.collect()
        rollout = algorithm.rollout
        allowed = rollout.obs["action_mask"][rollout.history : -1].gather(-1, rollout.actions.unsqueeze(-1))
        assert allowed.all()
        metrics = algorithm.step()
        assert all(value.isfinite() for value in metrics.values())
        assert metrics["monitors/kl_div"] >= 0
    assert all(not torch.equal(*pair) for pair in zip(before, algorithm.parameters, strict=True))


@pytest.mark.parametrize(("name", "config", "options"), CASES)
def test_replay_gives_the_collected_probabilities(trading, models, name, config, options):
    cls = RecurrentAlgorithm if options else Algorithm
    model_cls = getattr(models, name)
    options = {**SMALL, **options, "horizons_per_env_reset": -1}
    algorithm = cls(trading.AlgoTrading, model_cls=model_cls, model_config=config, **options)
    for _ in range(2):  # the second horizon goes on where the first ended, windows and states included
        algorithm.collect()
    rollout = algorithm.rollout
    starts = torch.arange(0, 8, rollout.seq_len)[:, None] * 8 + torch.arange(8)
    rows = starts.flatten() + torch.arange(rollout.seq_len)[:, None] * 8
    batch = rollout.minibatch(rows)
    logp, _, values = algorithm.policy.evaluate(batch.seen, batch.actions, batch.state)
    assert torch.allclose(logp, batch.logp, atol=1e-5)
    assert torch.allclose(values, batch.values, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ the folder


@pytest.fixture
def folder(study, monkeypatch):
    """Make the study's folder the working directory, ready to compose."""
    monkeypatch.chdir(STUDY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    catalog.prepare()
    with compose.composer():
        yield


@pytest.mark.parametrize(
    ("words", "model", "algorithm"),
    [
        (["env=algotrading"], "rl8.models.MLPModel", "rl8.ppo.algorithm.Algorithm"),
        (["experiment=trading_mlp"], "trading_models.WindowedMLP", "rl8.ppo.algorithm.Algorithm"),
        (["experiment=trading_lstm"], "trading_models.TradingLSTM", "rl8.ppo.algorithm.RecurrentAlgorithm"),
        (["experiment=trading_transformer"], "trading_models.TradingTransformer", "rl8.ppo.algorithm.Algorithm"),
    ],
)
def test_yaml_names_the_parts(folder, words, model, algorithm):
    plan = check(*compose.checked(words))
    assert plan.env.target == "algotrading.AlgoTrading"
    assert (plan.model.target, plan.algorithm.target) == (model, algorithm)
    assert plan.trainer.eval_env_config == {"seed": 0}


def test_yaml_repeats_the_constructors_draws(folder, trading):
    assert check(*compose.checked(["env=algotrading"])).env.options == trading.DRAWS


def test_a_number_may_replace_a_draw(folder):
    plan = check(*compose.checked(["env=algotrading", "env.km=0", "env.f.high=1.5"]))
    assert plan.env.options["km"] == 0
    assert plan.env.options["f"] == {"low": 0.1, "high": 1.5}


@pytest.mark.parametrize("path", sorted((STUDY / "conf").glob("*/*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_the_models_yaml_is_commented(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert yaml.safe_load("\n".join(lines))
    if path.parent.name == "model":
        assert all("  # " in line for line in lines[2:])


def test_sweep_and_report_work_in_the_users_own_folder(program, store_dir, monkeypatch, capsys):
    ignored = shutil.ignore_patterns("results", "outputs", "mlruns", "mlflow.db*", "__pycache__")
    shutil.copytree(STUDY, program, ignore=ignored, dirs_exist_ok=True)
    for name in MODULES:  # the copies are meant, not what other tests imported
        monkeypatch.delitem(sys.modules, name, raising=False)
    tiny = ["algo.num_envs=8", "algo.horizon=16", "algo.sgd_minibatch_size=64", "goal.env_steps=256"]
    models = "experiment=trading_mlp,trading_lstm,trading_transformer"
    assert main(["-m", models, "seed=1", *tiny, "trainer.eval_num_envs=8", "trainer.view=none"]) == 0
    report = importlib.import_module("report")
    monkeypatch.setattr(report, "NUM_ENVS", 32)
    monkeypatch.setattr(report, "LONG_NUM_ENVS", 16)
    monkeypatch.setattr(sys, "argv", ["report.py"])
    capsys.readouterr()
    report.main()
    printed = capsys.readouterr().out
    results = program / "results"
    names = ["curves.csv", "learning_curves.png", "share_by_step.png", "table.csv", "table.md", "trades.png"]
    assert sorted(path.name for path in results.iterdir()) == names
    text = (results / "table.md").read_text(encoding="utf-8")
    assert printed == text
    assert text in (program / "README.md").read_text(encoding="utf-8")
    with (results / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["strategy"] for row in rows if row["seed"] == "1"] == list(report.MODELS.values())
    shares = {row["strategy"]: float(row["share"]) for row in rows}
    assert shares["best possible (hindsight)"] == 1
    assert all(share <= 1 for share in shares.values())
    with (results / "curves.csv").open(encoding="utf-8") as file:
        assert {row["env_steps"] for row in csv.DictReader(file)} == {"256"}


def test_report_without_a_sweep_says_what_to_type(program, store_dir, study):
    with pytest.raises(ValueError, match=r"has no sweep of the experiment 'algotrading'\. Type the README"):
        study["trading_runs"].read_sweep()


def test_committed_table_has_three_seeds_per_model_and_stands_in_the_readme(study):
    text = (STUDY / "results" / "table.md").read_text(encoding="utf-8")
    assert text in (STUDY / "README.md").read_text(encoding="utf-8")
    with (STUDY / "results" / "table.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"]]
    shares = {
        model: [float(r["share"]) for r in rows if r["strategy"] == model] for model in study["report"].MODELS.values()
    }
    assert all(len(found) == 3 and min(found) >= 0.8 for found in shares.values())

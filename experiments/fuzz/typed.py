"""Random words for the command line, and the rule that what is typed acts or is refused before anything exists.

`words` draws them, `attempt` types them and says what happened, `faults` lists what broke the rule.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import re
import shlex
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import torch
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from omegaconf import OmegaConf

from rl8 import cli
from rl8.conditions import EnvSteps
from rl8.config import catalog, compose, overrides
from rl8.trainer import Trainer


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


# One iteration of 16 env steps; each may be typed otherwise.
TINY = listed(
    """
    trainer.track=false trainer.view=none trainer.render=false trainer.eval_num_envs=4 algo.num_envs=4
    algo.horizon=4 algo.sgd_minibatch_size=null device.num_threads=1 goal.env_steps=16
    """
)
# Seconds that an input may take: a thousand times what it should.
LIMIT = 30.0

# Environments of other libraries need an id, and the library.
ADAPTERS = {"gymnasium", "envpool", "mjlab", "isaaclab", "playground"}
# Left alone: true would compile for a minute, draw films or open a database, which other tests do.
SWITCHED_OFF = ("device.compile", "trainer.render", "trainer.track")
# Larger numbers would be right, and take long.
SIZES = listed(
    """
    algo.num_envs algo.horizon algo.num_sgd_iters algo.sgd_minibatch_size algo.seq_len trainer.eval_num_envs
    trainer.eval_horizon network.hiddens network.seq_len model.hiddens model.window model.size model.num_heads
    model.num_layers model.hidden_size device.num_threads env.delay env.num_cues env.max_episode_steps
    """
)
ABSENT = listed(
    """
    env.mass model.foo +env.foo +model.foo +model.dropout algo.gama algo.learning_rate lr gamma env.gravty
    model.hidden algo.optimizer.learning_rate trainer.seed seed.x goal env.gravity.x network.size stop.env_step
    device.gpu a.b.c é algo.é env.GRAVITY Algo.gamma algo..gamma algo. .algo algo.gamma. algo/gamma env[0]
    env.tau[0] __class__ algo._target_.x experiment.x model.hiddens.0 network.hiddens.0 algo.lr_schedule.0
    hydra.foo
    """
)
EXTRA = listed(
    """
    +algo.optimizer.betas +algo.optimizer.weight_decay +algo.optimizer.eps +algo.optimizer.amsgrad
    +algo.optimizer.foreach +algo.optimizer.fused +algo.optimizer.maximize +algo.optimizer.momentum
    +trainer.eval_env_config.gravity +trainer.env_config.tau +model.window +stop.key hydra.output_subdir
    hydra.run.dir hydra.job.chdir hydra.job.name hydra.mode +env.horizon +env.num_envs +algo.optimizer.params
    """
)
TARGETS = listed(
    """
    rl8.env.CartPole rl8.env.Pendulum rl8.env.nope rl8.env os.system torch.nn.Linear torch.optim.SGD
    torch.optim.LBFGS torch.optim.SparseAdam torch.optim.Adam torch.optim.RMSprop torch.optim.Adagrad
    torch.optim.AdamW torch.optim rl8.models.MLPModel rl8.models.LSTMModel rl8.models.TransformerModel
    rl8.distributions.Normal rl8.distributions.Categorical rl8.conditions.Never rl8.conditions.EnvSteps
    rl8.ppo.algorithm.Algorithm rl8.ppo.algorithm.RecurrentAlgorithm rl8.specs.Unbounded x null 3 [] é.É
    """
)
NUMBERS = listed(
    """
    0 1 2 3 4 8 0.5 0.9 0.99 1.5 2.5 1e-3 3e-4 1_000 4.0 1e0 -1 -2.5 -0.0 1e-8 1e-40 1e-320 5e-324 1e30 1e38
    3.5e38 1e39 1e300 1e308 1e309 -1e309 1e400 inf -inf nan .inf .nan 0x10 0b1 1e1000 00012
    """
)
SMALL = ("1", "2", "3", "4", "8", "2.0", "4.0")
IMMENSE = ("1e18", "1e23", "10000000000000000000", "-9223372036854775809", "18446744073709551616", "1" + "0" * 400)
ODD = (
    "null", "true", "false", "yes", "off", "True", "None", "''", '""', "' '", "[]", "[1]", "[1, 2]", "[[]]", "[[0, 1]]",
    "[[0, 1e-3], [16, 0]]", "[[0, -1]]", "[[5, 1e-3], [0, 1]]", "[0, 1]", "[1, x]", "[[0, nan]]", "[null]", "[true]",
    "[[[[1]]]]", "{}", "{a: 1}", "{low: 1, high: 2}", "{low: 2, high: 1}", "{low: 1}", "{low: nan, high: 1}",
    "{low: 1, hi: 2}", "{gravity: 3}", "{gravity: nan}", "{gravty: 3}", "{1: 2}", "{a: {b: [c]}}", "abc", "é", "日本",
    "a b", "a,b", "'a,b'", "x\ty", "-", "--", "=", "a=b", "${", "${}", "${nope}", "${seed}", "${algo.gamma}", "${goal}",
    "${oc.env:NO_SUCH_VARIABLE}", "${oc.env:NO_SUCH_VARIABLE,1}", "${oc.decode:'3'}", "${now:%Y}", "${algo.${seed}}",
    "???", "!!python/object:os.system", "*", "&a", "|", "#", "%", "\\", "'", '"', "(1)", "1+1", "range(3)", "choice(1)",
    "glob(*)", "interval(0,1)", "1,2", "[1,2,3,4]", "[1.0, 2.0, 3.0, 4.0]", "x" * 300, "a/b", "nowhere.pt", "\u200b",
    "²",
)  # fmt: skip
TEXTS = listed(
    """
    relu tanh elu silu gelu euler semi-implicit step interp bf16 fp16 cpu cuda cuda:0 cuda:99 mps highest high medium
    auto live plain none returns/mean losses/total eval/returns/mean out a/b/out rl8
    """
)
FLAGS = (
    "--cfg job", "--cfg hydra", "--cfg all", "--cfg job --resolve", "--cfg job -p algo", "-p algo", "--resolve",
    "--cfg", "--cfg jbo", "--help", "-h", "--version", "--info searchpath", "--info nope", "--mutlirun", "-x",
    "train", "tran", "train -f", "train -f nope.yaml", "-cn nope", "-cd nowhere", "--env=lander", "--seed 3",
    "--cfg job -p algo.nope", "-", "--", "eval", "",
)  # fmt: skip
CHANGED_CHOICES = (
    "{}x",
    "{}s",
    "'{}'",
    "{}.yaml",
    "[{}]",
    "null",
    "''",
    "é{}",
    "{} ",
    "/{}",
    "3",
    "{},{}",
    "${{seed}}",
)
PREFIXES = (*[""] * 12, "+", "++", "~")


@dataclass
class Attempt:
    """What came of some words.

    Attributes:
        words: What was typed.
        code: Exit code.
        out: What was printed.
        err: What was printed to stderr.
        files: Files and folders that were left.
        seconds: How long it took.
        trainer: The trainer that ran, or None.
        error: The exception that ended it with a traceback, or None.
    """

    words: list[str]
    code: int | str = 0
    out: str = ""
    err: str = ""
    files: list[str] = field(default_factory=list)
    seconds: float = 0.0
    trainer: Trainer | None = None
    error: str = ""

    @property
    def kind(self) -> str:
        """`trained`, `printed`, `refused`, `diverged` (a loss that is no number), `hang` or `traceback`."""
        if self.code == "hang":
            return "hang"
        if "Traceback" in self.err or self.code not in (0, 1, 2):
            return "diverged" if "FloatingPointError" in self.err.splitlines()[-1] else "traceback"
        if self.code == 1:
            return "diverged" if "training has failed" in self.err else "traceback"
        return "refused" if self.code == 2 else "trained" if self.trainer is not None else "printed"


# ------------------------------------------------------------------------------------------------------- drawing


@functools.cache
def leaves(choices: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """Return the keys, with their values, of the config that a choice of options makes."""
    with compose.composer():
        cfg, _ = compose.checked(list(choices))
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    plain.pop("hydra")
    found: list[tuple[str, Any]] = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Mapping) and node:
            for key, value in node.items():
                walk(value, f"{path}.{key}".lstrip("."))
        else:
            found.append((path, node))

    walk(plain, "")
    return tuple(found)


def words(random: Random) -> list[str]:
    """Draw words of the command line: options of groups, values of keys, mistakes in both, now and then a flag."""
    chosen, typed = [], []
    for group in ("env", "model", "distribution", "stop"):
        names = sorted(set(catalog.options(group)) - (ADAPTERS if random.randrange(20) else set()))
        how = random.randrange(40)
        if how < {"env": 24, "model": 10}.get(group, 4):
            chosen.append(f"{group}={random.choice(names)}")
        elif how == 39:
            name = random.choice(CHANGED_CHOICES).replace("{}", random.choice(names))
            typed.append(f"{random.choice(PREFIXES)}{group}={name}")
    if ("model=gru" in chosen or "model=lstm" in chosen) == (random.randrange(10) > 0):
        chosen.append("algo=recurrent")
    for _ in range(random.choice((0 if typed else 1, 1, 2, 3))):
        typed.append(override(random, tuple(chosen)))  # noqa: PERF401 (a loop says it better)
    flags = shlex.split(random.choice(FLAGS)) if random.randrange(25) == 0 else []
    base = [word for word in TINY if key_of(word) not in {key_of(other) for other in typed}]
    return [*base, *chosen, *typed, *flags]


def override(random: Random, choices: tuple[str, ...]) -> str:
    """Draw one override of a key that these choices have, or nearly have."""
    known = [(key, value) for key, value in leaves(choices) if key not in SWITCHED_OFF]
    how = random.randrange(20)
    if how == 0:
        key, default = random.choice(ABSENT), None
    elif how in (1, 2):
        key, default = random.choice(EXTRA), None
    else:
        key, default = random.choice(known)
    if how == 3:
        place = random.randrange(len(key))
        key = key[:place] + random.choice(("", "x", "é", ".", key[place] * 2)) + key[place + 1 :]
    elif how == 4:
        key = key.rpartition(".")[0] or key
    prefix = random.choice(PREFIXES) if not key.startswith("+") else ""
    if prefix == "~" and random.randrange(2):
        return f"~{key}"
    return f"{prefix}{key}={value_of(random, key.lstrip('+'), default)}"


def value_of(random: Random, key: str, default: Any) -> str:
    """Draw a value: most of them of the kind that the key has."""
    if random.randrange(3):
        if key.endswith("_target_"):
            return random.choice(TARGETS)
        if isinstance(default, bool):
            return random.choice(("true", "false"))
        if key in SIZES:
            return random.choice(SMALL if "hiddens" not in key else ("[]", "[3]", "[4, 2]", "[1.0]"))
        if isinstance(default, str) and "${" not in default:
            return random.choice(TEXTS)
        if random.randrange(4) and isinstance(default, (int, float)):  # near the file's own
            return repr(type(default)(default * random.choice((0.5, 0.75, 1, 1, 1.5, 2))))
        if random.randrange(4) and (default is None or isinstance(default, list)):
            return str(default).replace("None", "null")
        numbers = repr(round(random.uniform(-1, 3), 3)), str(random.randint(-2, 9)), random.choice(NUMBERS)
        return random.choice((*numbers, random.choice(ODD)))
    if key in SIZES:
        return random.choice((*ODD, *IMMENSE, "0", "-1", "2.5", "nan", "inf", "1e-3"))
    any_float = struct.unpack("d", random.randrange(2**64).to_bytes(8, "little"))[0]
    any_text = "".join(chr(random.choice((random.randrange(33, 127), random.randrange(1, 0xD800)))) for _ in range(4))
    wild = (
        random.choice(ODD), random.choice(ODD), random.choice(TEXTS), random.choice(NUMBERS), random.choice(IMMENSE),
        repr(any_float), str(random.randrange(-(2**70), 2**70)), any_text[: random.randint(1, 4)],
        str([round(random.uniform(-10, 10), 2) for _ in range(random.randint(0, 5))]),
    )  # fmt: skip
    # not above the folder where the test runs
    return random.choice(wild).replace("..", "").lstrip("/~")


def key_of(word: str) -> str:
    """Return the key of an override."""
    return word.partition("=")[0].lstrip("+~")


# -------------------------------------------------------------------------------------------------------- typing


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Read rl8's YAML files once, draw no curves, and leave the heap alone: what the rule does not speak of."""
    load, loaded = FileConfigSource.load_config, {}

    def cached(self: FileConfigSource, config_path: str) -> Any:
        place = (self.path, config_path)
        if place not in loaded:
            loaded[place] = load(self, config_path)
        return copy.deepcopy(loaded[place])

    with (
        mock.patch.object(FileConfigSource, "load_config", cached),
        mock.patch.object(compose._from_files, "cache_clear", create=True),
        mock.patch("rl8.view.plots.learning_curve", return_value=None),
        mock.patch("gc.freeze"),
        mock.patch.dict(os.environ),
    ):
        yield


class _TooLong(BaseException):
    pass


def attempt(typed: Sequence[str], limit: float = LIMIT) -> Attempt:
    """Type words in an empty folder; a run is stopped after its first iteration, evaluated and saved."""
    result, run, before = Attempt(list(typed)), Trainer.run, Path.cwd()
    out, err = io.StringIO(), io.StringIO()

    def once(trainer: Trainer) -> dict[str, float]:
        result.trainer = trainer
        return run(trainer, stop_conditions=[*trainer.stop_conditions, EnvSteps(1)])

    def too_long(number: int, frame: object) -> None:
        raise _TooLong

    place = Path(tempfile.mkdtemp(prefix="rl8-fuzz-"))
    folder = place / "empty"
    folder.mkdir()
    handler = signal.signal(signal.SIGALRM, too_long)
    begin = time.perf_counter()
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        os.chdir(folder)
        with (
            mock.patch.object(Trainer, "run", once),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            signal.setitimer(signal.ITIMER_REAL, limit)
            try:
                result.code = cli.main(result.words)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except _TooLong:
        result.code = "hang"
    except SystemExit as error:
        result.code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        result.code = f"raised {type(error).__name__}"
        result.error = traceback.format_exc()
    finally:
        signal.signal(signal.SIGALRM, handler)
        result.seconds = time.perf_counter() - begin
        os.chdir(before)
        result.out, result.err = out.getvalue(), err.getvalue() + result.error
        result.files = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path != folder)
        shutil.rmtree(place, ignore_errors=True)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    return result


# ---------------------------------------------------------------------------------------------------------- rule


def faults(done: Attempt) -> list[str]:
    """Return how an attempt broke the rule."""
    if done.kind in ("hang", "traceback"):
        return [done.kind]
    if done.kind == "printed":
        return ["file left"] if done.files else []
    if done.kind == "refused":
        found = ["file left"] if done.files else []
        found += [] if _one_message(done) else ["several messages"]
        found += [] if _names_key(done) else ["message without key"]
        for advice in advised(done):
            again = follow(done, advice)
            found += ["traceback"] if again.kind == "traceback" else []
            found += [f"advice: {advice}"] if _refuses_its_advice(done, again, advice) else []
        return found
    return [f"not as typed: {key}" for key in not_as_typed(done)]


def _one_message(done: Attempt) -> bool:
    return done.err.startswith("rl8: ") and done.err.count("\n") == 1 and not done.out.strip()


def _names_key(done: Attempt) -> bool:
    """Return whether a message names something typed, and its value or what is accepted."""
    names = [name for word in done.words for name in (word, key_of(word), key_of(word).rpartition(".")[2])]
    return any(name and name in done.err for name in names) and bool(
        re.search(r"Accepted|Try |Did you mean|lists what is accepted", done.err)
        or any(word.partition("=")[2] in done.err for word in done.words if "=" in word)
    )


def advised(done: Attempt) -> list[str]:
    """Return what a message says to try, each alternative on its own, as it would be typed."""
    found = []
    for text in re.findall(r"\bTry (.+?)(?:\.(?=\s|$)|\(job|$)", done.err, re.MULTILINE):
        found += [part.strip(" ,") for part in re.split(r",? or (?:a smaller minibatch, e\.g\. )?", text)]
    # a processor refuses device=cuda whoever advises it
    return [text for text in found if _advised_words(text) and not re.search(r"<\w+>|my_|device=cuda", text)]


def _advised_words(text: str) -> list[str]:
    try:
        tokens = shlex.split(text)
    except ValueError:
        return []
    return [token.rstrip(",;") for token in tokens if re.match(r"[~+]*[\w.@/]+=|~\w", token)]


def follow(done: Attempt, advice: str) -> Attempt:
    """Type the words again, changed as a message says."""
    new = _advised_words(advice)
    keys = {key_of(word) for word in new}
    flagged = [word for flag, word in pairwise(done.words) if flag in ("--cfg", "-p", "--info", "-f", "-cn", "-cd")]
    own = [word for word in done.words if word not in (*TINY, *flagged)]
    said = done.err.partition("Accepted")[0]
    named = [word for word in own if word in done.err] or [word for word in own if key_of(word) in said]
    blamed = max(named, key=lambda word: ("=" in word, len(key_of(word))), default=None)
    nested = tuple(f"{key}." for key in keys)
    others = [word for word in done.words if key_of(word) not in keys and not key_of(word).startswith(nested)]
    kept = [word for word in others if word != blamed and word.strip("-")]
    return attempt([*kept, *(["-m"] if advice.startswith("rl8 -m") else []), *new])


def _refuses_its_advice(done: Attempt, again: Attempt, advice: str) -> bool:
    """Return whether advice is refused; a value that was typed is not the advice's but the user's."""
    typed = {word.partition("=")[2] for word in done.words if "=" in word}
    advised = [word for word in _advised_words(advice) if word.partition("=")[2] not in typed]
    return again.kind == "refused" and (again.err == done.err or any(word in again.err for word in advised))


def not_as_typed(done: Attempt) -> list[str]:
    """Return the keys whose typed values are not what was recorded and built."""
    trainer, wrong = done.trainer, []
    assert trainer is not None
    last: dict[str, str] = {}
    for word in done.words:
        if "=" in word and not word.startswith("~"):
            last[key_of(word)] = word
    keys = list(last)
    for key, word in last.items():
        nested = any(other.startswith(f"{key}.") or key.startswith(f"{other}.") for other in keys if other != key)
        if nested or key in catalog.GROUPS or key.startswith("hydra"):
            continue
        with compose.composer():
            value = overrides.parse(word).value()
        recorded = _at(trainer.config, key)
        if not _same(value, recorded) or not all(
            recorded is None or _same(recorded, built) for built in _built(trainer, key)
        ):
            wrong.append(key)
    return wrong


def _built(trainer: Trainer, key: str) -> list[Any]:
    """Return what the run's parts made of a key."""
    algorithm = trainer.algorithm
    group, _, name = key.partition(".")
    if key.startswith("algo.optimizer."):
        name = key.rpartition(".")[2]
        found = algorithm.optimizer.defaults
        return [found[name]] if name in found else []
    if group == "algo":
        return [getattr(algorithm.hparams, name)] if hasattr(algorithm.hparams, name) else []
    if group == "trainer" and name != "output_dir":
        return [getattr(trainer.settings, name)] if hasattr(trainer.settings, name) else []
    if group == "device":
        return [getattr(algorithm.execution.settings, name)]
    if group == "model":
        return [algorithm.policy.model_config[name]] if name in (algorithm.policy.model_config or {}) else []
    return []


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(tree, list) and part.isdigit():
            tree = tree[int(part)]
        else:
            tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _same(typed: Any, found: Any) -> bool:
    if hasattr(typed, "text"):  # Hydra's quoted text
        typed = typed.text
    if isinstance(typed, str) and "${" in typed:
        return True
    if isinstance(typed, Mapping) and isinstance(found, Mapping):
        return all(_same(value, found.get(str(key), found.get(key))) for key, value in typed.items())
    if isinstance(typed, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(typed) == len(found) and all(map(_same, typed, found))
    if isinstance(found, float) and isinstance(typed, int) and not isinstance(typed, bool):
        return float(typed) == found
    if isinstance(found, str) and not isinstance(typed, str):
        return found in (str(typed), repr(typed)) or found == str(typed).lower()
    return bool(typed == found)

"""A policy: a model and an action distribution, with the statistics that normalise observations."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from rl8.checks import source_file, unknown
from rl8.data import ACTION_MASK
from rl8.distributions import Distribution, default_distribution
from rl8.kinds import plain
from rl8.models import LSTMModel, MLPModel, Model, Output
from rl8.models.base import FEATURE_SHAPES, by_policy
from rl8.models.views import Views
from rl8.parallel import world
from rl8.policy.normalization import ObsNormalizer
from rl8.policy.outputs import check_built, check_output, not_built
from rl8.policy.segments import segments
from rl8.rng import forked
from rl8.specs import Composite, Nested, Spec, leaves

Infer = Callable[[Nested, Nested | None], tuple[Mapping[str, Any], Tensor | None, Nested | None]]


class Act(NamedTuple):
    """What a policy does in every environment at one step.

    Attributes:
        actions: `[N, ...]` as the buffer stores them.
        env_actions: `[N, ...]` as the environment takes them.
        logp: `[N]` log-probability of `actions`.
        values: `[N]` value estimates, or None where the model computes them in a pass of their own.
        state: `[N, ...]` recurrent state for the next step, or None.
        features: `[1, N, ...]` what the model gave for the distribution.
    """

    actions: Nested
    env_actions: Nested
    logp: Tensor
    values: Tensor | None
    state: Nested | None
    features: Mapping[str, Any]


class Policy(nn.Module):
    """Chooses actions, and says afterwards how likely and how good they were.

    It does so in evaluation mode, while it is trained too: the probability of an action must not depend on which others
    are in a batch, nor on a draw of dropout, or the ratio of an unchanged policy would not be 1. Dropout layers do
    nothing, and batch normalisation uses running statistics, which are updated after each horizon like those of
    observations.

    Args:
        observation_spec: The environment's.
        action_spec: The environment's.
        model: A ready model, instead of `model_cls`.
        model_cls: Class of the model; by default an MLP, or an LSTM if `recurrent`.
        model_config: Keywords for `model_cls`.
        distribution_cls: Class of the action distribution; by default the one for `action_spec`.
        recurrent: Which kind of model is the default.
        normalize_obs: Whether observations are normalised by running statistics.
        clip_obs: Limit of a normalised observation's size, in stds.
        device: Where the networks live.
        autocast: Makes the context in which the model computes (mixed precision).
        steps_per_state_reset: Env steps after which training let the recurrent state start anew, wherever an episode
            was; None if it never did.

    Attributes:
        model: The network.
        model_config: Keywords that the model was built with, without the specs and `feature_shapes`.
        views: What of the observations the model sees.
        normalized: Path of each observation that is normalised, in the order of `normalizers`.
        side_by_side: Whether parts of sequences between ends of episodes are computed together: faster, but the device
            is waited for. An execution says so.

    Raises:
        TypeError: If a part is no model or no distribution, or does not take the options given.
        ValueError: If the parts do not fit the specs; the message names the spec and the missing piece.
    """

    side_by_side = False

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        model: Model | None = None,
        model_cls: type[Model] | None = None,
        model_config: Mapping[str, Any] | None = None,
        distribution_cls: type[Distribution] | None = None,
        recurrent: bool = False,
        normalize_obs: bool = False,
        clip_obs: float = ObsNormalizer.clip,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        steps_per_state_reset: int | None = None,
    ) -> None:
        super().__init__()
        self.observation_spec, self.action_spec = observation_spec, action_spec
        self.distribution_cls: type[Distribution] = distribution_cls or default_distribution(action_spec)
        if not _is_subclass(self.distribution_cls, Distribution):
            raise TypeError(
                f"distribution_cls={self.distribution_cls!r} is no subclass of rl8.distributions.Distribution. "
                "Try distribution_cls=rl8.distributions.Normal."
            )
        ready_made = model is not None
        if model is None:
            # a copy: what a model does to its keywords is not what it was built with
            model = self._build(model_cls or (LSTMModel if recurrent else MLPModel), plain(model_config or {}))
        elif model_cls is not None or model_config:
            raise TypeError("model is ready-made, so model_cls and model_config have no effect. Give one or the other.")
        if not isinstance(model, Model):
            raise TypeError(f"model={type(model).__name__} is no subclass of rl8.models.Model. Derive it from Model.")
        check_built(model)
        self.model = model
        self.model_config = model.built_with() if ready_made else dict(model_config or {})
        self.views = Views(observation_spec, model.windows)
        numbers = [
            (path, leaf)
            for path, leaf in leaves(observation_spec)
            if normalize_obs and leaf.dtype is not None and leaf.dtype.is_floating_point and ACTION_MASK not in path
        ]
        self.normalized = [path for path, _ in numbers]
        self.normalizers = nn.ModuleList([ObsNormalizer(leaf.shape, clip_obs) for _, leaf in numbers])
        self.autocast = autocast
        self.steps_per_state_reset = steps_per_state_reset if self.recurrent else None
        self.to(device)
        self.device = torch.device(device)
        self.eval()
        self.batch_norms = batch_norms(self.model)
        self._check()

    @property
    def recurrent(self) -> bool:
        """Whether the model carries a state from step to step."""
        return self.model.state_spec is not None

    @functools.cached_property
    def pure(self) -> bool:
        """Whether `evaluate` draws no random numbers and changes nothing in the model, so that threads can share it."""
        with torch.no_grad(), forked(self.device):
            seen, state = self._random_seen(2), self.initial_state(2)
            actions = self.act(seen, state).actions.unsqueeze(0)
            rng, objects, versions = torch.get_rng_state(), *self._contents()
            self.evaluate(seen, actions, state)
            objects_after, versions_after = self._contents()
            same = len(objects) == len(objects_after) and all(map(operator.is_, objects, objects_after))
            return same and versions == versions_after and torch.equal(rng, torch.get_rng_state())

    @property
    def spec_in_use(self) -> Spec:
        """What acting needs of an observation: all but the entries that the value alone sees."""
        spec, dropped = self.observation_spec, self.model.critic_only
        if not dropped or not isinstance(spec, Composite):
            return spec
        return Composite({name: spec[name] for name in spec if name not in dropped})

    def initial_state(self, n: int) -> TensorDict | None:
        """Return the recurrent state `[n, ...]` at an episode's start, or None."""
        spec = self.model.state_spec
        return None if spec is None else spec.to(self.device).zeros(n)

    def forward(self, *inputs: Any) -> None:
        """Say how a policy is used: what it is called with is no observation but what the model sees.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "A training policy is not called with observations. Accepted: rl8.DeployedPolicy(policy).predict(obs), or "
            "rl8.load_policy(run).predict(obs) for a run that is saved."
        )

    def act(
        self,
        seen: Nested,
        state: Nested | None = None,
        *,
        deterministic: bool = False,
        keep_graph: bool = False,
        infer: Infer | None = None,
    ) -> Act:
        """Choose an action in every environment.

        Args:
            seen: `[1, N, ...]` what the model sees; see `Views.step`.
            state: `[N, ...]` recurrent state, or None.
            deterministic: Whether to take the distribution's mode rather than a sample.
            keep_graph: Whether the features that are returned can be differentiated, whatever the gradient mode.
            infer: What stands for the model: takes `seen` and `state`; returns features, values or None, and a state.
        """
        with torch.enable_grad() if keep_graph else nullcontext():
            features, values, state = (infer or self._infer)(seen, state)
        distribution = self.distribution(_detached(features) if keep_graph else features, seen)
        actions = distribution.mode() if deterministic else distribution.sample()
        return Act(
            actions=actions[0],
            env_actions=distribution.to_env(actions)[0],
            logp=distribution.logp(actions)[0],
            values=None if values is None else values[0].float(),
            state=state,
            features=features,
        )

    def choose(
        self, seen: Nested, state: Nested | None = None, *, deterministic: bool = True
    ) -> tuple[Nested, Nested | None]:
        """Return actions `[N, ...]` as the environment takes them and the next state: of `act`, what use needs."""
        if self.model.critic_only:  # what the value sees may be missing
            with self.autocast():
                features, state = self.model.act(self._normalize(seen), state)
        else:
            features, _, state = self._infer(seen, state)
        distribution = self.distribution(features, seen)
        actions: Nested = distribution.to_env(distribution.mode() if deterministic else distribution.sample())
        return actions[0], state

    def evaluate(
        self, seen: Nested, actions: Nested, state: Nested | None = None, is_last: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability, entropy and value `[L, B]` of stored sequences.

        Args:
            seen: `[L, B, ...]` what the model sees.
            actions: `[L, B, ...]` as stored.
            state: `[B, ...]` recurrent state at the start of each sequence, or None.
            is_last: `[L, B]` bool, steps after which the recurrent state starts anew; None if there are none.
        """
        return self.judge(*self.outputs(seen, state, is_last), seen, actions)

    def outputs(
        self, seen: Nested, state: Nested | None = None, is_last: Tensor | None = None
    ) -> tuple[Mapping[str, Any], Tensor]:
        """Return features and values `[L, B, ...]` of stored sequences; see `evaluate`."""
        with self.autocast():
            if is_last is None or state is None:
                features, values, _ = self.model(self._normalize(seen), state)
            else:
                features, values = self._unroll(self._normalize(seen), state, is_last)
        return features, values.float()

    def judge(
        self, features: Mapping[str, Any], values: Tensor, seen: Nested, actions: Nested
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `evaluate` returns, for features and values `[L, B, ...]` that the model gave before."""
        distribution = self.distribution(features, seen)
        return distribution.logp(actions), distribution.entropy(), values

    def values(self, seen: Nested, state: Nested | None = None) -> Tensor:
        """Return values `[L, B]` of what the model sees `[L, B, ...]`."""
        with self.autocast():
            if self.model.has_value_pass:
                values = self.model.value(self._normalize(seen))
            else:
                values = self.model(self._normalize(seen), state).values
        return values.float()

    def inputs(self, seen: Nested) -> Tensor:
        """Return what the model's perceptrons take, `[L, B, D]`, of what the model sees; see `Model.inputs`."""
        return self.model.inputs(self._normalize(seen))

    @torch.no_grad()
    def update_batch_norms(self, seen: Nested) -> None:
        """Let batch normalisation see what the model saw `[1, B, ...]`.

        With several processes its statistics become the mean of theirs: variances lack what lies between their means.
        """
        for layer in self.batch_norms:
            layer.train()
        try:
            with self.autocast():
                self.model(self._normalize(seen))
        finally:
            for layer in self.batch_norms:
                layer.eval()
        world.mean_([total for layer in self.batch_norms for total in layer.buffers() if total.is_floating_point()])

    def update_normalizers(self, obs: Nested) -> None:
        """Merge observations `[M, ...]` into the running statistics."""
        for path, normalizer in zip(self.normalized, self.normalizers, strict=True):
            assert isinstance(normalizer, ObsNormalizer)
            leaf: Any = obs
            normalizer.update(leaf[path] if path else leaf)

    def distribution(self, features: Mapping[str, Any], seen: Nested) -> Distribution:
        """Return the action distribution for features `[L, B, ...]`, masked where the observation has a mask."""
        if isinstance(seen, TensorDict) and self.views.composite and ACTION_MASK in seen.keys():  # noqa: SIM118
            features = {**features, ACTION_MASK: seen[ACTION_MASK]}
        return self.distribution_cls(features, self.action_spec)

    def _infer(self, seen: Nested, state: Nested | None) -> tuple[Mapping[str, Any], Tensor | None, Nested | None]:
        """Return features `[1, N, ...]`, values unless they have a pass of their own, and the state after the step."""
        inputs = self._normalize(seen)
        with self.autocast():
            if self.model.has_value_pass:
                features, state = self.model.act(inputs, state)
                return features, None, state
            if state is None:
                state = self.initial_state(seen.shape[1])
            output: Output = self.model(inputs, state)
            return output

    def _normalize(self, seen: Nested) -> Nested:
        """Return what the model sees with every float observation normalised, padding still zero."""
        if not self.normalizers:
            return seen
        if not isinstance(seen, TensorDict):
            normalized: Tensor = self.normalizers[0](seen)
            return normalized
        out = seen.clone(recurse=False)
        for path, normalizer in zip(self.normalized, self.normalizers, strict=True):
            if path and path[0] in self.model.critic_only and path[0] not in seen.keys():  # noqa: SIM118
                continue  # in use
            path = path or tuple(self.views.windows)  # a window of an observation that is one tensor
            value = normalizer(seen[path])
            if path[0] in self.views.windows:
                mask = seen[f"{path[0]}_mask"]
                value = value * mask.reshape(*mask.shape, *[1] * (value.ndim - mask.ndim))
            out[path] = value
        return out

    def _unroll(self, inputs: Nested, state: Nested, is_last: Tensor) -> tuple[Mapping[str, Any], Tensor]:
        """Return features and values `[L, B, ...]` of sequences in which episodes end.

        They go step by step, or all parts between ends together if `side_by_side`.
        """
        found = segments(is_last) if self.side_by_side else None
        if found is not None:
            start = reset_where(found.begins, state[found.sequences[0]])
            output = self.model(inputs[found.steps, found.sequences], start)
            return found.unfold(output.features), output.values.flatten(0, 1)[found.places]
        outputs = []
        for step in range(is_last.shape[0]):
            output = self.model(inputs[step : step + 1], state)
            outputs.append(output)
            assert output.state is not None
            state = reset_where(is_last[step], output.state)
        features = join([output.features for output in outputs])
        return features, torch.cat([output.values for output in outputs])

    def of_value_alone(self) -> list[nn.Parameter]:
        """Return the parameters that values depend on and features do not, as the derivatives of a few tell."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        with torch.enable_grad(), forked(self.device):
            seen, state = self._random_seen(2), self.initial_state(2)
            total = torch.stack([leaf.float().sum() for leaf in _flat(self.outputs(seen, state)[0])]).sum()
            by_features: Sequence[Tensor | None] = torch.autograd.grad(total, parameters, allow_unused=True)
            by_values: Sequence[Tensor | None] = torch.autograd.grad(
                self.outputs(seen, state)[1].sum(), parameters, allow_unused=True
            )
        found = zip(parameters, by_features, by_values, strict=True)
        return [parameter for parameter, one, other in found if one is None and other is not None]

    def _build(self, model_cls: type[Model], config: dict[str, Any]) -> Model:
        if not _is_subclass(model_cls, Model):
            raise TypeError(f"model_cls={model_cls!r} is no subclass of rl8.models.Model. Try rl8.models.MLPModel.")
        accepted = inspect.signature(model_cls).parameters
        given = by_policy(model_cls)
        options = [name for name in accepted if name not in given]
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        if not passes_on:
            for name in config:
                if name not in options:
                    raise TypeError(unknown(f"option of {model_cls.__name__}", name, options))
        bases = [base for base in model_cls.__mro__ if issubclass(base, Model)] if passes_on else [model_cls]
        if any(FEATURE_SHAPES in inspect.signature(base).parameters for base in bases):
            config[FEATURE_SHAPES] = self.distribution_cls.feature_shapes(self.action_spec)
        try:
            return model_cls(self.observation_spec, self.action_spec, **config)
        except (TypeError, AttributeError) as error:
            if str(error).startswith("Model.__init__() missing"):
                not_built(model_cls, "calls super().__init__() without the specs", error)
            if "before Module.__init__() call" in str(error):
                not_built(model_cls, "sets layers before it calls super().__init__", error)
            raise

    def _random_seen(self, n: int) -> Nested:
        """Return `[1, n, ...]` what the model sees of random observations."""
        obs: Any = self.observation_spec.to(self.device).rand(n)
        if isinstance(self.observation_spec, Composite) and ACTION_MASK in self.observation_spec:
            obs[ACTION_MASK] = torch.ones_like(obs[ACTION_MASK])
        rows = obs.unsqueeze(0).expand(self.views.history + 1, *([n] if isinstance(obs, TensorDict) else obs.shape))
        ages = torch.zeros(rows.shape[:2], dtype=torch.int32, device=self.device)
        return self.views.step(rows, ages, self.views.history)

    def _check_signature(self) -> None:
        """Raise TypeError unless the model's forward can be called as it will be."""
        forward = self.model.forward
        try:
            inspect.signature(forward).bind(None, None)
        except TypeError as error:
            raise TypeError(
                f"{type(self.model).__name__}.forward{inspect.signature(forward)} in "
                f"{source_file(type(self.model))} is called with "
                "observations and state. Write def forward(self, obs, state=None): ..."
            ) from error

    @torch.enable_grad()
    def _try(self, n: int) -> tuple[Output, bool]:
        """Return what the model makes of `n` random observations, and whether in mixed precision."""
        with forked(self.device), self.autocast():
            mixed = torch.is_autocast_enabled(self.device.type)
            seen = self._random_seen(n)
            self._check_signature()
            try:
                return self.model(self._normalize(seen), self.initial_state(n)), mixed
            except RuntimeError as error:
                kinds = {weight.dtype for weight in self.model.parameters() if weight.is_floating_point()}
                if not mixed and kinds <= {torch.float32}:
                    raise
                dtype = torch.get_autocast_dtype(self.device.type) if mixed else (kinds - {torch.float32}).pop()
                mend = "Convert it, self.float(): observations are float32."
                if mixed:
                    mend = f"Try {'' if dtype == torch.bfloat16 else 'algo.amp_dtype=bf16, or '}algo.enable_amp=false."
                raise ValueError(
                    f"{type(self.model).__name__} can't compute in {str(dtype).removeprefix('torch.')} on this "
                    f"{self.device.type}: {str(error).splitlines()[0].rstrip('.')}. {mend}"
                ) from error

    def _contents(self) -> tuple[list[Any], list[int]]:
        """Return everything that modules hold, and how often each buffer was written."""
        buffers = list(self.buffers())
        attributes = [value for module in self.modules() for value in vars(module).values()]
        return [*attributes, *buffers], [buffer._version for buffer in buffers]

    def _check(self) -> None:
        """Compare what comes out of the model with what is needed."""
        n = 2
        shapes = self.distribution_cls.feature_shapes(self.action_spec)
        if isinstance(self.observation_spec, Composite) and ACTION_MASK in self.observation_spec:
            _check_mask(self.observation_spec[ACTION_MASK], shapes, self.action_spec)
        output, mixed = self._try(n)
        check_output(
            self.model,
            output,
            shapes,
            n,
            mixed=mixed,
            distribution=self.distribution_cls.__name__,
            action_spec=self.action_spec,
        )
        if self.model.state_spec is not None:
            name = type(self.model).__name__
            if output.state is None:
                raise ValueError(
                    f"{name} has a state_spec but returned no state. Return Output(features, values, state)."
                )
            self.model.state_spec.to(self.device).check(output.state, f"{name}'s state")


def _check_mask(mask: Spec, shapes: Mapping[str, Any], action_spec: Spec, name: str = ACTION_MASK) -> None:
    """Raise ValueError unless a mask fits the logits that it is for; nested for Composite actions."""
    if isinstance(mask, Composite):
        for key, part in mask.items():
            if not isinstance(shapes.get(key), Mapping):
                raise ValueError(
                    f"{name} masks {key!r}, which is no component of {action_spec}. Remove it, or rename it."
                )
            _check_mask(part, shapes[key], action_spec, f"{name}[{key!r}]")
        return
    logits = shapes.get("logits")
    if not isinstance(logits, torch.Size):
        raise ValueError(
            f"The observation has {name!r}, but {action_spec} has no choices to mask. Remove it from the observation "
            "spec, or make the action Categorical, MultiCategorical or Binary."
        )
    if mask.dtype != torch.bool or mask.shape.numel() != logits.numel():
        raise ValueError(
            f"{name} is {mask}, expected one bool per choice of {action_spec}. "
            f"Try Binary(shape={tuple(logits)}, dtype=torch.bool), True where an action is allowed."
        )


def batch_norms(model: Model) -> list[nn.Module]:
    """Return a model's layers of batch normalisation.

    Raises:
        ValueError: If they can't be used: they keep no running statistics, or the model is recurrent.
    """
    kind = nn.modules.batchnorm._BatchNorm
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kind)}
    for name, layer in layers.items():
        if not layer.track_running_stats or model.state_spec is not None:
            fault = "keeps no running statistics" if model.state_spec is None else "is in a recurrent model"
            raise ValueError(
                f"{type(model).__name__}.{name} is a {type(layer).__name__} that {fault}, so an action's probability "
                "would depend on which others are in its batch. Try torch.nn.LayerNorm, or algo.normalize_obs=true."
            )
    return list(layers.values())


def reset_where(ended: Tensor, state: Nested) -> Nested:
    """Return the recurrent state `[N, ...]` with zeros where `ended` `[N]`."""

    def reset(leaf: Tensor) -> Tensor:
        return torch.where(ended.reshape(-1, *[1] * (leaf.ndim - 1)), torch.zeros((), device=leaf.device), leaf)

    if isinstance(state, Tensor):
        return reset(state)
    after = state.apply(reset)
    assert after is not None
    return after


def join(parts: Sequence[Mapping[str, Any]], dim: int = 0) -> dict[str, Any]:
    """Return features `[L, B, ...]` of several parts, nested alike, as those of all: by default one after the other."""
    joined: dict[str, Any] = {}
    for key, first in parts[0].items():
        found = [part[key] for part in parts]
        joined[key] = torch.cat(found, dim) if isinstance(first, Tensor) else join(found, dim)
    return joined


def _flat(features: Mapping[str, Any]) -> list[Tensor]:
    """Return all tensors of nested features."""
    parts = features.values()
    return [leaf for part in parts for leaf in ([part] if isinstance(part, Tensor) else _flat(part))]


def _detached(features: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part.detach() if isinstance(part, Tensor) else _detached(part) for key, part in features.items()}


def _is_subclass(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)

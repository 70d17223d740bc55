"""Small updates on a processor: two perceptrons, gradient, clipping and Adam, written out over flat vectors.

Where a minibatch has some hundred rows and layers some dozen units, arithmetic is the least of an update: autograd, the
optimizer's loops over parameters and operations of a few microseconds each take three quarters of it. So the parameters
are made views of one vector, their gradients and Adam's moments likewise; both networks' activations lie side by side,
so that what is done element by element is done once; and derivatives are written where the next step reads them.

What is known is the default case: `MLPModel` with its two perceptrons, the package's distributions of choices and of
numbers, Adam. All else is left to autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rl8 import distributions, specs
from rl8.data import ACTION_MASK
from rl8.execution.kernels.loss import Discrete, Gaussian, Head, Samples, Terms, loss_gradient
from rl8.execution.networks import bare
from rl8.execution.perceptron.blocks import ACTIVATIONS
from rl8.execution.pieces import Rows
from rl8.models import MLPModel
from rl8.policy.policy import Act, Policy
from rl8.rollout.rollout import Rollout
from rl8.specs import Nested

# Floats of both networks' widest layer that a minibatch may have. With more, blocks of rows suit the caches better.
MOST_FLOATS: Final = 2**19

STATE: Final = ("step", "exp_avg", "exp_avg_sq")  # what Adam keeps of a parameter


def small_update(
    policy: Policy,
    rollout: Rollout,
    optimizer: torch.optim.Optimizer,
    terms: Terms,
    *,
    max_grad_norm: float | None,
    minibatch_size: int,
) -> SmallUpdate | None:
    """Return what computes whole optimizer steps, or None where this file does not know how, or it would not gain.

    Args:
        policy: What is learned.
        rollout: What it is learned from.
        optimizer: Of all the policy's parameters.
        terms: Coefficients of the loss; a tensor among them may change from update to update.
        max_grad_norm: Norm to which gradients are clipped, or None.
        minibatch_size: Env steps per minibatch.
    """
    model, head = policy.model, head_of(policy)
    if type(model) is not MLPModel or head is None or model.windows or not _known(model):
        return None
    widest = max(parameter.shape[0] for parameter in model.policy_net.parameters())
    if 2 * widest * minibatch_size > MOST_FLOATS or not _plain(optimizer, list(policy.parameters())):
        return None
    return SmallUpdate(policy, model, rollout, optimizer, head, terms, max_grad_norm)


def head_of(policy: Policy) -> Head | None:
    """Return what a policy's features mean to its loss, None where that is not known here."""
    kind, spec = policy.distribution_cls, policy.action_spec
    if isinstance(policy.observation_spec, specs.Composite) and ACTION_MASK in policy.observation_spec:
        return None
    if kind is distributions.Categorical and isinstance(spec, specs.Categorical):
        return Discrete((spec.n,) * spec.shape.numel())
    if kind is distributions.MultiCategorical and isinstance(spec, specs.MultiCategorical):
        return Discrete(tuple(spec.nvec))
    if kind in (distributions.Normal, distributions.SquashedNormal) and spec.dtype == torch.float32:
        squashed = kind is distributions.SquashedNormal
        return Gaussian(spec.shape.numel(), distributions.log_half_range(spec) if squashed else None)
    return None


class _Net(NamedTuple):
    """A hidden layer of both networks, or its gradient.

    Attributes:
        weight: `[2 * out, in]` of both, the policy's first.
        bias: `[2 * out]`.
        weights: `[out, in]` of each.
        biases: `[out]` of each.
    """

    weight: Tensor
    bias: Tensor
    weights: list[Tensor]
    biases: list[Tensor]


class _Flat:
    """A vector with a part for each parameter of two equal perceptrons, those of a layer side by side.

    Args:
        parameters: In the order of `_ordered`.
        hidden: Number of hidden layers.
    """

    def __init__(self, parameters: Sequence[Tensor], hidden: int) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.vector = torch.zeros(sum(sizes))
        chunks = self.vector.split(sizes)
        self.parts = [chunk.view(parameter.shape) for chunk, parameter in zip(chunks, parameters, strict=True)]
        self.hidden: list[_Net] = []
        start = 0
        for index in range(0, 4 * hidden, 4):
            one, _, bias, _ = parts = self.parts[index : index + 4]
            middle, stop = start + 2 * one.numel(), start + 2 * one.numel() + 2 * bias.numel()
            weight = self.vector[start:middle].view(-1, one.shape[1])
            self.hidden.append(_Net(weight, self.vector[middle:stop], parts[:2], parts[2:]))
            start = stop
        self.features, self.features_bias, self.values, self.values_bias, *own = self.parts[4 * hidden :]
        self.log_std = own[0] if own else None
        self.policy_weights = [*(layer.weights[0].t() for layer in self.hidden), self.features.t()]
        self.policy_biases = [*(layer.biases[0] for layer in self.hidden), self.features_bias]


def _ordered(model: MLPModel) -> list[nn.Parameter]:
    """Return a model's parameters: of each hidden layer both weights, then both biases; then the heads'."""
    parameters = []
    for one, other in zip(model.policy_net.layers, model.value_net.layers, strict=True):
        parameters += [one.weight, other.weight, one.bias, other.bias]
    heads = (model.policy_head.linear, model.value_head.linear)
    parameters += [parameter for head in heads for parameter in (head.weight, head.bias)]
    return [*parameters, *model.policy_head.log_stds]


class _Space:
    """Buffers for minibatches of M rows: what hidden layers of both networks, side by side, hold and get back.

    Args:
        rows: M.
        flat: Gives the layers' sizes.
    """

    def __init__(self, rows: int, flat: _Flat) -> None:
        widths = [layer.bias.shape[0] for layer in flat.hidden]
        self.results = [torch.empty(rows, width) for width in widths]
        self.flows = [torch.empty(rows, width) for width in widths]
        self.result_halves = [result.chunk(2, 1) for result in self.results]
        self.flow_halves = [flow.chunk(2, 1) for flow in self.flows]
        self.features = torch.empty(rows, flat.features.shape[0])
        self.values = torch.empty(rows, 1)
        self.first = torch.empty(flat.hidden[0].weight.shape[::-1])


class _Compiled:
    """Takes optimizer steps by one compiled function; see `compiled.optimizer_step`."""

    def __init__(self, step: Callable[..., None], update: SmallUpdate, head: Discrete) -> None:
        self.update, self._step = update, step
        self._sizes = np.array(
            [
                update._weights.hidden[0].weight.shape[1],
                *(len(layer.biases[0]) for layer in update._weights.hidden),
                head.sizes[0],
            ]
        )
        terms = update.terms
        self._tanh = not update.activation.piecewise
        self._limits = (terms.clip_param, terms.vf_clip_param or 0.0, terms.dual_clip_param or 0.0)
        coeff = terms.entropy_coeff
        self._entropy_coeff = (coeff if isinstance(coeff, Tensor) else torch.tensor(coeff)).reshape(1).numpy()
        flats = (update._weights, update._gradient, *update._moments)
        self._vectors = tuple(flat.vector.numpy() for flat in flats)
        self._work = np.empty(0, np.float32)

    def begin(self, steps: int) -> None:
        """Take over a new horizon's series; `steps` optimizer steps were taken so far."""
        self._steps = steps
        self._actions, self._series = self.update._actions.flatten().numpy(), self.update._series.numpy()

    def __call__(self, inputs: Tensor, rows: Rows) -> Tensor:
        """Take one optimizer step; return the parts of the loss and the gradient's norm before clipping, `[7]`."""
        update, group = self.update, self.update.optimizer.param_groups[0]
        start, actions, series = 0, self._actions, self._series
        if isinstance(rows, slice):
            start = rows.start
        else:
            chosen = rows[0].numpy()
            actions, series = actions[chosen], series[:, chosen]
        needed = len(inputs) * (4 * int(self._sizes[1:-1].sum()) + int(self._sizes[-1]) + 2)
        if len(self._work) < needed:
            self._work = np.empty(needed, np.float32)
        self._steps += 1
        update._steps.add_(1)
        found = torch.empty(7)
        adam = (float(group["lr"]), *group["betas"], group["eps"], update.max_grad_norm or 0.0, float(self._steps))
        self._step(
            np.ascontiguousarray(inputs.numpy()),
            actions,
            np.ascontiguousarray(series),
            start,
            self._sizes,
            self._tanh,
            self._limits,
            update.terms.vf_coeff,
            self._entropy_coeff,
            adam,
            self._vectors,
            self._work,
            found.numpy(),
        )
        return found


class SmallUpdate:
    """Takes optimizer steps; see `small_update`.

    Attributes:
        parameters: Of the policy, in the order of the flat vectors.
    """

    def __init__(
        self,
        policy: Policy,
        model: MLPModel,
        rollout: Rollout,
        optimizer: torch.optim.Optimizer,
        head: Head,
        terms: Terms,
        max_grad_norm: float | None,
    ) -> None:
        self.policy, self.rollout, self.optimizer = policy, rollout, optimizer
        self.head, self.terms, self.max_grad_norm = head, terms, max_grad_norm
        self.activation = ACTIVATIONS[model.policy_net.activation_name]
        self.parameters = _ordered(model)
        hidden = len(model.policy_net.layers)
        self._weights, self._gradient, *self._moments = (_Flat(self.parameters, hidden) for _ in range(4))
        self._steps = torch.zeros(len(self.parameters))
        columns = (self._steps.unbind(), *(flat.parts for flat in self._moments))
        self._kept: list[dict[str, Any]] = [
            dict(zip(STATE, parts, strict=True)) for parts in zip(*columns, strict=True)
        ]
        self._spaces: dict[int, _Space] = {}
        self._compiled: _Compiled | None = None
        if isinstance(head, Discrete) and len(head.sizes) == 1:
            with suppress(ImportError):  # an extra
                from rl8.execution.compiled import optimizer_step

                self._compiled = _Compiled(optimizer_step, self, head)
        self._layers = _layers(model)
        self._head_features = model.policy_head.features
        spec = policy.observation_spec
        # Then what a model sees is what its networks take.
        self._bare_inputs = (
            not policy.normalizers
            and isinstance(spec, (specs.Unbounded, specs.Bounded))
            and (len(spec.shape), spec.dtype) == (1, torch.float32)
        )
        self._choices = head.sizes[0] if isinstance(head, Discrete) and policy.action_spec.shape == () else 0
        self._acting = [torch.empty(rollout.num_envs, bias.shape[0]) for bias in self._weights.policy_biases]

    @torch.no_grad()
    def begin(self) -> bool:
        """Look at the horizon that is about to be learned from; return whether it can be learned from here.

        Parameters and the optimizer's state may have been replaced since, by a checkpoint above all.
        """
        rollout, plain = self.rollout, _plain(self.optimizer, list(self.policy.parameters()))
        if rollout.weights is not None or not bare(self._layers) or not plain or not self._adopt():
            return False
        steps = rollout.horizon * rollout.num_envs
        self._inputs = self.policy.inputs(rollout.block(0, steps))[0]
        actions: Any = rollout.actions
        actions = actions.flatten(0, 1)
        self._actions = actions.long() if isinstance(self.head, Discrete) else actions
        series = (rollout.logp, rollout.values[:-1], rollout.advantages, rollout.returns)
        self._series = torch.stack([numbers.flatten() for numbers in series])
        if self._compiled is not None:
            self._compiled.begin(int(self._steps.numpy()[0]))
        return True

    @property
    def holds_weights(self) -> bool:
        """Whether the policy's weights are those of the flat vector, and its layers as they were."""
        pairs = zip(self.parameters, self._weights.parts, strict=True)
        return bare(self._layers) and all(weight.data_ptr() == part.data_ptr() for weight, part in pairs)

    def act(self, seen: Nested, state: Nested | None = None, *, deterministic: bool = False) -> Act:
        """Draw actions as `Policy.act` does, where `holds_weights`; gradients are off."""
        assert not deterministic
        inputs = seen[0] if self._bare_inputs and isinstance(seen, Tensor) else self.policy.inputs(seen)[0]
        weights, hidden = self._weights, len(self._weights.hidden)
        for index, (weight, bias, out) in enumerate(
            zip(weights.policy_weights, weights.policy_biases, self._acting, strict=True)
        ):
            inputs = torch.addmm(bias, inputs, weight, out=out)
            if index < hidden:
                self.activation.apply_(inputs)
        if not self._choices:
            features = self._head_features(inputs.unsqueeze(0))
            distribution = self.policy.distribution(features, seen)
            actions = distribution.sample()
            logp, env_actions = distribution.logp(actions)[0], distribution.to_env(actions)[0]
            return Act(actions[0], env_actions, logp, None, None, features)
        log_probs = inputs.log_softmax(1)  # as `Categorical` draws, in fewer operations
        chosen = torch.empty_like(log_probs).exponential_().log_().sub_(log_probs).argmin(1)
        logp = log_probs.gather(1, chosen.unsqueeze(1)).squeeze(1)
        return Act(chosen, chosen.to(self.policy.action_spec.dtype), logp, None, None, {"logits": inputs.unsqueeze(0)})

    @torch.no_grad()
    def __call__(self, rows: Rows) -> Tensor:
        """Take one optimizer step; return the parts of the loss and the gradient's norm before clipping, `[7]`."""
        if isinstance(rows, slice):
            inputs, actions, series = self._inputs[rows], self._actions[rows], self._series[:, rows]
        else:
            inputs, actions, series = self._inputs[rows[0]], self._actions[rows[0]], self._series[:, rows[0]]
        if self._compiled is not None:
            return self._compiled(inputs, rows)
        parts = self._differentiate(inputs, Samples(actions, *series.unbind()))
        gradient = self._gradient.vector
        norm = torch.linalg.vector_norm(gradient)
        if self.max_grad_norm is not None:
            gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self._step()
        return torch.cat([parts, norm.unsqueeze(0)])

    def _differentiate(self, inputs: Tensor, samples: Samples) -> Tensor:
        """Write the gradient; return the parts of the loss `[6]`."""
        space = self._spaces.get(len(inputs))
        if space is None:
            space = self._spaces[len(inputs)] = _Space(len(inputs), self._weights)
        self._forward(inputs, space)
        if isinstance(self.head, Gaussian) and self.head.log_half_range is not None:
            samples = samples._replace(noise=torch.randn(len(inputs), self.head.size))
        weights, gradient = self._weights, self._gradient
        log_std = None if weights.log_std is None else weights.log_std.flatten()
        values = space.values.squeeze(1)
        found = loss_gradient(self.head, space.features, values, samples, self.terms, log_std=log_std)
        if gradient.log_std is not None and found.log_std is not None:
            gradient.log_std.view(-1).copy_(found.log_std)
        self._backward(inputs, space, found.features, found.values.unsqueeze(1))
        return found.parts

    def _forward(self, inputs: Tensor, space: _Space) -> None:
        weights, apply_ = self._weights, self.activation.apply_
        for index, layer in enumerate(weights.hidden):
            if index == 0:  # of the same inputs
                torch.addmm(layer.bias, inputs, layer.weight.t(), out=space.results[0])
            else:
                for net in range(2):
                    below, result = space.result_halves[index - 1][net], space.result_halves[index][net]
                    torch.addmm(layer.biases[net], below, layer.weights[net].t(), out=result)
            apply_(space.results[index])
        policy, value = space.result_halves[-1]
        torch.addmm(weights.features_bias, policy, weights.features.t(), out=space.features)
        torch.addmm(weights.values_bias, value, weights.values.t(), out=space.values)

    def _backward(self, inputs: Tensor, space: _Space, by_features: Tensor, by_values: Tensor) -> None:
        """Write the gradient, given the derivatives by features `[M, F]` and values `[M, 1]`."""
        weights, gradient = self._weights, self._gradient
        policy, value = space.result_halves[-1]
        torch.mm(by_features.t(), policy, out=gradient.features)
        torch.mm(by_values.t(), value, out=gradient.values)
        torch.sum(by_features, 0, out=gradient.features_bias)
        torch.sum(by_values, 0, out=gradient.values_bias)
        torch.mm(by_features, weights.features, out=space.flow_halves[-1][0])
        torch.mul(by_values, weights.values, out=space.flow_halves[-1][1])
        for index in reversed(range(len(weights.hidden))):
            flow, layer = space.flows[index], gradient.hidden[index]
            self.activation.backward_(flow, space.results[index])
            torch.sum(flow, 0, out=layer.bias)
            if index == 0:  # a product with few rows is faster than one with few columns
                layer.weight.copy_(torch.mm(inputs.t(), flow, out=space.first).t())
                continue
            for net in range(2):
                part = space.flow_halves[index][net]
                torch.mm(part.t(), space.result_halves[index - 1][net], out=layer.weights[net])
                torch.mm(part, weights.hidden[index].weights[net], out=space.flow_halves[index - 1][net])

    def _step(self) -> None:
        """Let Adam take its step, of all parameters as one."""
        self._steps.add_(1)
        group = self.optimizer.param_groups[0]
        first, second = self._moments
        torch._fused_adam_(
            [self._weights.vector],
            [self._gradient.vector],
            [first.vector],
            [second.vector],
            [],
            [self._kept[0]["step"]],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _adopt(self) -> bool:
        """Make parameters, gradients and the optimizer's state parts of the flat vectors; return whether that can be.

        What stays where it is needs nothing. The state is the one that Adam would have, so that checkpoints know no
        difference.
        """
        state = self.optimizer.state
        states = [state.get(parameter) for parameter in self.parameters]
        if any(its is not kept for its, kept in zip(states, self._kept, strict=True)):
            if len({float(its["step"]) if its else 0.0 for its in states}) > 1:
                return False
            for parameter, its, kept in zip(self.parameters, states, self._kept, strict=True):
                for name, tensor in kept.items():
                    tensor.copy_(its[name]) if its else tensor.zero_()
                state[parameter] = kept
        places = zip(self.parameters, self._weights.parts, self._gradient.parts, strict=True)
        for parameter, weight, gradient in places:
            if parameter.data_ptr() != weight.data_ptr():
                weight.copy_(parameter)
                parameter.data = weight
            parameter.grad = gradient
        return True


def _known(model: MLPModel) -> bool:
    """Return whether a model is as it was built: two perceptrons alike, and heads that only multiply and add."""
    nets = model.perceptrons
    if len(nets) != 2 or not nets[0].layers or any(net.activation_name not in ACTIVATIONS for net in nets):
        return False
    shapes = [[layer.weight.shape for layer in net.layers] for net in nets]
    alike = shapes[0] == shapes[1] and nets[0].activation_name == nets[1].activation_name
    return alike and bare(_layers(model)) and len(list(model.parameters())) == len(_ordered(model))


def _layers(model: MLPModel) -> list[nn.Module]:
    return [*model.policy_net.layers, *model.value_net.layers, model.policy_head.linear, model.value_head.linear]


def _plain(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    """Return whether an optimizer is Adam as it comes, of all of some parameters, and nobody listens to a gradient."""
    if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
        return False
    group = optimizer.param_groups[0]
    unusual = ("amsgrad", "maximize", "differentiable", "capturable", "weight_decay", "decoupled_weight_decay")
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return (
        bool(group["fused"])
        and not any(group.get(name) for name in unusual)
        and not any(hooks)
        and "step" not in vars(optimizer)  # a scheduler's wrapper
        and len(group["params"]) == len(parameters)
        and all(p.requires_grad and p.dtype == torch.float32 and not p._backward_hooks for p in parameters)
    )

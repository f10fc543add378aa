"""Unlearning steps in PyTorch, of any module and loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

METHODS = ("retain-descent", "surgery", "uno")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where modules and batches are."""
SECOND_ORDER = ("uno",)


class Twin(NamedTuple):
    """A module that computes what ours does.

    Attributes:
      module: with the parameters.
      loss: `loss(module, batch, draws)`, a scalar.
      draw: `draw(batch)`, the random numbers of a loss.
      entries: where its arrays are in our variables.
      tensors: from a batch of ours to one of its own.
      our_draws: `our_draws(key, batch)`, the random numbers that our loss takes from a key.
    """

    module: torch.nn.Module
    loss: Callable
    draw: Callable
    entries: tuple
    tensors: Callable
    our_draws: Callable


def make_step(
    twin: Twin,
    method: str,
    *,
    weight: float,
    learning_rate: float = 1e-4,
    wrap: Callable[[Any], Any] = lambda loss: loss,
) -> Callable:
    """Returns `step(retain, forget)`, which draws its noise as ours does and ends when it has.

    Args:
      twin: module and loss.
      method: one of `METHODS`.
      weight: w of UNO.
      learning_rate: of Adam.
      wrap: around the loss, such as `torch.compile`.

    Raises:
      ValueError: for another method.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}.")
    parameters = list(twin.module.parameters())
    optimizer = torch.optim.Adam(parameters, learning_rate)
    loss = wrap(lambda batch, draws: twin.loss(twin.module, batch, draws))

    def gradients(batch, create_graph=False):
        value = loss(batch, twin.draw(batch))
        return value, torch.autograd.grad(value, parameters, create_graph=create_graph)

    def dot(a, b):
        return sum(torch.sum(x * y) for x, y in zip(a, b, strict=True))

    def step(retain, forget):
        if method == "retain-descent":
            _, direction = gradients(retain)
        elif method == "surgery":
            (_, g_r), (_, g_f) = gradients(retain), gradients(forget)
            factor = dot(g_r, g_f) / dot(g_f, g_f)
            direction = [r - factor * f for r, f in zip(g_r, g_f, strict=True)]
        else:
            (value, g_r), (_, g_f) = gradients(retain, True), gradients(forget, True)
            cosine = dot(g_r, g_f) ** 2 / (dot(g_r, g_r) * dot(g_f, g_f))
            direction = torch.autograd.grad(value + weight * cosine, parameters)
        for parameter, gradient in zip(parameters, direction, strict=True):
            parameter.grad = gradient.detach()
        optimizer.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return step

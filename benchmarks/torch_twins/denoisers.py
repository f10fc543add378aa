"""The U-Net and the diffusion transformer in PyTorch, layers named as ours are."""

import math

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_twins.steps import DEVICE, Twin
from uno_jax import models
from uno_jax.foreign import torch_layouts

LABEL_DROPOUT = 0.1


class Embedding(nn.Module):
    """Time and label as one vector."""

    def __init__(self, width, classes, waves=256):
        super().__init__()
        self.waves = waves
        self.time = nn.ModuleDict(
            {"hidden": nn.Linear(waves, width), "out": nn.Linear(width, width)}
        )
        self.label = nn.ModuleDict({"table": nn.Embedding(classes + 1, width)})

    def condition(self, times, labels):
        half = self.waves // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=times.device) / half)
        angles = times[:, None] * frequencies
        x = self.time["hidden"](torch.cat([torch.cos(angles), torch.sin(angles)], -1))
        return self.time["out"](functional.silu(x)) + self.label["table"](labels)


class Block(nn.Module):
    """Of the transformer."""

    def __init__(self, width, heads, ratio):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, int(ratio * width))
        self.mlp_out = nn.Linear(int(ratio * width), width)

    def forward(self, x, condition):
        parts = self.modulation(functional.silu(condition))[:, None].chunk(6, -1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        q, k, v = self.qkv(_modulate(x, shift, scale)).chunk(3, -1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        mixed = _attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate * self.projection(mixed)
        hidden = functional.gelu(
            self.mlp_in(_modulate(x, shift_mlp, scale_mlp)), approximate="tanh"
        )
        return x + gate_mlp * self.mlp_out(hidden)


class Output(nn.Module):
    """From tokens to the pixels of their patches."""

    def __init__(self, width, outputs):
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, outputs)

    def forward(self, x, condition):
        parts = self.modulation(functional.silu(condition))[:, None].chunk(2, -1)
        return self.linear(_modulate(x, *parts))


def _modulate(x, shift, scale):
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _attention(q, k, v):
    # Written out: PyTorch's fused attention has no second derivative.
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1) @ v


class DiT(Embedding):
    """The layers of `uno_jax.models.DiT`."""

    def __init__(self, model, rows, channels):
        super().__init__(model.width, model.classes)
        self.side, self.rows = model.patch, rows
        pixels = model.patch**2 * channels
        self.patch = nn.Linear(pixels, model.width)
        for i in range(model.depth):
            self.add_module(f"block_{i}", Block(model.width, model.heads, model.mlp_ratio))
        self.depth = model.depth
        self.output = Output(model.width, pixels)
        places = np.array(models.embeddings.positions(model.width, rows, rows))
        self.register_buffer("places", torch.from_numpy(places), persistent=False)

    def forward(self, noisy, times, labels):
        p, n = self.side, self.rows
        x = noisy.unflatten(1, (n, p)).unflatten(3, (n, p)).transpose(2, 3)
        x = self.patch(x.flatten(3).flatten(1, 2)) + self.places
        condition = self.condition(times, labels)
        for i in range(self.depth):
            x = getattr(self, f"block_{i}")(x, condition)
        x = self.output(x, condition).unflatten(1, (n, n)).unflatten(-1, (p, p, -1))
        return x.transpose(2, 3).flatten(1, 2).flatten(2, 3)


class Residual(nn.Module):
    """Two convolutions around a condition, beside a shortcut."""

    def __init__(self, inputs, channels, width):
        super().__init__()
        self.norm_first, self.norm_second = Norm(inputs), Norm(channels)
        self.first = nn.Conv2d(inputs, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * channels)
        self.shortcut = nn.Conv2d(inputs, channels, 1) if inputs != channels else nn.Identity()

    def forward(self, x, condition):
        y = self.first(functional.silu(self.norm_first(x)))
        scale, shift = self.modulation(functional.silu(condition))[..., None, None].chunk(2, 1)
        y = self.second(functional.silu(self.norm_second(y) * (1 + scale) + shift))
        return self.shortcut(x) + y


class Norm(nn.Module):
    """Group norm, in groups of at least 4 channels."""

    def __init__(self, channels):
        super().__init__()
        groups = min(32, max(1, channels // 4))
        while channels % groups:
            groups -= 1
        self.group = nn.GroupNorm(groups, channels, eps=1e-6)

    def forward(self, x):
        return self.group(x)


class Attention(nn.Module):
    """Over the places of an image, one head, beside a shortcut."""

    def __init__(self, channels):
        super().__init__()
        self.norm = Norm(channels)
        self.qkv, self.projection = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        y = self.norm(x).flatten(2).transpose(1, 2)
        y = self.projection(_attention(*self.qkv(y).chunk(3, -1)))
        return x + y.transpose(1, 2).unflatten(2, x.shape[2:])


class UNet(Embedding):
    """The layers of `uno_jax.models.UNet` with one head."""

    def __init__(self, model, channels):
        width = 4 * model.width
        super().__init__(width, model.classes)
        self.model, self.side = model, model.patch
        pixels = model.patch**2 * channels
        self.input = nn.Conv2d(pixels, model.width, 3, padding=1)
        levels = range(len(model.multipliers))
        x, skips = model.width, [model.width]
        for level in levels:
            for i in range(model.blocks):
                x = self._stage(x, level, f"down_{level}_{i}", width)
                skips.append(x)
            if level != levels[-1]:
                self.add_module(f"down_{level}_halve", nn.Conv2d(x, x, 3, 2))
                skips.append(x)
        self.middle_0, self.middle_1 = Residual(x, x, width), Residual(x, x, width)
        self.middle_attention = Attention(x)
        for level in reversed(levels):
            for i in range(model.blocks + 1):
                x = self._stage(x + skips.pop(), level, f"up_{level}_{i}", width)
            if level:
                self.add_module(f"up_{level}_double", nn.Conv2d(x, x, 3, padding=1))
        self.norm_output = Norm(x)
        self.output = nn.Conv2d(x, pixels, 3, padding=1)

    def _stage(self, inputs, level, name, width):
        channels = self.model.width * self.model.multipliers[level]
        self.add_module(name, Residual(inputs, channels, width))
        if level in self.model.attention:
            self.add_module(f"{name}_attention", Attention(channels))
        return channels

    def _run(self, x, condition, name):
        x = getattr(self, name)(x, condition)
        attention = getattr(self, f"{name}_attention", None)
        return x if attention is None else attention(x)

    def forward(self, noisy, times, labels):
        p = self.side
        x = noisy.permute(0, 3, 1, 2).unflatten(2, (-1, p)).unflatten(4, (-1, p))
        # Channels of a place: row in the patch, column in it, then the image's own.
        x = x.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
        condition = self.condition(times, labels)
        x = self.input(x)
        levels, skips = range(len(self.model.multipliers)), [x]
        for level in levels:
            for i in range(self.model.blocks):
                x = self._run(x, condition, f"down_{level}_{i}")
                skips.append(x)
            if level != levels[-1]:
                x = getattr(self, f"down_{level}_halve")(functional.pad(x, (0, 1, 0, 1)))
                skips.append(x)
        x = self.middle_0(x, condition)
        x = self.middle_1(self.middle_attention(x), condition)
        for level in reversed(levels):
            for i in range(self.model.blocks + 1):
                x = self._run(torch.cat([x, skips.pop()], 1), condition, f"up_{level}_{i}")
            if level:
                x = functional.interpolate(x, scale_factor=2)
                x = getattr(self, f"up_{level}_double")(x)
        x = self.output(functional.silu(self.norm_output(x)))
        x = x.unflatten(1, (p, p, -1)).permute(0, 4, 1, 5, 2, 3)
        # (N, rows, p, columns, p, channels)
        return x.flatten(1, 2).flatten(2, 3)


def loss(module, batch, draws):
    """Mean squared error of the velocity, in continuous time."""
    images, labels = batch
    times, noise, dropped = draws
    signal = torch.cos(0.5 * math.pi * times)[:, None, None, None]
    sigma = torch.sin(0.5 * math.pi * times)[:, None, None, None]
    labels = torch.where(dropped, module.label["table"].num_embeddings - 1, labels)
    predicted = module(signal * images + sigma * noise, 1000 * times, labels)
    return torch.mean((predicted - (signal * noise - sigma * images)) ** 2)


def draw(batch):
    """Times, noise, and which labels are dropped."""
    images, _ = batch
    times, chances = torch.rand(2, len(images), device=images.device)
    return times, torch.randn_like(images), chances < LABEL_DROPOUT


def our_draws(key, batch):
    """What our loss draws from a key."""
    count, *shape = batch["image"].shape
    time_key, noise_key, drop_key = jax.random.split(key, 3)
    draws = (
        jax.random.uniform(time_key, (count,)),
        jax.random.normal(noise_key, (count, *shape)),
        jax.random.bernoulli(drop_key, LABEL_DROPOUT, (count,)),
    )
    return tuple(torch.from_numpy(np.array(x)).to(DEVICE) for x in draws)


def tensors(batch):
    """Images, channels last as ours, and labels."""
    labels = torch.from_numpy(np.array(batch["label"]).astype(np.int64))
    return torch.from_numpy(np.array(batch["image"])).to(DEVICE), labels.to(DEVICE)


def entries(params) -> tuple[torch_layouts.Entry, ...]:
    """Where the arrays of a module are in our parameters, which have the same names."""
    layouts = {2: torch_layouts.LINEAR, 4: torch_layouts.CONVOLUTION}
    found = []
    for path, leaf in jax.tree.leaves_with_path(params):
        *names, last = (key.key for key in path)
        if last == "table":
            names.append("table")
        name = ".".join([*names, "bias" if last == "bias" else "weight"])
        layout = layouts[leaf.ndim] if last == "kernel" else torch_layouts.SAME
        found.append(torch_layouts.Entry(name, "params", (*names[: len(path) - 1], last), layout))
    return tuple(found)


def unet(model, params) -> Twin:
    """The twin of a U-Net of ours on images with one channel."""
    return Twin(UNet(model, 1).to(DEVICE), loss, draw, entries(params), tensors, our_draws)


def dit(model, params, side: int = 28, channels: int = 1) -> Twin:
    """The twin of a DiT of ours, its blocks apart, on images of that side and channels."""
    module = DiT(model, side // model.patch, channels).to(DEVICE)
    return Twin(module, loss, draw, entries(params), tensors, our_draws)

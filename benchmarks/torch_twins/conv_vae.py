"""The convolutional VAE and its unlearning steps in eager PyTorch."""

import torch
from torch import nn

SLOPE = 0.01


class ConvVAE(nn.Module):
    """The layers of `uno_jax.models.ConvVAE`."""

    def __init__(self, channels=(32, 64, 128, 256, 512), latents=512, side=64):
        super().__init__()
        inputs = (3, *channels[:-1])
        self.encoder = nn.ModuleList(
            _block(nn.Conv2d(i, o, 4, 2, 1), o) for i, o in zip(inputs, channels, strict=True)
        )
        self.small, self.wide = side >> len(channels), channels[-1]
        flat = self.wide * self.small**2
        self.mean = nn.Linear(flat, latents)
        self.log_variance = nn.Linear(flat, latents)
        self.input = nn.Linear(latents, flat)
        outputs = (*channels[-2::-1], channels[0])
        self.decoder = nn.ModuleList(
            _block(nn.ConvTranspose2d(i, o, 4, 2, 1), o)
            for i, o in zip(channels[::-1], outputs, strict=True)
        )
        self.output = nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, images, noise):
        x = images
        for block in self.encoder:
            x = block(x)
        x = x.flatten(1)
        mean, log_variance = self.mean(x), self.log_variance(x)
        x = self.input(mean + torch.exp(0.5 * log_variance) * noise)
        x = x.view(-1, self.wide, self.small, self.small)
        for block in self.decoder:
            x = block(x)
        return torch.tanh(self.output(x)), mean, log_variance


def _block(convolution, features):
    return nn.Sequential(
        convolution, nn.BatchNorm2d(features, eps=1e-5, momentum=0.1), nn.LeakyReLU(SLOPE)
    )


def loss(model, images, noise):
    decoded, mean, log_variance = model(images, noise)
    kl = 0.5 * torch.sum(mean**2 + log_variance.exp() - 1 - log_variance)
    return torch.sum((decoded - images) ** 2) + kl


def make_step(model, method: str, weight: float = 1e3, learning_rate: float = 1e-3):
    """Returns `step(retain, forget)`, which draws its noise as ours does."""
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, learning_rate)
    latents = model.mean.out_features

    def gradients(images, create_graph=False):
        value = loss(model, images, torch.randn(len(images), latents))
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
        elif method == "uno":
            (value, g_r), (_, g_f) = gradients(retain, True), gradients(forget, True)
            cosine = dot(g_r, g_f) ** 2 / (dot(g_r, g_r) * dot(g_f, g_f))
            direction = torch.autograd.grad(value + weight * cosine, parameters)
        else:
            raise ValueError(f"method: expected one of METHODS, got {method!r}.")
        for parameter, gradient in zip(parameters, direction, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step


METHODS = ("retain-descent", "surgery", "uno")

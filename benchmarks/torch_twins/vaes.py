"""The two VAEs in PyTorch."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_twins.steps import DEVICE, Twin

SLOPE = 0.01


class MnistVAE(nn.Module):
    """The layers of `uno_jax.models.MnistVAE`, by the published names."""

    def __init__(self, hidden=400, latents=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        self.enc_mu = nn.Linear(hidden, latents)
        self.enc_log_sigma = nn.Linear(hidden, latents)
        self.decoder = nn.Sequential(
            nn.Linear(latents, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 784)
        )

    def forward(self, images, noise):
        x = self.encoder(images)
        mean, log_variance = self.enc_mu(x), self.enc_log_sigma(x)
        return self.decoder(mean + torch.exp(0.5 * log_variance) * noise), mean, log_variance

    def error(self, decoded, images):
        return functional.binary_cross_entropy_with_logits(decoded, images, reduction="sum")


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

    def error(self, decoded, images):
        return torch.sum((decoded - images) ** 2)


def _block(convolution, features):
    return nn.Sequential(
        convolution, nn.BatchNorm2d(features, eps=1e-5, momentum=0.1), nn.LeakyReLU(SLOPE)
    )


def loss(module, images, noise):
    """Negative evidence lower bound, summed over the batch."""
    decoded, mean, log_variance = module(images, noise)
    kl = 0.5 * torch.sum(mean**2 + log_variance.exp() - 1 - log_variance)
    return module.error(decoded, images) + kl


def mnist_vae(model) -> Twin:
    """The twin of a `MnistVAE` of ours."""
    from uno_jax import foreign

    return twin_of(MnistVAE(model.hidden, model.latents), model.latents, foreign.MNIST_VAE)


def celeba_vae(model) -> Twin:
    """The twin of a `ConvVAE` of ours."""
    from uno_jax import foreign

    module = ConvVAE(model.channels, model.latents, model.side)
    return twin_of(module, model.latents, foreign.conv_vae(model.channels))


def twin_of(module, latents: int, entries=()) -> Twin:
    """A module with its loss. JAX is imported only to draw what ours draws."""

    def tensors(batch):
        images = np.array(batch["image"])
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if images.ndim == 4 else images
        return torch.from_numpy(images).to(DEVICE)

    def our_draws(key, batch):
        import jax

        noise = jax.random.normal(key, (len(batch["image"]), latents))
        return torch.from_numpy(np.array(noise)).to(DEVICE)

    return Twin(
        module.to(DEVICE),
        loss,
        draw=lambda images: torch.randn(len(images), latents, device=images.device),
        entries=entries,
        tensors=tensors,
        our_draws=our_draws,
    )

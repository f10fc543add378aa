"""Experiments in miniature: the redirect looks at fewer latents in a step."""

import pytest

from experiments import face_redirect, redirect


@pytest.fixture(scope="module", autouse=True)
def _small_redirect():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redirect, "RETAIN_SIZE", 512)
        patch.setattr(redirect, "FORGET_SIZE", 256)
        patch.setattr(face_redirect, "BATCH", 64)
        yield

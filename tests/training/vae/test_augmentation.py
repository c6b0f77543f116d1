import math

import pytest
import torch

from cxrmodel.training.vae.augmentation import NUM_DRAWS, SHIFT, ZOOM, augment

GREY = 0.25


def draws(**moved):
    """One image's draws, zero but for those named."""
    names = ("turn", "zoom", "stretch", "right", "down", "gamma", "contrast", "brightness")
    assert len(names) == NUM_DRAWS
    return torch.tensor([[moved.get(name, 0.0) for name in names]])


def spot(row, column, size=64):
    image = torch.full((1, 1, size, size), GREY)
    image[0, 0, row, column] = 1.0
    return image


def brightest(images):
    return divmod(int(images[0, 0].argmax()), images.shape[-1])


def test_nothing_drawn_changes_nothing():
    image = torch.rand(2, 1, 32, 32)
    changed = augment(image, torch.zeros(2, NUM_DRAWS), 1.0)
    torch.testing.assert_close(changed, image, atol=2e-4, rtol=0)


def test_a_shift_moves_the_image_by_its_share_of_half_the_side():
    pixels = 8
    moved = augment(spot(20, 30), draws(right=pixels / 32 / SHIFT), 1.0)
    assert brightest(moved) == (20, 30 - pixels)  # the frame moves right, the image left
    moved = augment(spot(20, 30), draws(down=pixels / 32 / SHIFT), 1.0)
    assert brightest(moved) == (20 - pixels, 30)


def test_strength_scales_the_change():
    once = augment(spot(20, 30), draws(right=1.0, zoom=0.5), 2.0)
    torch.testing.assert_close(once, augment(spot(20, 30), draws(right=2.0, zoom=1.0), 1.0))


def test_a_zoom_keeps_the_centre_and_shrinks_the_rest():
    image = torch.full((1, 1, 64, 64), GREY)
    image[0, 0, 16:48, 16:48] = 1.0
    shrunk = augment(image, draws(zoom=1.0 / ZOOM), 1.0)  # the frame is twice as wide
    assert shrunk[0, 0, 32, 32] == pytest.approx(1.0)
    assert int((shrunk > 0.6).sum()) == 16 * 16


def test_exposure_by_hand():
    image = torch.full((1, 1, 8, 8), GREY)
    brighter = augment(image, draws(brightness=1.0), 1.0)
    assert brighter.mean().item() == pytest.approx(GREY + 0.02)
    bent = augment(image, draws(gamma=1.0), 1.0)
    assert bent.mean().item() == pytest.approx(GREY ** math.exp(0.12), rel=1e-4)
    spread = augment(image, draws(contrast=1.0), 1.0)
    assert spread.mean().item() == pytest.approx((GREY - 0.5) * math.exp(0.06) + 0.5)


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_pixels_stay_within_black_and_white(strength):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 1, 32, 32, generator=generator)
    changed = augment(images, torch.randn(16, NUM_DRAWS, generator=generator), strength)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1


def test_an_image_is_never_mirrored():
    """The heart's side stays: right of the centre remains right of the centre."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(500, NUM_DRAWS, generator=generator)
    right = torch.zeros(1, 1, 32, 32)
    right[..., 22:] = 1.0
    changed = augment(right.expand(500, -1, -1, -1), drawn, 1.0)
    assert (changed[..., 16:].sum(dim=(1, 2, 3)) > changed[..., :16].sum(dim=(1, 2, 3))).all()

"""The bank of pictures: reductions, places, and the statistics that natural pictures have."""

import numpy as np
import pytest
import torch

from training.worlds.textures import LEVELS, SIDE, Bank, make_bank, noise


def pictures(bank: Bank) -> torch.Tensor:
    """The whole ones, ``[count, SIDE, SIDE, 3]`` in [0, 1]."""
    texels = bank.texels[: bank.count * SIDE**2].view(torch.uint8).view(bank.count, SIDE, SIDE, 4)
    return texels[..., :3].float() / 255


def look(bank: Bank, number: int, u: torch.Tensor, v: torch.Tensor, footprint: float) -> torch.Tensor:
    return bank.colours(torch.full(u.shape, number), u, v, torch.full(u.shape, footprint)).T


def test_the_same_seed_gives_the_same_bank(bank: Bank) -> None:
    make_bank.cache_clear()
    assert torch.equal(make_bank(5, 24).texels, bank.texels)
    assert not torch.equal(make_bank(6, 24).texels, bank.texels)


def test_texels_are_looked_up_where_they_are(bank: Bank) -> None:
    """At their middles, by row and column, of any picture, however often it repeats."""
    row, column = torch.tensor([0, 5, 127]), torch.tensor([3, 127, 0])
    for number in (0, 7, bank.count - 1):
        seen = look(bank, number, (column + 0.5) / SIDE + 3, (row + 0.5) / SIDE - 2, 1 / SIDE)
        torch.testing.assert_close(seen, pictures(bank)[number, row, column], rtol=0, atol=1e-3)


def test_between_texels_is_their_mean(bank: Bank) -> None:
    """Across the edge of the picture too, as it repeats."""
    for column in (10, SIDE - 1):
        (seen,) = look(bank, 3, torch.tensor([(column + 1) / SIDE]), torch.tensor([0.5 / SIDE]), 0.1 / SIDE)
        row = pictures(bank)[3, 0]
        torch.testing.assert_close(seen, (row[column] + row[(column + 1) % SIDE]) / 2, rtol=0, atol=1e-3)


@pytest.mark.parametrize("level", [1, 3, LEVELS - 1])
def test_wide_rays_see_means(bank: Bank, level: int) -> None:
    """A texel of a reduction is the mean of what it covers, to what 8 bits can say."""
    wide = 2**level
    middle = torch.tensor([wide / 2 / SIDE])
    (seen,) = look(bank, 2, middle, middle, wide / SIDE)
    torch.testing.assert_close(seen, pictures(bank)[2, :wide, :wide].mean((0, 1)), rtol=0, atol=0.003)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_noise_falls_with_the_frequency(slope: float) -> None:
    """Amplitudes of a fit over two octaves; ranks instead of values bend it a little."""
    spectrum = np.abs(np.fft.rfft2(noise(np.random.default_rng(0), slope)))
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) * SIDE
    means = [np.sqrt((spectrum[(radius >= low) & (radius < 1.3 * low)] ** 2).mean()) for low in (4, 16)]
    assert np.log(means[0] / means[1]) / np.log(4) == pytest.approx(slope, abs=0.35)


def test_plain_pictures_come_first(bank: Bank) -> None:
    spread = pictures(bank).flatten(1, 2).std(1).mean(1)
    assert 0 < bank.plain < bank.count
    assert spread[: bank.plain].max() < 0.12
    assert spread[bank.plain :].median() > spread[: bank.plain].median()

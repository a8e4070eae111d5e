"""The pointing game: maxima inside and outside of the template's eyes and mouth."""

import pytest
import torch

from ferbench.data.align import TEMPLATE
from ferbench.training.pointing import chance, on_part, region


def peak(x: float, y: float, size: int = 48) -> torch.Tensor:
    maps = torch.zeros(1, size, size)
    maps[0, round(y), round(x)] = 1
    return maps


def test_peaks_on_the_templates_parts_are_hits_of_that_part_alone():
    left, right, mouth = TEMPLATE
    assert on_part(peak(*left), "eyes").item()
    assert on_part(peak(*right), "eyes").item()
    assert on_part(peak(*mouth), "mouth").item()
    assert not on_part(peak(*mouth), "eyes").item()
    assert not on_part(peak(*left), "mouth").item()
    for corner in ((0, 0), (47, 0), (0, 47), (47, 47), (24, 2)):  # hair and background
        assert not on_part(peak(*corner), "eyes").item()
        assert not on_part(peak(*corner), "mouth").item()


def test_coarse_maps_are_enlarged_before_their_maximum_is_taken():
    coarse = torch.zeros(2, 6, 6)
    coarse[0, 2, 1] = coarse[1, 0, 1] = 1  # cells around (12, 20) and (12, 4)
    assert on_part(coarse, "eyes").tolist() == [True, False]


@pytest.mark.parametrize("part", ["eyes", "mouth"])
def test_chance_is_the_share_of_pixels_that_would_hit(part):
    everywhere = torch.eye(48 * 48).reshape(-1, 48, 48)
    assert on_part(everywhere, part).double().mean().item() == pytest.approx(chance(part))
    left, top, right, bottom = region(part)
    assert 0 <= left < right <= 47
    assert 0 <= top < bottom <= 47
    assert 0.1 < chance(part) < 0.4

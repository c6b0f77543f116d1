"""How processes share a batch, told without any other process."""

import pytest
import torch

from cxrmodel.training.vae.world import World


@pytest.mark.parametrize("num_images", [1, 3, 4, 7])
def test_the_parts_of_a_batch_are_the_batch(num_images):
    rows = torch.arange(num_images)
    parts = [World(rank, 3).part(rows) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("num_images", [1, 2, 3, 7])
def test_shares_make_the_mean_of_means_the_mean_over_the_batch(num_images):
    values = torch.arange(1.0, num_images + 1)
    worlds = [World(rank, 3) for rank in range(3)]
    means = [world.share(num_images) * world.part_or_first(values).mean() for world in worlds]
    assert float(sum(means)) / 3 == pytest.approx(float(values.mean()))


def test_a_process_without_an_image_has_a_share_of_zero():
    late = World(2, 3)
    assert len(late.part(torch.arange(2))) == 0
    assert late.part_or_first(torch.arange(2)).tolist() == [0]
    assert late.share(2) == 0


def test_alone_everything_is_ones_own():
    world, values = World(), torch.ones(3, 2)
    assert world.leads
    assert world.share(5) == 1
    assert world.gathered(values) is values
    assert world.from_leader("word") == "word"
    world.average([values])
    assert values.tolist() == [[1, 1]] * 3

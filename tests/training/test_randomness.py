import torch

from cxrmodel.training.randomness import Stream, epoch_order, seed_of, step_noise


def test_an_epochs_order_is_a_permutation_of_its_own():
    orders = [epoch_order(42, epoch, 50).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_the_same_counter_gives_the_same_numbers_whatever_was_drawn_between():
    noise, order = step_noise(42, 7, (2, 3)), epoch_order(42, 1, 10)
    torch.rand(100)
    step_noise(42, 8, (5, 5))
    assert torch.equal(step_noise(42, 7, (2, 3)), noise)
    assert epoch_order(42, 1, 10).tolist() == order.tolist()


def test_seeds_streams_and_counters_are_independent():
    seeds = {
        seed_of(seed, stream, counter)
        for seed in (0, 1)
        for stream in Stream
        for counter in (0, 1, 2)
    }
    assert len(seeds) == 2 * len(Stream) * 3


def test_the_process_generator_is_left_alone():
    before = torch.get_rng_state()
    epoch_order(42, 0, 10)
    step_noise(42, 0, (2, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_standard_normal():
    noise = step_noise(42, 0, (1000, 100))
    assert abs(noise.mean().item()) < 0.02
    assert abs(noise.std().item() - 1) < 0.02

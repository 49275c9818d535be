"""Training: a function of (network, images, recipe, seed), also when it is interrupted."""

import itertools
import re
import signal

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn

from headwater import seeds
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.diffusion.schedule import linear
from headwater.errors import NonFiniteError, OptionError, UserError
from headwater.examples import Examples
from headwater.models.train import Recipe, Watch, _batches, rate, train
from headwater.models.training_data import Material
from headwater.models.unet import Network

FULL = {
    "steps": 8,
    "batch": 4,
    "learning_rate": 1e-2,
    "dropout": 0.2,
    "flips": True,
    "ema": 0.9,
    "checkpoints": 4,
}
PLAIN = {"steps": 3, "batch": 4, "learning_rate": 1e-2, "dropout": 0.0, "flips": False, "checkpoints": 1}


@pytest.fixture(scope="module")
def network(smallest):
    return Network(smallest)


def weights(model):
    return dict(model.module.state_dict())


def same(a, b):
    return all(torch.equal(weights(a)[name], weights(b)[name]) for name in weights(a))


# stopping and going on


@pytest.fixture(scope="module")
def uninterrupted(network, pictures):
    return train(network, pictures(10), Recipe(**FULL), 3)


def stop_at(last):
    def step(finished, total):
        if finished == last:
            raise KeyboardInterrupt

    return step


@pytest.mark.parametrize("last", [3, 4])
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(network, pictures, uninterrupted, tmp_path, last):
    state, steps = tmp_path / "state", []
    with pytest.raises(KeyboardInterrupt):
        train(network, pictures(10), Recipe(**FULL), 3, watch=Watch(state, step=stop_at(last)))
    resumed = train(
        network,
        pictures(10),
        Recipe(**FULL),
        3,
        watch=Watch(state, step=lambda finished, total: steps.append(finished)),
    )
    assert steps[0] == (last - 1) // 2 * 2 + 1  # from the last checkpoint that was complete
    assert same(resumed, uninterrupted) and resumed.fingerprint == uninterrupted.fingerprint


def test_being_watched_changes_nothing_and_a_finished_training_is_not_repeated(
    network, pictures, uninterrupted, tmp_path
):
    events, steps = [], []
    watch = Watch(
        tmp_path / "state",
        lambda *step: events.append(step),
        lambda step, model: events.append(model.fingerprint),
    )
    assert same(train(network, pictures(10), Recipe(**FULL), 3, watch=watch), uninterrupted)
    assert events[0] == (1, 8) and events[-1] == uninterrupted.fingerprint
    again = train(
        network,
        pictures(10),
        Recipe(**FULL),
        3,
        watch=Watch(tmp_path / "state", step=lambda *step: steps.append(step)),
    )
    assert steps == [] and same(again, uninterrupted)


def test_a_state_cut_short_is_reported(network, pictures, tmp_path):
    state = tmp_path / "state"
    train(network, pictures(4), Recipe(**PLAIN), 0, watch=Watch(state))
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(UserError, match="state"):
        train(network, pictures(4), Recipe(**PLAIN), 0, watch=Watch(state))


def test_the_seed_decides_all_and_the_global_generator_nothing(network, pictures, uninterrupted):
    torch.rand(3)
    before = torch.get_rng_state()
    again = train(network, pictures(10), Recipe(**FULL), 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(again, uninterrupted)
    assert not same(train(network, pictures(10), Recipe(**FULL), 4), uninterrupted)


# the same stream for every subset


def test_models_of_one_seed_start_from_equal_weights_whatever_the_subset(network, pictures):
    still = Recipe(**PLAIN | {"learning_rate": 0.0})
    full = train(network, pictures(6), still, 5)
    half = train(network, pictures(6), still, 5, keep=np.array([True, False] * 3))
    assert same(full, half)
    assert all(torch.equal(w, weights(full)[n]) for n, w in network.fresh(5).state_dict().items())
    assert not same(full, train(network, pictures(6), still, 6))


def test_slot_b_has_the_same_timestep_and_noise_whatever_the_subset(network):
    """All pictures are equal here, so that x_t determines t and ε."""
    grey, pairs = Examples(np.full((7, 8, 8, 1), 90, np.uint8)), []

    def look(module, inputs):
        if isinstance(module, UNet2DModel):
            pairs.append((inputs[0].clone(), inputs[1].clone()))

    handle = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        for count in (7, 5):  # batches of 4, 3 and of 4, 1
            train(network, grey, Recipe(**PLAIN | {"steps": 2}), 0, keep=np.arange(7) < count)
    finally:
        handle.remove()
    (x0, t0), (x1, t1), (y0, s0), (y1, s1) = pairs
    assert torch.equal(x0, y0) and torch.equal(t0, s0)
    assert len(x1) == 3 and len(y1) == 1 and torch.equal(x1[:1], y1) and torch.equal(t1[:1], s1)
    assert not torch.equal(x0[0], x0[1]) and not torch.equal(x0[0], x1[0])


def epochs(keep, batch, count, seed=0):
    """The first `count` epochs as lists of rows, and the batch sizes of one."""
    n = int(keep.sum())
    sizes = [min(batch, n - start) for start in range(0, n, batch)]
    rows = [rows.tolist() for _, rows in _batches(keep, batch, seed, 0, count * len(sizes))]
    assert [len(batch_rows) for batch_rows in rows] == sizes * count
    return [list(itertools.chain(*rows[i * len(sizes) : (i + 1) * len(sizes)])) for i in range(count)]


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_an_epoch_visits_every_kept_image_exactly_once(batch):
    keep = np.array([True, False, True, True, True, False, True])
    three = epochs(keep, batch, 3)
    assert all(sorted(epoch) == np.flatnonzero(keep).tolist() for epoch in three)
    assert three[0] != three[1] != three[2]


def test_kept_images_come_in_the_same_order_in_every_subset():
    full, half = epochs(np.ones(9, bool), 4, 3), epochs(np.arange(9) % 2 == 0, 2, 3)
    assert half == [[row for row in epoch if row % 2 == 0] for epoch in full]


def test_batches_from_a_later_step_are_the_same():
    keep = np.arange(7) != 3
    batches = [(step, rows.tolist()) for step, rows in _batches(keep, 4, 0, 0, 7)]
    assert [(step, rows.tolist()) for step, rows in _batches(keep, 4, 0, 3, 7)] == batches[3:]


def test_a_recipe_counts_steps_by_epochs_by_default():
    assert Recipe(epochs=200, batch=128).total(5000) == 8000  # CIFAR-2, D-TRAK paper
    assert Recipe(epochs=3, batch=4).total(9) == 9
    assert Recipe(epochs=3, batch=4, steps=5).total(9) == 5


# one step


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_steps_are_adamw_on_the_clipped_gradient_of_the_models_own_loss(smallest, pictures, prediction):
    """The slow obvious version, with torch's unfused AdamW: three steps."""
    network, examples, recipe = Network(smallest, linear(prediction=prediction)), pictures(4), Recipe(**PLAIN)
    module, schedule = network.fresh(2), network.schedule
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=1e-2, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    pixels = torch.as_tensor(examples.pixels())
    for step, part in enumerate((0.0, 1.0, 0.5)):  # warm-up of ⌈0.3⌉ = 1 step, then half a cosine over two
        random = seeds.generator(2, "training", step)
        t = torch.as_tensor(random.integers(0, 1000, size=4))
        noise = torch.as_tensor(random.standard_normal((4, 1, 8, 8), dtype=np.float32))
        x = pixels[seeds.generator(2, "order", step).permutation(4)]
        loss = (module(schedule.noised(x, noise, t), t).sample - schedule.target(x, noise, t)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = sum(p.grad.square().sum() for p in module.parameters()) ** 0.5
        for p in module.parameters():
            p.grad *= min(1.0, 1.0 / (norm + 1e-6))
        optimizer.param_groups[0]["lr"] = 1e-2 * part
        optimizer.step()
    trained = train(network, examples, recipe, 2)
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(weights(trained)[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("total", "warmup"), [(8000, 0.1), (1000, 0.1), (7, 0.3), (10, 0.0), (5, 1.0), (1, 0.1)]
)
def test_the_rate_is_diffusers_cosine_with_warmup(total, warmup):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    (expected,) = get_cosine_schedule_with_warmup(optimizer, int(np.ceil(warmup * total)), total).lr_lambdas
    for step in {*range(0, total, max(1, total // 97)), total - 1}:
        assert rate(step, total, warmup) == pytest.approx(expected(step), abs=1e-12)


def test_without_decay_the_rate_stays_at_its_peak():
    assert [rate(step, 20, 0.1, "none") for step in (0, 1, 2, 10, 19)] == [0.0, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("power", [None, 0.75, 2 / 3])
def test_the_averaging_decays_as_diffusers_ema_does(power):
    from diffusers.training_utils import EMAModel

    warm = {} if power is None else {"use_ema_warmup": True, "power": power}
    reference = EMAModel([nn.Parameter(torch.zeros(1))], decay=0.999, **warm)
    ours = Recipe(ema=0.999, ema_power=power)
    for step in (0, 1, 5, 100, 10_000, 100_000):  # diffusers counts the step that was just made
        assert ours.averaging(step) == pytest.approx(reference.get_decay(step + 1), abs=1e-12)


def test_flips_mirror_about_half_of_the_pictures():
    x = torch.arange(400 * 6.0).view(400, 1, 2, 3)

    def flipped(x, seed, step):
        return Material(x).shown(torch.arange(len(x)), seed, step, flips=True)

    result = flipped(x, 0, 5)
    mirrored = (result == x.flip(-1)).flatten(1).all(1)
    assert (mirrored | (result == x).flatten(1).all(1)).all()
    assert 150 < mirrored.sum() < 250  # 200 ± 5 standard deviations
    assert torch.equal(flipped(x, 0, 5), result) and not torch.equal(flipped(x, 0, 6), result)


def test_averaged_weights_are_the_exponential_average_of_every_steps(network, pictures):
    raw = []
    recipe = FULL | {"steps": 6, "checkpoints": 6}
    watch = Watch(checkpoint=lambda _, model: raw.append(weights(model)))
    train(network, pictures(5), Recipe(**recipe | {"ema": None}), 1, watch=watch)
    averaged = weights(train(network, pictures(5), Recipe(**recipe | {"ema": 0.3}), 1))
    average = dict(network.fresh(1).state_dict())
    for step, state in enumerate(raw):
        decay = min(0.3, (1 + step) / (10 + step)) if step else 0.0
        average = {name: decay * average[name] + (1 - decay) * state[name] for name in average}
    assert len(raw) == 6
    for name in average:
        torch.testing.assert_close(averaged[name], average[name], rtol=1e-4, atol=1e-6)


def test_dropout_acts_in_training_and_never_after(network, pictures):
    changes = {"dropout": 0.5, "steps": 2}
    dropped, plain = (
        train(network, pictures(4), Recipe(**PLAIN | c), 0) for c in (changes, changes | {"dropout": 0.0})
    )
    assert not same(dropped, plain)
    assert not dropped.module.training
    x, t = torch.ones(2, 1, 8, 8), torch.tensor([5, 5])
    with torch.no_grad():
        assert torch.equal(dropped.predict(x, t), dropped.predict(x, t))
        dropped.module.train()  # even then: the finished network has the configuration's dropout, none
        assert torch.equal(dropped.predict(x, t), dropped.predict(x, t))


# checkpoints


@pytest.mark.parametrize(
    ("steps", "count", "marks"), [(8, 4, [2, 4, 6, 8]), (5, 1, [5]), (6, 3, [2, 4, 6]), (2, 4, [1, 2])]
)
def test_checkpoints_lie_evenly_and_the_last_is_the_model(network, pictures, steps, count, marks):
    saved = {}
    recipe = Recipe(**FULL | {"steps": steps, "checkpoints": count})
    model = train(
        network,
        pictures(4),
        recipe,
        0,
        watch=Watch(checkpoint=lambda step, model: saved.update({step: model})),
    )
    assert [step for step in saved if step > 0] == marks
    assert same(saved[steps], model) and len(
        {checkpoint.fingerprint for checkpoint in saved.values()}
    ) == len(saved)


def test_training_lowers_the_loss(network, pictures):
    def loss(model):
        draw = Draws(10, noises=2).of(
            pictures(2), slice(None), model.schedule, next(model.module.parameters())
        )
        with torch.no_grad():
            output = model.predict(draw.x_t.flatten(0, 1), draw.t.flatten()).view_as(draw.x_t)
        return float(simple(output, draw, model.schedule).mean())

    recipe = Recipe(**PLAIN | {"steps": 30, "batch": 16, "learning_rate": 1e-2})
    before, after = (
        train(network, pictures(2), r, 0) for r in (Recipe(**PLAIN | {"learning_rate": 0.0}), recipe)
    )
    assert loss(after) < 0.7 * loss(before)


def test_a_label_reaches_a_conditional_network(smallest, pictures):
    network = Network(smallest | {"num_class_embeds": 3})
    labelled = pictures(4, classes=3)
    relabelled = Examples(labelled.images, labels=(labelled.labels + 1) % 3)
    models = [train(network, examples, Recipe(**PLAIN), 0) for examples in (labelled, relabelled)]
    assert models[0].classes == 3 and not same(*models)


# what cannot be


def test_a_diverged_training_is_reported(network, pictures):
    with pytest.raises(NonFiniteError, match=r"loss is .* at step .*smaller learning rate"):
        train(network, pictures(4), Recipe(**PLAIN | {"learning_rate": 1e30, "warmup": 0.0}), 0)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "fields",
    [
        *({name: value} for name in ("epochs", "batch", "steps", "checkpoints") for value in (0, -1)),
        *({"ema": value} for value in (1.0, 1.5, -0.1, NAN)),
        *({"dropout": value} for value in (1.0, -0.1, NAN)),
        *({"learning_rate": value} for value in (-1e-4, INFINITY, NAN)),
        *({"weight_decay": value} for value in (-1e-6, INFINITY, NAN)),
        *({"warmup": value} for value in (-0.1, 1.1, 100, NAN)),
        *({"clip": value} for value in (0.0, -1.0, NAN)),
        *({"ema_power": value} for value in (0.0, -0.75, INFINITY, NAN)),
        *({"betas": value} for value in ((0.9, 1.0), (-0.1, 0.999), (0.9, NAN))),
    ],
    ids=str,
)
def test_impossible_recipes_are_refused(fields):
    ((name, value),) = fields.items()
    with pytest.raises(OptionError, match=re.escape(f"{name} is {value}; expected")):
        Recipe(**fields)


def test_training_on_no_images_is_refused(network, pictures):
    def too_long(*_):
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(1)
    try:
        with pytest.raises(UserError):
            train(network, pictures(4), Recipe(**PLAIN), 0, keep=np.zeros(4, bool))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def test_a_network_whose_configuration_says_that_it_has_no_classes_needs_no_labels(smallest, pictures):
    network = Network(smallest | {"num_class_embeds": None})  # as diffusers writes it
    for classes in (None, 3):
        assert train(network, pictures(4, classes=classes), Recipe(**PLAIN | {"steps": 1}), 0).classes is None


def test_a_conditional_network_without_labels_is_refused(smallest, pictures):
    with pytest.raises(UserError, match="label"):
        train(Network(smallest | {"num_class_embeds": 3}), pictures(4), Recipe(**PLAIN), 0)

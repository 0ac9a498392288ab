"""Section 6: exact nearest neighbours, honest seeding, and stages that each do their part."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import song

import neural_audio_tokenizer as nat

GRID = 1 / 64


def on_grid(rows):
    return np.rint(np.asarray(rows) / GRID) * GRID


def grid_rows(count, width, seed=0, spread=4.0):
    return on_grid(np.random.RandomState(seed).standard_normal((count, width)) * spread)


def clusters(count, width, centres, seed=0):
    """Rows around some centres, unevenly many."""
    random = np.random.RandomState(seed)
    chosen = (random.rand(count) ** 2 * centres).astype(int)
    middles = random.standard_normal((centres, width)) * 8
    return on_grid(middles[chosen] + random.standard_normal((count, width)))


def find(rows, vectors, weights):
    return nat.nearest(rows, weights, table=nat.search_table(vectors, weights))


def energy(rows, weights):
    return float(np.sum((rows * weights) ** 2))


def distortion(rows, vectors, weights):
    return energy(rows - vectors[find(rows, vectors, weights)], weights)


def integer_nearest(rows, vectors, weights):
    """Brute force in whole numbers, where nothing can round; the lowest index wins a tie."""
    rows, vectors = (np.rint(x * weights / GRID).astype(np.int64) for x in (rows, vectors))
    return np.array([np.sum((vectors - row) ** 2, axis=1).argmin() for row in rows])


@pytest.fixture(scope="module")
def heard(tokenizer):
    """Features of a song that the codebooks were not fitted on."""
    return next(tokenizer.tokens([song(8.0)]))


def chain_and_rows(tokenizer, heard, branch):
    books = getattr(tokenizer.trained, branch)
    return books, books.normalise(getattr(heard, branch))


# Search


def test_nearest_is_brute_force():
    rows, vectors = grid_rows(600, 9), grid_rows(70, 9, seed=1)
    weights = np.array([1, 1, 0, 2, 0.5, 1, 0, 1, 4.0])
    assert (find(rows, vectors, weights) == integer_nearest(rows, vectors, weights * 2)).all()


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_nearest_is_exact_on_real_features(tokenizer, heard, branch):
    books, rows = chain_and_rows(tokenizer, heard, branch)
    for vectors, weights in zip(books.vectors, books.weights):
        codes = find(rows, vectors, weights)
        assert (codes[::7] == integer_nearest(rows[::7], vectors, weights)).all()
        rows = rows - vectors[codes]


def test_the_lowest_index_wins_a_tie():
    vectors = np.repeat(grid_rows(1, 5), 6, axis=0)
    assert not find(grid_rows(300, 5, seed=2), vectors, np.ones(5)).any()
    assert find(np.zeros((1, 1)), np.array([[2.0], [1.0], [-1.0]]), np.ones(1))[0] == 1


def test_an_unheard_dimension_does_not_count():
    rows, vectors = grid_rows(200, 6), grid_rows(30, 6, seed=1)
    weights = np.array([1.0, 1, 0, 1, 0, 1])
    codes = find(rows, vectors, weights)
    rows[:, 2] += 100
    vectors[:, 4] -= 50
    assert (find(rows, vectors, weights) == codes).all()


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_codes_do_not_depend_on_the_order_of_sums(tokenizer, heard, branch):
    books, features = getattr(tokenizer.trained, branch), getattr(heard, branch)
    order = np.random.RandomState(5).permutation(features.shape[1])
    shuffled = nat.Codebooks(
        books.vectors[:, :, order], books.weights[:, order], books.offset[order],
        books.scale[order], books.descriptors, "shuffled",
    )  # fmt: skip
    assert (shuffled.encode(features[:, order]) == books.encode(features)).all()


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
@pytest.mark.parametrize("block", [1, 13, 255, 256, 257])
def test_codes_do_not_depend_on_the_block_size(tokenizer, heard, branch, block):
    books, features = getattr(tokenizer.trained, branch), getattr(heard, branch)
    parts = [books.encode(features[at : at + block]) for at in range(0, len(features), block)]
    assert (np.concatenate(parts) == books.encode(features)).all()


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_features_and_codewords_lie_on_the_grid(tokenizer, heard, branch):
    books, features = getattr(tokenizer.trained, branch), getattr(heard, branch)
    for array in (books.vectors, books.offset, features):
        assert (array / GRID == np.rint(array / GRID)).all()
    assert set(np.unique(np.log2(books.weights[books.weights > 0])) % 1) == {0.0}


# Seeding and fitting


def test_seeding_is_deterministic_and_picks_distinct_rows():
    rows = grid_rows(500, 6)
    first, again, other = (
        nat.seed_codebook(rows, 100, rng=np.random.RandomState(seed)) for seed in (7, 7, 8)
    )
    assert (first == again).all() and (first != other).any()
    assert len(np.unique(rows[first], axis=0)) == 100


def test_seeding_finds_far_away_groups():
    rows = np.concatenate([grid_rows(990, 3, spread=0.1), 50 + grid_rows(10, 3, spread=0.1)])
    hits = 0
    for seed in range(20):
        picked = nat.seed_codebook(rows, 2, rng=np.random.RandomState(seed))
        hits += rows[picked].max() > 40
    assert hits >= 19  # by chance alone it would be none or one


def test_seeding_survives_fewer_rows_than_codes():
    rows = np.repeat(grid_rows(3, 4), 5, axis=0)
    picked = nat.seed_codebook(rows, 12, rng=np.random.RandomState(0))
    assert picked.shape == (12,) and len(np.unique(rows[picked], axis=0)) == 3


def test_moving_averages_lower_the_distortion_of_seeds():
    rows, weights = clusters(6000, 8, 60), np.ones(8)
    seeds = rows[nat.seed_codebook(rows, 40, rng=np.random.RandomState(1))]
    moved = nat.adapt_codebook(seeds, rows, weights=weights, seed=2, passes=6)
    assert distortion(rows, moved, weights) < 0.8 * distortion(rows, seeds, weights)


def test_dead_codes_are_renewed():
    rows, weights = clusters(6000, 8, 60), np.ones(8)
    seeds = rows[nat.seed_codebook(rows, 40, rng=np.random.RandomState(1))]
    lost = seeds.copy()
    lost[20:] = 500.0  # no row will ever choose these
    moved = nat.adapt_codebook(lost, rows, weights=weights, seed=2, passes=40)
    assert moved.max() <= rows.max() + GRID
    assert len(np.unique(find(rows, moved, weights))) >= 38


def test_a_stage_says_nothing_of_what_it_does_not_hear():
    weights = np.array([1.0, 1, 0, 0])
    vectors = nat.fit_stage(grid_rows(900, 4), weights, size=20, seed=3)
    assert not vectors[:, 2:].any() and vectors[:, :2].any(axis=1).sum() > 15


def test_fitting_is_deterministic():
    rows, weights = clusters(2000, 6, 30), nat.stage_weights((3, 3))
    first, again, other = (
        nat.fit_chain(rows, weights, size=25, seed=seed, tick=lambda: None) for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()


def test_fitting_says_once_a_stage_that_it_moved_on():
    said = []
    nat.fit_chain(
        grid_rows(300, 4), nat.stage_weights((2, 2)), size=5, seed=1, tick=lambda: said.append(1)
    )
    assert len(said) == 3


def test_sums_by_code_are_sums_of_members():
    rows, codes = grid_rows(200, 5), np.random.RandomState(1).randint(0, 12, 200)
    codes[codes == 4] = 5
    counts, sums = nat.sum_by_code(rows, codes, 14)
    for code in range(14):
        assert counts[code] == (codes == code).sum()
        assert sums[code] == pytest.approx(rows[codes == code].sum(axis=0))


def test_nudging_moves_chosen_codes_towards_their_rows_and_no_others():
    vectors, weights = grid_rows(30, 5, seed=1), np.ones(5)
    rows = on_grid(vectors[:10].repeat(40, axis=0) + 0.5)
    moved = nat.nudge_codebook(vectors, rows, weights=weights)
    codes = find(rows, vectors, weights)
    chosen = np.isin(np.arange(30), codes)
    assert (moved[~chosen] == vectors[~chosen]).all()
    for code in np.unique(codes):
        mean = rows[codes == code].mean(axis=0)
        before, after = (np.abs(v[code] - mean).sum() for v in (vectors, moved))
        assert after < 0.5 * before


# Chains


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_each_stage_lowers_the_energy_in_its_own_metric(tokenizer, heard, branch):
    books, rows = chain_and_rows(tokenizer, heard, branch)
    for vectors, weights in zip(books.vectors, books.weights):
        rest = rows - vectors[find(rows, vectors, weights)]
        assert energy(rest, weights) < 0.9 * energy(rows, weights)
        rows = rest


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_four_stages_together_lower_the_energy_in_every_metric(tokenizer, heard, branch):
    books, rows = chain_and_rows(tokenizer, heard, branch)
    decoded = books.decode(books.encode(getattr(heard, branch)))
    rest = getattr(heard, branch) - decoded
    for weights in books.weights:
        assert energy(rest, weights) < 0.7 * energy(rows, weights)


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_random_codebooks_explain_less_than_fitted_ones(tokenizer, heard, branch):
    books, rows = chain_and_rows(tokenizer, heard, branch)
    drawn = nat.random_chain(rows, books.weights, size=1000, seed=1)  # even of this very sound
    features = getattr(heard, branch)
    blank = np.zeros_like(books.descriptors)
    control = nat.Codebooks(drawn, books.weights, books.offset, books.scale, blank, "random")
    fitted, random = (
        energy(features - chain.decode(chain.encode(features)), 1.0) for chain in (books, control)
    )
    assert fitted < 0.7 * random


def test_decoding_codewords_that_were_encoded_is_exact():
    vectors = np.stack([grid_rows(40, 7, seed=seed) for seed in range(3)])
    vectors[1:, 0] = 0.0  # a codeword that adds nothing
    offset, ones = on_grid(np.linspace(-5, 5, 7)), np.ones(7)
    blank = np.zeros((3, 40, 1), np.float32)
    books = nat.Codebooks(vectors, np.ones((3, 7)), offset, ones, blank, "test")
    words = books.vectors[0] + offset
    codes = books.encode(words)
    assert codes.dtype == np.int16 and (codes[:, 0] == np.arange(40)).all()
    assert not codes[:, 1:].any()
    assert (books.decode(codes) == words).all()


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_decoding_adds_one_stage_after_the_other(tokenizer, heard, branch):
    books, features = getattr(tokenizer.trained, branch), getattr(heard, branch)
    codes = books.encode(features)
    rests = [energy(features - books.decode(codes, q), 1.0) for q in range(5)]
    assert rests == sorted(rests, reverse=True)
    assert (books.decode(codes, 4) == books.decode(codes)).all()


def test_codebooks_cannot_be_written_to(tokenizer):
    with pytest.raises(ValueError):
        tokenizer.trained.acoustic.vectors[0, 0, 0] = 1.0


def test_identity_follows_what_decides_codes(tokenizer):
    books = tokenizer.trained.acoustic
    vectors = books.vectors.copy()
    vectors[3, 999, 0] += GRID
    more = [np.array(x) for x in (books.weights, books.offset, books.scale, books.descriptors)]
    assert nat.Codebooks(vectors, *more, "spectral").identity != books.identity
    assert nat.Codebooks(books.vectors.copy(), *more, "x").identity == books.identity


def test_identity_does_not_tell_zero_from_minus_zero(tokenizer):
    books = tokenizer.trained.acoustic
    more = [np.array(x) for x in (books.weights, books.offset, books.scale, books.descriptors)]
    plain = np.where(books.vectors == 0, 0.0, books.vectors)
    minus = np.where(books.vectors == 0, -0.0, books.vectors)
    identities = {nat.Codebooks(v, *more, "x").identity for v in (plain, minus, books.vectors)}
    assert len(identities) == 1

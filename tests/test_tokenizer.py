"""Section 8: codes are stable where sound is alike, and differ where it differs."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import EXAMPLE, HOP, RATE, analyse, noise, song, tone

import neural_audio_tokenizer as nat

S0, A0 = 0, 4


def equal(a, b):
    """Share of codes that are the same."""
    return float(np.mean(a == b))


@pytest.fixture(scope="module")
def codes(tokenizer, example):
    return tokenizer.encode(example).array


def test_codes_have_their_shape_and_range(codes, example):
    assert codes.dtype == np.int16 and codes.shape == (-(-len(example) // HOP), 8)
    assert codes.min() >= 0 and codes.max() < 1000


def test_music_uses_many_codes_in_every_layer(codes):
    used = [len(np.unique(column)) for column in codes.T]
    assert min(used) >= 8 and min(used[4:]) >= 60


def test_two_runs_give_the_same_codes(tokenizer, codes, example):
    assert (tokenizer.encode(example).array == codes).all()


@pytest.mark.parametrize("block, seconds", [(1, 0.2), (7, 1.0), (1000, 20.0), (100000, 20.0)])
def test_blocks_of_any_size_give_the_same_codes(tokenizer, example, block, seconds):
    sound = example[: int(seconds * RATE)]
    blocks = (sound[at : at + block] for at in range(0, len(sound), block))
    parts = [tokens.codes for tokens in tokenizer.tokens(blocks)]
    assert (np.concatenate(parts) == tokenizer.encode(sound).array).all()


def test_tokens_are_of_whatever_encode_takes(tokenizer, example):
    wide = np.stack([example[:50000], 0.3 * example[9:50009]], axis=1)
    pieces = [wide[:20001], wide[20001:]]
    for sound, more in ((pieces, {}), (wide, {}), (EXAMPLE, {}), (pieces, {"sample_rate": 16000}),
                        (np.rint(wide * 32767).astype(np.int16), {})):  # fmt: skip
        parts = [tokens.codes for tokens in tokenizer.tokens(sound, **more)]
        assert (np.concatenate(parts) == tokenizer.encode(sound, **more).array).all()
    with pytest.raises(nat.AudioError, match="channels come last"):
        next(tokenizer.tokens([wide.T]))


def test_codes_come_before_the_sound_has_ended(tokenizer, example):
    heard = []

    def blocks():
        for at in range(0, len(example), 4410):
            heard.append(at)
            yield example[at : at + 4410]

    first = next(tokenizer.tokens(blocks()))
    assert len(first.codes) and len(heard) * 0.2 < nat.CONTEXT_SECONDS + 0.5


def test_rows_of_tokens_belong_together(tokenizer, example):
    for tokens in tokenizer.tokens([example[:30000], example[30000:90000]]):
        lengths = {len(tokens.codes), len(tokens.semantic), len(tokens.acoustic)}
        assert lengths == {len(tokens.spectra.level)}
        assert (tokenizer.trained.acoustic.encode(tokens.acoustic) == tokens.codes[:, 4:]).all()


def test_codes_stand_at_the_sound_they_were_made_from(tokenizer):
    sound = song(1.0)
    tokens = list(tokenizer.tokens([sound]))
    level = np.concatenate([row.spectra.level for row in tokens])
    assert np.array_equal(level, analyse(sound).level)
    acoustic = tokenizer.trained.acoustic.encode(nat.acoustic_features(analyse(sound)))
    assert np.array_equal(np.concatenate([row.codes for row in tokens])[:, A0:], acoustic)


def test_an_empty_sound_has_no_codes(tokenizer):
    assert list(tokenizer.mono_tokens([])) == []
    for hear in (tokenizer.encode, lambda sound: list(tokenizer.tokens([sound]))):
        with pytest.raises(nat.AudioError, match="no samples"):
            hear(np.zeros(0, np.float32))


def test_one_sample_has_one_frame(tokenizer):
    assert tokenizer.encode(np.ones(1, np.float32)).array.shape == (1, 8)


def test_silence_is_one_code_a_layer(tokenizer):
    codes = tokenizer.encode(np.zeros(3 * RATE, np.float32)).array
    assert (codes == codes[0]).all()


def test_an_octave_shares_under_half_of_the_codes(tokenizer):
    low, high = (tokenizer.encode(tone(hz, 3.0, partials=4)).array for hz in (220.0, 440.0))
    assert equal(low, high) < 0.5
    assert equal(low[60:-60, [1, 5]], high[60:-60, [1, 5]]) < 0.5  # harmony and pitch


def test_tone_and_noise_share_under_a_fifth_of_the_codes(tokenizer):
    assert equal(tokenizer.encode(tone(440.0, 3.0)).array, tokenizer.encode(noise(3.0)).array) < 0.2


def test_a_second_later_the_codes_are_the_same(tokenizer, codes, example):
    late = tokenizer.encode(np.concatenate([np.zeros(43 * HOP, np.float32), example])).array[43:]
    edge = nat.PAST_FRAMES
    assert equal(late[:, A0], codes[:, A0]) >= 0.98
    assert equal(late[edge:, S0], codes[edge:, S0]) >= 0.95
    assert equal(late[edge:], codes[edge:]) >= 0.95


def test_one_decibel_softer_the_scene_is_the_same(tokenizer, codes, example):
    soft = tokenizer.encode(example * np.float32(10 ** (-1 / 20))).array
    assert equal(soft[:, S0], codes[:, S0]) >= 0.9


def test_with_noise_at_30_db_the_scene_is_the_same(tokenizer, codes, example):
    level = 10 * np.log10(np.mean(np.square(example, dtype=np.float64)))
    noisy = example + noise(len(example) / RATE, level - 30)[: len(example)]
    assert equal(tokenizer.encode(noisy).array[:, S0], codes[:, S0]) >= 0.8


def test_half_the_gain_moves_loudness_and_no_harmony(tokenizer, codes, example):
    soft = tokenizer.encode(example * np.float32(0.5)).array
    assert equal(soft[:, 1], codes[:, 1]) >= 0.95
    assert equal(soft[:, A0], codes[:, A0]) < 0.5


def test_a0_says_timbre_and_a1_pitch(tokenizer):
    """The same notes on another instrument keep A1; another melody on the same keeps A0."""

    def melody(steps, partials):
        return np.concatenate([tone(220 * 2 ** (s / 12), 0.5, partials=partials) for s in steps])

    rich, again = (tokenizer.encode(melody((0, 4, 7, 12), p)).array for p in (6, 5))
    other = tokenizer.encode(melody((2, 5, 9, 11), 6)).array
    assert equal(rich[:, 5], again[:, 5]) > equal(rich[:, 5], other[:, 5]) + 0.2


def test_decoded_codes_tell_level_and_colour(tokenizer, codes, example):
    features = tokenizer.trained.acoustic.decode(codes[:, 4:])
    heard = np.concatenate([t.acoustic for t in tokenizer.tokens([example])])
    loud = heard[:, 0] > -60
    assert np.abs(features[loud, 0] - heard[loud, 0]).mean() < 2.0


def test_a_tokenizer_may_be_used_for_many_sounds(tokenizer):
    first, other = tokenizer.tokens([song(4.0)]), tokenizer.tokens([noise(4.0)])
    mixed = [next(first).codes, next(other).codes]
    assert (mixed[0] == tokenizer.encode(song(4.0)).array[: len(mixed[0])]).all()
    assert (mixed[1] == tokenizer.encode(noise(4.0)).array[: len(mixed[1])]).all()


def test_codebook_id_names_both_chains(tokenizer):
    origin, *hashes = tokenizer.codebook_id.split("-")
    assert origin == "spectral"
    assert hashes == [books.identity for books in tokenizer.trained]


def test_codes_of_bursts_out_of_silence_do_not_depend_on_blocks(tokenizer):
    # Frames that rise by as much as can be tie, whatever the last digits of their product.
    random, size = np.random.RandomState(1), int(0.4 * 22050)
    sound, fall = np.zeros(6 * 22050, np.float32), 0.5 * np.exp(-np.arange(size) / 22050 * 30)
    for start in range(4):
        sound[int(start * 1.4 * 22050) :][:size] = fall * random.randn(size)
    whole = tokenizer.encode(sound).array
    for block in (100, 4096, 30000):
        pieces = (sound[at : at + block] for at in range(0, len(sound), block))
        assert np.array_equal(tokenizer.encode(pieces).array, whole)

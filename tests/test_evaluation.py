"""Section 11: statistics of known codes, and sound from codes."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import HOP, RATE, analyse, noise, song, tone

import neural_audio_tokenizer as nat

FRAME_RATE = RATE / HOP


def report(codes, blocks=1):
    statistics = nat.CodeStatistics(1000)
    for part in np.array_split(np.asarray(codes, np.int16), blocks):
        statistics.add(part)
    return statistics.report(FRAME_RATE)


def columns(*values):
    """Codes [T, 8] with the same column in every layer."""
    return np.repeat(np.array(values)[:, None], 8, axis=1)


# Statistics


def test_one_code_says_nothing():
    layer = report(columns(*[7] * 100))["S0"]
    assert layer[:6] == (1, 0.001, 1.0, 0.0, 1.0, 0.0) and layer.entropy_bitrate == 0
    assert layer[6:9] == pytest.approx([100 / FRAME_RATE] * 3)


def test_codes_used_evenly():
    layer = report(columns(*range(8), *range(8)))["A3"]
    assert (layer.codes_used, layer.usage) == (8, 0.008)
    assert layer.entropy == pytest.approx(3) and layer.perplexity == pytest.approx(8)


def test_entropy_of_uneven_codes():
    layer = report(columns(1, 1, 1, 2))["A0"]
    assert layer.entropy == pytest.approx(0.811278, abs=1e-6)


def test_changes_are_counted_a_second():
    layer = report(columns(*[1] * 43, *[2] * 43, *[1] * 43))["S1"]
    assert layer.change_rate == pytest.approx(2 / (129 / FRAME_RATE))


def test_runs_are_measured_across_blocks():
    codes = columns(*[1] * 10, *[2] * 20, *[3] * 30, *[1] * 40)
    for blocks in (1, 7, 100):
        layer = report(codes, blocks)["S1"]
        assert layer[6:9] == pytest.approx([20 / FRAME_RATE, 40 / FRAME_RATE, 40 / FRAME_RATE])


def test_layers_are_told_apart():
    codes = columns(1, 1, 1, 1)
    codes[:, 5] = 1, 2, 3, 4
    layers = report(codes)
    assert list(layers) == ["S0", "S1", "S2", "S3", "A0", "A1", "A2", "A3"]
    assert [layer.codes_used for layer in layers.values()] == [1, 1, 1, 1, 1, 4, 1, 1]


@pytest.mark.parametrize("blocks", [2, 7, 50])
def test_statistics_do_not_depend_on_blocks(blocks):
    codes = np.random.RandomState(0).randint(0, 20, (50, 8))
    assert report(codes, blocks) == report(codes)


def test_no_frames_have_a_report():
    layer = report(np.zeros((0, 8)))["S0"]
    assert (layer.codes_used, layer.entropy, layer.change_rate) == (0, 0.0, 0.0)


# Sound from codes


def transform(sound, hop=HOP):
    size = 4 * hop
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    return np.fft.rfft(frames * nat.hann(size), axis=1)


def test_overlap_add_inverts_the_transform():
    sound = song(1.0).astype(np.float64)[: 40 * HOP]
    back = nat.overlap_add(transform(sound), HOP)
    assert len(back) == len(sound)
    assert back[HOP:-HOP] == pytest.approx(sound[HOP:-HOP], abs=1e-9)


def test_griffin_lim_finds_the_magnitudes():
    wanted = np.abs(transform(tone(700.0, 1.0).astype(np.float64)))
    sound = nat.griffin_lim(wanted, HOP)
    found = np.abs(transform(sound))
    inner = slice(5, -5)
    error = np.sum((found[inner] - wanted[inner]) ** 2) / np.sum(wanted[inner] ** 2)
    assert error < 0.02


def test_griffin_lim_is_deterministic():
    wanted = np.abs(transform(noise(0.5).astype(np.float64)))
    assert (nat.griffin_lim(wanted, HOP) == nat.griffin_lim(wanted, HOP)).all()


def test_mel_power_survives_the_way_to_bins_and_back():
    mel = np.random.RandomState(1).rand(4, nat.N_MELS) + 0.5
    bank = nat.mel_filterbank(RATE, 2048)
    back = nat.mel_to_power(mel, np.ones((4, 1025)), bank=bank) @ bank
    assert back.sum(axis=1) == pytest.approx(mel.sum(axis=1), rel=0.05)
    assert (back > 0).all()


def test_features_turn_back_into_the_mel_that_made_them():
    rows = analyse(song(2.0))
    power = nat.acoustic_to_mel(nat.acoustic_features(rows))
    heard = 10 ** ((rows.mel + rows.level[:, None]) / 10)
    loud = rows.level > -50
    assert 10 * np.log10(power[loud] / heard[loud]) == pytest.approx(0, abs=1.0)


def rebuild(features, samples, blocks=1):
    maker = nat.Reconstructor(RATE, HOP)
    parts = [maker.push(part) for part in np.array_split(features, blocks)]
    return np.concatenate([*parts, maker.flush(samples)])


LENGTHS = [1, 511, 20000, 530 * 512 + 3, 512, 9 * 512, 1100 * 512]


@pytest.mark.parametrize("samples", LENGTHS)
def test_reconstruction_has_the_right_length(samples):
    count = -(-samples // HOP)
    features = nat.acoustic_features(analyse(noise(1.0)))[[20]].repeat(count, axis=0)
    sound = rebuild(features, samples)
    assert len(sound) == samples and np.isfinite(sound).all()


def test_nothing_is_rebuilt_from_nothing():
    assert len(rebuild(np.zeros((0, nat.ACOUSTIC.weights.shape[1])), 0)) == 0


@pytest.mark.parametrize("blocks", [3, 40])
def test_reconstruction_does_not_depend_on_blocks(blocks):
    sound = song(14.0)
    features = nat.acoustic_features(analyse(sound))
    whole, parts = (rebuild(features, len(sound), count) for count in (1, blocks))
    assert (whole == parts).all()


def test_joins_are_not_heard():
    """A steady sound stays steady where two blocks meet."""
    features = nat.acoustic_features(analyse(noise(1.0)))[[20]].repeat(1100, axis=0)
    level = analyse(rebuild(features, 1100 * HOP).astype(np.float32)).level[20:-20]
    assert level.max() - level.min() < 9 and abs(np.median(level) + 20) < 2


def test_reconstruction_of_silence_is_silent():
    features = nat.acoustic_features(analyse(np.zeros(RATE, np.float32)))
    assert np.abs(rebuild(features, RATE)).max() < 1e-4


@pytest.mark.parametrize("hz", [220.0, 1000.0])
def test_reconstruction_keeps_level_and_place_of_a_tone(tokenizer, hz):
    codes = tokenizer.encode(tone(hz, 3.0, -20.0)).array
    features = tokenizer.trained.acoustic.decode(codes[:, 4:])
    rows = analyse(rebuild(features, 3 * RATE).astype(np.float32))
    inner = slice(30, -30)
    assert np.median(rows.level[inner]) == pytest.approx(-20, abs=4)
    edges = nat.MEL_EDGES[1:-1]
    loudest = edges[rows.mel[inner].mean(axis=0).argmax()]
    assert loudest == pytest.approx(hz, rel=0.25)


def test_reconstruction_keeps_the_notes_and_tells_them_from_noise():
    chord, hiss = tone(220.0, 2.0, partials=4) + tone(277.18, 2.0, partials=4), noise(2.0)
    for sound, notes in ((chord, {9, 1}), (hiss, set())):
        heard = analyse(sound)
        again = analyse(rebuild(nat.acoustic_features(heard), len(sound)).astype(np.float32))
        assert again.tonal.mean() == pytest.approx(heard.tonal.mean(), abs=0.15)
        chroma = (nat.fold_chroma(again.salience) * again.tonal[:, None])[10:-10].mean(axis=0)
        assert notes <= set(np.argsort(chroma)[-2:])

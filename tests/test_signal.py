"""Section 4: what is measured on known sounds is what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import HOP, RATE, analyse, at_level, chord, clicks, noise, note_hz, song, tone

import neural_audio_tokenizer as nat

INNER = slice(40, -40)  # frames whose windows hold nothing but the sound


# Scales and transforms


def test_mel_scale_has_its_known_points_and_an_inverse():
    assert nat.hz_to_mel(np.array([0.0, 200.0, 1000.0, 6400.0])) == pytest.approx([0, 3, 15, 42])
    hz = np.linspace(20, 11025, 300)
    assert nat.mel_to_hz(nat.hz_to_mel(hz)) == pytest.approx(hz)


@pytest.mark.parametrize("rate, n_fft", [(22050, 2048), (16000, 1488), (48000, 4460)])
def test_mel_bands_add_up_to_the_power_between_the_outer_centres(rate, n_fft):
    edges = nat.MEL_EDGES
    hz = np.arange(n_fft // 2 + 1) * rate / n_fft
    power = np.random.RandomState(1).rand(5, len(hz)) * ((hz > edges[1]) & (hz < edges[-2]))
    mel = power @ nat.mel_filterbank(rate, n_fft)
    assert mel.shape == (5, nat.N_MELS)
    assert mel.sum(axis=1) == pytest.approx(power.sum(axis=1), rel=1e-12)


def test_relative_mel_says_shares_of_one_whole():
    power = np.random.RandomState(1).rand(5, 1025) ** 8
    mel = nat.relative_mel(power @ nat.mel_filterbank(RATE, 2048))
    assert (10 ** (mel / 10)).sum(axis=1) == pytest.approx(np.ones(5), rel=1e-9)


def test_dct_is_orthogonal_and_keeps_the_mean_square():
    basis = nat.dct_matrix(64)
    assert basis.T @ basis * 64 == pytest.approx(np.eye(64), abs=1e-12)
    row = np.random.RandomState(2).standard_normal(64)
    assert np.sum((row @ basis) ** 2) == pytest.approx(np.mean(row**2))
    assert (np.full(64, 3.0) @ basis)[1:] == pytest.approx(np.zeros(63), abs=1e-12)


def test_power_spectrum_sums_to_the_mean_square():
    frames = np.random.RandomState(3).standard_normal((20, 2048)) * nat.hann(2048)
    frames -= frames.mean(axis=1, keepdims=True)
    windowed = np.sum((frames * nat.hann(2048)) ** 2, axis=1)
    assert nat.power_spectrum(frames).sum(axis=1) == pytest.approx(windowed, rel=1e-2)


def test_spectral_peaks_lie_between_bins():
    hz, bin_hz = 1234.5, RATE / 4096
    power = nat.power_spectrum(tone(hz, 1.0)[None, :4096].astype(np.float64))
    _, position, energy = nat.spectral_peaks(power)
    assert position[energy.argmax()] * bin_hz == pytest.approx(hz, abs=0.1 * bin_hz)


# Level


@pytest.mark.parametrize("level", [-3.5, -20.0, -60.0])
@pytest.mark.parametrize("hz", [110.0, 1000.0, 7000.0])
def test_level_of_a_tone_is_its_rms_in_dbfs(level, hz):
    rows = analyse(tone(hz, 2.0, level))
    assert rows.level[INNER] == pytest.approx(np.full(len(rows.level[INNER]), level), abs=0.05)


def test_scene_level_is_the_mean_around():
    rows = analyse(tone(440.0, 6.0, -33.0))
    inner = rows.scene_level[60:-60]
    assert inner == pytest.approx(np.full(len(inner), -33.0), abs=0.1)
    assert rows.scene_spread[60:-60].max() < 0.1


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_level_does_not_depend_on_the_rate(rate):
    rows = analyse(tone(500.0, 2.0, -17.0, rate=rate), rate=rate)
    assert np.median(rows.level) == pytest.approx(-17.0, abs=0.05)


def test_direct_current_is_not_heard():
    assert analyse(np.full(3 * RATE, 0.5, np.float32)).level[INNER].max() < -60


def test_gain_changes_the_level_and_nothing_else():
    sound = song(5.0) + noise(5.0, -45.0)
    loud, soft = analyse(at_level(sound, -14.0)), analyse(at_level(sound, -24.0))
    for name in nat.Spectra._fields:
        change = getattr(loud, name)[INNER] - getattr(soft, name)[INNER]
        moves = 10.0 if name in ("level", "fine", "scene_level") else 0.0
        assert np.abs(change - moves).max() < 0.02, name


# Pitch


@pytest.mark.parametrize("midi", [33, 40, 52, 60, 69, 81, 93])
@pytest.mark.parametrize("partials", [1, 6])
def test_salience_and_pitch_of_a_note(midi, partials):
    rows = analyse(tone(note_hz(midi), partials=partials))
    assert (rows.salience[INNER].argmax(axis=1) + nat.LOWEST_NOTE == midi).all()
    assert rows.pitch[INNER] == pytest.approx(np.full(len(rows.pitch[INNER]), midi), abs=0.1)
    assert rows.tonal[INNER].min() > 0.8


@pytest.mark.parametrize("notes", [(60, 64, 67), (57, 60, 64), (48, 55, 64), (62, 65, 69)])
def test_salience_of_a_chord_stands_on_its_notes(notes):
    salience = analyse(chord(notes)).salience[INNER].mean(axis=0)
    assert set(salience.argsort()[-3:] + nat.LOWEST_NOTE) == set(notes)


def test_noise_is_not_tonal():
    assert analyse(noise()).tonal[INNER].mean() < 0.35


def test_partials_are_measured_against_the_whole():
    rows = analyse(tone(220.0, partials=3))
    total = 1 + 1 / 4 + 1 / 9
    wanted = 10 * np.log10(np.array([1, 1 / 4, 1 / 9]) / total)
    assert np.median(rows.partials[INNER, :3], axis=0) == pytest.approx(wanted, abs=0.7)
    assert rows.partials[INNER, 4:].max() < -40


def test_chroma_puts_every_note_into_its_class():
    for index in range(nat.NUM_NOTES):
        salience = np.zeros((1, nat.NUM_NOTES))
        salience[0, index] = 0.5
        chroma = nat.fold_chroma(salience)[0]
        assert chroma.sum() == 0.5 and chroma.argmax() == (nat.LOWEST_NOTE + index) % 12


def test_chroma_takes_the_strongest_octave():
    salience = np.zeros((1, nat.NUM_NOTES))
    salience[0, [60 - nat.LOWEST_NOTE, 72 - nat.LOWEST_NOTE]] = 0.2, 0.7
    assert nat.fold_chroma(salience)[0, 0] == 0.7


def test_bass_chroma_hears_only_below_middle_c():
    low, high = analyse(tone(note_hz(45), partials=3)), analyse(tone(note_hz(81)))
    assert low.scene_bass[INNER].mean(axis=0).argmax() == 9
    assert high.scene_bass[INNER].max() < 0.2 * high.scene_chroma[INNER].max()


# Change and pulse


@pytest.mark.parametrize("period", [0.3, 0.45, 0.6])
def test_tempogram_peaks_at_the_period_of_clicks(period):
    rows = analyse(clicks(period))
    middle = rows.tempogram[170:-170].mean(axis=0)
    near = int(np.abs(np.log(nat.PERIODS / period)).argmin())
    first = int(np.flatnonzero(middle > 0.7 * middle.max())[0])  # multiples of it peak as well
    first += int(middle[first : first + 3].argmax())
    assert abs(first - near) <= 1 and middle[first] > 0.6
    between = np.abs(nat.PERIODS / period - 1.5) < 0.2
    assert middle[between].max() < 0.3 * middle[first]


def test_noise_has_no_period():
    assert analyse(noise(8.0)).tempogram[170:-170].mean(axis=0).max() < 0.3


@pytest.mark.parametrize("period", [0.2, 0.5])
def test_onset_rate_counts_clicks(period):
    rows = analyse(clicks(period))
    assert rows.onset_rate[60:-60].mean() == pytest.approx(1 / period, rel=0.1)


def test_steady_sound_has_no_onsets_and_no_change():
    rows = analyse(tone(440.0, 6.0))
    assert rows.onset_rate[90:-90].max() == 0
    assert np.abs(rows.delta[INNER]).max() < 0.1 and rows.flux[INNER].max() < 0.1


def test_an_attack_is_felt_in_its_frame_and_its_band():
    for hz, band in ((80.0, 0), (800.0, 1), (5000.0, 2)):
        sound = np.zeros(RATE, np.float32)
        at = 20 * HOP
        sound[at:] = tone(hz, 1.0, partials=1)[: RATE - at]
        flux = analyse(sound).flux
        assert 17 <= flux.sum(axis=1).argmax() <= 21
        assert flux[17:22].sum(axis=0).argmax() == band


def test_frames_are_centred_on_the_samples_they_stand_for():
    for frame in (0, 13, 40):
        sound = np.zeros(RATE, np.float32)
        sound[frame * HOP + HOP // 2] = 1.0
        assert analyse(sound).level.argmax() == frame


def test_syllabic_modulation_is_told_from_slow_and_fast():
    times = np.arange(6 * RATE) / RATE
    shares = []
    for hz in (1.0, 4.0, 12.0):
        sound = noise(6.0) * (1 + 0.9 * np.sin(2 * np.pi * hz * times))
        shares.append(np.median(analyse(sound.astype(np.float32)).syllabic))
    assert shares[1] > 0.7 > 0.4 > max(shares[0], shares[2])


# Blocks, ends, silence


@pytest.mark.parametrize("block, seconds", [(1, 0.2), (7, 1.0), (1000, 6.0), (100000, 6.0)])
def test_blocks_of_any_size_give_the_same_rows(block, seconds):
    sound = song(seconds)
    whole, parts = analyse(sound), analyse(sound, block)
    for name in nat.Spectra._fields:
        assert np.abs(getattr(whole, name) - getattr(parts, name)).max() < 1e-9, name


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 513, 2048, 40000, 100 * 512])
def test_there_is_a_frame_for_every_hop_begun(samples):
    rows = analyse(song(3.0)[:samples])
    assert {len(array) for array in rows} == {-(-samples // HOP)}


@pytest.mark.parametrize("sound", [np.zeros(30000), np.full(30000, 1e-30), np.ones(30000) * 3e4])
def test_silence_and_extremes_stay_finite(sound):
    rows = analyse(sound.astype(np.float32))
    for name in nat.Spectra._fields:
        assert np.isfinite(getattr(rows, name)).all(), name


def test_silence_is_at_the_floor():
    rows = analyse(np.zeros(30000, np.float32))
    assert rows.level == pytest.approx(np.full(59, nat.LEVEL_FLOOR))
    assert not rows.tonal.any() and not rows.onset_rate.any() and not rows.pitch.any()


def test_a_sounds_end_does_not_reach_its_beginning():
    long, short = analyse(song(6.0)), analyse(song(6.0)[: 4 * RATE])
    safe = int(4 * RATE / HOP - nat.FUTURE_FRAMES - 8)
    for name in nat.Spectra._fields:
        difference = getattr(long, name)[:safe] - getattr(short, name)[:safe]
        assert np.abs(difference).max() < 1e-9, name


@pytest.mark.parametrize(
    "sound, midi, least",
    [
        (lambda: tone(note_hz(40), 2.0, partials=12), 40, 0.95),
        # A low string's first partial may be nearly missing.
        (lambda: tone(41.2, 2.0, partials=12) - tone(41.2, 2.0, -22.0), 28, 0.9),
        (lambda: tone(440.0, 2.0), 69, 0.95),
        (lambda: tone(1318.5, 2.0, partials=3), 88, 0.95),
    ],
)
def test_one_note_is_one_series_of_its_fundamental(sound, midi, least):
    rows = nat.slice_rows(analyse(sound()), 40, -40)
    assert np.abs(rows.series - midi).max() < 0.4 and rows.unity.min() > least


def test_several_notes_are_not_one_series():
    for sound in (chord(), noise(), tone(440.0) + tone(466.2)):
        assert np.median(nat.slice_rows(analyse(sound), 40, -40).unity) < 0.75
    silence = analyse(np.zeros(RATE, np.float32))
    assert not silence.series.any() and not silence.unity.any()

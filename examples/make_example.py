"""Make ``spouter.wav``, a short synthetic piece whose musical truth is known.

Usage: ``python make_example.py [OUT.wav]`` (default: spouter.wav beside this script).

The truth: 112 bpm from start to end (beat 0.5357 s, bar 2.1429 s), 4/4, straight, A minor
(harmonic: E major as dominant), A = 440 Hz. Beat 1 of bar 1 is at 0.20 s; the file lasts
20.00 s (mono, 22,050 Hz, 16-bit). Every note is off the grid by some ms (sigma 3-5 ms).

    bar  begins   chords     what happens
    1     0.20 s  Am | Am    guitar alone, eighth-note arpeggios (it plays to the end)
    2     2.34 s  F  | E     guitar; snare pick-up on the last two sixteenths (4.22 s)
    3     4.49 s  Am | F     bass, drums (crash on 1) and bowed lead enter: phrase A
    4     6.63 s  Am | E     phrase A, half close on B4
    5     8.77 s  C  | G     phrase B, the highest note (B5)
    6    10.91 s  Am | E     phrase A again; tom fill on beats 3-4 (11.99-13.06 s)
    7    13.06 s  Dm | Am    crash; lead ends on A4; voice enters on beat 2 (13.59 s)
    8    15.20 s  F  | E     kick + crash on 1, then no more drums; voice, guitar, bass
    9    17.34 s  Am         strummed last chord, bass A1, voice holds A3 to 18.5 s; rings out

A chord lasts two beats (in bar 9, to the end). Groove (bars 3-7): hi-hat in eighths, snare
on 2 and 4, kick on 1, "and" of 2 and "and" of 3; the fill replaces half of bar 6.
Lead: E5 D5 C5 A4 / E5 D5 C5 B4 / G5 E5 G5 B5 G5 / E5 D5 C5 B4 G#4 A4. Voice, invented
syllables: "la mi ya-o, sha la mo ma, oh" on F4 E4 E4 C4 / F4 E4 B3 G#3 / A3.
All sound is synthesised here from a fixed seed: the same machine gives the same bytes
(another machine or numpy may differ in the last bit of some samples).
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np

RATE, LENGTH, BPM, LEAD_IN, SEED = 22050, 20.0, 112.0, 0.20, 1851
BEAT = 60.0 / BPM
RNG = np.random.RandomState(SEED)

CHORDS = {  # guitar strings, low to high, as MIDI notes
    "Am": (45, 52, 57, 60, 64, 69),
    "F": (41, 53, 57, 60, 65, 69),
    "E": (40, 52, 56, 59, 64, 68),
    "C": (48, 55, 60, 64, 67, 72),
    "G": (43, 55, 59, 62, 67, 71),
    "Dm": (50, 57, 62, 65, 69, 74),
}
HALF_BARS = "Am Am F E Am F Am E C G Am E Dm Am F E".split()
LEAD = [  # (beat from bar 1, beats, MIDI note)
    (8, 1, 76),
    (9, 0.5, 74),
    (9.5, 0.5, 72),
    (10, 1.6, 69),
    (12, 1, 76),
    (13, 0.5, 74),
    (13.5, 0.5, 72),
    (14, 1.6, 71),
    (16, 1, 79),
    (17, 0.5, 76),
    (17.5, 0.5, 79),
    (18, 1, 83),
    (19, 0.8, 79),
    (20, 1, 76),
    (21, 0.5, 74),
    (21.5, 0.5, 72),
    (22, 1, 71),
    (23, 1, 68),
    (24, 1.2, 69),
]
VOICE = [  # (beat, beats, MIDI note, consonant, vowel)
    (25, 0.5, 65, "l", "a"),
    (25.5, 0.5, 64, "m", "i"),
    (26, 1, 64, "y", "a"),
    (27, 0.9, 60, "w", "o"),
    (28, 1, 65, "sh", "a"),
    (29, 1, 64, "l", "a"),
    (30, 1, 59, "m", "o"),
    (31, 0.9, 56, "m", "a"),
    (32, 2.1, 57, "w", "o"),
]
FORMANTS = {  # Hz; consonants are the places from which the vowel is reached
    "a": (760, 1250, 2600, 3500),
    "o": (470, 850, 2500, 3400),
    "i": (300, 2200, 2950, 3600),
    "l": (340, 1150, 2700, 3400),
    "m": (260, 1000, 2300, 3300),
    "y": (280, 2250, 3000, 3600),
    "w": (300, 650, 2300, 3300),
    "sh": (400, 1800, 2600, 3500),
}
KIT = {  # skin: Hz when struck, Hz after, decay in s, gain; noise: from Hz, to Hz, decay, gain
    "kick": (150, 50, 0.10, 1.0, 400, 5000, 0.003, 0.35),
    "hat": (0, 0, 0.1, 0, 6500, 10900, 0.03, 0.30),
    "high": (285, 190, 0.13, 0.75, 400, 5000, 0.004, 0.3),
    "open": (0, 0, 0.1, 0, 6500, 10900, 0.16, 0.25),
    "mid": (225, 150, 0.13, 0.75, 400, 5000, 0.004, 0.3),
    "crash": (0, 0, 0.1, 0, 3500, 10000, 0.35, 0.28),
    "low": (160, 105, 0.15, 0.80, 400, 5000, 0.004, 0.3),
    "snare": (240, 185, 0.05, 0.5, 1200, 7500, 0.065, 0.6),
}
GROOVE = {"kick": "X.....X...X.....", "snare": "....X..-.-..X...", "hat": "X.x.X.x.X.x.X.x."}
LIFT = dict(GROOVE, hat="X.x.X.x.X.x.X...", open="..............X.")
FILL = {
    "kick": "X.....X.........",
    "snare": "....X..-XxX.....",
    "hat": "X.x.X.x.........",
    "high": "...........XX...",
    "mid": ".............XX.",
    "low": "...............X",
}
DRUMS = {
    1: {"snare": "..............xX"},
    2: dict(GROOVE, crash="X"),
    3: LIFT,
    4: GROOVE,
    5: FILL,
    6: dict(GROOVE, crash="X"),
    7: {"kick": "X", "crash": "X"},
}


def at(beat: float) -> float:
    """Seconds at which a beat (0 = bar 1, beat 1) falls."""
    return LEAD_IN + beat * BEAT


def hertz(note: float) -> float:
    """Frequency of a MIDI note."""
    return 440.0 * 2.0 ** ((note - 69.0) / 12.0)


def seconds(length: float) -> np.ndarray:
    """Time axis of a sound."""
    return np.arange(int(length * RATE)) / RATE


def band(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep low..high Hz with gentle (second-order) edges, in the frequency domain."""
    f = np.fft.rfftfreq(2 * len(x), 1 / RATE) + 1e-9
    gain = 1 / np.sqrt((1 + (low / f) ** 4) * (1 + (f / high) ** 4))
    return np.fft.irfft(np.fft.rfft(x, 2 * len(x)) * gain)[: len(x)]


def add(bus: np.ndarray, sound: np.ndarray, time: float, gain: float, jitter: float = 0) -> None:
    """Mix a sound into a bus, its time and level slightly off as a player's would be."""
    start = max(0, int((time + RNG.randn() * jitter) * RATE))
    part = sound[: max(0, len(bus) - start)]
    bus[start : start + len(part)] += part * gain * (1 + 0.06 * RNG.randn())


def pluck(note: float, length: float, t60: float, soft: float) -> np.ndarray:
    """Plucked string (Karplus-Strong, block by block), resampled to the exact pitch."""
    freq = hertz(note)
    period = int(RATE / freq)
    loop = RNG.uniform(-1, 1, period)
    loop = loop - np.roll(loop, max(1, int(period * 0.17)))  # plucked at 17 % of the string
    for _ in range(2):
        loop = 0.5 * loop + 0.25 * (np.roll(loop, 1) + np.roll(loop, -1))
    loop, keep, blocks = loop / np.sqrt(np.mean(loop**2)), 10 ** (-3 / (freq * t60)), []
    for _ in range(int(length * freq) + 2):
        blocks.append(loop)
        loop = keep * ((1 - soft) * loop + soft / 2 * (np.roll(loop, 1) + np.roll(loop, -1)))
    string, t = np.concatenate(blocks), seconds(length)
    sound = np.interp(t * freq * period, np.arange(len(string)), string)
    return sound * np.clip(t / 0.002, 0, 1) * np.clip((length - t) / 0.08, 0, 1)


def guitar() -> np.ndarray:
    """Eighth-note arpeggios over the chords, then the strummed last chord."""
    bus, picks = np.zeros(int(LENGTH * RATE)), (0, 2, 3, 4, 1, 3, 5, 4)
    for i, chord in enumerate(HALF_BARS):
        for j in range(4):
            string = picks[j if j == 0 else j + 4 * (i % 2)]
            level = (1.0 if j == 0 else 0.7) * (1.0 if i < 4 or i > 13 else 0.75)
            sound = pluck(CHORDS[chord][string], 1.9 if j == 0 else 1.3, 2.6, 0.35)
            add(bus, sound, at(2 * i + j / 2), level, 0.005)
    for k, note in enumerate((45, 57, 60, 64, 69, 72)):
        add(bus, pluck(note, 2.6, 2.3, 0.35), at(32) + 0.022 * k, 1.0)
    return bus + 0.9 * band(bus, 90, 260)  # the wooden body


def bass() -> np.ndarray:
    """Finger bass on roots and fifths from bar 3 on."""
    bus = np.zeros(int(LENGTH * RATE))
    for i, chord in list(enumerate(HALF_BARS))[4:]:
        root = CHORDS[chord][0] - 12
        for beat, beats, up in ((0, 0.95, 0), (1.0, 0.45, 7), (1.5, 0.45, 12)):
            add(bus, pluck(root + up, beats * BEAT, 2.0, 0.8), at(2 * i + beat), 1 - up / 40, 0.004)
    add(bus, pluck(33, 2.5, 2.4, 0.8), at(32), 0.9)
    return band(bus, 35, 900)


def stroke(name: str) -> np.ndarray:
    """One stroke of the drum kit: a skin whose pitch falls, and a burst of noise."""
    top, bottom, ring, tone, low, high, decay, noise = KIT[name]
    t = seconds(6 * max(ring, decay))
    phase = 2 * np.pi * np.cumsum(bottom + (top - bottom) * np.exp(-t / 0.03)) / RATE
    skin = tone * np.sin(phase) * np.exp(-t / ring)
    return skin + noise * band(RNG.randn(len(t)), low, high) * np.exp(-t / decay)


def drums() -> np.ndarray:
    """The bars of DRUMS, one character a sixteenth."""
    bus = np.zeros(int(LENGTH * RATE))
    for bar, pattern in DRUMS.items():
        for name, line in pattern.items():
            for i, mark in enumerate(line):
                if mark != ".":
                    level = {"X": 1.0, "x": 0.65, "-": 0.2}[mark]
                    add(bus, stroke(name), at(4 * bar + i / 4), level, 0.003)
    return bus


def contour(
    line: Sequence[tuple], t: np.ndarray, rise: float, wide: float
) -> Tuple[np.ndarray, np.ndarray]:
    """Pitch (Hz; glides, late vibrato, drift) and loudness of a sung or bowed line."""
    pitch, loud, depth = [(0.0, line[0][2] - 0.7)], [], []
    for beat, beats, note in (entry[:3] for entry in line):
        start, end = at(beat) + RNG.randn() * 0.005, at(beat + beats) - 0.01
        level = 0.85 + 0.15 * (beats >= 1) + 0.04 * RNG.randn()
        last = 0.0 if beats % 0.5 else 0.15  # odd lengths end a phrase, the rest is legato
        pitch += [(start - 0.015, pitch[-1][1]), (start + 0.03, note), (end - 0.03, note)]
        loud += [
            (start - 0.01, loud[-1][1] if loud else 0.0),
            (start + rise, 0.9 * level),
            ((start + end) / 2, level),
            (end - 0.09, 0.8 * level),
            (end - 0.03, last),
        ]
        grow = min(0.36, 0.8 * (end - start))
        depth += [
            (start, 0),
            (start + grow / 2, 0.1 * wide),
            (start + grow, wide),
            (end - 0.03, wide),
        ]
    steps = np.arange(0, LENGTH + 1, 0.09)
    wander = np.interp(t, steps, RNG.randn(len(steps)))
    vibrato = np.interp(t, *zip(*depth)) * np.sin(2 * np.pi * 5.4 * t + 0.3 * wander)
    notes = np.interp(t, *zip(*pitch)) + vibrato + 0.04 * wander
    return hertz(notes), np.interp(t, *zip(*loud)) * (1 + 0.04 * wander)


def harmonics(f0: np.ndarray, tilt: float, peaks: List[tuple], floor: float) -> np.ndarray:
    """Harmonics of f0 falling as 1/k**tilt, heard through resonances (centre, width, gain)."""
    phase, out = 2 * np.pi * np.cumsum(f0) / RATE, np.zeros(len(f0))
    for k in range(1, int(0.42 * RATE / f0.min())):
        f = k * f0
        gain = floor + sum(g / np.sqrt(1 + ((f - c) / (w / 2)) ** 2) for c, w, g in peaks)
        out += np.sin(k * phase) * gain * np.clip((0.45 * RATE - f) / 1000, 0, 1) / k**tilt
    return out


def bowed() -> np.ndarray:
    """The lead: a string with a fixed body, vibrato and a little bow noise."""
    bus, first, last = np.zeros(int(LENGTH * RATE)), int(at(7.5) * RATE), int(at(26) * RATE)
    t = np.arange(first, last) / RATE
    f0, loud = contour(LEAD, t, 0.07, 0.28)
    body = [(480, 250, 0.7), (900, 300, 0.8), (1500, 500, 0.5), (2700, 1200, 0.9)]
    noise = band(RNG.randn(len(t)), 1200, 5000) * 0.05
    bus[first:last] = (harmonics(f0, 1.1, body, 0.25) + noise) * loud
    return bus


def voice() -> np.ndarray:
    """The answer: glottal harmonics through moving formants; syllables as in VOICE."""
    bus, first, last = np.zeros(int(LENGTH * RATE)), int(at(24.5) * RATE), int(at(36) * RATE)
    t = np.arange(first, last) / RATE
    f0, loud = contour(VOICE, t, 0.06, 0.28)
    knots, places, shut, sibilant = [], [], [(0.0, 1.0)], np.zeros(len(t))
    for beat, beats, _, consonant, vowel in VOICE:
        start, end = at(beat), at(beat + beats)
        knots += [start - 0.05, start + 0.02, start + 0.09, end - 0.10]
        places += [FORMANTS[consonant]] * 2 + [FORMANTS[vowel]] * 2
        low = {"m": 0.25, "sh": 0.0, "l": 0.45}.get(consonant, 0.55)
        shut += [(start - 0.09, 1), (start - 0.05, low), (start + 0.02, low), (start + 0.06, 1)]
        if consonant == "sh":
            sibilant += np.interp(
                t, [start - 0.10, start - 0.05, start + 0.02, start + 0.05], [0, 1, 0.8, 0], 0, 0
            )
    tracks = [np.interp(t, knots, track) for track in zip(*places)]
    peaks = list(zip(tracks, (90, 110, 160, 220), (1.0, 0.8, 0.45, 0.3)))
    breath = band(RNG.randn(len(t)), 1500, 6000) * 0.02
    sung = (harmonics(f0, 0.8, peaks, 0.015) + breath) * loud * np.interp(t, *zip(*shut))
    bus[first:last] = sung + 0.14 * sibilant * band(RNG.randn(len(t)), 2200, 6500)
    return bus


def room(dry: np.ndarray) -> np.ndarray:
    """Reverberation: early reflections and a darkening 1.1 s noise tail, by convolution."""
    t = seconds(1.3)
    tail = band(RNG.randn(len(t)), 200, 6000) * 10 ** (-3 * t / 1.1) * (t > 0.018)
    tail = 0.6 * tail + band(tail, 200, 1800) * (t > 0.05)
    for delay, gain in ((0.011, 6), (0.017, -4), (0.023, 4), (0.031, -3), (0.043, 2.5)):
        tail[int(delay * RATE)] += gain
    size = len(dry) + len(t)
    wet = np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(tail, size), size)[: len(dry)]
    return wet / np.sqrt(np.sum(tail**2))


def mix() -> np.ndarray:
    """The five parts, levelled (rms while sounding), with room; peak -1 dBFS."""
    RNG.seed(SEED)
    dry, send = np.zeros(int(LENGTH * RATE)), np.zeros(int(LENGTH * RATE))
    for part, level, wet in (
        (guitar, 0.8, 0.30),
        (bass, 0.8, 0.05),
        (drums, 0.8, 0.15),
        (bowed, 0.75, 0.45),
        (voice, 0.9, 0.35),
    ):
        sound = part()
        sound *= level / np.sqrt(np.mean(sound[np.abs(sound) > 1e-3] ** 2))
        dry, send = dry + sound, send + wet * sound
    sound = np.tanh(0.05 * band(dry + room(send), 30, 10500))  # soft limiting of the peaks
    sound *= np.clip((LENGTH - np.arange(len(sound)) / RATE) / 0.4, 0, 1)
    return sound * 10 ** (-1 / 20) / np.abs(sound).max()


def main() -> None:
    """Write the piece where the command line says."""
    parser = argparse.ArgumentParser(description="Write the example piece.")
    parser.add_argument("out", nargs="?", default=Path(__file__).with_name("spouter.wav"))
    with wave.open(str(parser.parse_args().out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(mix() * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main()

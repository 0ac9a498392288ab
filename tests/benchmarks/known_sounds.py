"""Sounds of known truth, made by the dice: music, speech, everyday sounds, scenes; see facts.py.

Lone lines, chords, melodies, bands, drums and chorales are composed here and played by fluidsynth
from a General MIDI soundfont, sentences are spoken by espeak-ng, everyday sounds and scenes (a bed
of noise with trains of events) are made in NumPy. Same dice, same sound.
"""

from __future__ import annotations

import itertools
import random
import struct
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Iterable, NamedTuple, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import neural_audio_tokenizer as nat

RATE = 44100
Dice = random.Random


class Played(NamedTuple):
    """Notes that begin together."""

    at: float  # beats; seconds in a Truth
    length: float
    pitches: tuple[int, ...]  # MIDI
    velocity: int


class Part(NamedTuple):
    """One player: a General MIDI program, or DRUMS."""

    program: int
    notes: list[Played]


class Event(NamedTuple):
    """A train of like sounds in a scene, or one long sound (count 1)."""

    name: str
    at: float  # seconds
    end: float
    count: int


@dataclass(frozen=True)
class Truth:
    """What was played; what a kind of sound does not have keeps its default."""

    kind: str  # of KINDS
    about: str  # for people
    drums: bool = False
    sources: frozenset[str] = frozenset()  # everyday sounds
    bpm: float = 0.0
    metre: int = 0
    key: str = ""
    families: frozenset[str] = frozenset()
    onsets: tuple[float, ...] = ()  # seconds, of music
    end: float = 0.0  # seconds, of the last note
    span: tuple[int, int] = (0, 127)  # MIDI
    lead: tuple[Played, ...] = ()
    bass: tuple[Played, ...] = ()
    chords: tuple[tuple[float, str], ...] = ()  # time and root
    background: str = ""  # of speech: noise, music
    voices: tuple[str, ...] = ()  # of speech: low, high
    strokes: int = 0  # of an everyday sound
    period: float = 0.0  # seconds, of an everyday sound
    events: tuple[Event, ...] = ()  # of a scene

    @property
    def music(self) -> bool:
        """Whether somebody plays in time."""
        return self.bpm > 0

    @property
    def pitched(self) -> bool:
        """Whether it is music with notes."""
        return self.music and self.kind != "drums"

    @property
    def lone(self) -> bool:
        """Whether it is one note at a time."""
        return self.kind == "line"

    @property
    def hitting(self) -> bool:
        """Whether there are short strokes that may pass for drums."""
        return self.drums or not self.sources.isdisjoint(HITTING)


class Made(NamedTuple):
    """A sound [n] or [n, 2] in full scale, and what it is."""

    samples: np.ndarray
    truth: Truth


# Music: composed in beats, played by fluidsynth

DRUMS = -1
MODES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
ROUNDS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 3, 0, 4), (0, 5, 1, 4), (0, 2, 3, 4))
# Family, lowest and highest note by General MIDI program (from 0).
PROGRAMS = {
    0: ("piano", 36, 88), 4: ("electric piano", 40, 84), 6: ("plucked", 40, 84),
    8: ("bar", 60, 96), 9: ("bar", 72, 100), 11: ("bar", 53, 84), 12: ("bar", 48, 84),
    13: ("bar", 60, 90), 16: ("organ", 40, 84), 19: ("organ", 40, 84), 21: ("free reed", 50, 84),
    22: ("free reed", 60, 84), 24: ("plucked", 40, 76), 25: ("plucked", 40, 80),
    27: ("plucked", 40, 80), 30: ("distorted", 40, 76), 32: ("bass", 28, 55),
    33: ("bass", 28, 55), 36: ("bass", 28, 55), 38: ("bass", 28, 55), 40: ("bowed", 55, 92),
    41: ("bowed", 48, 80), 42: ("bowed", 36, 70), 43: ("bowed", 28, 50), 45: ("plucked", 40, 80),
    46: ("plucked", 36, 90), 48: ("bowed", 40, 84), 52: ("voice", 48, 76), 56: ("brass", 55, 82),
    57: ("brass", 40, 70), 58: ("brass", 29, 53), 60: ("brass", 41, 74), 64: ("reed", 58, 86),
    65: ("reed", 50, 80), 66: ("reed", 45, 75), 67: ("reed", 37, 66), 68: ("reed", 59, 88),
    69: ("reed", 52, 80), 70: ("reed", 35, 68), 71: ("reed", 50, 88), 72: ("flute", 75, 104),
    73: ("flute", 60, 94), 74: ("flute", 64, 90), 75: ("flute", 60, 84), 80: ("synth", 45, 84),
    81: ("synth", 45, 84), 89: ("synth", 45, 84), 104: ("plucked", 48, 76),
    105: ("plucked", 48, 80), 107: ("plucked", 50, 80), 108: ("bar", 50, 84),
}  # fmt: skip
SOLO = (0, 0, 4, 6, 24, 25, 27, 46, 19, 16, 21, 11, 48, 52, 89, 30)
LEADS = (40, 42, 56, 57, 60, 64, 65, 66, 68, 71, 73, 74, 0, 11, 22, 30, 80, 81, 52)
BACKING, BASSES = (0, 4, 16, 24, 25, 27, 48, 21, 11, 30), (32, 33, 33, 36, 38, 58)
RHYTHMS = {  # lengths in beats of bars that go together
    4: (
        ((1, 1, 1, 1), (2, 1, 1), (1, 0.5, 0.5, 2)), ((0.5,) * 8, (1, 0.5, 0.5, 1, 1)),
        ((1.5, 0.5, 1, 1), (1, 1, 2)), ((2, 2), (1, 1, 2)),
    ),
    3: (((1, 1, 1), (2, 1)), ((0.5,) * 6, (1, 1, 1)), ((2, 1), (1.5, 0.5, 1))),
}  # fmt: skip
VELOCITY = {"X": 112, "x": 85, "o": 62}
# Which drums (one of them by the dice), and when in a bar, that is cut in as many steps.
GROOVES: dict[str, tuple[tuple[tuple[int, ...], str], ...]] = {
    "rock": (((42,), "xxxxxxxx"), ((36,), "X...XX.."), ((38,), ".X.X")),
    "house": (((36,), "XXXX"), ((46,), ".x.x.x.x"), ((39,), ".X.X")),
    "swing": (((51,), "x..x.xx..x.x"), ((44,), ".x.x"), ((36,), "o...")),
    "breakbeat": (((42,), "xxxxxxxx"), ((36,), "X....X.."), ((38,), "....X..o.o..X...")),
    "metal": (((36,), "X" * 16), ((51,), "XXXX"), ((38,), ".X.X")),
    "waltz": (((36,), "X.."), ((42,), ".xx"), ((38,), ".o.")),
    "shaker": (((82,), "oxoxoxox"), ((37,), "o..o..o.")),
    "latin": (((62, 63, 64), "xxxxxxxx"), ((56,), "x..x..x.")),
    "march": (((38,), "X...X.ooX...X.o."), ((36,), "X.X.")),
    "toms": (((41, 45, 48, 50), "XXXXXXXX"),),
}


class Tune(NamedTuple):
    """What a piece is made on."""

    bpm: int
    metre: int
    tonic: int  # pitch class
    mode: str
    degrees: tuple[int, ...]  # roots of the chords, one a bar, again and again
    bars: int

    def triad(self, bar: int) -> list[int]:
        """Pitch classes of a bar's chord, its root first; a minor key's fifth has a major third."""
        degree, steps = self.degrees[bar % len(self.degrees)], MODES[self.mode]
        chord = [self.tonic + steps[(degree + k) % 7] for k in (0, 2, 4)]
        chord[1] += self.mode == "minor" and degree == 4
        return [pitch % 12 for pitch in chord]

    def voiced(self, bar: int, low: int) -> list[int]:
        """A bar's chord within the octave over a note."""
        return sorted(low + (pitch - low) % 12 for pitch in self.triad(bar))


def make_tune(dice: Dice, bpm: tuple[int, int], metres: Sequence[int] = (4, 4, 3)) -> Tune:
    """Tempo, metre, key and chords of 16 to 28 seconds."""
    tempo, metre, seconds = dice.randint(*bpm), dice.choice(metres), dice.uniform(16, 28)
    bars = max(4, round(seconds * tempo / 60 / metre))
    mode = dice.choice(list(MODES))
    return Tune(tempo, metre, dice.randrange(12), mode, dice.choice(ROUNDS), bars)


def melody(dice: Dice, tune: Tune, low: int, high: int) -> list[Played]:
    """A phrase of four bars that walks in the middle of a range, again and again."""
    steps = {(tune.tonic + step) % 12 for step in MODES[tune.mode]}
    scale = [pitch for pitch in range(low, high + 1) if pitch % 12 in steps]
    scale = scale[max(0, len(scale) // 2 - 5) :][:11]
    fast = ((0.25,) * 4 * tune.metre,)
    rhythms = fast if dice.random() < 0.1 else dice.choice(RHYTHMS[tune.metre])
    place, phrase = len(scale) // 2, []
    for length in itertools.chain(*(dice.choice(rhythms) for _ in range(4))):
        place = min(len(scale) - 1, max(0, place + dice.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3))))
        phrase.append((length, scale[place]))
    home = [pitch for pitch in scale if pitch % 12 == tune.tonic]
    last = phrase[-1][1]
    phrase[-1] = (phrase[-1][0], min(home, key=lambda pitch: abs(pitch - last)))
    phrase[0] = (phrase[0][0], dice.choice([*home, phrase[0][1]]))
    at, notes = 0.0, []
    for length, pitch in itertools.cycle(phrase):
        notes.append(Played(at, 0.95 * length, (pitch,), dice.randint(80, 110)))
        at += length
        if at >= tune.bars * tune.metre:
            return notes
    return notes


def backing(tune: Tune, style: str, low: int = 52) -> list[Played]:
    """Chords: held, on the beats, off them, after the first, or broken into eighths."""
    metre, notes = tune.metre, []
    strokes = {
        "held": [(0.0, 0.97 * metre)],
        "beats": [(k, 0.9) for k in range(metre)],
        "off": [(k + 0.5, 0.4) for k in range(metre)],
        "oompah": [(k, 0.7) for k in range(1, metre)],
        "broken": [(k / 2, 0.5) for k in range(2 * metre)],
    }[style]
    for bar in range(tune.bars):
        chord = tune.voiced(bar, low)
        walk = [*chord, chord[0] + 12, chord[2], chord[1], chord[0], chord[1]]
        for number, (at, length) in enumerate(strokes):
            pitches = (walk[number],) if style == "broken" else tuple(chord)
            notes.append(Played(bar * metre + at, length, pitches, 80))
    return notes


def bass_line(dice: Dice, tune: Tune) -> list[Played]:
    """Roots, roots and fifths, eighths, or a walk."""
    style, metre, notes = dice.choice(("root", "fifth", "eighths", "walk")), tune.metre, []
    for bar in range(tune.bars):
        root, third, fifth = (28 + (pitch - 28) % 12 for pitch in tune.triad(bar))
        line = {
            "root": [root],
            "fifth": [root, fifth] if metre == 4 else [root],
            "eighths": [root] * 2 * metre,
            "walk": [root, third, fifth, root + dice.choice((-2, 2, 12))][:metre],
        }[style]
        length = metre / len(line)
        notes += [
            Played(bar * metre + k * length, 0.92 * length, (pitch,), 94)
            for k, pitch in enumerate(line)
        ]
    return notes


def drum_part(dice: Dice, tune: Tune, groove: str) -> Part:
    """A groove in all bars, a crash in every eighth of rock and metal."""
    notes = []
    for bar in range(tune.bars):
        for drums, steps in GROOVES[groove]:
            for step, mark in enumerate(steps):
                if mark != ".":
                    at = (bar + step / len(steps)) * tune.metre
                    notes.append(Played(at, 0.2, (dice.choice(drums),), VELOCITY[mark]))
        if bar % 8 == 0 and groove in ("rock", "metal"):
            notes.append(Played(bar * tune.metre, 0.2, (49,), 100))
    return Part(DRUMS, notes)


def midi_number(value: int) -> bytes:
    """A delta time: seven bits a byte, all but the last marked."""
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127 | 128)
    return bytes(reversed(groups))


def midi_file(parts: Sequence[Part], bpm: float) -> bytes:
    """A Standard MIDI File of format 1 with 480 ticks a beat, tempo first."""
    tempo = b"\xff\x51\x03" + round(60e6 / bpm).to_bytes(3, "big")
    tracks = [[(0, 0, tempo)]]
    for number, (program, notes) in enumerate(parts):
        channel = 9 if program == DRUMS else number
        events = [] if program == DRUMS else [(0, 0, bytes((0xC0 | channel, program)))]
        for at, length, pitches, velocity in notes:
            begin, end = round(at * 480), round((at + length) * 480) - 2
            for pitch in pitches:  # a note ends before the next begins
                events.append((begin, 2, bytes((0x90 | channel, pitch, velocity))))
                events.append((end, 1, bytes((0x80 | channel, pitch, 0))))
        tracks.append(sorted(events))
    data = struct.pack(">4sIHHH", b"MThd", 6, 1, len(tracks), 480)
    for events in tracks:
        times = [0, *(event[0] for event in events)]
        body = b"".join(midi_number(e[0] - before) + e[2] for e, before in zip(events, times))
        body += b"\x00\xff\x2f\x00"
        data += struct.pack(">4sI", b"MTrk", len(body)) + body
    return data


def load_wav(path: Path) -> np.ndarray:
    """Samples [n, channels] of a 16-bit WAV."""
    with wave.open(str(path), "rb") as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        return data.reshape(-1, file.getnchannels())


def save_wav(path: Path, samples: np.ndarray) -> None:
    """Samples [n] or [n, channels] as a 16-bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setparams((samples[0].size, 2, RATE, 0, "NONE", ""))
        file.writeframes(nat.pcm_bytes(samples))


def made_by(command: Sequence[str], given: bytes = b"") -> np.ndarray:
    """Sound [n, channels] that a program writes to OUT of what it reads from IN."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"IN": Path(folder, "in.mid"), "OUT": Path(folder, "out.wav")}
        names["IN"].write_bytes(given)
        words = [str(names.get(word, word)) for word in command]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, **quiet)
        return load_wav(names["OUT"])


def soundfont() -> str:
    """A General MIDI soundfont of this machine; FluidR3, which the figures are told of, if here."""
    folders = (Path("/usr/share/sounds/sf2"), Path("/usr/share/soundfonts"))
    found = sorted(path for folder in folders for path in folder.glob("*.sf2"))
    return str(min(found, key=lambda path: "FluidR3_GM" not in path.name, default=""))


def play(dice: Dice, parts: Sequence[Part], bpm: float) -> np.ndarray:
    """Parts as sound [n, 2], with a room or without, and with little or no silence after."""
    fixed = ["fluidsynth", "-ni", "-q", "-r", str(RATE), "-F", "OUT"]
    gain, reverb = dice.choice(("0.4", "0.6", "0.8")), "01"[dice.random() < 0.7]
    command = [*fixed, "-g", gain, "-R", reverb, soundfont(), "IN"]
    sound = made_by(command, midi_file(parts, bpm))
    peak = np.abs(sound).max(axis=1)
    stop = np.flatnonzero(peak > 1e-4 * peak.max())[-1] + int(dice.choice((0, 0.5, 1.5)) * RATE)
    return sound[: stop + 1] * (dice.uniform(0.3, 0.9) / peak.max())


def in_seconds(notes: Iterable[Played], bpm: float) -> tuple[Played, ...]:
    """Notes whose times were in beats."""
    beat = 60 / bpm
    return tuple(note._replace(at=note.at * beat, length=note.length * beat) for note in notes)


def performance(dice: Dice, truth: Truth, tune: Tune, parts: Sequence[Part]) -> Made:
    """Parts as they are played, and the truth with what follows from the notes."""
    notes = in_seconds((note for part in parts for note in part.notes), tune.bpm)
    pitched = [part for part in parts if part.program != DRUMS]
    pitches = [p for part in pitched for note in part.notes for p in note.pitches]
    names = ", ".join(f"program {p.program}" if p.program != DRUMS else "drums" for p in parts)
    mode = f"{nat.PITCH_CLASSES[tune.tonic]} {tune.mode}" if pitched else ""
    truth = replace(
        truth,
        about=f"{truth.about} {tune.bpm} bpm {tune.metre}/4 {mode}; {names}",
        drums=len(pitched) < len(parts),
        bpm=tune.bpm,
        metre=tune.metre,
        key=mode,
        families=frozenset(PROGRAMS[part.program][0] for part in pitched),
        onsets=tuple(sorted({round(note.at, 3) for note in notes})),
        end=max(note.at + note.length * bool(pitched) for note in notes),
        span=(min(pitches, default=0), max(pitches, default=127)),
    )
    return Made(play(dice, parts, tune.bpm), truth)


def chord_roots(tune: Tune) -> tuple[tuple[float, str], ...]:
    """When the chords begin in seconds, and their roots."""
    bar = tune.metre * 60 / tune.bpm
    return tuple((k * bar, nat.PITCH_CLASSES[tune.triad(k)[0]]) for k in range(tune.bars))


def make_line(dice: Dice) -> Made:
    """One instrument, one note at a time."""
    tune, program = make_tune(dice, (56, 150), (4, 4, 4, 3)), dice.choice(list(PROGRAMS))
    notes = melody(dice, tune, *PROGRAMS[program][1:])
    truth = Truth("line", "", lead=in_seconds(notes, tune.bpm))
    return performance(dice, truth, tune, [Part(program, notes)])


def make_chords(dice: Dice) -> Made:
    """One instrument that plays chords, some with a held bass."""
    tune, program = make_tune(dice, (60, 140)), dice.choice(SOLO)
    style = dice.choice(("held", "beats", "broken", "broken"))
    parts = [Part(program, backing(tune, style, dice.choice((48, 52, 55))))]
    if dice.random() < 0.4:
        parts.append(Part(program, backing(tune, "held", 36)))
    truth = Truth("chords", f"{style} chords", chords=chord_roots(tune))
    return performance(dice, truth, tune, parts)


def make_band(dice: Dice, groove: str = "") -> Made:
    """A lead (mostly), chords, a bass (mostly), and drums if there is a groove."""
    metres = (3,) if groove == "waltz" else (4,) if groove else (4, 4, 3)
    quick = groove in ("metal", "waltz")
    tune, parts = make_tune(dice, (130, 170) if quick else (70, 160), metres), []
    if dice.random() < 0.85:
        program = dice.choice(LEADS)
        low = max(57, PROGRAMS[program][1])
        high = min(max(PROGRAMS[program][2], low + 14), low + 26)
        parts.append(Part(program, melody(dice, tune, low, high)))
    styles = ("held", "beats", "off", "broken") if tune.metre == 4 else ("oompah", "held", "broken")
    style = dice.choice(styles)
    parts.append(Part(30 if groove == "metal" else dice.choice(BACKING), backing(tune, style)))
    truth = Truth("band" if groove else "melody", f"{style} {groove}", chords=chord_roots(tune))
    if dice.random() < 0.8:
        parts.append(Part(dice.choice(BASSES), bass_line(dice, tune)))
        truth = replace(truth, bass=in_seconds(parts[-1].notes, tune.bpm))
    parts += [drum_part(dice, tune, groove)] if groove else []
    made = performance(dice, truth, tune, parts)
    families = made.truth.families | ({"bass"} if truth.bass else set())
    return made._replace(truth=replace(made.truth, families=families))


def make_drums(dice: Dice) -> Made:
    """Drums alone."""
    groove = dice.choice(list(GROOVES))
    tune = make_tune(dice, (80, 175), (3,) if groove == "waltz" else (4,))
    return performance(dice, Truth("drums", groove), tune, [drum_part(dice, tune, groove)])


def make_chorale(dice: Dice) -> Made:
    """Chords of four voices in free order, a beat or two each."""
    tune, at, notes = make_tune(dice, (54, 90), (4,)), 0, []
    while at < tune.bars * tune.metre:
        free, length = (
            tune._replace(degrees=(dice.choice((0, 0, 3, 4, 5)),)),
            dice.choice((1, 1, 2)),
        )
        low = 36 + free.triad(0)[0]
        notes.append(Played(at, 0.97 * length, (low, *free.voiced(0, 52)), 85))
        at += length
    parts = [Part(dice.choice((48, 52, 19, 60, 42)), notes)]
    return performance(dice, Truth("chorale", "chorale"), tune, parts)


# Speech: sentences by espeak-ng, with pauses, alone or over noise or music

SENTENCES = {
    "en": ("the river runs slowly past the old mill", "nobody knew where the letters had gone",
           "please remember to close the window before you leave",
           "seven small boats were waiting in the harbour"),
    "de": ("der alte mann ging langsam durch den wald", "wir haben das brot und den wein vergessen",
           "heute abend regnet es in der ganzen stadt"),
    "fr": ("le petit chat dort sur la chaise rouge", "nous irons demain au marché avec ma mère"),
    "es": ("el perro corre por la calle mojada", "mañana vamos a visitar a mi abuela"),
    "it": ("la casa sulla collina ha le finestre verdi", "ieri sera abbiamo mangiato molto bene"),
}  # fmt: skip
VOICES = {
    "high": (("+f1", "+f2", "+f3", "+f4"), 55, 80),
    "low": (("", "+m1", "+m3", "+m7"), 20, 45),
}


def rms(sound: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(sound))))


def say(text: str, voice: Sequence[str]) -> np.ndarray:
    """A sentence [n] without silence around it, by espeak-ng's options."""
    sound = made_by(["espeak-ng", *voice, "-w", "OUT", text])[:, 0]  # 22,050 Hz, half of RATE
    sound = 2 * np.fft.irfft(np.fft.rfft(sound), 2 * len(sound))
    heard = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[heard[0] : heard[-1] + 1] * (0.05 / rms(sound))


def under(dice: Dice, kind: str, count: int) -> np.ndarray:
    """Noise or quiet chords [count], as loud as 1 (rms)."""
    if kind == "noise":
        return pink(dice, count)
    tune = make_tune(dice, (70, 110), (4,))
    tune = tune._replace(mode="major", bars=max(4, round(count / RATE * tune.bpm / 240)))
    part = Part(dice.choice((0, 24, 48, 4)), backing(tune, dice.choice(("held", "broken"))))
    sound = play(dice, [part], tune.bpm).mean(axis=1)[:count]
    return np.pad(sound, (0, count - len(sound))) / rms(sound)


def make_speech(dice: Dice) -> Made:
    """One voice, or two in turn, in one language, in sentences or single words."""
    language, background = dice.choice(list(SENTENCES)), dice.choice(("", "", "noise", "music"))
    voices = dice.sample(list(VOICES), 2 if dice.random() < 0.3 else 1)
    options, words = [], dice.random() < 0.15
    for variants, low, high in map(VOICES.get, voices):
        pitch, speed = dice.randint(low, high), dice.randint(130, 180)
        options.append(("-v", language + dice.choice(variants), "-p", str(pitch), "-s", str(speed)))
    parts, turns, seconds = [np.zeros(int(dice.uniform(0, 1.5) * RATE))], 0, dice.uniform(10, 14)
    while sum(map(len, parts)) < seconds * RATE:
        text = dice.choice(SENTENCES[language])
        text = dice.choice(text.split()) if words else text
        pause = dice.uniform(0.6, 1.0) if words else dice.uniform(0.25, 0.9)
        parts += [say(text, options[turns % len(options)]), np.zeros(int(pause * RATE))]
        turns += 1
    sound, snr = np.concatenate(parts), dice.choice((15, 8, 3))
    if background:
        loud = rms(sound[np.abs(sound) > 0.005]) * 10 ** (-snr / 20)
        sound = sound + loud * under(dice, background, len(sound))
    about = f"{language} {'words ' * words}{background} {snr} dB" if background else language
    heard = tuple(voices) if turns > 1 else tuple(voices[:1])
    truth = Truth("speech", about, background=background, voices=heard)
    return Made(sound * (dice.uniform(0.3, 0.9) / np.abs(sound).max()), truth)


# Everyday sounds: what sounds on, and trains of strokes


def white(dice: Dice, count: int) -> np.ndarray:
    """White noise [count]."""
    return np.random.RandomState(dice.getrandbits(32)).standard_normal(count)


def round_size(count: int) -> int:
    """The next power of two, for which the FFT is quick."""
    return 1 << (count - 1).bit_length()


def pink(dice: Dice, count: int) -> np.ndarray:
    """Noise [count] that falls by 3 dB an octave, as loud as 1 (rms)."""
    spectrum = np.fft.rfft(white(dice, round_size(count)))
    sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)))[:count]
    return sound / rms(sound)


def band(sound: np.ndarray, low: float, high: float) -> np.ndarray:
    """What lies between two frequencies in Hz, with the skirts of a Butterworth of order 4."""
    size = round_size(len(sound) + RATE // 10)  # what rings on must not come round to the start
    hz = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 1e-3)
    gain = 1 / np.sqrt((1 + (hz / high) ** 8) * (1 + (low / hz) ** 8))
    return np.fft.irfft(np.fft.rfft(sound, size) * gain)[: len(sound)]


def sine(hz: float | np.ndarray, times: np.ndarray) -> np.ndarray:
    """A sine of a frequency in Hz that may change with time."""
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(hz, times.shape)) / RATE)


def saw(hz: float | np.ndarray, times: np.ndarray) -> np.ndarray:
    """A sawtooth of a frequency in Hz that may change with time."""
    return 2 * (np.cumsum(np.broadcast_to(hz, times.shape)) / RATE % 1) - 1


def crackle(dice: Dice, times: np.ndarray, rate: float) -> np.ndarray:
    """Bursts of noise of 10 ms at random, so many a second."""
    size, sound = RATE // 100, np.zeros(len(times))
    decay = np.exp(-np.arange(size) / 90)
    for _ in range(int(rate * len(times) / RATE)):
        at = dice.randrange(len(times) - size)
        sound[at : at + size] += white(dice, size) * decay * dice.uniform(0.1, 1)
    return band(sound, 1500, 8000)


def gusts(dice: Dice, times: np.ndarray) -> np.ndarray:
    """A level that wanders every two seconds."""
    knots = np.arange(0, times[-1] + 4, 2.0)
    return np.interp(times, knots, [dice.uniform(0.2, 1) for _ in knots])


def thunder(dice: Dice, times: np.ndarray) -> np.ndarray:
    """Two rolls over rain."""
    sound = 0.08 * band(white(dice, len(times)), 900, 12000)
    roll = band(white(dice, len(times)), 25, 150) * 2
    for share in (0.3, 0.7):
        since = times - share * times[-1]
        sound += roll * np.exp(-np.maximum(since, 0) / 1.2) * (since > 0)
    return sound


Sounding = Callable[[Dice, np.ndarray, float], np.ndarray]
# Periods in s (0: none) between which the dice choose, and the sound of times in s and period.
LASTING: dict[str, tuple[float, float, Sounding]] = {
    "rain": (0, 0, lambda d, t, p: 0.15 * band(white(d, len(t)), 900, 14000)
             + 0.3 * crackle(d, t, 25)),
    "wind": (0, 0, lambda d, t, p: band(white(d, len(t)), 150, 900) * gusts(d, t)),
    "waves": (4, 7, lambda d, t, p: band(white(d, len(t)), 200, 6000)
              * (0.1 + 0.9 * np.maximum(0, np.sin(2 * np.pi * t / p)) ** 2)),
    "crowd": (0, 0, lambda d, t, p: band(pink(d, len(t)), 200, 3000) * (1 + 0.3 * gusts(d, t))),
    "noise": (0, 0, lambda d, t, p: d.choice((white, pink))(d, len(t))),
    "fire": (0, 0, lambda d, t, p: 0.02 * pink(d, len(t)) + crackle(d, t, 9)),
    "applause": (0, 0, lambda d, t, p: crackle(d, t, 90)),
    "thunder": (0, 0, lambda d, t, p: thunder(d, t)),
    "siren": (1, 2, lambda d, t, p: saw(np.where(t % p < p / 2, 435, 580), t)),
    "wail": (2, 5, lambda d, t, p: saw(700 * (1 + 0.4 * np.sin(2 * np.pi * t / p)), t)),
    "engine": (0, 0, lambda d, t, p: band(saw(25 + 50 * np.sin(np.pi * t / t[-1]) ** 2, t), 20, 900)
               * (0.4 + 0.6 * np.sin(np.pi * t / t[-1])) + 0.02 * white(d, len(t))),
    "alarm": (0.2, 1, lambda d, t, p: np.sign(sine(d.choice((1000, 2000, 2700, 3100)), t))
              * (t % p < p / 2)),
    "tone": (0, 0, lambda d, t, p: d.choice((sine, saw))(d.choice((100, 220, 440, 1000)), t)),
    "sweep": (0, 0, lambda d, t, p: sine(d.choice((80, 200)) * 30 ** (t / t[-1]), t)),
    "hand saw": (1.1, 1.1, lambda d, t, p: band(white(d, len(t)), 1200, 6000)
                 * np.maximum(0, np.sin(2 * np.pi * t / p)) * (0.6 + 0.4 * sine(60, t))),
    "hum": (0, 0, lambda d, t, p: saw(50, t) + 0.02 * white(d, len(t))),
    "helicopter": (0, 0, lambda d, t, p: band(white(d, len(t)), 60, 800)
                   * np.maximum(0.1, sine(d.uniform(9, 13), t)) ** 3 + 0.1 * sine(90, t)),
    "telephone": (4, 4, lambda d, t, p: (sine(440, t) + sine(480, t)) * (t % p < 1.5)),
}  # fmt: skip


class Stroke(NamedTuple):
    """A short sound that comes again and again."""

    seconds: float
    sound: Callable[[Dice, np.ndarray], np.ndarray]
    gaps: tuple[float, float]  # seconds between which the dice choose
    within: tuple[float, ...] = (0.0,)  # seconds: strokes come in groups
    regular: bool = True
    alike: bool = True


STROKES = {
    "clock": Stroke(0.05, lambda d, t: band(white(d, len(t)), 2500, 6000) * np.exp(-t / 0.006),
                    (0.4, 1.3)),
    "steps": Stroke(0.2, lambda d, t: band(white(d, len(t)), 90, 1200) * np.exp(-t / 0.03),
                    (0.4, 1.3)),
    "knock": Stroke(0.15, lambda d, t: (sine(d.uniform(250, 500), t) + 0.4 * white(d, len(t)))
                    * np.exp(-t / 0.02), (3.5, 3.5), (0, 0.25, 0.5)),
    "bell": Stroke(3, lambda d, t: ring(d.uniform(400, 900), t), (2, 3.5)),
    "bark": Stroke(0.22, lambda d, t: np.exp(-t / 0.08)
                   * band(saw(500 - 700 * t, t) + 0.2 * white(d, len(t)), 400, 2500), (2, 2), regular=False),
    "birds": Stroke(0.2, lambda d, t: sine(d.uniform(2500, 5000) + d.uniform(-6000, 6000) * t, t)
                    * np.hanning(len(t)), (0.8, 0.8), regular=False, alike=False),
    "cricket": Stroke(0.15, lambda d, t: sine(4400, t) * sine(30, t) ** 2 * np.hanning(len(t)),
                      (0.4, 1.3)),
    "keypad": Stroke(0.25, lambda d, t: sine(d.choice((697, 770, 852, 941)), t)
                     + sine(d.choice((1209, 1336, 1477)), t), (0.5, 0.5), alike=False),
    "heartbeat": Stroke(0.15, lambda d, t: sine(55, t) * np.exp(-t / 0.04), (0.7, 1.1), (0, 0.3)),
    "drip": Stroke(0.12, lambda d, t: sine(d.uniform(700, 1500) + 4000 * t, t) * np.exp(-t / 0.025),
                   (1.4, 1.4), regular=False, alike=False),
    "typing": Stroke(0.04, lambda d, t: band(white(d, len(t)), 800, 7000) * np.exp(-t / 0.008)
                     * d.uniform(0.4, 1), (0.15, 0.15), regular=False, alike=False),
    "beep": Stroke(0.2, lambda d, t: sine(2500, t), (0.6, 1.4)),
}  # fmt: skip
HITTING = frozenset(("clock", "steps", "knock", "typing", "heartbeat"))
GLIDING = frozenset(("siren", "wail", "sweep", "engine", "birds"))
NOISY = frozenset(("rain", "wind", "waves", "crowd", "noise", "thunder", "applause", "fire",
                   "helicopter", "hand saw"))  # fmt: skip


def ring(hz: float, times: np.ndarray) -> np.ndarray:
    """A bell: partials off the harmonic series, the high ones die first."""
    partials = (1, 2, 2.4, 3, 4.2)
    return sum(sine(hz * m, times) * np.exp(-times * (0.8 + m / 1.5)) / m for m in partials)


def axis(seconds: float) -> np.ndarray:
    """Times of samples in s."""
    return np.arange(round(seconds * RATE)) / RATE


def struck(dice: Dice, stroke: Stroke, starts: Sequence[float], seconds: float) -> np.ndarray:
    """Strokes at times in s, all alike if they are."""
    sound, times = np.zeros(round(seconds * RATE)), axis(stroke.seconds)
    one = stroke.sound(dice, times)
    for start in starts:
        one = one if stroke.alike else stroke.sound(dice, times)
        room = sound[round(start * RATE) :][: len(one)]
        room += one[: len(room)]
    return sound


def make_everyday(dice: Dice) -> Made:
    """One everyday sound for 12 to 20 seconds."""
    name, seconds = dice.choice([*LASTING, *STROKES]), dice.uniform(12, 20)
    truth = Truth("everyday", name, sources=frozenset((name,)))
    if name in LASTING:
        low, high, sounding = LASTING[name]
        truth = replace(truth, period=dice.uniform(low, high))
        sound = sounding(dice, axis(seconds), truth.period)
    else:
        stroke = STROKES[name]
        gap, begin = dice.uniform(*stroke.gaps), dice.uniform(0.1, 1)
        starts = np.arange(begin, seconds - 1, gap)
        if not stroke.regular:
            starts = np.array(sorted(dice.uniform(0.2, seconds - 0.6) for _ in starts))
        starts = (starts[:, None] + np.array(stroke.within)).ravel()
        truth = replace(truth, strokes=len(starts), period=gap * stroke.regular)
        sound = struck(dice, stroke, starts, seconds)
    sound = sound / np.abs(sound).max() + white(dice, len(sound)) * dice.choice((0, 1e-5, 3e-4))
    return Made(sound / np.abs(sound).max() * dice.uniform(0.2, 0.9), truth)


# Scenes: a bed of noise, and trains of events one after the other

BEDS = ("rain", "wind", "waves", "crowd", "noise")
TRAINS = ("clock", "steps", "knock", "bell", "bark", "birds", "drip", "beep")
LONG = ("wail", "engine")


def scene_event(dice: Dice, name: str, at: float) -> tuple[Event, np.ndarray]:
    """Two to six strokes 0.7 to 1.3 s apart, or one long sound that swells and fades."""
    if name in LONG:
        times = axis(dice.uniform(5, 8))
        sound = LASTING[name][2](dice, times, 3.0) * np.hanning(len(times))
        return Event(name, at, at + times[-1], 1), sound
    stroke, count, starts = STROKES[name], dice.randint(2, 6), [0.0]
    regular = dice.uniform(0.7, 1.3)
    for _ in range(count - 1):
        starts.append(starts[-1] + (regular if stroke.regular else dice.uniform(0.7, 1.3)))
    seconds = starts[-1] + stroke.seconds
    return Event(name, at, at + seconds, count), struck(dice, stroke, starts, seconds)


def make_scene(dice: Dice) -> Made:
    """Three to five events over a bed that is 26 to 40 dB below their peaks."""
    names = dice.sample((*TRAINS, *LONG), dice.randint(3, 5))
    bed, at, events, sounds = dice.choice(BEDS), dice.uniform(2, 4), [], []
    for name in names:
        event, sound = scene_event(dice, name, at)
        events.append(event)
        sounds.append(sound * (dice.uniform(0.5, 1) / np.abs(sound).max()))
        at = event.end + dice.uniform(2.5, 5)
    times = axis(at)
    scene = LASTING[bed][2](dice, times, 6.0)
    scene *= 10 ** (-dice.uniform(26, 40) / 20) / rms(scene)
    for event, sound in zip(events, sounds):
        room = scene[round(event.at * RATE) :][: len(sound)]
        room += sound[: len(room)]
    told = ", ".join(f"{event.count} {event.name} at {event.at:.1f} s" for event in events)
    sources = frozenset((bed, *names))
    truth = Truth("scene", f"{bed}: {told}", sources=sources, events=tuple(events))
    return Made(scene * (dice.uniform(0.3, 0.9) / np.abs(scene).max()), truth)


# Kinds of sounds: how many of a hundred or so, the program they need, and the maker
KINDS: dict[str, tuple[int, str, Callable[[Dice], Made]]] = {
    "line": (18, "fluidsynth", make_line),
    "chords": (10, "fluidsynth", make_chords),
    "melody": (12, "fluidsynth", make_band),
    "band": (16, "fluidsynth", lambda dice: make_band(dice, dice.choice(list(GROOVES)[:-1]))),
    "drums": (9, "fluidsynth", make_drums),
    "chorale": (4, "fluidsynth", make_chorale),
    "speech": (12, "espeak-ng", make_speech),
    "everyday": (22, "", make_everyday),
    "scene": (8, "", make_scene),
}

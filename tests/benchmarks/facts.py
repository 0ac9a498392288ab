#!/usr/bin/env python3
"""How many of the facts on the page are true, told from sounds of known truth (known_sounds.py).

    python tests/benchmarks/facts.py [--seed 1] [--count 1] [--kinds line,band] [--json FILE]
    python tests/benchmarks/facts.py --kinds speech --verbose headline --keep sounds/

Every stated fact that can be held against what was played gets a verdict. A tempo is true within
4 % of the played one if either of its two readings is, a key if it or its runner-up is; a range
may err by a semitone, a line of notes by a fifth of them, the chords by 30 % of the time. Drums
or speech that nobody speaks of are false, too. `--verbose` prints the false facts of a row or, by
"all", of every row. Music needs fluidsynth with a General MIDI soundfont, speech espeak-ng; what
needs a program that is not here is left out.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from known_sounds import GLIDING, KINDS, LONG, NOISY, Dice, Played, Truth
from known_sounds import nat, save_wav, soundfont

Fact = tuple[str, Optional[bool]]  # row of the table; None is not judged
# Families of instruments that may be meant by words for a timbre.
TIMBRES = {
    "piano or guitar": "piano, electric piano, plucked, bass",
    "mallet on a bar": "bar, electric piano, plucked",
    "bell, chime": "bar",
    "plucked string": "plucked, bass, piano",
    "low string, as a bass": "bass, plucked",
    "synth bass": "bass, synth, bowed",
    "whistle": "flute, synth, voice",
    "as a flute": "flute",
    "square wave": "synth",
    "pan flute": "flute, synth",
    "clarinet": "reed",
    "drawbar organ": "organ",
    "electric piano": "electric piano, organ, synth",
    "distorted": "distorted, synth",
    "bassoon": "reed, brass",
    "organ stops": "organ, free reed, plucked",
    "trumpet": "brass, distorted",
    "string-like pad": "bowed, voice, synth",
    "horn, a soft": "brass, synth, bowed, organ",
    "voice, low bowed": "voice, bowed, free reed",
    "saxophone, reed": "reed, brass, free reed",
}


def read(pattern: str, text: str) -> tuple[str, ...]:
    """What a fact says; a ValueError if it is not worded as its verdict knows it."""
    if not (match := re.search(pattern, text)):
        raise ValueError(f"no verdict can read {text!r}")
    return match.groups("")


def with_sharps(text: str) -> str:
    """A text with its flats (Eb) as sharps (D#), as the truth names notes."""
    names = nat.PITCH_CLASSES
    return re.sub(r"\b([A-G])b(?=[\d\s:,)~]|m|dim|$)", lambda m: names[names.index(m[1]) - 1], text)


def midi(name: str) -> int:
    """Number of a note by its name."""
    letter, octave = read(r"^([A-G]#?)(-?\d)$", name)
    return nat.PITCH_CLASSES.index(letter) + 12 * (int(octave) + 1)


def near(one: float, other: float, within: float = 0.04) -> bool:
    """Whether two numbers are equal but for a share."""
    return other > 0 and abs(one / other - 1) < within


# Verdicts: of a fact's text and what was played


def unplayed(truth: Truth) -> bool | None:
    """The verdict of notes that nobody played; those of music under speech are not judged."""
    return None if truth.background == "music" else False


def judge_headline(text: str, truth: Truth) -> Iterator[Fact]:
    """What it is; of music, whether with drums, and whether a line alone; what speech is over."""
    head = text.removeprefix("reads as: ")
    if truth.kind == "drums":
        yield "headline", head.startswith("drums or percussion")
    elif truth.music:
        yield "headline", head.startswith("pitched notes")
    elif truth.voices:
        yield "headline", "speech" in head
        yield "headline: over music", (truth.background == "music") == ("over music" in head)
    else:
        tolls = "bell" in truth.sources and "as of a bell" in head
        wrong = head.startswith("pitched notes") and not tolls or "speech" in head
        yield "headline", not wrong and (truth.hitting or not head.startswith("drums"))
    if truth.pitched and head.startswith("pitched"):
        if "with drum-like" in head or "no drum" in head:
            yield "headline: drums", truth.drums == ("with drum-like" in head)
        if "one note at a time" in head:
            yield "headline: one note at a time", truth.lone or truth.about.startswith("broken")
        elif "several notes" in head or "chords" in head:
            yield "headline: several notes", not truth.lone


def judge_tempo(text: str, truth: Truth) -> Iterator[Fact]:
    """Either reading, and the first alone; what has a period may have a tempo."""
    if text.startswith("no clear beat"):
        yield "tempo: none", None if truth.music else True
        return
    if text.startswith("no accented beat"):
        grid = float(*read(r"time: (\d+) a minute", text))
        yield "tempo: notes' grid", any(near(grid, truth.bpm * k) for k in (0.25, 0.5, 1, 2))
        return
    both = [float(bpm) for bpm in read(r"tempo ([\d.]+) bpm.*?\(or (\d+)\)", text)]
    if truth.music:
        yield "tempo", any(near(bpm, truth.bpm) for bpm in both)
        yield "tempo: first reading", near(both[0], truth.bpm)
    else:
        beats = [bpm * truth.period / 60 for bpm in both]
        fits = any(near(beat, k, 0.05) for beat in beats for k in (0.5, 1, 2, 3))
        yield "tempo of no music", fits or unplayed(truth)


def judge_key(text: str, truth: Truth) -> Iterator[Fact]:
    """The key or its runner-up; no piece changes key, and only notes have one."""
    if not truth.pitched:
        yield "key of no notes", unplayed(truth)
    elif text.startswith("key changes"):
        yield "key changes", False
    else:
        name = r"[A-G]#? \w+"
        yield "key", truth.key in read(rf"key ({name})(?: \(or ({name})\))?", text)


def judge_metre(text: str, truth: Truth) -> Iterator[Fact]:
    """Beats in a bar, or half of four, or two bars of three."""
    group = 6 if "6/8" in text else int(*read(r"group by (\d+)", text))
    fits = group in {4: (2, 4), 3: (3, 6)}.get(truth.metre, ())
    yield "metre", fits or unplayed(truth)


def judge_timbre(text: str, truth: Truth) -> Iterator[Fact]:
    """The instrument's family, and of a line alone its range."""
    if not truth.pitched:
        yield "timbre of no notes", unplayed(truth)
        return
    meant = [family for words, family in TIMBRES.items() if words in text]
    if meant:
        families = {name for family in meant for name in family.split(", ")}
        yield "timbre: family", not families.isdisjoint(truth.families)
    notes = re.match(r"(?:[\d.]+-[\d.]+ s: )?([A-G]#?-?\d)(?:-([A-G]#?-?\d))?,", text)
    if notes and truth.lone:
        low, high = midi(notes[1]), midi(notes[2] or notes[1])
        yield "timbre: range", truth.span[0] - 1 <= low and high <= truth.span[1] + 1


def notes_right(text: str, played: Sequence[Played]) -> bool:
    """Whether four of five notes were played then."""
    said = re.findall(r"([\d.]+):([A-G]#?-?\d)~", text)
    right = sum(
        any(
            n.at - 0.12 <= float(at) < n.at + n.length + 0.05 and n.pitches[0] == midi(name)
            for n in played
        )
        for at, name in said
    )
    return right > 0.8 * max(1, len(said))


def judge_lead(text: str, truth: Truth) -> Iterator[Fact]:
    """Notes of a line that is alone; which line leads a band is a matter of taste."""
    if truth.pitched:
        yield "lead", notes_right(text, truth.lead) if truth.lone else None
    else:
        yield "lead of no notes", unplayed(truth)


def judge_bass(text: str, truth: Truth) -> Iterator[Fact]:
    """Notes of the bass; a line alone has none, and of chords it is a matter of taste."""
    if truth.pitched:
        yield "bass", notes_right(text, truth.bass) if truth.bass else False if truth.lone else None
    else:
        yield "bass of no notes", unplayed(truth)


def judge_chords(text: str, truth: Truth) -> Iterator[Fact]:
    """The root of the chord, every quarter of a second."""
    if truth.lone or not truth.pitched:
        yield "chords of a line, or no notes", unplayed(truth)
        return
    if not truth.chords or re.match(r"[\d.]+-[\d.]+ s: ", text):
        yield "chords", None
        return
    said = [(float(at), root) for at, root in re.findall(r"([\d.]+):([A-G]#?)", text)]
    pairs = []
    for at in (k / 4 + 0.1 for k in range(int(4 * truth.end))):
        heard, played = ([root for t, root in c if t <= at][-1:] for c in (said, truth.chords))
        pairs += [heard == played] if heard and played else []
    yield "chords", sum(pairs) > 0.7 * max(1, len(pairs))


def judge_character(text: str, truth: Truth) -> Iterator[Fact]:
    """Beginnings a second: at most 1.4 times those played."""
    if truth.music and (found := re.search(r"\((?:at least )?([\d.]+) beginning", text)):
        yield "character: rate", float(found[1]) * truth.end < 1.4 * len(truth.onsets)


def judge_onsets(text: str, truth: Truth) -> Iterator[Fact]:
    """How many notes began, within 30 %; at least so many may be fewer."""
    if truth.music:
        ratio = int(*read(r"(\d+) onsets", text)) / len(truth.onsets)
        yield "onsets", ratio < 1.3 and (ratio > 0.7 or "at least" in text)


def judge_ends(text: str, truth: Truth) -> Iterator[Fact]:
    """When music ends, within a second and a half."""
    if truth.music and (found := re.search(r"ends at ([\d.]+) s", text)):
        yield "ends", abs(float(found[1]) - truth.end) < 1.5


def judge_hits(text: str, truth: Truth) -> Iterator[Fact]:
    """Drums, or what strikes as they do."""
    yield "drum-like hits", truth.hitting


def judge_voice(text: str, truth: Truth) -> Iterator[Fact]:
    """One voice or two, and whose; "one, or several" is not judged."""
    if not truth.voices:
        yield "voice of nobody", False
        return
    several = None if "or several" in text else "voices" in text
    yield "voice: how many", several if several is None else several == (len(truth.voices) > 1)
    if "one voice" in text:
        yield "voice: register", ("high" if "high voice" in text else "low") in truth.voices


def judge_loudness(text: str, truth: Truth) -> Iterator[Fact]:
    """Music is played evenly."""
    if truth.music:
        yield "loudness", "steady" in text


def judge_events(text: str, truth: Truth) -> Iterator[Fact]:
    """How many strokes of an everyday sound; those of scenes are counted apart."""
    if truth.music or truth.voices:
        yield "events in music or speech", False
    elif truth.strokes:
        count = re.match(r"(\d+) separate", text)
        yield "events: count", bool(count) and 0.75 < int(count[1]) / truth.strokes < 1.3


def judge_absent(text: str, truth: Truth) -> Iterator[Fact]:
    """What is said to be missing."""
    if "drum-like" in text:
        yield "no drums", not truth.drums
    if "beat" in text:
        yield "no beat", not truth.music
    if "speech" in text:
        yield "no speech", not truth.voices


LIKE = {  # words of a likeness, one of which is right, of what has a right one at all
    "rain": "rain", "wind": "wind|air", "waves": "surf|water|whoosh", "fire": "crackle",
    "applause": "crackle|rattle", "thunder": "thunder|boom", "siren": "siren", "wail": "siren",
    "sweep": "siren", "engine": "engine", "alarm": "beep", "tone": "beep|hum|horn",
    "hand saw": "scrape|rub|rattle", "hum": "hum|motor", "helicopter": "motor|engine",
    "telephone": "beep|horn", "clock": "tick|knock", "steps": "step|thud", "knock": "knock|thud",
    "bell": "bell", "bark": "animal", "birds": "bird", "cricket": "chirping|bird",
    "keypad": "beep", "heartbeat": "thud|thump|drum", "typing": "tick|strokes|rattle|knock",
    "beep": "beep",
}  # fmt: skip


def judge_portrait(text: str, truth: Truth) -> Iterator[Fact]:
    """What an everyday sound is said to be like."""
    (source,) = truth.sources if truth.kind == "everyday" else ("",)
    if source in LIKE:
        yield "likeness", bool(re.search(LIKE[source], text.split(": like ", 1)[1].split(";")[0]))


Verdict = Callable[[str, Truth], Iterator[Fact]]


def simple(row: str, holds: Callable[[Truth], bool | None]) -> Verdict:
    """A verdict for which it is enough that the fact was stated."""
    return lambda text, truth: iter([(row, holds(truth))])


VERDICTS: dict[str, Verdict] = {
    "sound": judge_headline,
    "tempo": judge_tempo,
    "key": judge_key,
    "metre": judge_metre,
    "timbre": judge_timbre,
    "lead": judge_lead,
    "bass": judge_bass,
    "chords": judge_chords,
    "character": judge_character,
    "onsets": judge_onsets,
    "ends": judge_ends,
    "hits": judge_hits,
    "change": judge_hits,
    "voice": judge_voice,
    "loudness": judge_loudness,
    "jump": judge_loudness,
    "fade": judge_loudness,
    "pause": judge_loudness,
    "event": judge_events,
    "events": judge_events,
    "absent": judge_absent,
    "portrait": judge_portrait,
    "speech": simple("speech", lambda t: bool(t.voices)),
    "glide": simple("glide", lambda t: not t.sources.isdisjoint(GLIDING)),
    "sweep": simple("sweep", lambda t: not t.sources.isdisjoint(GLIDING)),
    "tone": simple("tone", lambda t: bool(t.sources)),
    "noise": simple("noise", lambda t: t.background == "noise" or not t.sources.isdisjoint(NOISY)),
    "swells": simple("swells", lambda t: not t.sources.isdisjoint(("wind", "waves", "hand saw"))),
    "drone": simple(
        "drone of a line, or no notes",
        lambda t: None if t.pitched and not t.lone else unplayed(t),
    ),
    "pitch": simple("unpitched music", lambda t: False if t.pitched else None),
    "form": simple("sections of music that has none", lambda t: False if t.music else None),
    "part": simple("parts of music that has none", lambda t: False if t.music else None),
    "course": simple("course of music", lambda t: False if t.music else None),
    "sequence": simple("course of music", lambda t: False if t.music else None),
}


# Sums: every fact of a sound, what should have been said, and the events of scenes

STATED = ("event", "events", "glide", "sweep")  # kinds of facts that may be an event of a scene


class EventCount(NamedTuple):
    """Events of scenes: played, found, found with the right count; invented, told apart in two."""

    played: int = 0
    found: int = 0
    right: int = 0
    invented: int = 0
    split: int = 0


def count_events(said: Sequence[nat.Observation], truth: Truth) -> EventCount:
    """Which events of a scene were told: those that begin within 0.7 s, or 2.5 s if they swell."""
    left, right = [fact for fact in said if fact.kind in STATED], 0
    told = len(left)
    for event in truth.events:
        best = min(left, key=lambda fact: abs(fact.time - event.at), default=None)
        reach = 2.5 if event.name in LONG else 0.7
        if best and abs(best.time - event.at) < reach:
            left.remove(best)
            count = re.match(r"(\d+) separate", best.text)
            right += int(count[1] if count else 1) == event.count
    inside = sum(any(e.at - 0.5 <= f.time <= e.end + 0.3 for e in truth.events) for f in left)
    found = told - len(left)
    return EventCount(len(truth.events), found, right, len(left) - inside, inside)


def missed(kinds: set[str], truth: Truth) -> Iterator[Fact]:
    """What was played and not stated."""
    if truth.drums and "hits" not in kinds:
        yield "missed drums", False
    if truth.voices and "speech" not in kinds:
        yield "missed speech", False
    if truth.music and "tempo" not in kinds:
        yield "missed tempo", False


class Tally:
    """Verdicts of all sounds so far."""

    def __init__(self) -> None:
        self.rows: collections.Counter[Fact] = collections.Counter()
        self.wrong: list[dict[str, Any]] = []
        self.detected: collections.Counter[tuple[str, bool, bool]] = collections.Counter()
        self.events = EventCount()

    def add(self, name: str, said: Sequence[nat.Observation], truth: Truth) -> None:
        """Judge all that was said of a sound."""
        played = f"{truth.kind}: {truth.about}"
        for fact in said:
            judge = VERDICTS.get(fact.kind, simple(fact.kind, lambda t: None))
            for row, holds in judge(with_sharps(fact.text), truth):
                entry = {"fact": fact.text, "sure": round(fact.confidence, 2)}
                self._count(row, holds, sound=name, played=played, **entry)
        kinds = {fact.kind for fact in said}
        for row, holds in missed(kinds, truth):
            self._count(row, holds, sound=name, played=played, fact="", sure=0.0)
        self.detected["drums", truth.drums, "hits" in kinds] += not truth.hitting or truth.drums
        self.detected["speech", bool(truth.voices), "speech" in kinds] += 1
        if truth.events:
            more = count_events(said, truth)
            self.events = EventCount(*map(sum, zip(self.events, more)))

    def _count(self, row: str, holds: bool | None, **entry: Any) -> None:
        """Count a verdict; keep what is false."""
        self.rows[row, holds] += 1
        if holds is False:
            self.wrong.append({"row": row, **entry})

    def total(self, holds: bool) -> int:
        """True or false facts of all rows."""
        return sum(count for (_, verdict), count in self.rows.items() if verdict is holds)

    def table(self) -> list[tuple[str, int, int]]:
        """Rows that were judged, how often true and false."""
        names = sorted({row for row, holds in self.rows if holds is not None})
        return [(row, self.rows[row, True], self.rows[row, False]) for row in names]

    def summary(self) -> dict[str, tuple[int, int]]:
        """Counts of what matters most, each out of another."""
        seen, events = self.detected, self.events
        head = self.rows["headline", True], self.rows["headline", False]
        shares = {
            "false among all facts": (self.total(False), self.total(False) + self.total(True)),
            "headlines true": (head[0], sum(head)),
        }
        for what in ("drums", "speech"):
            for word, there in (("found", True), ("invented", False)):
                said, unsaid = seen[what, there, True], seen[what, there, False]
                shares[f"{what} {word}"] = (said, said + unsaid)
        told = events.found + events.invented + events.split
        shares["events found"] = (events.found, events.played)
        shares["events with the right count"] = (events.right, events.found)
        shares["events invented, of those told"] = (events.invented, told)
        shares["events told in pieces, of those told"] = (events.split, told)
        return shares

    def report(self, wanted: str) -> None:
        """Print the table, what is false in one of its rows (or "all"), and the sums."""
        print(f"{'kind of fact':34s} {'true':>5s} {'false':>5s} {'true, %':>8s}")
        for row, right, wrong in self.table():
            print(f"{row:34s} {right:5d} {wrong:5d} {100 * right / (right + wrong):8.1f}")
        for entry in self.wrong:
            if wanted in ("all", entry["row"]):
                print("{sound} [{row}] {fact:.200} [{sure}] <{played:.120}>".format(**entry))
        for what, (part, whole) in self.summary().items():
            share = f"{100 * part / whole:5.1f} %" if whole else "none"
            print(f"{what:38s} {part:5d} of {whole:5d}  {share}")


def lacking(program: str) -> str:
    """Why a program cannot be used; nothing if it can."""
    if program and not shutil.which(program):
        return f"{program} is not installed"
    return "there is no soundfont" if program == "fluidsynth" and not soundfont() else ""


def judge_all(options: argparse.Namespace, folder: Path) -> Tally:
    """Make the sounds one by one in a folder, hear them, and judge what is said."""
    tokenizer = nat.Tokenizer(nat.Settings(codebook_init="spectral", quiet=True))
    tally, absent = Tally(), {}
    for kind in options.kinds.split(","):
        number, program, make = KINDS[kind]
        if reason := lacking(program):
            absent.setdefault(reason, []).append(kind)
            continue
        for k in range(max(1, round(options.count * number))):
            # Dice of its own, so that a sound is the same whatever others are asked for.
            made = make(Dice(f"{options.seed} {kind} {k}"))
            path = folder / f"{kind}{k:03d}.wav"
            save_wav(path, made.samples)
            tally.add(path.stem, nat.hear(path, tokenizer).observations, made.truth)
            if not options.keep:
                path.unlink()
    for reason, kinds in absent.items():
        print(f"left out, as {reason}: {', '.join(kinds)}", file=sys.stderr)
    return tally


def main() -> None:
    """Print the table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--count", type=float, default=1.0, help="times the usual number of sounds (111)"
    )
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="counts, sums and false facts")
    parser.add_argument("--verbose", default="", metavar="ROW", help="print its false facts; all")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the sounds there")
    options = parser.parse_args()
    if unknown := set(options.kinds.split(",")) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="facts-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        tally = judge_all(options, folder)
    tally.report(options.verbose)
    if options.json:
        rows = {row: {"true": right, "false": wrong} for row, right, wrong in tally.table()}
        data = {"seed": options.seed, "count": options.count, "facts": rows}
        data |= {"summary": tally.summary(), "false": tally.wrong}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

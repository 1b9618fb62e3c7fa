#!/usr/bin/env python3
"""Generate an English-German parallel corpus of any size, without downloading anything.

The sentences come from a small grammar of English and German main clauses, questions and subordinate
clauses; their content (numbers, ordinals, years, dates, times, measures, prices, percentages, countries,
languages) comes from num2words and from the CLDR data inside Babel. German puts the verb second, participle
and infinitive last, and the time before the place, so a model has to learn more than a word list.

    python examples/tools/embedded_corpus.py --output data/embedded --train 20000 --valid 500 --test 500 --seed 1

writes train.en, train.de, valid.en, … : raw text, one sentence a line. The same arguments give the same
files. A hash of its source side decides a sentence's split, so no source sentence is in two splits.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import embedded_lexicon as lexicon
from babel import Locale
from babel.dates import format_date, format_time
from babel.numbers import format_currency, format_decimal, format_percent, get_currency_name
from babel.units import format_unit
from num2words import num2words

Pair = tuple[str, str]  # the same phrase in English and in German

SPLITS = ("train", "valid", "test")
PATIENCE = 20_000  # draws without a new sentence before a size counts as unreachable
LOCALES = {"en": Locale("en"), "de": Locale("de")}


class CorpusError(ValueError):
    """A corpus that cannot be built as requested, reported in one line."""


def plain(text: str) -> str:
    """Text with every kind of space CLDR uses turned into one ordinary space."""
    return re.sub(r"\s+", " ", text).strip()


def split_of(source: str, sizes: dict[str, int], seed: int) -> str:
    """The split a source sentence belongs to: a hash of the sentence decides, in proportion to the sizes."""
    digest = hashlib.sha256(f"{seed}\t{source}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") % sum(sizes.values())
    for name, size in sizes.items():
        if position < size:
            return name
        position -= size
    raise AssertionError("position is below the sum of the sizes")


class Phrases:
    """Draws phrases, each in both languages, from one seeded random generator."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.countries = [
            (LOCALES["en"].territories[code], LOCALES["de"].territories[code]) for code in lexicon.COUNTRIES
        ]
        # Only names that German derives with -isch: all neuter nouns, and their inflected form is regular.
        self.languages = [
            (english, LOCALES["de"].languages[code])
            for code, english in sorted(LOCALES["en"].languages.items())
            if len(code) == 2
            and re.fullmatch(r"[A-Z][a-z]+", english)
            and re.fullmatch(r"[A-ZÄÖÜ][a-zäöüß]+isch|Deutsch", LOCALES["de"].languages.get(code, ""))
        ]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    # Numbers
    def integer(self, low: int = 2, high: int = 1_000_000) -> int:
        """An integer, small or large alike, that num2words spells correctly in front of a noun."""
        tops = [value for value in (20, 100, 1000, 10_000, 1_000_000) if low < value <= high]
        while True:
            top = self.rng.choice(tops)
            number = self.rng.randint(low, top)
            if number > 10_000:
                number = round(number, -3)
            if number % 100 != 1 and not (number > 100_000 and number // 1000 % 100 == 1):
                return number

    def written(self, number: float, spell: bool) -> Pair:
        """A number in figures or in words."""
        if spell:
            return num2words(number, lang="en"), num2words(number, lang="de")
        return format_decimal(number, locale="en"), format_decimal(number, locale="de")

    def number(self, low: int = 2, high: int = 1_000_000) -> Pair:
        return self.written(self.integer(low, high), self.chance(0.35))

    def ordinal(self, ending: str) -> Pair:
        """An ordinal below 100 with a German adjective ending, in words or in figures."""
        number = self.rng.randint(1, 99)
        if self.chance(0.4):
            return num2words(number, to="ordinal_num", lang="en"), f"{number}."
        stem = num2words(number, to="ordinal", lang="de").removesuffix("e")
        return num2words(number, to="ordinal", lang="en"), stem + ending

    def percent(self) -> Pair:
        if self.chance(0.5):
            share = self.rng.randint(2, 999) / 1000
            english = format_percent(share, locale="en", decimal_quantization=False)
            return english, format_percent(share, locale="de", decimal_quantization=False)
        english, german = self.number(2, 100)
        return f"{english} percent", f"{german} Prozent"

    def measure(self, kind: str, high: int = 1000) -> Pair:
        """A quantity with a unit of one kind (length, mass, …)."""
        return self.quantity(self.rng.choice(lexicon.UNITS[kind]), high)

    def quantity(self, unit: str, high: int = 1000, dative: bool = False) -> Pair:
        number: float = self.integer(2, high)
        spell = self.chance(0.3)
        if not spell and not dative and not unit.startswith("duration") and self.chance(0.25):
            number = self.rng.randint(11, 999) / 10
        figures, words = self.written(number, False), self.written(number, spell)
        texts = []
        for language, old, new in zip(("en", "de"), figures, words, strict=True):
            texts.append(format_unit(number, unit, locale=language).replace(old, new))
        if dative and not texts[1].endswith("n"):
            texts[1] += "n"
        return texts[0], texts[1]

    def money(self) -> Pair:
        """A sum, as a symbol with an amount or with the currency's name in the plural."""
        if self.chance(0.5):
            amount = self.rng.randint(2, 10 ** self.rng.randint(2, 5)) / self.rng.choice((1, 100))
            code = self.rng.choice(lexicon.CURRENCY_SYMBOLS)
            return format_currency(amount, code, locale="en"), format_currency(amount, code, locale="de")
        code = self.rng.choice(lexicon.CURRENCY_NAMES)
        english, german = self.number()
        # CLDR capitalises names for lists, 'Schwedische Kronen'; in a sentence the adjective is lower-case.
        name = re.sub(r"^\w+e(?= )", lambda m: m[0].lower(), get_currency_name(code, count=2, locale="de"))
        return f"{english} {get_currency_name(code, count=2, locale='en')}", f"{german} {name}"

    # Nouns
    def country(self) -> Pair:
        return self.rng.choice(self.countries)

    def language(self) -> Pair:
        return self.rng.choice(self.languages)

    def things(self) -> Pair:
        """An object: a number of things, one thing by its ordinal (accusative), or an amount of stuff."""
        kind = self.rng.random()
        noun = self.rng.choice(lexicon.THINGS)
        if kind < 0.2:
            article, ending = {"m": ("den", "en"), "f": ("die", "e"), "n": ("das", "e")}[noun.gender]
            english, german = self.ordinal(ending)
            return f"the {english} {noun.en}", f"{article} {german} {noun.de}"
        if kind < 0.35:
            unit = self.rng.choice(list(lexicon.STUFF))
            stuff = self.rng.choice(lexicon.STUFF[unit])
            english, german = self.quantity(unit, 100)
            return f"{english} of {stuff[0]}", f"{german} {stuff[1]}"
        english, german = self.number(2, 10_000)
        if self.chance(0.4):
            adjective = self.rng.choice(lexicon.ADJECTIVES)
            return f"{english} {adjective[0]} {noun.en_plural}", f"{german} {adjective[1]} {noun.de_plural}"
        return f"{english} {noun.en_plural}", f"{german} {noun.de_plural}"

    def people(self) -> tuple[Pair, bool]:
        """A subject that can act, and whether it is plural."""
        kind = self.rng.random()
        if kind < 0.3:
            name = self.rng.choice(lexicon.NAMES)
            return (name, name), False
        if kind < 0.6:
            return self.rng.choice(lexicon.PERSONS), False
        if kind < 0.7:
            pronoun, plural = self.rng.choice(lexicon.PRONOUNS)
            return pronoun, plural
        english, german = self.number(2, 1000)
        group = self.rng.choice(lexicon.GROUPS)
        phrase = (f"{english} {group[0]}", f"{german} {group[1]}")
        if self.chance(0.3):
            country = self.country()
            phrase = (f"{phrase[0]} from {country[0]}", f"{phrase[1]} aus {country[1]}")
        return phrase, True

    # Time
    def day(self, past: bool) -> datetime.date:
        first = datetime.date(1700, 1, 1) if past else datetime.date(2031, 1, 1)
        return first + datetime.timedelta(days=self.rng.randrange(118_000 if past else 25_000))

    def clock(self) -> Pair:
        """A time of day, in figures or the way it is said."""
        if self.chance(0.7):
            time = datetime.time(self.rng.randrange(24), self.rng.randrange(60))
            return (
                f"at {format_time(time, 'short', locale='en')}",
                f"um {format_time(time, 'short', locale='de')} Uhr",
            )
        hour = self.rng.randint(2, 11)
        (english, german), shift = self.rng.choice(lexicon.CLOCK)
        return (
            f"at {english} {num2words(hour, lang='en')}",
            f"um {german} {num2words(hour + shift, lang='de')}",
        )

    def date(self, past: bool) -> Pair:
        """A date, a month or a year with its preposition."""
        day = self.day(past)
        kind = self.rng.randrange(7)
        long = format_date(day, "long", locale="en"), format_date(day, "long", locale="de")
        weekday = format_date(day, "EEEE", locale="en"), format_date(day, "EEEE", locale="de")
        month = format_date(day, "LLLL", locale="en"), format_date(day, "LLLL", locale="de")
        if kind == 0:
            return f"on {long[0]}", f"am {long[1]}"
        if kind == 1:
            return f"on {weekday[0]}, {long[0]}", f"am {weekday[1]}, den {long[1]}"
        if kind == 2:
            return f"on {day.month}/{day.day}/{day.year}", f"am {format_date(day, 'medium', locale='de')}"
        if kind == 3:
            english = num2words(day.day, to="ordinal", lang="en")
            german = num2words(day.day, to="ordinal", lang="de")
            return f"on the {english} of {month[0]}", f"am {german}n {month[1]}"
        if kind == 4:
            return f"in {month[0]} {day.year}", f"im {month[1]} {day.year}"
        if kind == 5:
            return f"in {day.year}", f"im Jahr {day.year}"
        return f"in {num2words(day.year, to='year')}", f"im Jahr {num2words(day.year, to='year', lang='de')}"

    def when(self, tense: str) -> Pair:
        """A time adverbial that fits the tense."""
        weekday = self.rng.randrange(7)
        name = LOCALES["en"].days["format"]["wide"][weekday], LOCALES["de"].days["format"]["wide"][weekday]
        if tense == "perfect":
            return "", ""
        if tense == "present":
            return self.rng.choice([(f"every {name[0]}", f"jeden {name[1]}"), *lexicon.HABITS])
        past = tense == "past"
        kind = self.rng.random()
        if kind < 0.5:
            return self.date(past)
        if kind < 0.7:
            day = (f"on {name[0]}", f"am {name[1]}")
            if self.chance(0.6):
                clock = self.clock()
                day = (f"{clock[0]} {day[0]}", f"{day[1]} {clock[1]}")
            return day
        if kind < 0.9:
            english, german = self.quantity(self.rng.choice(lexicon.UNITS["duration"]), 100, dative=True)
            return (f"{english} ago", f"vor {german}") if past else (f"in {english}", f"in {german}")
        return self.rng.choice(lexicon.PAST_DAYS if past else lexicon.FUTURE_DAYS)


@dataclass(frozen=True)
class Clause:
    """One clause in parts, from which either language builds its word order."""

    subject: Pair
    plural: bool
    verb: lexicon.Verb
    tense: str  # present, past, perfect, or a modal's English infinitive
    complement: Pair
    place: Pair
    time: Pair

    def english_verb(self) -> tuple[str, str, str]:
        """Finite verb, the rest of the verb, and the finite verb of a question."""
        base, third, past, participle = self.verb.en
        many = self.plural
        if self.tense == "present":
            return (base if many else third), "", "do" if many else "does"
        if self.tense == "past":
            return past, "", "did"
        if self.tense == "perfect":
            have = "have" if many else "has"
            return have, participle, have
        return self.tense, base, self.tense

    def german_verb(self) -> tuple[str, str]:
        """Return the finite verb, and the end of a main clause (prefix, participle or infinitive)."""
        verb, many = self.verb, self.plural
        if self.tense == "present":
            return (verb.de_stem if many else verb.de_third), verb.prefix
        if self.tense == "past":
            ending = ("n" if verb.de_past.endswith("e") else "en") if many else ""
            return verb.de_past + ending, verb.prefix
        if self.tense == "perfect":
            auxiliary = lexicon.PERFECT_AUXILIARIES[verb.with_sein]
            return auxiliary[many], verb.de_participle
        return lexicon.MODALS[self.tense][many], verb.prefix + verb.de_stem

    def main(self, front_time: bool = False) -> Pair:
        """A main clause without a full stop."""
        finite, rest, _ = self.english_verb()
        words = [self.subject[0], finite, rest, self.complement[0], self.place[0]]
        english = [f"{self.time[0]},", *words] if front_time else [*words, self.time[0]]
        finite, end = self.german_verb()
        middle = [self.complement[1], self.place[1], end]
        if front_time:
            german = [self.time[1], finite, self.subject[1], *middle]
        else:
            german = [self.subject[1], finite, self.time[1], *middle]
        return plain(" ".join(english)), plain(" ".join(german))

    def question(self) -> Pair:
        """A yes-no question."""
        _, rest, finite = self.english_verb()
        rest = rest or self.verb.en[0]
        english = [finite, self.subject[0], rest, self.complement[0], self.place[0], self.time[0]]
        finite, end = self.german_verb()
        german = [finite, self.subject[1], self.time[1], self.complement[1], self.place[1], end]
        return plain(" ".join(english)) + "?", plain(" ".join(german)) + "?"

    def subordinate(self) -> Pair:
        """The clause after a conjunction: German puts the finite verb last."""
        finite, end = self.german_verb()
        last = end + finite if self.tense in ("present", "past") else f"{end} {finite}"
        german = [self.subject[1], self.time[1], self.complement[1], self.place[1], last]
        return self.main()[0], plain(" ".join(german))


class Sentences:
    """Draws sentence pairs."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.phrases = Phrases(self.rng)

    def complement(self, kind: str) -> Pair:
        """Return the verb's object, of the kind that the lexicon names."""
        phrases = self.phrases
        if kind == "none":
            return "", ""
        if kind == "things":
            return phrases.things()
        if kind == "money":
            return phrases.money()
        if kind == "to":
            country = phrases.country()
            return f"to {country[0]}", f"nach {country[1]}"
        if kind == "language":
            return phrases.language()
        if kind == "pages":
            pages, language = phrases.number(2, 1000), phrases.language()
            return f"{pages[0]} pages into {language[0]}", f"{pages[1]} Seiten ins {language[1]}e"
        if kind == "share":
            share = phrases.percent()
            return f"by {share[0]}", f"um {share[1]}"
        if kind == "while":
            duration = phrases.measure("duration", 100)
            return f"for {duration[0]}", f"{duration[1]} lang"
        return phrases.measure(kind)

    def subject(self, kind: str) -> tuple[Pair, bool]:
        """Return the subject, of the kind that the lexicon names, and whether it is plural."""
        if kind == "people":
            return self.phrases.people()
        subject = self.rng.choice(lexicon.SUBJECTS[kind])
        if kind == "figures":
            country = self.phrases.country()
            subject = (f"{subject[0]} of {country[0]}", f"{subject[1]} von {country[1]}")
        return subject, False

    def frame(self) -> str:
        """A time frame, shared by the clauses of one sentence."""
        return self.rng.choices(("past", "present", "perfect", "modal"), (5, 2, 2, 3))[0]

    def clause(self, frame: str) -> Clause:
        verb = self.rng.choice(lexicon.VERBS)
        tense = frame
        if frame == "modal":
            tense = self.rng.choice(list(lexicon.MODALS) if verb.subject == "people" else ["will"])
        subject, plural = self.subject(verb.subject)
        place = ("", "")
        if verb.takes_place and self.phrases.chance(0.6):
            country = self.phrases.country()
            place = (f"in {country[0]}", f"in {country[1]}")
        time = self.phrases.when(tense) if self.phrases.chance(0.75) else ("", "")
        return Clause(subject, plural, verb, tense, self.complement(verb.complement), place, time)

    def fact(self) -> Pair:
        """A sentence about a size, an age, a birthday, a distance or a share."""
        phrases, rng = self.phrases, self.rng
        kind = rng.randrange(7)
        past = phrases.chance(0.5)
        first, second = rng.sample(phrases.countries, 2)
        if kind == 0:
            thing, adjective = rng.choice(lexicon.DIMENSIONS)
            size = phrases.measure("length")
            verb = ("was", "war") if past else ("is", "ist")
            return (
                f"{thing[0]} {verb[0]} {size[0]} {adjective[0]}",
                f"{thing[1]} {verb[1]} {size[1]} {adjective[1]}",
            )
        if kind == 1:
            age = phrases.quantity("duration-year", 100)
            who = rng.choice(lexicon.PERSONS + [(name, name) for name in lexicon.NAMES])
            return f"{who[0]} is {age[0]} old", f"{who[1]} ist {age[1]} alt"
        if kind == 2:
            name, date = rng.choice(lexicon.NAMES), phrases.date(past=True)
            return f"{name} was born in {first[0]} {date[0]}", f"{name} wurde {date[1]} in {first[1]} geboren"
        if kind == 3:
            length = phrases.measure("length", 10_000)
            return (
                f"the distance between {first[0]} and {second[0]} is {length[0]}",
                f"die Entfernung zwischen {first[1]} und {second[1]} beträgt {length[1]}",
            )
        if kind == 4:
            share, group, language = phrases.percent(), rng.choice(lexicon.GROUPS), phrases.language()
            return (
                f"{share[0]} of the {group[0]} in {first[0]} speak {language[0]}",
                f"{share[1]} der {group[1]} in {first[1]} sprechen {language[1]}",
            )
        if kind == 5:
            date = phrases.date(past=True)
            return (
                f"{date[0]}, {first[0]} and {second[0]} signed an agreement",
                f"{date[1]} unterzeichneten {first[1]} und {second[1]} ein Abkommen",
            )
        number, area = phrases.number(1000), phrases.measure("area", 10_000)
        if phrases.chance(0.5):
            return f"the city has {number[0]} inhabitants", f"die Stadt hat {number[1]} Einwohner"
        return f"the park in {first[0]} covers {area[0]}", f"der Park in {first[1]} umfasst {area[1]}"

    def sentence(self) -> Pair:
        """One sentence with its capital letter and its full stop."""
        kind = self.rng.random()
        if kind < 0.14:
            english, german = self.fact()
        elif kind < 0.24:
            english, german = self.clause(self.frame()).question()
        elif kind < 0.36:
            head, clause = self.rng.choice(lexicon.REPORTS), self.clause(self.frame()).subordinate()
            english, german = f"{head[0]} that {clause[0]}", f"{head[1]}, dass {clause[1]}"
        elif kind < 0.46:
            conjunction, frame = self.rng.choice(lexicon.SUBORDINATORS), self.frame()
            first, second = self.clause(frame).main(), self.clause(frame).subordinate()
            english = f"{first[0]} {conjunction[0]} {second[0]}"
            german = f"{first[1]}, {conjunction[1]} {second[1]}"
        elif kind < 0.54:
            conjunction, frame = self.rng.choice(lexicon.COORDINATORS), self.frame()
            first, second = self.clause(frame).main(), self.clause(frame).main()
            english = f"{first[0]}, {conjunction[0]} {second[0]}"
            german = f"{first[1]}{conjunction[1]} {second[1]}"
        else:
            clause = self.clause(self.frame())
            english, german = clause.main(front_time=bool(clause.time[0]) and self.phrases.chance(0.45))
        return finish(english), finish(german)


def finish(text: str) -> str:
    """Capital first letter, final punctuation, ordinary spaces."""
    text = plain(text)
    if not text.endswith(("?", ".")):
        text += "."
    return text[0].upper() + text[1:]


def build(
    draw: Callable[[], Pair], sizes: dict[str, int], seed: int, patience: int = PATIENCE
) -> dict[str, list[Pair]]:
    """Draw distinct pairs until every split is full."""
    for name, size in sizes.items():
        if size < 1:
            raise CorpusError(f"--{name} {size}: each split needs at least 1 sentence pair")
    splits: dict[str, list[Pair]] = {name: [] for name in sizes}
    seen: set[str] = set()
    misses = 0
    while any(len(splits[name]) < size for name, size in sizes.items()):
        if misses >= patience:
            have = sum(len(pairs) for pairs in splits.values())
            raise CorpusError(
                f"asked for {sum(sizes.values())} distinct sentence pairs, but after {have} the grammar "
                f"gave no usable new one in {patience} tries: ask for fewer"
            )
        pair = draw()
        name = split_of(pair[0], sizes, seed)
        if pair[0] in seen or len(splits[name]) == sizes[name]:
            misses += 1
            continue
        misses = 0
        seen.add(pair[0])
        splits[name].append(pair)
    return splits


def write_split(folder: Path, name: str, pairs: list[Pair]) -> None:
    """Write one split's two files; each appears under its name only once it is complete."""
    for side, language in enumerate(("en", "de")):
        target = folder / f"{name}.{language}"
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
        temporary.replace(target)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Generate an English-German parallel corpus of any size.")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.en, train.de, valid.en, …")
    parser.add_argument("--train", type=int, default=20_000, help="training pairs (default: %(default)s)")
    parser.add_argument("--valid", type=int, default=500, help="validation pairs (default: %(default)s)")
    parser.add_argument("--test", type=int, default=500, help="test pairs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same corpus (default: %(default)s)")
    options = parser.parse_args(arguments)
    sizes = {name: getattr(options, name) for name in SPLITS}
    try:
        splits = build(Sentences(options.seed).sentence, sizes, options.seed)
    except CorpusError as error:
        sys.exit(f"embedded_corpus.py: {error}")
    options.output.mkdir(parents=True, exist_ok=True)
    for name, pairs in splits.items():
        write_split(options.output, name, pairs)
    counts = ", ".join(f"{len(pairs)} {name}" for name, pairs in splits.items())
    print(f"{options.output}: {counts} pairs")


if __name__ == "__main__":
    main()

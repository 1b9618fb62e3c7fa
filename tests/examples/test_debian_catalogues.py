"""Debian's gettext catalogues: messages as text, filters, and the corpus that comes of them."""

from __future__ import annotations

import gettext
import importlib.util
import io
import struct
from collections import Counter
from pathlib import Path

import messages
import pytest

FOLDER = Path(messages.__file__).parent


@pytest.fixture(scope="module")
def extract():
    spec = importlib.util.spec_from_file_location("extract_catalogues", FOLDER / "extract.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(entries: dict[str, str], charset: str = "UTF-8", order: str = "<") -> bytes:
    """A catalogue as msgfmt writes it."""
    texts = {"": f"Content-Type: text/plain; charset={charset}\nPlural-Forms: nplurals=2; plural=n!=1;\n"} | entries
    pairs = sorted((key.encode(charset), text.encode(charset)) for key, text in texts.items())
    tables, strings = [b"", b""], b""
    start = 28 + 16 * len(pairs)
    for pair in pairs:
        for side, text in enumerate(pair):
            tables[side] += struct.pack(order + "2I", len(text), start + len(strings))
            strings += text + b"\0"
    head = struct.pack(order + "7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return head + tables[0] + tables[1] + strings


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("charset", ["UTF-8", "ISO-8859-1"])
def test_catalogues_as_python_reads_them(tmp_path, order, charset):
    entries = {"Open": "Öffnen", "menu\4Open": "Aufmachen", "%d file\0%d files": "%d Datei\0%d Dateien"}
    data = compiled(entries, charset, order)
    assert gettext.GNUTranslations(io.BytesIO(data)).ngettext("%d file", "%d files", 2) == "%d Dateien"
    (tmp_path / "a.mo").write_bytes(data)
    assert sorted(messages.read(tmp_path / "a.mo")) == [
        ("%d files", "%d Dateien"), ("Open", "Aufmachen"), ("Open", "Öffnen")
    ]  # fmt: skip


def test_broken_catalogues(tmp_path):
    file = tmp_path / "a.mo"
    for content, complaint in ((b"", "no compiled"), (b"text of some kind", "no compiled"),
                               (compiled({"a": "b"})[:40], "truncated")):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(messages.CatalogueError, match=rf"a\.mo: .*{complaint}"):
            list(messages.read(file))


def test_many_plural_forms_give_the_singular(tmp_path):
    (tmp_path / "a.mo").write_bytes(compiled({"%d file\0%d files": "%d plik\0%d pliki\0%d plików"}))
    assert list(messages.read(tmp_path / "a.mo")) == [("%d file", "%d plik")]


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        ("Save &As…\tCtrl+S", "Speichern &unter …\tStrg+S", [("Save As...", "Speichern unter ...")]),
        ("Save _as file", "Als _Datei speichern", [("Save as file", "Als Datei speichern")]),
        ("Set max_size to _zero", "_Null als max_size", [("Set max_size to zero", "Null als max_size")]),
        ("~Close it && go", "Schließen && ~gehen", [("Close it & go", "Schließen & gehen")]),
        ("female^The old woman", "Die alte Frau", [("The old woman", "Die alte Frau")]),
        ("<p>Press <b>&lt;Enter&gt;</b>.</p><p>Wait.</p>", "<qt>Drücken Sie <b>&lt;Enter&gt;</b>.</qt><br/>Warten Sie.",
         [("Press <Enter>.", "Drücken Sie <Enter>."), ("Wait.", "Warten Sie.")]),
        ("<filename>%1</filename> is open", "%1 ist offen", [("%1 is open", "%1 ist offen")]),
        ("file %s of `%s'", "von »%2$s« die Datei %1$s", [("file %s of '%s'", "von »%s« die Datei %s")]),
        ("  -f, --file NAME   read the file\n                    to its end\n",
         "  -f, --file NAME   die Datei lesen\n", [("read the file to its end", "die Datei lesen")]),
        ("-N\tRemove the line", "-N\tDie Zeile entfernen", [("Remove the line", "Die Zeile entfernen")]),
        ("|FILE|read it", "|DATEI|es lesen", [("read it", "es lesen")]),
        ("# by hand", "# von Hand", [("by hand", "von Hand")]),
        ("- first thing\n- second thing", "* das Erste\n* das Zweite",
         [("first thing", "das Erste"), ("second thing", "das Zweite")]),
        ("This is a long line that the terminal's width has broken\ninto two.", "Das ist eine Zeile.",
         [("This is a long line that the terminal's width has broken into two.", "Das ist eine Zeile.")]),
        ("A title\nOne sentence. Another one.", "Ein Titel\nEin Satz. Noch einer.",
         [("A title", "Ein Titel"), ("One sentence.", "Ein Satz."), ("Another one.", "Noch einer.")]),
    ],
)  # fmt: skip
def test_text_of_messages(source, target, pairs):
    assert messages.text_pairs(source, target) == pairs


def test_options_are_read_in_linear_time():
    line = "--a" * 5000 + " b"
    assert messages.blocks(line) == [line]


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("Open the file %s now", "Jetzt die Datei %s öffnen", None),
        ("Open the file %s now", "Jetzt die Datei %d öffnen", "other placeholders"),
        ("Open the file %(name)s now", "Jetzt die Datei %(Name)s öffnen", "other placeholders"),
        ("Use --all with the file", "Mit der Datei --alle verwenden", "other placeholders"),
        ("Set the max_size of it", "Die Größe davon setzen", "other underscores"),
        ("Open the </b> file", "Die Datei </b> öffnen", "markup, escapes, columns"),
        ("name   size   date of it", "Name   Größe   Datum", "markup, escapes, columns"),
        ("Copyright (C) of the authors", "Copyright (C) liegt bei den Autoren", "credits and copyright"),
        ("%s at %s of %s", "%s bei %s von %s", "mostly placeholders"),
        ("This is not translated yet", "This is nicht translated yet, of course", "target in English"),
        ("Die Datei ist nicht da", "Die Datei ist leider nicht da", "source in the target language"),
        ("Foo Writer Guide Plus", "Foo Writer Guide Extra", "target copies the source"),
        ("Ещё one small thing", "Noch eine kleine Sache", "another script"),
        ("Open it", "Öffnen Sie es", "shorter than 3 words"),
    ],
)
def test_filters(extract, source, target, reason):
    assert extract.fault(source, target, "de") == reason


def test_catalogues_of_the_language(extract, tmp_path):
    names = {
        "usr/share/locale/de/LC_MESSAGES/a.mo": True,
        "usr/share/locale/de_DE/LC_MESSAGES/a.mo": True,
        "usr/share/locale/de_AT/LC_MESSAGES/a.mo": False,
        "usr/share/locale/de/LC_TIME/a.mo": False,
        "usr/share/locale/pt/LC_MESSAGES/a-de.mo": False,
        "languages/admin-de_DE.mo": True,
        "languages/de_CH.mo": False,
        "messages/de.mo": True,
    }
    assert {name: extract.is_of(tmp_path / name, "de") for name in names} == names


def test_corpus(extract, tmp_path, capsys):
    package = tmp_path / "catalogues" / "tool_1" / "usr/share/locale/de/LC_MESSAGES"
    package.mkdir(parents=True)
    nouns = ("file", "Datei"), ("folder", "Mappe"), ("page", "Seite"), ("line", "Zeile"), ("word", "Silbe")
    entries = {f"Open the {noun} now.": f"Jetzt die {word} öffnen." for noun, word in nouns}
    entries |= {"_Open the file now": "Die Datei öffnen, bitte", "Quit": "Ende"}
    entries |= {"It is 3 days old": "Es ist 4 Tage alt"}
    entries |= {"There were 5 here. See the file. It was big.": "Siehe die Datei. Es waren 5 Stück. Sie war groß."}
    (package / "tool.mo").write_bytes(compiled(entries))
    arguments = ["--catalogues", str(tmp_path / "catalogues"), "--valid", "1", "--test", "1", "--output"]
    texts = []
    for output in (tmp_path / "one", tmp_path / "two"):
        extract.main([*arguments, str(output)])
        texts.append({file.name: file.read_bytes() for file in sorted(output.iterdir())})
    assert texts[0] == texts[1]
    printed = capsys.readouterr().out
    assert "3 train, 1 valid, 1 test pairs" in printed
    counted = Counter(line.split(maxsplit=1)[1] for line in printed.splitlines() if "  - " in line)
    dropped = ["repeated", "messages shorter than 3 words", "target in another split"]
    dropped += ["other numbers", "beside one that does not match"]  # two sentences in another order, and the third
    assert set(counted) == {f"- {reason}" for reason in dropped}
    with pytest.raises(SystemExit, match="no catalogues for fr"):
        extract.main([*arguments, str(tmp_path / "three"), "--target", "fr"])

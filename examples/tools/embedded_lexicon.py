"""Words of the embedded corpus that num2words and CLDR do not have.

Every German entry is in the form in which embedded_corpus.py uses it; see there for the grammar.
Tables are texts with one entry per line or per semicolon, English before the '=' and German after it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A countable noun with its German gender (m, f, n)."""

    en: str
    en_plural: str
    de: str
    gender: str
    de_plural: str


@dataclass(frozen=True)
class Verb:
    """A verb, its kind of object, and its kind of subject."""

    en: tuple[str, ...]  # base, third person, past, participle
    prefix: str  # of a separable German verb
    de_stem: str  # infinitive without the prefix; also the plural of the present
    de_third: str
    de_past: str
    de_participle: str
    complement: str
    subject: str
    with_sein: bool  # perfect tense with 'sein'
    takes_place: bool


def _entries(table: str) -> list[str]:
    return [entry.strip() for entry in table.replace("\n", ";").split(";") if entry.strip()]


def _pairs(table: str) -> list[tuple[str, str]]:
    pairs = []
    for entry in _entries(table):
        english, german = entry.split(" = ")
        pairs.append((english, german))
    return pairs


def _verb(entry: str) -> Verb:
    """Read 'English forms = German forms: complement subject flags'; '|' separates, '_' is a space."""
    english, rest = entry.split(" = ")
    german, roles = rest.split(": ")
    infinitive, third, past, participle = german.split()
    prefix, _, stem = infinitive.rpartition("|")
    complement, subject, *flags = roles.split()
    forms = tuple(form.replace("_", " ") for form in english.split())
    return Verb(forms, prefix, stem, third, past, participle, complement, subject, "sein" in flags, "place" in flags)


VERBS = [
    _verb(entry)
    for entry in _entries("""
    buy buys bought bought = kaufen kauft kaufte gekauft: things people place
    sell sells sold sold = verkaufen verkauft verkaufte verkauft: things people place
    find finds found found = finden findet fand gefunden: things people place
    order orders ordered ordered = bestellen bestellt bestellte bestellt: things people
    repair repairs repaired repaired = reparieren repariert reparierte repariert: things people place
    lose loses lost lost = verlieren verliert verlor verloren: things people place
    see sees saw seen = sehen sieht sah gesehen: things people place
    bring brings brought brought = bringen bringt brachte gebracht: things people
    send sends sent sent = schicken schickt schickte geschickt: things people
    count counts counted counted = zählen zählt zählte gezählt: things people
    describe describes described described = beschreiben beschreibt beschrieb beschrieben: things people
    receive receives received received = erhalten erhält erhielt erhalten: things people
    forget forgets forgot forgotten = vergessen vergisst vergaß vergessen: things people
    pick_up picks_up picked_up picked_up = ab|holen holt holte abgeholt: things people
    take_along takes_along took_along taken_along = mit|nehmen nimmt nahm mitgenommen: things people
    throw_away throws_away threw_away thrown_away = weg|werfen wirft warf weggeworfen: things people
    give_back gives_back gave_back given_back = zurück|geben gibt gab zurückgegeben: things people
    pay pays paid paid = bezahlen bezahlt bezahlte bezahlt: money people
    earn earns earned earned = verdienen verdient verdiente verdient: money people place
    save saves saved saved = sparen spart sparte gespart: money people
    spend spends spent spent = aus|geben gibt gab ausgegeben: money people place
    donate donates donated donated = spenden spendet spendete gespendet: money people
    wait waits waited waited = warten wartet wartete gewartet: while people place
    work works worked worked = arbeiten arbeitet arbeitete gearbeitet: while people place
    sleep sleeps slept slept = schlafen schläft schlief geschlafen: while people
    rest rests rested rested = ruhen ruht ruhte geruht: while people
    stay stays stayed stayed = bleiben bleibt blieb geblieben: while people place sein
    run runs ran run = laufen läuft lief gelaufen: length people place sein
    swim swims swam swum = schwimmen schwimmt schwamm geschwommen: length people place sein
    drive drives drove driven = fahren fährt fuhr gefahren: length people place sein
    fly flies flew flown = fliegen fliegt flog geflogen: to people sein
    travel travels traveled traveled = reisen reist reiste gereist: to people sein
    move moves moved moved = ziehen zieht zog gezogen: to people sein
    return returns returned returned = zurück|kehren kehrt kehrte zurückgekehrt: to people sein
    learn learns learned learned = lernen lernt lernte gelernt: language people place
    speak speaks spoke spoken = sprechen spricht sprach gesprochen: language people place
    teach teaches taught taught = unterrichten unterrichtet unterrichtete unterrichtet: language people place
    translate translates translated translated = übersetzen übersetzt übersetzte übersetzt: pages people
    arrive arrives arrived arrived = an|kommen kommt kam angekommen: none people place sein
    cost costs cost cost = kosten kostet kostete gekostet: money goods
    weigh weighs weighed weighed = wiegen wiegt wog gewogen: mass goods
    begin begins began begun = beginnen beginnt begann begonnen: none events place
    end ends ended ended = enden endet endete geendet: none events
    take_place takes_place took_place taken_place = statt|finden findet fand stattgefunden: none events place
    last lasts lasted lasted = dauern dauert dauerte gedauert: duration events
    arrive arrives arrived arrived = an|kommen kommt kam angekommen: none vehicles place sein
    depart departs departed departed = ab|fahren fährt fuhr abgefahren: none vehicles sein
    rise rises rose risen = steigen steigt stieg gestiegen: share figures sein
    fall falls fell fallen = sinken sinkt sank gesunken: share figures sein
    grow grows grew grown = wachsen wächst wuchs gewachsen: share figures sein
    produce produces produced produced = her|stellen stellt stellte hergestellt: things firms place
    deliver delivers delivered delivered = liefern liefert lieferte geliefert: things firms
    offer offers offered offered = an|bieten bietet bot angeboten: things firms place
    consume consumes consumed consumed = verbrauchen verbraucht verbrauchte verbraucht: energy firms
""")
]

MODALS = {  # English, then German singular and plural
    "will": ("wird", "werden"),
    "can": ("kann", "können"),
    "must": ("muss", "müssen"),
    "should": ("sollte", "sollten"),
}
PERFECT_AUXILIARIES = {False: ("hat", "haben"), True: ("ist", "sind")}

SUBJECTS = {
    "goods": _pairs("""
        the book = das Buch; the car = das Auto; the machine = die Maschine; the ring = der Ring
        the painting = das Gemälde; the clock = die Uhr; the table = der Tisch; the boat = das Boot
        the carpet = der Teppich; the lamp = die Lampe; the piano = das Klavier; it = es
    """),
    "events": _pairs("""
        the conference = die Konferenz; the concert = das Konzert; the meeting = die Sitzung
        the course = der Kurs; the festival = das Festival; the lecture = der Vortrag; the game = das Spiel
        the exhibition = die Ausstellung; the exam = die Prüfung; the film = der Film
    """),
    "vehicles": _pairs("""
        the train = der Zug; the bus = der Bus; the ship = das Schiff; the ferry = die Fähre
        the truck = der Lastwagen
    """),
    "figures": _pairs("""
        the population = die Bevölkerung; the tax revenue = das Steueraufkommen; the debt = die Verschuldung
        the energy consumption = der Energieverbrauch; the industrial production = die Industrieproduktion
    """),
    "firms": _pairs("""
        the company = das Unternehmen; the factory = die Fabrik; the workshop = die Werkstatt
        the laboratory = das Labor; the manufacturer = der Hersteller
    """),
}

NAMES = (
    "Anna Peter Maria Paul Laura Thomas Julia David Sophie Martin Elena Lukas Emma Felix Clara Robert "
    "Nina Oliver Eva Daniel"
).split()
PERSONS = _pairs("""
    the teacher = die Lehrerin; the doctor = der Arzt; the engineer = die Ingenieurin
    the neighbor = der Nachbar; the author = die Autorin; the farmer = der Bauer
    the family = die Familie; the girl = das Mädchen
    the boy = der Junge; the mayor = die Bürgermeisterin; the driver = der Fahrer
    my sister = meine Schwester
    my brother = mein Bruder; the child = das Kind; our boss = unser Chef
""")
PRONOUNS = [(("he", "er"), False), (("she", "sie"), False), (("we", "wir"), True)]
GROUPS = _pairs("""
    students = Studenten; workers = Arbeiter; tourists = Touristen; children = Kinder; musicians = Musiker
    engineers = Ingenieure; women = Frauen; men = Männer; farmers = Bauern; soldiers = Soldaten
    families = Familien; athletes = Sportler
""")

THINGS = [
    Noun(*entry.split())
    for entry in _entries("""
        book books Buch n Bücher; letter letters Brief m Briefe; page pages Seite f Seiten
        ticket tickets Fahrkarte f Fahrkarten; bottle bottles Flasche f Flaschen
        photo photos Foto n Fotos
        house houses Haus n Häuser; car cars Auto n Autos; chair chairs Stuhl m Stühle
        table tables Tisch m Tische; apple apples Apfel m Äpfel
        newspaper newspapers Zeitung f Zeitungen
        map maps Landkarte f Landkarten; computer computers Computer m Computer
        picture pictures Bild n Bilder; key keys Schlüssel m Schlüssel; lamp lamps Lampe f Lampen
        bicycle bicycles Fahrrad n Fahrräder
        box boxes Kiste f Kisten; pencil pencils Bleistift m Bleistifte; coin coins Münze f Münzen
        stamp stamps Briefmarke f Briefmarken; window windows Fenster n Fenster; tree trees Baum m Bäume
        horse horses Pferd n Pferde; ship ships Schiff n Schiffe; machine machines Maschine f Maschinen
        bag bags Tasche f Taschen; painting paintings Gemälde n Gemälde; clock clocks Uhr f Uhren
    """)
]
ADJECTIVES = _pairs("""
    old = alte; new = neue; red = rote; large = große; small = kleine; cheap = billige; expensive = teure
    heavy = schwere; beautiful = schöne; blue = blaue; broken = kaputte; strange = seltsame
""")
STUFF = {  # by the unit it is counted in
    "mass-kilogram": _pairs("sugar = Zucker; rice = Reis; flour = Mehl; coffee = Kaffee"),
    "mass-gram": _pairs("salt = Salz; gold = Gold; tea = Tee; silver = Silber"),
    "mass-tonne": _pairs("steel = Stahl; coal = Kohle; wood = Holz"),
    "volume-liter": _pairs("water = Wasser; milk = Milch; oil = Öl; wine = Wein"),
}

UNITS = {
    "length": ["length-kilometer", "length-meter", "length-mile"],
    "mass": ["mass-kilogram", "mass-gram", "mass-tonne"],
    "duration": [f"duration-{unit}" for unit in ("minute", "hour", "day", "week", "month", "year")],
    "area": ["area-square-meter", "area-hectare", "area-square-kilometer"],
    "energy": ["energy-kilowatt-hour", "energy-joule", "energy-kilocalorie"],
}
# Symbols that CLDR writes the same way in both languages; names with a usable German plural.
CURRENCY_SYMBOLS = ("EUR", "USD", "GBP", "JPY", "INR", "KRW")
CURRENCY_NAMES = (
    "EUR USD GBP CHF JPY SEK NOK DKK PLN CZK HUF CAD AUD NZD INR MXN ZAR RUB ISK KRW THB KES SGD HKD EGP"
).split()

# Countries whose German name has no article and whose names are simple in both languages.
COUNTRIES = (
    "AF AL DZ AD AO AR AM AU AT AZ BH BD BE BZ BJ BT BO BW BR BG BF BI BY KH CM CA CL CN CO CR HR CZ DK "
    "DJ EC EG SV GQ ER EE SZ ET FI FR GE DE GH GR GT GN GY HN HU IS IN ID IE IL IT JP JO KZ KE KP KR KW "
    "KG LA LV LS LR LY LI LT LU MG MW MY ML MR MX MC ME MA MZ NA NP NZ NI NG MK NO PK PA PG PY PE PL PT "
    "QA RO RU RW SA RS SL SG SI SO ZA ES SR SE SY TJ TZ TH TG TN TM UG UY UZ VE VN ZM ZW"
).split()

CLOCK = [  # the words before the hour, and the German offset of the hour
    (("half past", "halb"), 1),
    (("a quarter past", "Viertel nach"), 0),
    (("a quarter to", "Viertel vor"), 0),
    (("ten past", "zehn nach"), 0),
    (("five to", "fünf vor"), 0),
    (("twenty past", "zwanzig nach"), 0),
]
HABITS = _pairs("every day = jeden Tag; every year = jedes Jahr")
PAST_DAYS = _pairs("""
    yesterday = gestern; last week = letzte Woche; last year = letztes Jahr; last month = letzten Monat
""")
FUTURE_DAYS = _pairs("""
    tomorrow = morgen; next week = nächste Woche; next year = nächstes Jahr; next month = nächsten Monat
""")

REPORTS = _pairs("""
    the newspaper reports = die Zeitung berichtet; we know = wir wissen; I believe = ich glaube
    Anna says = Anna sagt; Peter writes = Peter schreibt; it is certain = es steht fest
    nobody knows = niemand weiß; the government announced = die Regierung gab bekannt
    everyone hopes = alle hoffen; it is possible = es ist möglich
""")
SUBORDINATORS = _pairs("because = weil; although = obwohl; while = während")
COORDINATORS = [("and", " und"), ("but", ", aber")]

DIMENSIONS = [
    (thing, adjective)
    for things, adjective in (
        ("the bridge = die Brücke; the road = die Straße; the tunnel = der Tunnel", ("long", "lang")),
        ("the river = der Fluss; the valley = das Tal; the field = das Feld", ("wide", "breit")),
        ("the tower = der Turm; the wall = die Mauer; the mountain = der Berg", ("high", "hoch")),
        ("the lake = der See; the well = der Brunnen", ("deep", "tief")),
    )
    for thing in _pairs(things)
]

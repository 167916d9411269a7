#!/usr/bin/env python3
"""Holds the schedules of vmetric-director against cron libraries of PyPI, and against a plain walk over the calendar.

    schedule_cases.py cases SEED COUNT    writes cases, one a line: expression, zone, instant (with tabs between)
    schedule_cases.py judge               reads them with a fourth column: our next instants with commas between, or !reason

tests/it/schedule_oracles.rs runs both. Each oracle is right about something and wrong about something else; DIFFERENCES names
every systematic difference, who is right by Vixie cron and by our rule, and is itself checked: an entry that no case needs
fails, a difference that no entry names fails, and whatever an oracle says, our answer must be that of the walk.
"""
import random
import re
import signal
import sys
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

UTC = timezone.utc
DAYS = "sun mon tue wed thu fri sat".split()
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
UNITS = ((0, 59, []), (0, 23, []), (1, 31, []), (1, 12, MONTHS), (0, 7, DAYS))
ANSWERS = 5
# CPU seconds that a library may take for one case: some turn round for ever. Most need a thousandth.
PATIENCE_S = 5
# Both hemispheres, half and quarter hours, gaps and doubled hours at midnight, negative summer time, a half-hour summer time,
# a country that has lost a day (Apia, December 2011), and two without changes.
ZONES = """UTC Europe/Berlin America/New_York America/Santiago Australia/Sydney Australia/Lord_Howe America/St_Johns Pacific/Chatham
    Africa/Cairo Asia/Beirut America/Havana Africa/Casablanca Europe/Dublin Pacific/Apia America/Sao_Paulo Asia/Kolkata
    Asia/Kathmandu Asia/Tehran""".split()
FIRST, LAST = int(datetime(2005, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2036, 1, 1, tzinfo=UTC).timestamp())


# --- cases ---

def changes(name):
    """Instants at which the zone's offset changes, found by halving."""
    zone = ZoneInfo(name)
    offset = lambda at: datetime.fromtimestamp(at, zone).utcoffset()
    found = []
    for low in range(FIRST, LAST, 7 * 86400):
        high = low + 7 * 86400
        if offset(low) != offset(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            found.append(high)
    return found


def item(r, unit, starred):
    low, high, names = UNITS[unit]
    value = lambda: r.randint(low, high)
    word = lambda n: r.choice([str(n), str(n), f"{n:02}"] + ([names[n - low].title()] if n - low < len(names) else []))
    kind = r.random()
    if starred and kind < 0.15:
        return f"*/{r.randint(1, high + 3)}"
    if kind < 0.65:
        return word(value())
    a, b = sorted((value(), value()))
    return f"{word(a)}-{word(b)}" + (f"/{r.randint(1, high)}" if kind < 0.8 else "")


def field(r, unit, star):
    if r.random() < star:
        return r.choice(["*", "*", "*", f"*/{r.randint(1, UNITS[unit][1] + 3)}"])
    return ",".join(item(r, unit, True) for _ in range(r.choice([1, 1, 1, 1, 2, 3])))


def cases(seed, count):
    r = random.Random(seed)
    edges = {name: changes(name) for name in ZONES}
    for n in range(count):
        zone = r.choice(ZONES)
        if edges[zone] and n % 2:
            # Near a change, where it matters, and hours that lie in it.
            at = r.choice(edges[zone]) + r.randint(-30 * 3600, 3 * 3600)
            hour = r.choice(["*", "*/2", "0", "1", "2", "3", "0-3", "1,2", "23", "0-23", field(r, 1, 0.3)])
            minute = r.choice(["*", "*/15", "0", "30", "15,45", field(r, 0, 0.2)])
            rest = [field(r, unit, 0.8) for unit in (2, 3, 4)]
        else:
            at = r.randint(FIRST, LAST)
            minute, hour = field(r, 0, 0.2), field(r, 1, 0.3)
            rest = [field(r, 2, 0.4), field(r, 3, 0.6), field(r, 4, 0.4)]
        at -= r.choice([0, at % 60, at % 3600])
        print(" ".join([minute, hour] + rest), zone, at, sep="\t")
    for *_, witness, _ in DIFFERENCES:
        print(*witness, sep="\t")
    for expression, _ in DIALECT:
        print(expression, "UTC", FIRST, sep="\t")


# --- the walk: every day, every minute that is named, and when the zone's clock shows it ---

def values(text, unit):
    low, high, names = UNITS[unit]
    number = lambda t: names.index(t.lower()) + low if t.lower() in names else int(t)
    found = set()
    for one in text.split(","):
        span, _, step = one.partition("/")
        if span == "*":
            first, last = low, 6 if unit == 4 else high
        else:
            first, last = (number(t) for t in (span.split("-") * 2)[:2])
        found |= set(range(first, last + 1, int(step or 1)))
    return {n % 7 for n in found} if unit == 4 else found


def walk(expression, name, after):
    texts = expression.split()
    minutes, hours, days, months, weekdays = (values(text, unit) for unit, text in enumerate(texts))
    zone, any_hour = ZoneInfo(name), texts[1].startswith("*")
    both = texts[2].startswith("*") or texts[4].startswith("*")
    found, day, left = set(), datetime.fromtimestamp(after, zone).date() - timedelta(1), None
    while day.year <= 2100:
        on_date, on_name = day.day in days, day.isoweekday() % 7 in weekdays
        if day.month in months and (on_date and on_name if both else on_date or on_name):
            for hour in hours:
                for minute in minutes:
                    found.update(at for at in instants(datetime(day.year, day.month, day.day, hour, minute), zone, any_hour) if at > after)
        if left is None and len(found) >= ANSWERS:
            left = 2  # Days at whose edge a clock may change.
        elif left is not None:
            left -= 1
            if left == 0:
                break
        day += timedelta(1)
    return sorted(found)[:ANSWERS]


def instants(wall, zone, any_hour):
    early, late = (int(wall.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    shown = lambda at: datetime.fromtimestamp(at, zone).replace(tzinfo=None)
    if shown(early) == wall:
        return {early, late} if any_hour and shown(late) == wall else {early}
    if any_hour:
        return set()
    # In a gap the two readings lie on its two sides: `late` before it, `early` behind it.
    low, high = min(early, late) - 1, max(early, late)
    offset = lambda at: datetime.fromtimestamp(at, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
    return {high}


# --- the oracles ---

def by_croniter(expression, name, after):
    from croniter import croniter
    # "cron bug" is its name for Vixie cron's rule about fields that start with a star.
    start = datetime.fromtimestamp(after, ZoneInfo(name))
    steps = croniter(expression, start, ret_type=datetime, implement_cron_bug=True)
    return [int(steps.get_next().timestamp()) for _ in range(ANSWERS)]


def by_cronsim(expression, name, after):
    from cronsim import CronSim
    zone = UTC if name == "UTC" else ZoneInfo(name)
    steps = CronSim(expression, datetime.fromtimestamp(after, zone))
    return [int(next(steps).timestamp()) for _ in range(ANSWERS)]


def by_cron_converter(expression, name, after):
    from cron_converter import Cron
    steps = Cron(expression).schedule(start_date=datetime.fromtimestamp(after, ZoneInfo(name)))
    return [int(steps.next().timestamp()) for _ in range(ANSWERS)]


def by_crontab(expression, name, after):
    from crontab import CronTab
    tab, now, found = CronTab(expression), datetime.fromtimestamp(after, ZoneInfo(name)), []
    for _ in range(ANSWERS):
        now += timedelta(seconds=round(tab.next(now, default_utc=True)))
        found.append(int(now.timestamp()))
    return found



ORACLES = {"croniter": by_croniter, "cronsim": by_cronsim, "cron-converter": by_cron_converter, "crontab": by_crontab}
# They count on the wall's clock when they add, so what they say around a change is nobody's rule.
WITHOUT_CHANGES = {"cron-converter", "crontab"}


# --- what differs, and who is right ---

class Case:
    """What the table asks about one case."""

    def __init__(self, expression, zone, after, ours, theirs):
        self.fields, self.zone = expression.split(), ZoneInfo(zone)
        both = ours + (theirs if isinstance(theirs, list) else [])
        self.start, self.end = after - 86400, max(both, default=after) + 86400
        self.error = None if isinstance(theirs, list) else theirs
        self.past = isinstance(theirs, list) and theirs[0] <= after

    def kinds(self):
        """What the clock does in the time that the answers span: gap, doubled."""
        offset = lambda at: datetime.fromtimestamp(at, self.zone).utcoffset()
        days = range(self.start, self.end + 86400, 86400)
        turns = [offset(b) - offset(a) for a, b in zip(days, days[1:])]
        return {"gap" if turn > timedelta(0) else "doubled" for turn in turns if turn}

    def any_hour(self):
        return self.fields[1].startswith("*")

    def is_all(self, unit):
        return len(values(self.fields[unit], unit)) == len(values("*", unit))

    def one_value_ranges(self):
        for unit, text in enumerate(self.fields):
            for one in text.split(","):
                span, _, step = one.partition("/")
                if "-" in span and len(values(span, unit)) == 1 and span.lower() not in ("0-7", "sun-7"):
                    yield step

    def two_day_fields(self):
        """Both restrict, and neither starts with a star."""
        return not self.fields[2].startswith("*") and not self.fields[4].startswith("*")


# Zones whose clocks change amid an hour: for one of half an hour, at a quarter to, at a minute past midnight.
AMID_AN_HOUR = {"Australia/Lord_Howe", "Pacific/Chatham", "America/St_Johns"}

# Oracle, construct, a case that shows it, when it applies. What we do is Vixie cron's way unless the entry says otherwise.
DIFFERENCES = [
    ("croniter", "a range of one value, 6-6, is the whole round of values: Vixie cron and we take the one value",
     ("0 * 5-5 * *", "America/New_York", 1194112800),
     lambda c: any(True for _ in c.one_value_ranges())),
    ("croniter", "a fixed hour fires in both passes of a doubled hour: Vixie cron and we fire once",
     ("0 1 * * *", "America/St_Johns", 1762025810),
     lambda c: not c.any_hour() and "doubled" in c.kinds()),
    ("croniter", "an hour with * fires at the end of a gap, too: Vixie cron and we leave out what the clock never showed",
     ("0 */2 * * *", "America/St_Johns", 1772946163),
     lambda c: c.any_hour() and "gap" in c.kinds()),
    ("croniter", "0-23 is read as *, so a gap has no turn at its end: Vixie cron and we go by the spelling",
     ("30 0-23 4 * *", "America/Santiago", 2009357027),
     lambda c: not c.any_hour() and c.is_all(1) and "gap" in c.kinds()),
    ("croniter", "a day field that lists every value is read as *, so the other day field decides alone: Vixie cron and we go by the spelling",
     ("16 9 19,*/5 Jan,1,07 1-07", "Europe/Dublin", 1373954913),
     lambda c: c.two_day_fields() and (c.is_all(2) or c.is_all(4))),
    ("croniter", "it steps in whole hours and misses a second pass that begins amid an hour: Vixie cron and we fire in both",
     ("15,45 */2 */11 */3 *", "Pacific/Chatham", 1869591600),
     lambda c: c.any_hour() and "doubled" in c.kinds() and c.zone.key in AMID_AN_HOUR),
    ("cronsim", "asked in the second pass of a doubled hour, it says times of the first pass, which are over: nobody's rule",
     ("45 0-3 * * *", "Europe/Berlin", 1130634300),
     lambda c: c.past),
    ("cronsim", "it steps in whole hours and misses a second pass that begins amid an hour, or turns round in it for ever: Vixie cron and we fire in both",
     ("30 * * * *", "Australia/Lord_Howe", 1648903500),
     lambda c: c.any_hour() and "doubled" in c.kinds() and c.zone.key in AMID_AN_HOUR),
    ("cronsim", "a minute with * makes a fixed hour a wildcard, as in Vixie cron: we look at the hour only, so that '*/5 2 * * *' has its turn in "
     "the night of a gap, and one in that of a doubled hour",
     ("* 3 * * *", "Australia/Lord_Howe", 1207329540),
     lambda c: c.fields[0].startswith("*") and not c.any_hour() and c.kinds()),
    ("cronsim", "a range of one value with a step, 5-5/2, goes on to the end: Vixie cron and we take the one value",
     ("* 8-8/15 * * *", "Europe/Berlin", 1876033214),
     lambda c: any(c.one_value_ranges())),
    ("cronsim", "an hour with * fires at the end of a gap at midnight: Vixie cron and we leave out what the clock never showed",
     ("* */2 * * 7", "America/St_Johns", 1112468940),
     lambda c: c.any_hour() and "gap" in c.kinds()),
    ("cron-converter", "a stepped range to 7, 4-7/2, has Sunday although no step lands there: Vixie cron and we count steps",
     ("14 15 * * Mon-7/3", "Asia/Kolkata", 1570960020),
     lambda c: any(re.fullmatch(r".*-0?7/\d+", one) for one in c.fields[4].split(","))),
    ("cron-converter", "both day fields must fit: Vixie cron and we take either, when both are restricted",
     ("* * 16 * 2", "Asia/Kathmandu", 2053602000),
     lambda c: c.two_day_fields()),
    ("crontab", "both day fields must fit: Vixie cron and we take either, when both are restricted",
     ("* * 16 * 2", "Asia/Kathmandu", 2053602000),
     lambda c: c.two_day_fields()),
    ("crontab", "a step that leaves only the first value is refused: Vixie cron and we take that value",
     ("* * * * */8", "UTC", 1677240000),
     lambda c: c.error and ("next value" in c.error or "increment value" in c.error)),
    ("crontab", "a range of weekdays to 0 is one to 7, so 0-0 is every day: Vixie cron and we take the one value",
     ("*/50 * */2 * 0-0,01", "Asia/Kathmandu", 1495694689),
     lambda c: any(re.fullmatch(r".*-(0+|sun)(/\d+)?", one.lower()) for one in c.fields[4].split(","))),
]

# What is no plain crontab, or only at the edge: who takes it. o = ours, then croniter (i), cronsim (s), cron-converter (v), crontab (t).
DIALECT = [
    ("0 0 * * 7", "oisvt"),
    ("0 0 * * 0-7", "oisvt"),
    ("0 0 * JAN-mar MON,wed", "oisvt"),
    ("*,5 * * * *", "oisvt"),
    ("*/90 * * * *", "oisv"),  # As Vixie cron: minute 0.
    ("5/10 * * * *", "isvt"),  # Vixie cron drops the step, these count to the end: refused, with the way to write it.
    ("0 22-6 * * *", "i"),  # Refused as in Vixie cron, with the way to write it.
    ("0 0 * * fri-sun", "it"),
    ("0 0 ? * *", "it"),
    ("0 0 L * *", "ist"),
    ("0 0 * * 5#2", "is"),
    ("0 0 15W * *", "i"),
    ("@daily", "it"),  # Refused with its five fields.
    ("0 0 0 * * *", "s"),  # With seconds, which crontab does not know.
    ("0 0 30 2 *", ""),
    ("60 * * * *", ""),
    ("0 24 * * *", ""),
    ("0 0 0 * *", ""),
    ("0 0 * 13 *", ""),
    ("0 0 * * 8", ""),
    ("*/0 * * * *", ""),
    ("1,,2 * * * *", ""),
    ("-5 * * * *", ""),
    ("* * * *", ""),
]
LETTERS = {"croniter": "i", "cronsim": "s", "cron-converter": "v", "crontab": "t"}


def judge(lines):
    tally, used, failures = Counter(), Counter(), []
    dialect = dict(DIALECT)
    for line in lines:
        expression, zone, after, said = line.rstrip("\n").split("\t")
        after, ours = int(after), None if said.startswith("!") else [int(at) for at in said.split(",") if at]
        answers = {name: answer(oracle, expression, zone, after) for name, oracle in ORACLES.items() if applies(name, zone)}
        # A random case may spell the same: it is no question of the dialect, and its zone may leave oracles out.
        if expression in dialect and (zone, after) == ("UTC", FIRST):
            taken = ("o" if ours is not None else "") + "".join(LETTERS[n] for n, got in answers.items() if isinstance(got, list))
            tally["taken or refused as the table says"] += 1
            if set(taken) != set(dialect[expression]):
                failures.append(f"{expression}: taken by '{taken}', the table says '{dialect[expression]}' ({said}; {answers})")
            continue
        truth = walk(expression, zone, after)
        tally["walk: agrees"] += ours == truth
        if ours is None or ours != truth:
            # What never fires has no times; everything else has.
            if not (said == "!cron_never" and not truth):
                failures.append(f"{expression} in {zone} after {after}: we say {said}, the walk says {truth}")
            continue
        for name, theirs in answers.items():
            if theirs == ours:
                tally[f"{name}: agrees"] += 1
                continue
            case = Case(expression, zone, after, ours, theirs)
            named = [entry for entry in DIFFERENCES if entry[0] == name and entry[3](case)]
            if named:
                tally[f"{name}: differs, named"] += 1
                used[named[0][:2]] += 1
            else:
                failures.append(f"{expression} in {zone} after {after}: we say {ours}, {name} says {theirs}")
    report(tally, used, failures)


def applies(name, zone):
    return name not in WITHOUT_CHANGES or len({ZoneInfo(zone).utcoffset(datetime(2005 + n // 12, n % 12 + 1, 1)) for n in range(372)}) == 1


def answer(oracle, expression, zone, after):
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE_S)
        return oracle(expression, zone, after)
    except Exception as error:  # Whatever a library raises is its refusal.
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def too_long(*_):
    raise TimeoutError("no answer")


def report(tally, used, failures):
    for what, count in sorted(tally.items()):
        print(f"{count:7} {what}")
    for oracle, construct, *_ in DIFFERENCES:
        print(f"{used[oracle, construct]:7} {oracle}: {construct}")
        if not used[oracle, construct]:
            failures.append(f"no case needs this difference any more: {oracle}: {construct}")
    for failure in failures[:20]:
        print("FAILED", failure)
    print(f"schedule: {sum(tally.values())} comparisons, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["cases"] and len(sys.argv) == 4:
        cases(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:] == ["judge"]:
        signal.signal(signal.SIGVTALRM, too_long)
        judge(sys.stdin)
    else:
        sys.exit(__doc__)

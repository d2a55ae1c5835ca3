"""What crosses the chips, and what is started on them, read from a compiled program's text."""

import math
import re
from collections import defaultdict

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16}  # others end in theirs: f32, s8, u16
HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
ARRAY = re.compile(r"\b(pred|bf16|[fsuc]\d+)\[([\d,]*)\]")
COLLECTIVE = re.compile(rf" = (.+?) ({'|'.join(KINDS)})(-start)?\(")
CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
CALLED_MANY = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
LOOP = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
KNOWN = re.compile(r'known_trip_count":\{"n":"(\d+)"')
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([a-z][\w-]*)\(")
INSIDE = ("while", "conditional", "call")  # their computations run as this one does
FREE = (*INSIDE, "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")
CONSTANT = re.compile(r"%([\w.-]+) = [su]32\[\]\S* constant\((\d+)\)")
ELEMENT = re.compile(r"%([\w.-]+) = [su]32\[\]\S* get-tuple-element\(.*index=(\d+)")
COMPARE = re.compile(r" compare\(%([\w.-]+), %([\w.-]+)\), direction=LT")
ADD = re.compile(r" add\(%([\w.-]+), %([\w.-]+)\)")


def size(kind: str, dims: str) -> int:
    """Bytes of an array, e.g. ("bf16", "64,3072")."""
    bits = BITS[kind] if kind in BITS else int(kind[1:])
    return math.prod(int(dim) for dim in dims.split(",") if dim) * bits // 8


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """{kind: (how many run in one call, bytes of what they give to each chip)} of a compiled program.

    Loops from 0 to a constant count as often as they turn, others once. A gather is as large as its result. The
    compiler writes some gathers and scatters as rings of permutes between products, and cuts others into pieces that
    share a channel, counted once.
    """
    bodies, entry = _computations(text)
    times: dict[str, int] = {}
    todo = [(entry, 1)]
    while todo:
        name, often = todo.pop()
        if times.get(name, 0) < often:
            times[name] = often
            todo += [(called, often * trips) for called, trips in _calls(bodies, name)]
    channels: dict[tuple[str, str], tuple[int, int]] = {}
    for name, often in times.items():
        for line in bodies[name]:
            if match := COLLECTIVE.search(line):
                channel = re.search(r"channel_id=(\d+)", line)
                key = match[2], channel[1] if channel else line
                given = max((size(*array) for array in ARRAY.findall(match[1])), default=0)
                channels[key] = max(channels.get(key, (0, 0)), (often, often * given))
    totals: dict[str, tuple[int, int]] = {}
    for (kind, _), (often, given) in channels.items():
        count, total = totals.get(kind, (0, 0))
        totals[kind] = count + often, total + given
    return totals


def kernels(text: str) -> int:
    """How many kernels one call of a compiled program starts: fusions, products, copies. Loops as in `collectives`."""
    bodies, entry = _computations(text)

    def started(name: str) -> int:
        total = 0
        for line in bodies[name]:
            kind = found[1] if (found := INSTRUCTION.match(line)) else "bitcast"
            total += kind not in FREE and not kind.endswith("-done")
            if kind in INSIDE:
                total += sum(trips * started(called) for called, trips in _called(bodies, line))
        return total

    return started(entry)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """({computation: its lines}, the entry's name)."""
    bodies: dict[str, list[str]] = defaultdict(list)
    name = entry = ""
    for line in text.splitlines():
        if head := HEAD.match(line):
            name = head[2]
            entry = name if head[1] else entry
        else:
            bodies[name].append(line)
    return bodies, entry


def _calls(bodies: dict[str, list[str]], name: str) -> list[tuple[str, int]]:
    """[(computation, how often `name` runs it)]."""
    return [call for line in bodies[name] for call in _called(bodies, line)]


def _called(bodies: dict[str, list[str]], line: str) -> list[tuple[str, int]]:
    """The same of one instruction."""
    calls = [(called, 1) for called in CALLED.findall(line)]
    for many in CALLED_MANY.findall(line):
        calls += [(called.strip().lstrip("%"), 1) for called in many.split(",")]
    if loop := LOOP.search(line):
        known = KNOWN.search(line)
        calls.append((loop[2], int(known[1]) if known else _trips(bodies[loop[1]], bodies[loop[2]])))
    return calls


def _trips(condition: list[str], body: list[str]) -> int:
    """How often `for (i = 0; i < limit; i += step)` turns; 1 where the loop is another."""
    limits, elements = _named(condition)
    test = next((match for line in condition if (match := COMPARE.search(line))), None)
    if not test or test[1] not in elements or test[2] not in limits:
        return 1
    constants, counters = _named(body)
    steps = [
        int(constants[b])
        for line in body
        for a, b in ADD.findall(line)
        if counters.get(a) == elements[test[1]] and b in constants
    ]
    return -(-int(limits[test[2]]) // max(steps, default=1))


def _named(lines: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """({name: value} of whole numbers, {name: place in the loop's state} of what else is one)."""
    constants, elements = (
        {name: x for line in lines for name, x in kind.findall(line)} for kind in (CONSTANT, ELEMENT)
    )
    return constants, elements

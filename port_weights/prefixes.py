"""Names that wrappers put before or into the keys of a state dict: DDP, FSDP, torch.compile, Lightning, averages."""

from collections import Counter

from dd_jax.system.errors import UserError
from port_weights.containers import listed
from port_weights.source import StateDict

# Parts of keys that only wrappers write, wherever they stand; the last one is a common word, so it is tried last.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")


def bare(found: StateDict, wanted: set[str]) -> StateDict:
    """The state dict under the keys that a model wants, as far as what a wrapper wrote is in the way.

    A prefix comes off if all keys share it, or if the whole model lies under it; what was done is noted. UserError
    where two prefixes would do.
    """
    best, hits = found, sum(key in wanted for key in found)
    if hits == len(wanted):
        return found
    for count in (0, len(WRAPPERS) - 1, len(WRAPPERS)):
        without = _without(found, WRAPPERS[:count])
        if without is not None:
            tried = _off(without, wanted)
            if (now := sum(key in wanted for key in tried)) > hits:
                best, hits = tried, now
    return best


def _without(found: StateDict, wrappers: tuple[str, ...]) -> StateDict | None:
    """Its keys without what wrappers wrote into them; None if two keys become one."""
    if not wrappers:
        return found
    names, met = dict[str, str](), set[str]()
    for key in found:
        parts = key.split(".")
        met.update(part for part in parts if part in wrappers)
        names[".".join(part for part in parts if part not in wrappers)] = key
    note = f"taken out of the keys: {', '.join(sorted(met))}"
    return found.renamed(names, [note] if met else ()) if len(names) == len(found) else None


def _off(found: StateDict, wanted: set[str]) -> StateDict:
    """Its keys without the prefix behind which the model lies."""
    counts: Counter[str] = Counter()
    for key in found:
        counts.update(key[: at + 1] for at in range(len(key)) if key[at] == "." and key[at + 1 :] in wanted)
    counts[""] = sum(key in wanted for key in found)
    (prefix, most), *others = counts.most_common(2)
    if not prefix or most <= counts[""]:
        return found
    under = [key for key in found if key.startswith(prefix)]
    if len(under) < len(found) and most < len(wanted):
        return found
    if others and others[0][1] == most:
        told = " and ".join(f"{name} ({count} keys)" for name, count in ((prefix, most), *others))
        raise UserError(f"the model is there twice, under {told}: choose with --container {prefix.rstrip('.')}")
    beside = [key for key in found if not key.startswith(prefix)]
    notes = [f"taken off the keys: {prefix}", f"left aside, since it lies beside {prefix}: {listed(beside)}"]
    return found.renamed({key[len(prefix) :]: key for key in under}, notes[: 1 + bool(beside)])

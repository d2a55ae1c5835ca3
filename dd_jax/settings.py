"""Every setting of a config as text: `python -m dd_jax.main --stage=config`."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from configs import about


def flat(config: ConfigDict, section: str = "") -> Iterator[tuple[str, object]]:
    """("train.lr", 0.001) of every setting; an empty section is a value, and so is what a plan's own settings say."""
    for name in config:
        value = config.get(name)
        if isinstance(value, ConfigDict) and len(value) and name != "by_plan":
            yield from flat(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value.to_dict() if isinstance(value, ConfigDict) else value


def table(config: ConfigDict) -> str:
    """One line a setting: the flag that sets it, and what it is."""
    rows = [(f"--config.{name}={_shown(value)}", about.of(name)) for name, value in flat(config)]
    width = min(max(len(flag) for flag, _ in rows), 48)
    return "\n".join(f"{flag:{width}}  {told}" for flag, told in rows)


def _shown(value: object) -> str:
    """As a shell takes it."""
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}'" if text != "" and any(one in text for one in " (){}'\"*") else text

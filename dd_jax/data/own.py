"""Pictures of one's own as a training reads them: in two parts, streamed, cut as its settings say."""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dd_jax.data import bundled, decode, examples, folder
from dd_jax.data.cuts import Cut
from dd_jax.data.examples import Examples, Pixels
from dd_jax.data.said import Said
from dd_jax.data.source import Source, plural
from dd_jax.data.squares import Squares
from dd_jax.data.threads import each
from dd_jax.system import processes
from dd_jax.system.errors import UserError

CACHE = 1024  # MiB of 8-bit pictures that are kept, where config.data.cache does not say


@dataclasses.dataclass(frozen=True)
class Own:
    """Pictures of a source in two parts, numbers (n,) of each, as a training sees them."""

    source: Source
    train: np.ndarray
    held: np.ndarray
    cut: Cut
    seen: Squares  # what `cut` cuts from
    plain: Squares  # central squares
    shape: tuple[int, ...]  # (R, R, c)
    readers: int = 0  # threads that decode and cut (see `threads.each`)
    said: Said | None = None  # captions, where they are read

    @classmethod
    def of(cls, source: Source, settings: ConfigDict, seed: int) -> "Own":
        """As `config.data` says. What was found is printed. UserError for settings that fit no pictures."""
        mode = decode.MODES.get(settings.channels)
        if mode is None:
            raise UserError(f"config.data.channels={settings.channels}: 1 is grey, 3 is colour")
        background = decode.ground(settings.get("background"))
        cut = Cut.of(settings, seed)
        room, strict = settings.get("cache", CACHE) << 20, settings.get("strict", True)
        readers, said = settings.get("readers", 0), None
        if source.captions is not None:
            source = source if strict else source.readable(readers)
            said = Said.of(source.captions or (), settings.captions, seed)
        shape = (cut.side, cut.side, settings.channels)
        train, _, held, _ = bundled.split(np.arange(source.count), source.label, _held_out(source.count))
        kin = 2 * source.label.astype(np.int64)
        kin[held] += 1
        seen = plain = Squares(source, cut.decoder(mode, background), room, kin, strict, readers)
        if cut.share:
            plain = Squares(source, Cut(cut.side, None, False, seed).decoder(mode, background), 0, kin, strict, readers)
            plain.unreadable = seen.unreadable
        seen.look(whole=source.count * cut.shorter**2 * settings.channels <= room)
        found = cls(source, train, held, cut, seen, plain, shape, readers, said)
        print("\n".join([source.table(len(held)), *(f"  {told}" for told in found._lines)]), flush=True)
        return found

    @functools.cached_property
    def _lines(self) -> list[str]:
        return [*self.seen.lines(), *([str(self.said)] if self.said else []), f"trained on: {self.cut}"]

    def told(self) -> dict[str, Any]:
        """What was printed, as plain data: `name`, `classes` {name: count}, `train`, `held_out`, `lines`."""
        source = self.source
        count = np.bincount(source.label, minlength=source.classes).tolist()
        left_out = [f"left out: {told}" for told in source.left_out]
        lines = [*left_out, *source.notes, *self._lines]
        classes = dict(zip(source.names, count, strict=True))
        sizes = {"train": len(self.train), "held_out": len(self.held)}
        return {"name": source.name, "classes": classes, **sizes, "lines": lines}

    def squares(self, part: np.ndarray) -> Pixels:
        """Central squares; kept as floats if they are few, but for those that are encoded once and never trained on."""
        found = Examples(lambda at: examples.floats(np.stack(self.plain[part[at]])), len(part), self.shape)
        return found if self.cut.random and part is self.train else examples.kept(found)

    @functools.cached_property
    def shown(self) -> np.ndarray:
        """For each caption a picture that has it, one of those for training if there is one."""
        assert self.said
        return self.said.shown(np.concatenate([self.train, self.held]))

    def called(self, number: int) -> str:
        """What messages call the part for training's picture `number`, however often it was counted on."""
        picture = int(self.train[number % len(self.train)])
        return self.source.called(picture) + ", which another stood in for" * (picture in self.seen.unreadable)

    def skipped(self) -> str:
        """What could not be read so far, by any process, one line; nothing if there is none. All ask at once."""
        torn = np.isin(np.arange(self.source.count), [*self.seen.unreadable])
        some = [self.source.called(int(number)) for number in np.flatnonzero(processes.any_of(torn))]
        told = f"{plural(len(some), 'picture')} could not be read, others of the same class stood in"
        return f"{told}: {folder.some(some)}" if some else ""

    def windows(self) -> Examples:
        """Of the part for training, cut anew by every epoch: number epoch x count + i is picture i."""
        count = len(self.train)

        def read(at: np.ndarray) -> np.ndarray:
            epoch, number = np.divmod(at, count)
            found = zip(self.seen[self.train[number]], epoch.tolist(), number.tolist(), strict=True)
            if self.cut.share:
                cut = each(found, lambda one: self.cut(*one), self.readers)
            else:
                cut = itertools.starmap(self.cut, found)
            return examples.floats(np.stack(list(cut)))

        return Examples(read, count, self.shape, endless=True)


def _held_out(count: int) -> int:
    """A twentieth, but two at least: scores compare covariances."""
    return min(max(count // 20, 2), 1000, count)

"""Names that a pickle asks for and that no weight needs: inert stand-ins, or a refusal where they would act.

Nothing is ever imported: a name that is not known becomes a class of its own that swallows whatever is done to it.
A file is accused only where a name leads out of data: to a shell, to other files, to code.
"""

import _compat_pickle
import sys
from typing import Any

from dd_jax.system.errors import UserError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules of Python whose names are values: what trainers leave beside weights. All others of Python act on something.
VALUES = _words(
    """__future__ __main__ _collections _decimal _io _operator _random _struct abc argparse array calendar
    collections configparser contextvars copyreg dataclasses datetime decimal enum fractions functools io ipaddress
    itertools logging math numbers optparse pathlib queue random re string struct textwrap threading time types typing
    uuid warnings weakref zoneinfo"""
)
BUILTINS = _words(  # of Python's built-in names, those that act
    """__build_class__ __import__ apply breakpoint compile delattr eval exec execfile exit file getattr globals help
    input locals open quit raw_input reload setattr vars"""
)
ACTING = _words(  # single names of modules that are otherwise harmless
    """_io.open _io.open_code io.open io.open_code types.CodeType types.FunctionType functools.reduce
    _operator.attrgetter _operator.methodcaller threading.Thread threading.Timer weakref.finalize
    torch.load torch.save torch.compile torch.serialization.load torch.serialization.save
    numpy.load numpy.save numpy.savez numpy.fromfile numpy.loadtxt numpy.genfromtxt numpy.memmap
    pandas.read_pickle pandas.io.pickle.read_pickle joblib.load"""
)
OUTSIDE = (  # packages that run what they are given
    "nt", "posix", "commands", "cloudpickle", "dill", "pip", "setuptools", "pkg_resources", "numpy.testing",
    "numpy.f2py", "torch.hub", "torch.jit", "torch.package", "torch.utils.cpp_extension", "torch._inductor",
    "torch.utils.model_zoo", "torch.multiprocessing", "torch.distributed.rpc",
)  # fmt: skip
HARMLESS = ("torch.jit._pickle",)  # marks that PyTorch's C++ puts on lists


class Inert(dict[Any, Any]):
    """Stands where a file keeps something that is no weight; keeps the items of mappings, runs nothing."""

    name = ""  # what the file calls it

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        for x in args:
            if isinstance(x, dict):
                self.update(x)

    def __setstate__(self, state: Any) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:  # type: ignore[override]  # mappings are keys here and there
        return id(self)

    def append(self, item: Any) -> None:
        """Items of lists are dropped, as the state is."""

    add = extend = append


def find(module: str, name: str) -> type[Inert]:
    """The stand-in of a name. UserError for one that acts."""
    module, name = modern(module, name)
    if acts(module, name):
        raise UserError(
            f"it asks for {module}.{name}, which no weights need: nothing was executed; do not trust this file"
        )
    return type("Inert", (Inert,), {"name": f"{module}.{name}"})


def modern(module: str, name: str) -> tuple[str, str]:
    """Python 2's names, which pickles up to protocol 2 are written with, as Python 3's."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


def acts(module: str, name: str) -> bool:
    """Does this name lead out of data?"""
    if module == "builtins":
        return name.split(".")[0] in BUILTINS
    if f"{module}.{name}" in ACTING:
        return True
    if _within(module, HARMLESS):
        return False
    top = module.split(".")[0]
    return _within(f"{module}.{name}", OUTSIDE) or (top in sys.stdlib_module_names and top not in VALUES)


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _reconstructor(kind: Any, base: Any, state: Any) -> Any:
    """Where the file says copyreg._reconstructor: how protocols below 2 make any object."""
    return kind(state)


def _newobj(kind: Any, *args: Any) -> Any:
    return kind(*args)


class Plain(dict[Any, Any]):
    """collections.OrderedDict, defaultdict and Counter: their items, without what makes new ones."""

    def __init__(self, *args: Any):
        super().__init__(*(x for x in args[-1:] if isinstance(x, dict | list)))

    def __setstate__(self, state: Any) -> None:
        pass


NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Plain,
    ("collections", "defaultdict"): Plain,
    ("collections", "Counter"): Plain,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("copyreg", "__newobj__"): _newobj,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "tuple"): tuple,
}

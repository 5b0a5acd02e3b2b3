"""A verb is one value; the function that answers it stands under it.

IMAGES = Verb("images", Empty, tuple[ImageLine, ...])          # the words, where both sides of the socket find them

@HANDLERS.answers(words.IMAGES)                                # the subject's handlers, in the process that owns it
def listed(process: CoreProcess, caller: Caller, request: Empty) -> tuple[ImageLine, ...]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar

Q = TypeVar("Q")
R_co = TypeVar("R_co", covariant=True)
P = TypeVar("P")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Verb(Generic[Q, R_co]):
    """One thing a socket can be asked.

    `stream`: "unary" (one message each way), "server" (many answers), "upload" (a message, then raw chunks, one
    answer) or "download" (many answers and raw chunks in between).
    """

    name: str
    request: type[Q]
    answer: type[R_co]
    stream: Literal["unary", "server", "upload", "download"] = "unary"


# unary: handler(caller, request) -> answer · server, download: handler(caller, request, call) -> iterator of answers
# (and bytes) · upload: handler(caller, request, chunks) -> answer
Handler = Callable[..., Any]


class Handlers(Generic[P]):
    """What one subject answers, for a process of type `P`: the first argument of every function."""

    def __init__(self) -> None:
        self._functions: dict[Verb[Any, Any], Callable[..., Any]] = {}

    def answers(self, verb: Verb[Any, Any]) -> Callable[[F], F]:
        """The function below answers `verb`."""

        def keep(function: F) -> F:
            if verb in self._functions:
                raise ValueError(f"two functions answer {verb.name}")
            self._functions[verb] = function
            return function

        return keep

    def of(self, process: P) -> Mapping[Verb[Any, Any], Handler]:
        """The same, bound to a process: what a server takes."""
        return {verb: partial(function, process) for verb, function in self._functions.items()}


def verbs_in(*modules: ModuleType) -> tuple[Verb[Any, Any], ...]:
    """Every verb that these files of words define: none can be forgotten in a list."""
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Verb))


def check_agreement(
    verbs: Iterable[Verb[Any, Any]], handlers: Iterable[Verb[Any, Any]], table: Iterable[str] | None
) -> None:
    """Raise `ValueError` unless words, handlers and the table of who may (where there is one) name the same verbs."""
    listed, answered = list(verbs), set(handlers)
    names = [verb.name for verb in listed]
    problems = {
        "named twice": {name for name in names if names.count(name) > 1},
        "without a handler": {verb.name for verb in set(listed) - answered},
        "answered and not listed": {verb.name for verb in answered - set(listed)},
    }
    if table is not None:
        problems["that no role may ask"] = set(names) - set(table)
        problems["in the table of roles alone"] = set(table) - set(names)
    if found := [f"{what}: {', '.join(sorted(odd))}" for what, odd in problems.items() if odd]:
        raise ValueError(f"verbs {'; '.join(found)}")

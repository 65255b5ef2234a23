"""Several requests at once, but not too many."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from swarm_operator.backends.kubernetes.client import ApiError

AT_ONCE: Final = 32

_Item = TypeVar("_Item")


async def each(items: Sequence[_Item], act: Callable[[_Item], Awaitable[object]]) -> list[ApiError]:
    """Do it to every item, in order of their start; what the API server refused."""
    errors: list[ApiError] = []
    left = iter(items)

    async def work() -> None:
        for item in left:
            try:
                await act(item)
            except ApiError as error:
                errors.append(error)

    if len(items) < 2:
        await work()
        return errors
    async with asyncio.TaskGroup() as workers:
        for _ in range(min(AT_ONCE, len(items))):
            workers.create_task(work())
    return errors

"""A job as an object: `AsyncJobHandle` is for asyncio, `JobHandle` blocks. Both have the same methods.

job = client.job_handle(client.create_job(spec))   # or client.job_handle("jobs/ID"), in another process or after a restart
job.wait(progress=True)
job.result()["summary"]                            # a table of pandas
"""

from __future__ import annotations

import pathlib
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

from . import v1
from .blocking import blocking, blocking_iterator

if TYPE_CHECKING:
    from .api import Api
    from .job_results import JobResult


class AsyncJobHandle:
    """A job of a server. It holds no connection of its own and may be made anew from the name.

    Attributes:
        name: "jobs/ID".
    """

    def __init__(self, api: Api, name: str) -> None:
        self._client = api
        self.name = name

    async def get(self) -> v1.Job:
        """The job as it is now."""
        return await self._client.job(self.name)

    async def watch(self, *, timeout: float | None = None) -> AsyncGenerator[v1.Job, None]:
        """The job now and at every change until it is finished, as `Client.watch_job`."""
        async for job in self._client.watch_job(self.name, timeout=timeout):
            yield job

    async def wait(
        self, *, progress: str | bool | None = None, timeout: float | None = None
    ) -> v1.Job:
        """Waits until it is finished, over lost connections and restarts of the server, as `Client.wait_for_job`."""
        return await self._client.wait_for_job(self.name, progress=progress, timeout=timeout)

    async def result(self, *, roles: Iterable[str] | None = None) -> JobResult:
        """What it left, once it succeeded, as `Client.job_result`."""
        return await self._client.job_result(self.name, roles=roles)

    async def download(
        self, folder: str | pathlib.Path, *, progress: str | bool | None = None
    ) -> list[pathlib.Path]:
        """Brings all of its artifacts into a folder, once it succeeded, as `Client.download_job`."""
        return await self._client.download_job(self.name, folder, progress=progress)

    async def cancel(self) -> v1.Job:
        """Asks it to stop; no effect on a finished one."""
        return await self._client.cancel_job(self.name)

    async def retry(self) -> v1.Job:
        """Queues it again once it failed or was cancelled; the shards that are done are kept."""
        return await self._client.retry_job(self.name)

    async def delete(self) -> None:
        """Deletes it, once it is finished, with its artifacts; vectors and neuron sets stay."""
        await self._client.delete_job(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class JobHandle:
    """A job of a server. It holds no connection of its own and may be made anew from the name.

    Attributes:
        name: "jobs/ID".
    """

    def __init__(self, api: Api, name: str) -> None:
        self._api = AsyncJobHandle(api, name)
        self.name = name

    get = blocking(AsyncJobHandle.get)
    watch = blocking_iterator(AsyncJobHandle.watch)
    wait = blocking(AsyncJobHandle.wait)
    result = blocking(AsyncJobHandle.result)
    download = blocking(AsyncJobHandle.download)
    cancel = blocking(AsyncJobHandle.cancel)
    retry = blocking(AsyncJobHandle.retry)
    delete = blocking(AsyncJobHandle.delete)

    def __repr__(self) -> str:
        return f"JobHandle({self.name!r})"

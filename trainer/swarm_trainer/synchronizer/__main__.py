"""`swarm-synchronizer`: reads its environment, opens the door, runs the hub to the end."""

import asyncio
import logging
import signal
import sys

from swarm_api import exits
from swarm_api.settings import Settings
from swarm_trainer.checkpoint.store import Store
from swarm_trainer.errors import SwarmError
from swarm_trainer.synchronizer.door import Door
from swarm_trainer.synchronizer.gauges import Gauges
from swarm_trainer.synchronizer.hub import Hub
from swarm_trainer.synchronizer.journal import Journal
from swarm_trainer.synchronizer.memory import settle_memory
from swarm_trainer.synchronizer.output import write_model
from swarm_trainer.synchronizer.reporting import ReportServer
from swarm_trainer.synchronizer.surroundings import Surroundings

log = logging.getLogger("swarm.synchronizer")

_REPORT_SECONDS = 0.25
_SETTINGS_SECONDS = 1.0
_WRITE_SECONDS = 2.0
"""Between two tries to write the model."""
_LINGER_SECONDS = 10.0
"""How long the finished synchronizer waits for somebody to read that it finished."""


def main() -> int:
    """Run until the swarm has finished; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    settle_memory()
    surroundings = Surroundings.read()
    return asyncio.run(_run(surroundings, surroundings.settings()))


async def _run(surroundings: Surroundings, settings: Settings) -> int:
    epoch = surroundings.epoch
    journal, gauges = Journal(surroundings.output), Gauges()
    folder = surroundings.checkpoints
    store = Store(folder, uid=settings.uid, epoch=epoch) if folder is not None else None
    hub = Hub(settings, epoch=epoch, journal=journal, gauges=gauges, store=store)
    reports = ReportServer(*surroundings.report, surroundings.report_token, gauges.registry)
    door = Door(
        job_uid=settings.uid,
        secret=surroundings.secret,
        epoch=epoch,
        link=settings.sync.link,
        welcome=hub.welcome,
        known=hub.known,
    )
    address = door.listen(*surroundings.listen)
    surroundings.announce(address, reports.address)
    log.info("synchronizer %d of job %s listens on %s:%d", epoch, settings.job, *address)

    running = asyncio.create_task(_train(hub, surroundings, settings))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    publishing = asyncio.create_task(_publish(hub, reports))
    helpers = [publishing, asyncio.create_task(door.serve()), asyncio.create_task(_follow(surroundings, settings, hub))]
    try:
        await running
        hub.finish()
        publishing.cancel()
        reports.publish(_report(hub), final=True)
        await asyncio.to_thread(reports.read_to_the_end.wait, _LINGER_SECONDS)
    except SwarmError as error:
        hub.keep()  # What it says may be repaired, and the training resumed.
        log.error("training cannot go on: %s", error)
        return exits.TRAINING_FAILED
    except asyncio.CancelledError:
        await _end(helpers)
        hub.cut()
        hub.keep()
        if trouble := _write(hub, surroundings, settings):
            log.error("%s", trouble)
        log.info("told to stop")
        return 128 + signal.SIGTERM
    else:
        return 0
    finally:
        await _end(helpers)
        hub.close()
        reports.close()
        journal.close()


async def _train(hub: Hub, surroundings: Surroundings, settings: Settings) -> None:
    """Until the model is written, however long that takes: by then the particles are gone, and nobody else has it."""
    await hub.run()
    hub.keep()
    while trouble := _write(hub, surroundings, settings):
        hub.complain(trouble)
        await asyncio.sleep(_WRITE_SECONDS)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _write(hub: Hub, surroundings: Surroundings, settings: Settings) -> str:
    """Write the model, if there is one and a place for it; returns why that failed, or nothing."""
    if hub.center is None or surroundings.output is None:
        return ""
    try:
        path = write_model(hub.center, surroundings.output, job=settings.job)
    except OSError as error:
        why = error.strerror or error
        return f"the model cannot be written to {surroundings.output}: {why}: free space there, or repair the volume"
    log.info("model of round %d written to %s", hub.center.now.round, path)
    return ""


def _report(hub: Hub) -> bytes:
    return hub.report().model_dump_json(by_alias=True).encode()


async def _publish(hub: Hub, reports: ReportServer) -> None:
    while True:
        reports.publish(_report(hub))
        await asyncio.sleep(_REPORT_SECONDS)


async def _follow(surroundings: Surroundings, settings: Settings, hub: Hub) -> None:
    complaint = ""
    while True:
        await asyncio.sleep(_SETTINGS_SECONDS)
        try:
            newest = await asyncio.to_thread(surroundings.settings)
        except OSError:
            continue  # It is being replaced.
        except ValueError as error:
            if str(error) != complaint:
                complaint = str(error)
                log.warning("the new settings cannot be used, and the old ones stay: %s", complaint)
            continue
        if newest != settings:
            settings = newest
            hub.apply(settings)


if __name__ == "__main__":
    sys.exit(main())

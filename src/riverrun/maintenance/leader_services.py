"""The services that a client runs only while it leads."""

from sqlalchemy import Engine

from riverrun.config import ClientConfig
from riverrun.execution.attempts import Attempts
from riverrun.maintenance.job_cleaner import JobCleaner
from riverrun.maintenance.job_rescuer import JobRescuer
from riverrun.maintenance.job_scheduler import JobScheduler
from riverrun.maintenance.leadership import Leadership
from riverrun.maintenance.periodic_job_inserter import PeriodicJobInserter
from riverrun.maintenance.queue_cleaner import QueueCleaner
from riverrun.maintenance.reindexer import Reindexer
from riverrun.maintenance.sampler import Sampler
from riverrun.periodic_jobs import PeriodicJobs
from riverrun.runtime.service import Service


def leader_services(
    config: ClientConfig,
    *,
    engine: Engine,
    sessions: Engine,
    attempts: Attempts,
    periodic_jobs: PeriodicJobs,
    leadership: Leadership,
) -> list[Service]:
    """Return the services, none of them started.

    Args:
        config: The client's options.
        engine: The client's own connections for maintenance.
        sessions: The engine for what needs a session to itself, such as rebuilding an index.
        attempts: Knows the timeout and the backoff of each kind.
        periodic_jobs: The periodic jobs of the client.
        leadership: The client's term.
    """
    schema, clock, rng = config.schema, config.clock, config.rng
    services: list[Service] = [
        JobScheduler(engine, schema=schema, clock=clock, rng=rng),
        JobRescuer(
            engine, stuck_s=config.rescue_after_s, attempts=attempts, schema=schema, rng=rng
        ),
        JobCleaner(
            engine,
            cancelled_s=config.cancelled_retention_s,
            completed_s=config.completed_retention_s,
            discarded_s=config.discarded_retention_s,
            schema=schema,
            clock=clock,
            rng=rng,
        ),
        QueueCleaner(engine, schema=schema, rng=rng),
        Sampler(engine, schema=schema, clock=clock, rng=rng),
        PeriodicJobInserter(
            engine,
            jobs=periodic_jobs,
            leadership=leadership,
            plugins=config.plugins,
            max_attempts=config.max_attempts,
            schema=schema,
            clock=clock,
            rng=rng,
        ),
    ]
    if config.reindexer_schedule is not None:
        services.append(
            Reindexer(
                sessions,
                names=config.reindexer_index_names,
                schedule=config.reindexer_schedule,
                timeout_s=config.reindexer_timeout_s,
                schema=schema,
                clock=clock,
            )
        )
    return services

"""The statements of `verbs.claim_apart`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Integer, Select, Update, bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from riverrun.models import Job
from riverrun.queries.claim import claim_of, claimable


@lru_cache
def claim_jobs_but() -> Update:
    """Claim as `claim_jobs` does, but none of the jobs in the array `passed`.

    Locks the rows that it claims, and skips locked ones. Index:
    river_job_prioritized_fetching_index.
    """
    return claim_of(_next().cte("claimable"))


@lru_cache
def claimable_jobs() -> Select[Any]:
    """Read the ids of the jobs that `claim_jobs_but` would claim.

    Locks them until the transaction ends, and skips locked ones. Index:
    river_job_prioritized_fetching_index.
    """
    return _next()


@lru_cache
def claim_listed() -> Update:
    """Claim the jobs in the array `ids` that can be claimed.

    Locks their rows, and skips locked ones. Index: river_job_pkey.
    """
    return claim_of(_listed().cte("claimable"))


@lru_cache
def still_claimable() -> Select[Any]:
    """Read which of the jobs in the array `ids` can be claimed, and are not locked.

    Locks them until the transaction ends. Index: river_job_pkey.
    """
    return _listed()


def _next() -> Select[Any]:
    passed = bindparam("passed", type_=ARRAY(BigInteger))
    return (
        claimable()
        .where(Job.id != passed.all_())
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )


def _listed() -> Select[Any]:
    ids = bindparam("ids", type_=ARRAY(BigInteger))
    return claimable().where(Job.id == ids.any_()).with_for_update(skip_locked=True)

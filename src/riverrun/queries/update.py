"""The statement of `verbs.update`."""

from functools import lru_cache

from sqlalchemy import BigInteger, Text, Update, bindparam, cast, update
from sqlalchemy.dialects.postgresql import JSONB

from riverrun.models import Job
from riverrun.queries.expressions import job_columns


@lru_cache
def update_job() -> Update:
    """Merge bind `merged` into the metadata of the job with bind `job_id`. River: JobUpdate."""
    merged = cast(bindparam("merged", type_=Text), JSONB)
    return (
        update(Job)
        .where(Job.id == bindparam("job_id", type_=BigInteger))
        .values(metadata_=Job.metadata_.op("||")(merged))
        .returning(*job_columns())
    )

"""The Celery door to the purge."""

from celery import shared_task

from .models import IdempotencyKey
from .purges import TASK


# Beat sends the next one soon, and that is the retry: so a purge that fails or loses its worker is
# not run again, and one that found no worker for five minutes is dropped, lest a night without
# workers end in a crowd of them. The count is in the worker's log and in the record of the purge.
@shared_task(name=TASK, ignore_result=True, expires=300)
def purge_expired_keys(max_seconds: float = 300) -> int:
    """Delete expired keys, and give back how many.

    Args:
        max_seconds: When to stop. Half of the ten minutes between two purges that the
            documentation advises, so that one is over before the next begins.
    """
    return IdempotencyKey.objects.purge(max_seconds=max_seconds).rows

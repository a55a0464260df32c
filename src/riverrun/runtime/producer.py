"""Step 3 of 5, claim: a Producer claims the jobs of one queue and hands them to its slots.

It calls `on_failed` when a claim fails, because the database may have made the claim all the same.

One module, although long: a claim, a result and the way back change one record of what is claimed.
"""

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import attrs
from sqlalchemy import Engine

from riverrun.clock import seconds
from riverrun.config import ClientConfig, QueueConfig
from riverrun.db.greenlets import patched_by
from riverrun.db.statement_timeout import with_timeout
from riverrun.errors import AttemptInterrupted, AttemptLost
from riverrun.events import Hub, JobsClaimed
from riverrun.execution.attempt import Attempt
from riverrun.execution.attempts import Attempts
from riverrun.execution.processes import ProcessPool
from riverrun.execution.result import AttemptResult, not_begun
from riverrun.execution.slots import Slots
from riverrun.execution.threads import NEW
from riverrun.execution.workers import Executor
from riverrun.jobs.states import JobState
from riverrun.logs.errors import log_error
from riverrun.logs.loggers import logger_of
from riverrun.logs.text import reason
from riverrun.runtime.ahead import WARY_S, ClaimAhead
from riverrun.runtime.bounds import ClaimBounds
from riverrun.runtime.completer import Completer
from riverrun.runtime.event_loop import LoopThread
from riverrun.runtime.hints import Hints
from riverrun.runtime.outage import log_failure
from riverrun.runtime.passed_over import PassedOver
from riverrun.runtime.service import Pause, Service
from riverrun.verbs.give_back import Claim, give_back

logger = logger_of(__name__)

LATE_S = 0.2
"""Seconds that a claimed job waits to begin; then it goes back, for other clients to claim."""

FRESH_S = 10.0
"""Maximum seconds from a claim until its jobs begin.

It is half the time after which others rescue them.
"""

BATCH_MAX = 1_000
"""Maximum number of jobs of one claim. None of them begins before the statement is over. If there
were more, the first ones could have begun much earlier."""

CROWDED_S = 0.02
"""Seconds between two claims while slots wait for processes: more jobs would only wait, too."""

TURN_S = 0.001
"""Most seconds that a producer without room waits for other greenlets to have a turn."""


@attrs.frozen(kw_only=True)
class Claimed:
    """What one turn of a producer did.

    Attributes:
        asked: How many jobs it asked for; 0 if there was no room.
        jobs: How many it got.
    """

    asked: int
    jobs: int


class Producer(Service):
    """Claims as many jobs of one queue as it has room for.

    It is woken by notifications, by the poller, and by slots that become free.
    """

    def __init__(
        self,
        queue: str,
        queue_config: QueueConfig,
        *,
        engine: Engine,
        client_id: str,
        config: ClientConfig,
        attempts: Attempts,
        processes: ProcessPool,
        completer: Completer,
        on_failed: Callable[[], None],
        loop: LoopThread,
        hub: Hub,
    ) -> None:
        super().__init__(f"producer[{queue}]")
        self.queue = queue
        self.config = queue_config
        clock = config.clock
        self.executor = Slots(
            queue_config.max_workers,
            name=f"riverrun.slot[{queue}]",
            in_loop=loop.call,
            owner=self,
        )
        self._engine = engine
        self._schema = config.schema
        self._client_id = client_id
        interval = queue_config.poll_interval
        self.poll_interval_s = config.poll_interval_s if interval is None else seconds(interval)
        self._fresh_s = min(FRESH_S, config.rescue_after_s / 2)
        self._attempts = attempts
        self._processes = processes
        workers = attempts.workers
        self._only_processes = {worker.executor for worker in workers} == {Executor.process}
        self._completer = completer
        self._on_failed = on_failed
        self._hub = hub
        self._clock = clock
        self._pause = Pause(config.rng.random)
        self._woken = threading.Event()
        self._lock = threading.Lock()  # guards _replaced and _due
        self._hints = Hints(clock)
        self._replaced = 0  # slots opened in place of stuck ones
        self.stuck = 0  # attempts that go on although cancelled, as StuckJobs has counted them
        self._looked_at = clock.monotonic()  # the thread begins with a claim
        self._bounds = ClaimBounds()  # the thread's own, as is the next
        self._passed_over = PassedOver(
            engine, queue, client_id=client_id, schema=config.schema, clock=clock
        )
        self._seen_waiting = False  # the poller has seen a job that waits
        self._failing_since: float | None = None  # the first of the claims that failed in a row
        self._may_have_more = True  # the last claim got all it asked for: there may be more
        self._in_line = False  # this queue stands in line for a process
        self._due: list[float] = []  # a heap: when jobs that were worked here may be claimed again
        self._ahead = ClaimAhead(queue_config, clock)
        self._stalled_until = -math.inf  # nothing is claimed until then, or until an attempt ends
        self._returned: deque[Attempt] = deque()  # attempts to give back
        self.paused = False
        self._claiming = threading.Lock()  # held while a claim is under way, and to set paused
        # Unfinished attempts by job id. If a job was rescued and claimed here again, its newer
        # attempt.
        self._claimed: dict[int, Attempt] = {}
        self._strays: set[int] = set()  # attempts that were in no slot at the last look
        self._claims = 0  # how many claims have begun
        self._asking = False  # a claim is under way
        self._hinted = False  # a notification asked for the next claim
        self._cancelled_while_claiming: dict[
            int, AttemptInterrupted
        ] = {}  # by job id: the reason to cancel

    @property
    def poll_at(self) -> float:
        """When to look at the queue if no notification comes, by the process's monotonic clock."""
        unfinished = self.executor.about_unfinished()
        # Also if other queues keep all processes busy: this one is to stand in line for one.
        idle = not self.paused and (self._room(unfinished) > 0 or self._lacks_process(unfinished))
        poll_at = max(self._looked_at + self.poll_interval_s, self._bounds.whole_at)
        return poll_at if idle else math.inf

    @property
    def no_claim_s(self) -> float:
        """For how many seconds every claim has failed; 0 if the last one succeeded."""
        since = self._failing_since
        return 0.0 if since is None else self._clock.monotonic() - since

    @property
    def is_stuck(self) -> bool:
        """Whether every slot has an attempt that goes on although it was cancelled."""
        return self.stuck >= self._slots()

    def looked(self, now: float) -> None:
        """Record that the poller looked at the queue at `now`."""
        self._looked_at = now

    def waits(self) -> None:
        """Look for jobs now: the poller has seen one that can be claimed."""
        self._seen_waiting = True
        self.wake()

    def wake(self) -> None:
        """Look for jobs now."""
        self._may_have_more = True
        self._woken.set()

    def hint(self) -> None:
        """Look for jobs now, because a notification claims that there are some. It may be wrong.

        Once many such looks have found nothing, further ones are spaced out.
        """
        at = self._hints.look_at()
        if at is None:
            return
        if at <= self._clock.monotonic():
            self._hinted = True
            self.wake()
        else:
            self.expect(at)

    def may_have(self, job_id: int) -> bool:
        """Return whether the job `job_id` is here, or may be among what is being claimed."""
        return job_id in self._claimed or self._asking

    def pause(self, paused: bool) -> bool:
        """Stop or resume claiming; return whether that is a change.

        Running jobs go on. Jobs that were claimed and have not begun go back.
        """
        # Wait for a claim under way, so that none is left once this returns.
        with self._claiming:
            changed, self.paused = self.paused != paused, paused
        if changed and paused:
            self._woken.set()  # to give back the attempts that wait
        elif changed:
            self.wake()
        return changed

    def expect(self, due_monotonic: float) -> None:
        """Look for jobs at that time, by the process's monotonic clock: a job comes due then."""
        with self._lock:
            heapq.heappush(self._due, due_monotonic)
            sooner = self._due[0] == due_monotonic
        if sooner:
            self._woken.set()

    def interrupt(self) -> None:
        """End the wait."""
        self._woken.set()

    def run(self) -> None:
        """Claim until stopped."""
        try:
            self._run()
        finally:
            self._stand_in_line(False)

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.return_once()
                claimed = self.claim_once()
                self._pause.reset()
                self._failing_since = None
            except Exception as error:
                if self._failing_since is None:
                    self._failing_since = self._clock.monotonic()
                # The database may have made the claim although its answer did not arrive.
                self._on_failed()
                self._stand_in_line(False)  # not now
                pause_s = self._pause.next_s()
                log_failure(
                    logger,
                    self._engine,
                    error,
                    "could not claim jobs of queue %s; trying again in %.1f s",
                    self.queue,
                    pause_s,
                    extra={"queue": self.queue, "client_id": self._client_id},
                )
                # Not a wait for `_woken`: slots that become free must not make a failing database
                # busier.
                if self.stopping.wait(pause_s):
                    break
                continue
            if not claimed.asked and patched_by() is not None:
                # `_rest` may see room for an attempt that is between the line and its slot. Under
                # gevent that attempt gets no turn until this thread waits.
                self._woken.wait(TURN_S)
            # Without room for a claim, room may come without a wake-up, such as when the completer
            # has written its backlog. So this wait has an end.
            self._rest(math.inf if claimed.asked else self.poll_interval_s)
            if self._processes.waiting > 0:
                self.stopping.wait(self._looked_at + CROWDED_S - self._clock.monotonic())

    def return_once(self) -> int:
        """Give back claimed jobs that have waited for too long to begin; return their number."""
        if self._is_late():
            late = self.executor.take_back()
            self._returned.extend(late)
            if late and not self.paused:
                self._slow_down(len(late))
        return self._give_back(list(self._returned)) if self._returned else 0

    def claim_once(self) -> Claimed:
        """Claim as many jobs as there is room for, and hand them to the slots."""
        if not self._completer.wait_for_room(timeout=0.0):
            self._stand_in_line(False)
            if not self._completer.wait_for_room(timeout=0.1):
                return Claimed(asked=0, jobs=0)
        with self._claiming:
            self._claims += 1
            self._asking = True
            try:
                return self._claim()
            finally:
                self._asking = False
                self._cancelled_while_claiming = {}

    def cancel(self, job_id: int, reason: AttemptInterrupted) -> bool:
        """Cancel the attempt at `job_id`, if it is here; return whether it is."""
        if self._asking:
            # The claim under way may have got the job; that is known only once its answer is here.
            self._cancelled_while_claiming[job_id] = reason
        attempt = self._claimed.get(job_id)
        if attempt is not None:
            attempt.cancel(reason)
        return attempt is not None

    def cancel_all(self, reason: AttemptInterrupted) -> None:
        """Cancel every attempt."""
        for attempt in self.executor.running():
            attempt.ctx.cancel(reason)

    def replace(self, attempt: Attempt) -> bool:
        """Open a slot in place of the one that `attempt` occupies; return whether it still runs."""
        with self._lock:
            if attempt.over:
                return False
            self._replaced += 1
            attempt.replaced = True
        self.executor.add(attempt)
        self.wake()
        return True

    def give_back(self, limit_s: float) -> int:
        """Give back claimed jobs that have not begun, before a stop; return their number.

        Args:
            limit_s: Seconds that the statement may take. The completer tries again after that.
        """
        self._engine = with_timeout(self._engine, limit_s)
        self._returned.extend(self.executor.take_back())
        jobs = self._give_back(list(self._returned))
        if jobs:
            logger.info(
                "gave back %s claimed jobs of queue %s that had not begun", jobs, self.queue
            )
        return jobs

    def claimed(self) -> list[Claim]:
        """Return the claimed jobs that are unfinished, whether they have begun or not."""
        return [attempt.claimed for attempt in list(self._claimed.values())]

    @property
    def asking(self) -> int | None:
        """The number of the claim that is under way; None if there is none."""
        number = self._claims
        return number if self._asking else None

    def drop_strays(self) -> int:
        """Forget attempts that are in no slot and in no line; return how many.

        Whatever made an attempt end without a trace, its job must not stay `running` for ever. An
        attempt on its way from one place to the next is in none for a moment, so it takes two
        looks.
        """
        claimed = list(self._claimed.values())
        here = {id(attempt) for attempt in (*self.executor.places(), *list(self._returned))}
        strays = [attempt for attempt in claimed if id(attempt) not in here]
        lost = [attempt for attempt in strays if id(attempt) in self._strays]
        self._strays = {id(attempt) for attempt in strays} - {id(attempt) for attempt in lost}
        for attempt in lost:
            logger.error(
                "job %s was claimed by this client, but nothing executes it; it will be given back",
                attempt.claimed.id,
            )
            self._forget(attempt)
            self.executor.abandon(attempt)
        return len(lost)

    # The methods of Owner, which the slots call.

    def begins(self, attempt: Attempt) -> bool:
        """Return whether `attempt` may begin: other clients cannot have rescued its row yet."""
        if self._clock.monotonic() <= attempt.begin_by:
            return True
        self._returned.append(attempt)
        self._woken.set()
        return False

    def done(self, attempt: Attempt, result: AttemptResult) -> None:
        """Take the result of `attempt`."""
        if attempt.superseded:
            lost = AttemptLost(attempt.claimed.id, attempt.claimed.attempt)
            result = attrs.evolve(result, outcome=None, error=lost, due_monotonic=None)
        # In this order: an attempt that is no longer claimed is in the completer already.
        self._completer.put(result)
        self._forget(attempt)
        self._ahead.recent_run_s.append(result.run_s)
        self._stalled_until = -math.inf
        with self._lock:  # for replace()
            attempt.over = True
            if attempt.replaced:
                self._replaced -= 1

    def broken(self, attempt: Attempt, error: BaseException) -> None:
        """Take an `attempt` that has no result, only an `error`: it failed, or it never began."""
        try:
            job_id = attempt.claimed.id
            log_error(logger, error, "the attempt at job %s ended without a result", job_id)
            result = attempt.broken(error)
            if result is not None:
                self.done(attempt, result)
            else:
                self._returned.append(attempt)
        except BaseException:
            self._returned.append(attempt)
        self._woken.set()

    def freed(self) -> None:
        """Claim again, if a free slot is reason enough."""
        # Not done in `done`, when the attempt still counts as unfinished.
        if not self._may_have_more or self._woken.is_set():
            return
        if self._wants_more() or self._in_line != self._belongs_in_line():
            self._woken.set()

    def _claim(self) -> Claimed:
        if self.paused:
            return Claimed(asked=0, jobs=0)
        room = min(self._room(self.executor.unfinished()), self._ahead.most, BATCH_MAX)
        if room <= 0:
            return Claimed(asked=0, jobs=0)
        began = self._clock.monotonic()
        beyond = self._bounds.at(began)
        # A wake that comes from here on may be for a job that this claim does not see.
        self._may_have_more = False
        seen = self._seen_waiting and beyond is None
        self._seen_waiting = self._seen_waiting and not seen
        jobs = self._passed_over.claim(room, beyond)
        now = self._clock.monotonic()
        self._stand_in_line(False)  # its turn is over
        self._bounds.claimed(beyond, jobs, asked=room, began=began, ended=now)
        self._looked_at = began
        if len(jobs) == room:
            self._may_have_more = True
        elif seen:
            self._passed_over.look()
        if self._passed_over.looks:
            self._may_have_more = True
        if self._hinted:
            self._hinted = False
            if not jobs:
                self._hints.found_nothing()
        self._ahead.adapt(room, len(jobs), now - began, mixed=self.executor.mixed)
        if jobs:
            if self._hub.has_subscribers:
                claimed = JobsClaimed(queue=self.queue, count=len(jobs), claim_s=now - began)
                self._hub.publish(claimed)
            begin_by = began + self._fresh_s
            attempts = {job.id: Attempt(self._attempts, job, now, begin_by) for job in jobs}
            for job_id in self._claimed.keys() & attempts.keys():
                # A crash or failover of the server has undone the earlier claim, and both have the
                # same number. The outcome of the earlier attempt must not end the later one.
                older = self._claimed[job_id]
                older.superseded = older.claimed.attempt == attempts[job_id].claimed.attempt
            self._claimed.update(attempts)
            # A cancellation from here on finds the attempts in `_claimed`. Apply those that came
            # before.
            for job_id, reason in list(self._cancelled_while_claiming.items()):
                if job_id in attempts:
                    attempts[job_id].cancel(reason)
            self.executor.submit(attempts.values())
            logger.debug("claimed %s jobs of queue %s, at most %s", len(jobs), self.queue, room)
        return Claimed(asked=room, jobs=len(jobs))

    def _rest(self, pause_s: float) -> None:
        """Wait for `pause_s` seconds, which may be infinite, or until there is reason to claim."""
        end = self._clock.monotonic() + pause_s
        while not self.stopping.is_set() and not self._wants_more() and not self._goes_back():
            self._stand_in_line(self._belongs_in_line())
            now = self._clock.monotonic()
            left_s = min([end, self._act_at(now), *self._due[:1]]) - now
            if left_s <= 0:
                break
            self._woken.wait(min(left_s, threading.TIMEOUT_MAX))
            self._woken.clear()
        self._woken.clear()
        with self._lock:
            while self._due and self._due[0] <= self._clock.monotonic():
                heapq.heappop(self._due)
                self._may_have_more = True  # even if there is no room for it yet

    def _act_at(self, now: float) -> float:
        """Return the next time at which the producer must act without being woken."""
        late_at = self.executor.waiting_since() + LATE_S
        # A time that has passed needs no action any more.
        stalled_until = self._stalled_until if self._stalled_until > now else math.inf
        missing = now + WARY_S if self.executor.missing() else math.inf
        looks = self._bounds.unsure and not self.paused
        looks = looks and self._room(self.executor.about_unfinished()) > 0
        whole_at = self._bounds.whole_at if looks else math.inf
        return min(late_at, stalled_until, missing, whole_at)

    def _belongs_in_line(self) -> bool:
        """Return whether to stand in line for a process: the queue lacks nothing else to claim."""
        return (
            self._only_processes
            and self._may_have_more
            and not self.paused
            and self._lacks_process(self.executor.about_unfinished())
        )

    def _stand_in_line(self, stands: bool) -> None:
        if self._in_line != stands:
            self._in_line = stands
            self._processes.stand_in_line(self.interrupt, stands)

    def _lacks_process(self, unfinished: int) -> bool:
        """Return whether the queue could claim more if there were a process for it."""
        lacks = self._only_processes and unfinished < self._processes.size
        return lacks and self._is_enough(self._room_in_slots(unfinished))

    def _goes_back(self) -> bool:
        return bool(self._returned) or self._is_late()

    def _is_late(self) -> bool:
        since = self.executor.waiting_since()
        return since < math.inf and (self.paused or self._clock.monotonic() - since >= LATE_S)

    def _slow_down(self, jobs: int) -> None:
        """Claim nothing ahead for some seconds, because jobs take longer than those before them."""
        self._ahead.retreat()
        if self._room(self.executor.unfinished()) > 0:
            # There are free slots, and yet nothing begins: newly claimed jobs would wait, too.
            self._stalled_until = self._ahead.wary_until
        logger.debug(
            "giving back %s claimed jobs of queue %s that have waited too long for a slot",
            jobs,
            self.queue,
        )

    def _give_back(self, attempts: Sequence[Attempt]) -> int:
        # A job that was rescued meanwhile may have been claimed again; it belongs to that attempt.
        jobs = [
            attempt.claimed
            for attempt in attempts
            if self._claimed.get(attempt.claimed.id) is attempt
        ]
        given: Mapping[int, JobState] = {}
        try:
            if jobs:
                tx = self._engine
                given = give_back(tx, jobs, client_id=self._client_id, schema=self._schema)
        except Exception as error:
            logger.warning(
                "could not give back %s claimed jobs of queue %s that had not begun; trying again: "
                "%s",
                len(jobs),
                self.queue,
                reason(error),
            )
        # A row that is locked or refused goes to the completer, which tries again.
        for job in jobs:
            if job.id not in given:
                self._completer.put(not_begun(job, self._clock.monotonic()))
        # In this order: an attempt that is no longer claimed is in the completer already.
        for attempt in attempts:
            self._returned.remove(attempt)
            self._forget(attempt)
        if given:
            self._may_have_more = True
        return len(given)

    def _wants_more(self) -> bool:
        # This is called whenever an attempt ends. The first lines suffice in most cases.
        least = self._ahead.worthwhile
        if self._slots() + self._ahead.jobs - len(self._claimed) < least:
            return False
        if not self._may_have_more or self.paused:
            return False
        return self._is_enough(self._room(self.executor.about_unfinished()))

    def _is_enough(self, room: int) -> bool:
        # If threads are the limit, the room may never be worth a claim ahead: free slots are filled
        # however few they are, or a client without work could stop claiming.
        few_threads = self._reach() < self._open_slots()
        return room >= self._ahead.worthwhile or (few_threads and room > 0)

    def _room(self, unfinished: int) -> int:
        room = self._room_in_slots(unfinished)
        if room > 0 and self._only_processes:
            # A job claimed beyond the processes would wait in its slot, where no other client can
            # work it. And processes are left to queues that wait for one for longer.
            before = self._processes.before(self.interrupt)
            spare = min(self._processes.spare, self._processes.size - unfinished) - before
            room = min(room, spare if before else spare + self._ahead.soon + self._ahead.jobs)
        return room

    def _room_in_slots(self, unfinished: int) -> int:
        if self._stalled_until > 0 and self._clock.monotonic() < self._stalled_until:
            return 0
        slots = self._open_slots()
        room = slots + self._ahead.jobs - unfinished
        if (reach := self._reach()) < slots:
            # Threads are still being made, and each that begins has this looked at again.
            room = min(room, int(reach) - unfinished)
            if room < NEW // 2:
                return 0
        return room

    def _slots(self) -> int:
        return self.config.max_workers + self._replaced

    def _open_slots(self) -> int:
        """Return the number of slots, without those for which the process gets no thread."""
        return self._slots() - self.executor.missing()

    def _reach(self) -> float:
        """Return how many jobs have a thread, or get one soon."""
        return self.executor.within_reach() + self._ahead.soon

    def _forget(self, attempt: Attempt) -> None:
        job_id = attempt.claimed.id
        if self._claimed.get(job_id) is attempt:
            del self._claimed[job_id]

-- Chores that are due, each for one worker: it is due again later. One that is due later than can be comes
-- from a clock that has stepped back since.
insert into {schema}.upkeep as u (vectorizer, task, due_at)
select v.id, t.task, clock_timestamp() + make_interval(secs => t.seconds)
from {schema}.vectorizer v, unnest(%(tasks)s::text[], %(seconds)s::float8[]) as t(task, seconds)
where v.uninstalled_at is null and (%(names)s::text[] is null or v.name = any (%(names)s))
  and not exists (
    select from {schema}.upkeep e
    where e.vectorizer = v.id and e.task = t.task
      and e.due_at between clock_timestamp() and clock_timestamp() + make_interval(secs => t.seconds))
order by v.id, t.task
on conflict (vectorizer, task) do update set due_at = excluded.due_at
  -- By the clock of now: excluded was made before another worker let go of the row, and so is due earlier.
  where u.due_at not between clock_timestamp()
    and clock_timestamp() + make_interval(secs => (%(seconds)s::float8[])[array_position(%(tasks)s::text[], u.task)])
returning (select v.name from {schema}.vectorizer v where v.id = u.vectorizer), u.vectorizer, u.task

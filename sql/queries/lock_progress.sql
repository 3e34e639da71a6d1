-- Whoever moves a cursor holds it for one claim; others go on with other work meanwhile.
select backfill_cursor, backfill_resync, backfill_done_at is null as backfilling,
       sweep_cursor, sweep_done_at is null as sweeping
from {schema}.progress
where vectorizer = %(vectorizer)s and (backfill_done_at is null or sweep_done_at is null)
for update skip locked

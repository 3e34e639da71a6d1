-- Whoever moves a cursor holds it for one claim; others go on with other work meanwhile.
-- Cursors go through us as text: a JSON number may have more digits than a float holds.
select backfill_cursor::text, backfill_resync, backfill_done_at is null as backfilling,
       sweep_cursor::text, sweep_done_at is null as sweeping
from {schema}.progress
where vectorizer = %(vectorizer)s and (backfill_done_at is null or sweep_done_at is null)
for update {unless_locked}

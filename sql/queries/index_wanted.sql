-- Whether the index over the vectors is to be built now: the backfill is through, there is none by that
-- method, nobody is at it, and it is ours to build: CONCURRENTLY cannot be done for the owner.
select {schema}.is_owner(v.storage) and p.backfill_done_at is not null and not {schema}.has_vector_index(v.storage, v.definition ->> 'index')
  and not exists (
    select from pg_stat_progress_create_index b
    where b.datname = current_database()
      and (b.relid = v.storage or b.relid in (select inhrelid from pg_inherits where inhparent = v.storage)))
from {schema}.vectorizer v join {schema}.progress p on p.vectorizer = v.id
where v.id = %(vectorizer)s and v.definition ? 'index'

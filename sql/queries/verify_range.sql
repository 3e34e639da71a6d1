-- Source, ledger and destination of a range of keys in one snapshot. Only keys that differ come back.
with cursor as materialized (
  select * from jsonb_to_record(%(cursor)s::jsonb) as c({record})
), last as materialized (
  select * from jsonb_to_record(%(last)s::jsonb) as c({record})
), source_rows as materialized (
  select {s_key_as_names}, {source_hash} as source_hash, {visible} as visible, {aged} as aged from {source} s {join} where {within_s}
), ledger as materialized (
  select {r_names}, r.lease, r.available_at, r.dead, r.source_hash, {chunks_known} as chunks, r.time from {row} r where {within_r}
), chunks as materialized (
  {chunks}
), backfill as (
  select backfill_done_at is null as running, backfill_done_at is null and backfill_resync as comparing,
         sweep_done_at is null as sweeping
  from {schema}.progress where vectorizer = %(vectorizer)s
), judged as (
  select {names},
    case
      when s.source_hash is null then 'orphaned'
      when l.source_hash is null then 'missing'
      when l.source_hash <> s.source_hash then 'stale'
      -- Older than the retention: its chunks go with their partition.
      when s.aged then null
      when not s.visible and d.chunks > 0 then 'orphaned'
      when l.chunks > 0 and d.chunks is null then 'missing'
      when d.positions <> d.chunks then 'duplicated'
      when coalesce(d.chunks, 0) <> l.chunks then 'wrong_chunk_count'
      when not d.sound then 'stale'
      when not d.of_model then 'wrong_model'
      when d.first_time <> l.time or d.last_time <> l.time or not d.timed then 'wrong_partition'
    end as defect,
    coalesce(l.dead, false) as dead,
    -- A lease that nobody has any more holds the row back for ever.
    exists (select from {schema}.lease h where h.token = l.lease)
      or (l.lease is null and l.available_at is not null)
      or (l.source_hash is null and b.running and (d.chunks is null or {elsewhere}))
      or (s.source_hash is null and b.sweeping)
      -- Every row is being compared by its hash, after a suspension.
      or b.comparing as pending
  from source_rows s
  full join ledger l using ({names})
  full join chunks d using ({names})
  cross join backfill b
)
select case when j.defect is not null then {j_key_object}::text end as key, j.defect,
       case when j.dead then 'dead'
            when j.pending or exists (select from {log} l where {l_matches_j})
              or exists (select from {log} l where l.kind = 't') {or_parents} then 'pending'
            else 'defect' end as verdict,
       (select count(*) from source_rows) as checked
from (select) as always left join judged j on j.defect is not null

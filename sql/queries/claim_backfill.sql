-- The next source rows after the cursor. Rows known already are left alone, but in a resync. With the
-- columns of before, or the cursor would go on by another column that has got the key's name.
with cursor as materialized (
  select * from jsonb_to_record(%(cursor)s::jsonb) as c({record})
), next as materialized (
  select {s_key_as_names} from {source} s
  {after_cursor}
  order by {s_keys}
  limit %(rows)s
), won as (
  insert into {row} as r ({names}, lease)
  select {names}, %(token)s from next order by {names}
  on conflict ({names}) do update set lease = excluded.lease, available_at = null
    where r.lease is null and %(resync)s
  returning {r_names}
), seen as (
  select count(*) as rows, (select {key_object} from next order by {names_desc} limit 1) as last from next
  where {expect_columns}
), moved as (
  update {schema}.progress p
  set backfill_cursor = coalesce(s.last, p.backfill_cursor),
      backfill_claimed = p.backfill_claimed + s.rows,
      backfill_started_at = case when p.backfill_claimed = 0 then clock_timestamp() else p.backfill_started_at end,
      backfill_done_at = case when s.rows < %(rows)s then clock_timestamp() end
  from seen s where p.vectorizer = %(vectorizer)s
)
select count(*), jsonb_agg({key_object})::text as keys from won

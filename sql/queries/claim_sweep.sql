-- The next known keys after the cursor that the source no longer has.
with cursor as materialized (
  select * from jsonb_to_record(%(cursor)s::jsonb) as c({record})
), next as materialized (
  select {l_names} from {row} l
  {after_cursor}
  order by {l_names}
  limit %(rows)s
), won as (
  update {row} r set lease = %(token)s, available_at = null
  from (select {names} from next l where not exists (select from {source} s where {s_matches_l}) order by {names}) k
  where {row_matches_k} and r.lease is null
  returning {r_names}
), seen as (
  select count(*) as rows, (select {key_object} from next order by {names_desc} limit 1) as last from next
  where {expect_columns}
), moved as (
  update {schema}.progress p
  set sweep_cursor = coalesce(s.last, p.sweep_cursor),
      sweep_done_at = case when s.rows < %(rows)s then clock_timestamp() end
  from seen s where p.vectorizer = %(vectorizer)s
)
select count(*), jsonb_agg({key_object})::text as keys from won

-- Rows whose back-off is over, longest waiting first.
with due as materialized (
  select {names} from {row}
  where available_at <= clock_timestamp() and lease is null and losses = 0 and not dead
  order by available_at
  limit %(rows)s
  for update skip locked
), won as (
  update {row} r set lease = %(token)s, available_at = null
  from (select * from due order by {names}) k
  where {row_matches_k}
  returning {r_names}
)
select count(*), jsonb_agg({key_object})::text as keys from won

-- Rows of workers that vanished come back in ever smaller batches, so that one that kills its worker is
-- found without burying its neighbours.
with due as materialized (
  select {names}, losses from {row}
  where available_at <= clock_timestamp() and lease is null and losses > 0 and not dead
  order by available_at
  limit %(rows)s
  for update skip locked
), few as (
  select {names} from due order by losses desc, {names}
  limit greatest(1, %(rows)s >> (2 * (select max(losses) from due)))
), won as (
  update {row} r set lease = %(token)s, available_at = null
  from (select * from few order by {names}) k
  where {row_matches_k}
  returning {r_names}
)
select count(*), jsonb_agg({key_object})::text as keys from won

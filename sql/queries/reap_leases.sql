-- Expired leases: their rows are free again at once, counted as lost. A row that was alone when its
-- worker vanished has failed by itself, and becomes a dead letter when that goes on.
with expired as materialized (
  select token, keys from {schema}.lease
  where vectorizer = %(vectorizer)s and expires_at < clock_timestamp()
  for update skip locked
), lost as materialized (
  select {k_names}, e.token, r.attempts + (jsonb_array_length(e.keys) = 1)::integer as attempts,
         jsonb_array_length(e.keys) = 1 and r.attempts + 1 >= %(max_losses)s as dead
  from expired e, jsonb_to_recordset(e.keys) as k({record}), {row} r
  where {row_matches_k} and r.lease = e.token
), released as (
  update {row} r
  set lease = null, losses = r.losses + 1, attempts = k.attempts, dead = k.dead,
      available_at = case when not k.dead then clock_timestamp() end,
      error = 'the worker vanished while it processed this row'
  from (select * from lost order by {names}) k
  where {row_matches_k} and r.lease = k.token
)
delete from {schema}.lease l using expired e where l.token = e.token returning l.token

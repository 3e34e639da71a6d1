-- Expired leases: their rows are free again at once, counted as lost. A row that was alone in its lease
-- each time its worker vanished becomes a dead letter.
with expired as materialized (
  select token, keys from {schema}.lease
  where vectorizer = %(vectorizer)s and expires_at < clock_timestamp()
  for update skip locked
), released as (
  update {row} r
  set lease = null, losses = r.losses + 1, dead = r.losses + 1 >= %(max_losses)s and k.alone,
      available_at = case when not (r.losses + 1 >= %(max_losses)s and k.alone) then clock_timestamp() end,
      error = format('the worker vanished %%s times while it processed this row', r.losses + 1)
  from (
    select e.token, jsonb_array_length(e.keys) = 1 as alone, k.*
    from expired e, jsonb_to_recordset(e.keys) as k({record}) order by {k_names}) k
  where {row_matches_k} and r.lease = k.token
)
delete from {schema}.lease l using expired e where l.token = e.token returning l.token

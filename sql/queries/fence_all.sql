-- Batches in flight read the table before the TRUNCATE: they must not write. Their rows are due at once.
with held as materialized (
  select token, keys from {schema}.lease where vectorizer = %(vectorizer)s order by token for update
), released as (
  update {row} r set lease = null, dead = false, available_at = clock_timestamp()
  from (select h.token, k.* from held h, jsonb_to_recordset(h.keys) as k({record}) order by {k_names}) k
  where {row_matches_k} and r.lease = k.token
)
delete from {schema}.lease l using held h where l.token = h.token returning l.token
